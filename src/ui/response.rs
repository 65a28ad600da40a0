//! The responses of the page's server. Each carries the fields that keep a browser from doing more with it than intended.

use serde::Serialize;
use serde_json::json;

use crate::httpd::{Response, ResponseBody};

use super::assets::{Asset, CODING, FIELDS};

/// A JSON document.
pub fn json(status: u16, document: &impl Serialize) -> Response {
    let body = serde_json::to_vec(document).unwrap_or_default();
    Response {
        status,
        content_type: "application/json",
        fields: FIELDS.into(),
        body: ResponseBody::Bytes(body.into()),
    }
}

/// An error, with one line for the user.
pub fn error(status: u16, message: impl Into<String>) -> Response {
    json(status, &json!({ "error": message.into() }))
}

/// A file of the page.
pub fn asset(asset: &'static Asset) -> Response {
    Response {
        status: 200,
        content_type: asset.content_type,
        fields: format!("{FIELDS}{CODING}").into(),
        body: ResponseBody::Bytes(asset.packed.into()),
    }
}
