//! A request, as all APIs of the mock see it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use super::refusal::{Api, Refusal};

/// The fields that identify the project of a request. Each answer repeats them.
pub const IDENTIFICATION: [&str; 3] = ["x-memory-user-id", "x-pycharm-instance", "x-source"];

/// The parts of a request that the answer depends on.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without query.
    pub path: String,
    /// The query, without its question mark.
    pub query: String,
    /// The values of [`IDENTIFICATION`], in its order.
    pub identification: [Option<String>; 3],
    /// The API that its fields name.
    pub api: Option<Api>,
    /// Whether it asks for a WebSocket.
    pub is_websocket: bool,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Whether it only reads.
    pub fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// The API that the client speaks.
    pub fn api(&self) -> Api {
        let is_gemini = self.path.starts_with("/v1beta") || self.path.contains(":generateContent");
        if is_gemini || self.path.contains(":streamGenerateContent") {
            Api::Gemini
        } else if self.path.starts_with("/v1/messages") {
            Api::Anthropic
        } else {
            self.api.unwrap_or(Api::OpenAi)
        }
    }

    /// The body as JSON.
    pub fn document(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let message = format!("the request body is not JSON: {error}");
            Refusal::new(400, message)
        })
    }

    /// An identifier: the same for equal bodies, and different for two turns of a conversation, since clients match calls of
    /// tools and their results by it.
    pub fn id(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// The identification fields that it has, as text.
    pub fn identified_by(&self) -> String {
        let field = |(name, value): (&&str, &Option<String>)| {
            format!("{name}={}", value.as_deref().unwrap_or("(none)"))
        };
        let fields = IDENTIFICATION.iter().zip(&self.identification).map(field);
        fields.collect::<Vec<_>>().join(", ")
    }
}
