//! Errors, in the form of each API, with the types and codes that the real services send.

use serde_json::{Value, json};

use super::answer::Answer;

/// An API, which decides the form of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's, which most other services offer too.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    message: String,
    /// The member of the body that is wrong.
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    /// A refusal of the request as a whole.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
            param: None,
            code: match status {
                401 => Some("invalid_api_key"),
                405 => Some("method_not_supported"),
                429 => Some("rate_limit_exceeded"),
                _ => None,
            },
        }
    }

    /// A member of the body is missing, or has another type.
    pub fn missing(param: &'static str) -> Self {
        Refusal {
            param: Some(param),
            code: Some("missing_required_parameter"),
            ..Refusal::new(400, format!("missing or malformed parameter `{param}`"))
        }
    }

    /// A member of the body has a value that cannot be served.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            param: Some(param),
            code: Some("invalid_value"),
            ..Refusal::new(400, message)
        }
    }

    /// The response in the form of `api`.
    pub fn answer(&self, api: Api) -> Answer {
        let (status, message) = (self.status, &self.message);
        let (fields, body) = match api {
            Api::OpenAi => (openai_fields(status), self.openai()),
            Api::Anthropic => (
                anthropic_fields(status),
                json!({
                    "type": "error",
                    "error": {"type": anthropic_type(status), "message": message},
                    "request_id": "req_mock",
                }),
            ),
            Api::Gemini => ("", gemini(status, message)),
        };
        Answer::Document {
            status,
            fields,
            body: format!("{body}\n"),
        }
    }

    fn openai(&self) -> Value {
        let kind = match self.status {
            429 => "requests",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

fn openai_fields(status: u16) -> &'static str {
    match status {
        // RFC 9110 §15.5.22: it names the protocol that would be accepted.
        426 => "Connection: Upgrade\r\nUpgrade: HTTP/1.1\r\n",
        429 | 503 => RETRY_AFTER,
        _ => "",
    }
}

fn anthropic_fields(status: u16) -> &'static str {
    match status {
        429 => RETRY_AFTER,
        529 => "x-should-retry: true\r\n",
        _ => "",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// With the waiting time in the body: this API sends no `Retry-After`.
fn gemini(status: u16, message: &str) -> Value {
    let name = match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    };
    let mut error = json!({"code": status, "message": message, "status": name});
    if status == 429 {
        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        error["details"] = json!([{"@type": kind, "retryDelay": "1s"}]);
    }
    json!({ "error": error })
}

const RETRY_AFTER: &str = "Retry-After: 1\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_own_form_of_an_error() {
        #[track_caller]
        fn check(api: Api, status: u16, fields: &str, error: Value) {
            let expected = Answer::Document {
                status,
                fields: match fields {
                    "" => "",
                    "retry" => RETRY_AFTER,
                    _ => "x-should-retry: true\r\n",
                },
                body: format!("{error}\n"),
            };
            assert_eq!(Refusal::new(status, "why").answer(api), expected);
        }
        let openai = |kind: &str, code: Value| json!({"error": {"message": "why", "type": kind, "param": null, "code": code}});
        let anthropic = |kind: &str| {
            let error = json!({"type": kind, "message": "why"});
            json!({"type": "error", "error": error, "request_id": "req_mock"})
        };
        let gemini = |code: u16, status: &str| json!({"error": {"code": code, "message": "why", "status": status}});
        let invalid = openai("invalid_request_error", Value::Null);
        check(Api::OpenAi, 400, "", invalid);
        let key = openai("invalid_request_error", json!("invalid_api_key"));
        check(Api::OpenAi, 401, "", key);
        let rate = openai("requests", json!("rate_limit_exceeded"));
        check(Api::OpenAi, 429, "retry", rate);
        check(Api::OpenAi, 500, "", openai("server_error", Value::Null));
        check(
            Api::OpenAi,
            503,
            "retry",
            openai("server_error", Value::Null),
        );
        check(Api::Anthropic, 400, "", anthropic("invalid_request_error"));
        check(Api::Anthropic, 401, "", anthropic("authentication_error"));
        check(Api::Anthropic, 429, "retry", anthropic("rate_limit_error"));
        check(Api::Anthropic, 500, "", anthropic("api_error"));
        check(Api::Anthropic, 529, "again", anthropic("overloaded_error"));
        check(Api::Gemini, 400, "", gemini(400, "INVALID_ARGUMENT"));
        check(Api::Gemini, 403, "", gemini(403, "PERMISSION_DENIED"));
        check(Api::Gemini, 503, "", gemini(503, "UNAVAILABLE"));
        let mut exhausted = gemini(429, "RESOURCE_EXHAUSTED");
        exhausted["error"]["details"] = json!([
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"},
        ]);
        check(Api::Gemini, 429, "", exhausted);
    }
}
