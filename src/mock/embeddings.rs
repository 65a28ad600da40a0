//! OpenAI's embeddings: `POST /v1/embeddings`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::answer::Answer;
use super::chat::model;
use super::prompt::words;
use super::refusal::Refusal;
use super::request::Request;

/// Answers with a vector for each input.
pub fn embeddings(request: &Request) -> Result<Answer, Refusal> {
    let body = request.document()?;
    let model = model(&body)?;
    let dimensions = match &body["dimensions"] {
        Value::Null => Some(DIMENSIONS),
        given => given.as_u64().and_then(|given| usize::try_from(given).ok()),
    };
    let dimensions = dimensions
        .filter(|dimensions| (1..=DIMENSIONS_MAX).contains(dimensions))
        .ok_or_else(|| {
            let message = format!("dimensions has to be between 1 and {DIMENSIONS_MAX}");
            Refusal::invalid("dimensions", message)
        })?;
    let inputs = match &body["input"] {
        Value::Null => return Err(Refusal::missing("input")),
        // A list of numbers is one input in tokens.
        Value::Array(inputs) if inputs.iter().any(|input| !input.is_number()) => &inputs[..],
        one => std::slice::from_ref(one),
    };
    if inputs.len() > INPUTS_MAX {
        let message = format!("input has to have at most {INPUTS_MAX} elements");
        return Err(Refusal::invalid("input", message));
    }
    let is_base64 = body["encoding_format"] == "base64";
    let mut tokens = 0;
    let mut data = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let input = input.to_string();
        tokens += words(&input);
        let vector = vector(&input, dimensions);
        data.push(Embedding {
            object: "embedding",
            index,
            embedding: match is_base64 {
                true => Vector::Base64(base64(&vector)),
                false => Vector::Numbers(vector),
            },
        });
    }
    Ok(Answer::document(&Embeddings {
        object: "list",
        data,
        model,
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    }))
}

/// The response. Not a [`Value`], which takes many times the memory of a number for each.
#[derive(Serialize)]
struct Embeddings<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// A vector of length 1 that depends on every byte of `text`.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let component = |index: usize| {
        let mut hasher = hasher.clone();
        index.hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let components: Vec<f32> = (0..dimensions).map(component).collect();
    let length = components.iter().map(|x| x * x).sum::<f32>().sqrt();
    let length = length.max(f32::MIN_POSITIVE);
    components.iter().map(|x| x / length).collect()
}

/// Little-endian floats in base64 (RFC 4648 §4), which is what openai-python asks for.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// As OpenAI's small model.
const DIMENSIONS: usize = 1536;

/// More than any model of today returns.
const DIMENSIONS_MAX: usize = 4096;

/// As OpenAI's API.
const INPUTS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_unit_vectors_that_differ_by_text_and_agree_in_both_encodings() {
        let (a, b) = (vector("a", 64), vector("b", 64));
        assert_ne!(a, b);
        assert!((a.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.0, 0.5]), "AACAPwAAAMAAAAA/");
    }
}
