//! The responses of the page's server. Each carries the fields that keep a browser from doing more with it than intended.

use serde::Serialize;
use serde_json::json;

use crate::httpd::{Response, ResponseBody};

use super::assets::{Asset, CODING, FIELDS};

/// A body of any kind.
pub fn ok(content_type: &'static str, body: ResponseBody) -> Response {
    Response {
        status: 200,
        content_type,
        fields: FIELDS.into(),
        body,
    }
}

/// A JSON document.
pub fn json(document: &impl Serialize) -> Response {
    let body = serde_json::to_vec(document).unwrap_or_default();
    ok("application/json", ResponseBody::Bytes(body.into()))
}

/// An error, with one line for the user.
pub fn error(status: u16, message: impl Into<String>) -> Response {
    Response {
        status,
        ..json(&json!({ "error": message.into() }))
    }
}

/// A file of the page.
pub fn asset(asset: &'static Asset) -> Response {
    Response {
        fields: format!("{FIELDS}{CODING}").into(),
        ..ok(asset.content_type, ResponseBody::Bytes(asset.packed.into()))
    }
}
