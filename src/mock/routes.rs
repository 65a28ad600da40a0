//! Which path is answered by which API.

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, MODEL};
use super::refusal::{Api, Refusal};
use super::request::Request;
use super::{chat, embeddings, gemini, messages, responses};

/// Answers a request: all but those for `/health` with the status `fail`, if there is one.
pub fn answer(request: &Request, fail: Option<u16>) -> Answer {
    let answer = match fail {
        Some(status) if !is_health(&request.path) => Err(Refusal::new(
            status,
            format!("the mock was started with --fail {status}"),
        )),
        _ => route(request),
    };
    answer.unwrap_or_else(|refusal| refusal.answer(request.api()))
}

/// Whether it is the path of a health check.
pub fn is_health(path: &str) -> bool {
    matches!(path, "" | "/" | "/v1" | "/v1/" | "/health" | "/v1/health")
}

fn route(request: &Request) -> Result<Answer, Refusal> {
    let (is_read, is_post) = (request.is_read(), request.method == "POST");
    // As LiteLLM: OpenAI's API also without its prefix, Anthropic's with it, Gemini's with any.
    let whole = request.path.as_str();
    let prefixes = ["/v1beta/", "/v1alpha/", "/v1/"];
    let path = prefixes
        .iter()
        .find_map(|prefix| whole.strip_prefix(prefix));
    let path = path.or(whole.strip_prefix('/')).unwrap_or(whole);
    let id = path.strip_prefix("models/");
    let is_v1 = whole.starts_with("/v1/");
    match path {
        _ if is_health(&request.path) && is_read => {
            Ok(Answer::document(&json!({"status": "healthy"})))
        }
        _ if request.is_websocket => Err(Refusal::new(
            426,
            "the mock has no WebSockets; send this as an HTTP request",
        )),
        "models" if is_read => Ok(models(request.api())),
        "chat/completions" if is_post => chat::chat(request),
        "completions" if is_post => chat::completions(request),
        "embeddings" if is_post => embeddings::embeddings(request),
        "responses" if is_post => responses::responses(request),
        "messages" if is_post && is_v1 => messages::messages(request),
        "messages/count_tokens" if is_post && is_v1 => messages::count_tokens(request),
        "models" | "chat/completions" | "completions" | "embeddings" | "responses" => {
            Err(Refusal::new(405, WRONG_METHOD))
        }
        "messages" | "messages/count_tokens" if is_v1 => Err(Refusal::new(405, WRONG_METHOD)),
        _ => match (id, id.and_then(|id| id.rsplit_once(':'))) {
            (_, Some((model, method))) if is_post => gemini::method(request, model, method),
            (Some(id), _) if is_read && !id.is_empty() => {
                Ok(Answer::document(&model(id, request.api())))
            }
            _ => Err(Refusal::new(404, NOT_FOUND)),
        },
    }
}

fn models(api: Api) -> Answer {
    let models = [model(MODEL, api)];
    Answer::document(&match api {
        Api::OpenAi => json!({"object": "list", "data": models}),
        Api::Anthropic => json!({
            "data": models, "has_more": false, "first_id": MODEL, "last_id": MODEL,
        }),
        Api::Gemini => json!({ "models": models }),
    })
}

fn model(id: &str, api: Api) -> Value {
    match api {
        Api::Gemini => gemini::model(id),
        Api::Anthropic => json!({
            "type": "model", "id": id, "display_name": id, "created_at": "2024-01-01T00:00:00Z",
        }),
        Api::OpenAi => {
            json!({"id": id, "object": "model", "created": CREATED, "owned_by": "ic"})
        }
    }
}

const WRONG_METHOD: &str = "the mock does not answer that method here";

const NOT_FOUND: &str = "the mock has models, chat/completions, completions, embeddings, responses, messages and \
                         messages/count_tokens under /v1, and models/MODEL:generateContent under /v1beta";
