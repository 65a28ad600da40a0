//! What models cost, from a file in the format of LiteLLM's price map (`model_prices_and_context_window.json`).
//!
//! Of each model the prices of a token are kept, and nothing else. The page computes what requests cost.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The prices of a token of input, output and cached input, in US dollars: the members of a model in the file.
const MEMBERS: [&str; 3] = [
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
];

/// The line that tells a page the prices in a file: `models` has the values of `MEMBERS` for each model, `null` if unknown.
///
/// # Errors
///
/// What is wrong with the file, as the rest of a sentence that begins with "it".
pub fn line(text: &[u8]) -> Result<Vec<u8>, String> {
    let models: BTreeMap<String, Value> =
        serde_json::from_slice(text).map_err(|error| format!("is not a JSON object: {error}"))?;
    let prices = |model: &Value| {
        let price = |name| {
            let price = model.get(name).and_then(Value::as_f64);
            price.filter(|price| *price >= 0.0)
        };
        let prices = MEMBERS.map(price);
        prices.iter().any(Option::is_some).then_some(prices)
    };
    let models: BTreeMap<_, _> = models
        .iter()
        .filter_map(|(name, model)| Some((name, prices(model)?)))
        .collect();
    if models.is_empty() {
        return Err(format!("has no model with `{}`", MEMBERS.join("` or `")));
    }
    let line = json!({ "on": "prices", "models": models });
    Ok(format!("{line}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_prices_of_a_token_are_kept() {
        let text = r#"{
            "sample_spec": {"input_cost_per_token": "a number", "mode": "chat"},
            "gpt-4o": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-06, "mode": "chat"},
            "openai/free": {"input_cost_per_token": 0, "output_cost_per_token": 0.0},
            "wrong": {"input_cost_per_token": -1},
            "dall-e-3": {"output_cost_per_image": 0.04},
            "text": "no object"
        }"#;
        let line = line(text.as_bytes()).expect("prices");
        let line: Value = serde_json::from_slice(&line).expect("JSON");
        let models =
            json!({ "gpt-4o": [2.5e-06, 1e-05, 1.25e-06], "openai/free": [0.0, 0.0, null] });
        assert_eq!(line, json!({ "on": "prices", "models": models }));
    }

    #[test]
    fn a_file_without_prices_is_refused() {
        for text in ["", "{", "[]", "7", "{}", r#"{"a": {"mode": "chat"}}"#] {
            assert!(line(text.as_bytes()).is_err(), "{text}");
        }
    }
}
