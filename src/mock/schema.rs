//! Values that fit a JSON schema: arguments of tools, and structured answers.
//!
//! Decided here: the smallest value that the schema names or allows. A pattern is not interpreted.

use serde_json::{Value, json};

/// A value that fits the schema.
pub fn fitting(schema: &Value) -> Value {
    let mut fitting = Fitting {
        root: schema,
        left: VALUES_MAX,
    };
    fitting.value(schema, DEPTH_MAX)
}

struct Fitting<'a> {
    /// Holds what a reference names.
    root: &'a Value,
    /// How many more values may be made: schemas contain themselves.
    left: usize,
}

impl<'a> Fitting<'a> {
    fn value(&mut self, schema: &'a Value, depth: usize) -> Value {
        let (Some(depth), Some(left)) = (depth.checked_sub(1), self.left.checked_sub(1)) else {
            return Value::Null;
        };
        self.left = left;
        if let Some(value) = named(schema) {
            return value.clone();
        }
        let reference = schema["$ref"]
            .as_str()
            .and_then(|name| name.strip_prefix('#'));
        if let Some(target) = reference.and_then(|pointer| self.root.pointer(pointer)) {
            return self.value(target, depth);
        }
        let choices = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
        let mut choices = choices.into_iter().flatten();
        if let Some(choice) = choices.find(|choice| kind(choice) != "null") {
            return self.value(choice, depth);
        }
        match kind(schema).as_str() {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" | "number" => number(schema),
            "boolean" => json!(false),
            "null" => Value::Null,
            _ => json!(string(schema)),
        }
    }

    /// With the members that are required; the others may be left out.
    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let required = schema["required"].as_array().into_iter().flatten();
        let members = required.filter_map(Value::as_str).map(|name| {
            let member = self.value(&schema["properties"][name], depth);
            (name.to_owned(), member)
        });
        Value::Object(members.collect())
    }

    fn array(&mut self, schema: &'a Value, depth: usize) -> Value {
        let items = 0..length(&schema["minItems"]);
        items.map(|_| self.value(&schema["items"], depth)).collect()
    }
}

/// A value that the schema spells out.
fn named(schema: &Value) -> Option<&Value> {
    let first = |name: &str| schema[name].as_array().and_then(|values| values.first());
    let value = schema.get("const").or_else(|| schema.get("default"));
    value
        .or_else(|| first("enum"))
        .or_else(|| first("examples"))
}

/// The first type that is not null, in lower case: Gemini's are in upper case.
fn kind(schema: &Value) -> String {
    let types = match &schema["type"] {
        Value::Array(types) => types.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut names = types.iter().filter_map(Value::as_str);
    let name = match types {
        [_] => names.next(),
        _ => names.find(|name| *name != "null"),
    };
    let implied = if schema["properties"].is_object() {
        "object"
    } else {
        ""
    };
    name.unwrap_or(implied).to_ascii_lowercase()
}

fn number(schema: &Value) -> Value {
    let bound = |name: &str| schema[name].as_f64();
    let step = bound("multipleOf")
        .filter(|step| *step > 0.0)
        .unwrap_or(1.0);
    let number = match (bound("minimum"), bound("exclusiveMinimum")) {
        (Some(least), _) => (least / step).ceil() * step,
        (None, Some(below)) => ((below / step).floor() + 1.0) * step,
        (None, None) => match bound("maximum").or(bound("exclusiveMaximum")) {
            Some(most) if most <= step => ((most / step).ceil() - 1.0) * step,
            _ => step,
        },
    };
    // JSON has one kind of number; schemas of integers do not take `1.0` everywhere.
    match number as i64 {
        whole if whole as f64 == number => json!(whole),
        _ => json!(number),
    }
}

fn string(schema: &Value) -> String {
    let mut text = match schema["format"].as_str() {
        Some("date-time") => "2024-01-01T00:00:00Z",
        Some("date") => "2024-01-01",
        Some("time") => "00:00:00Z",
        Some("uri" | "url") => "http://localhost/",
        Some("email") => "mock@localhost",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "mock",
    }
    .to_owned();
    while text.len() < length(&schema["minLength"]) {
        text.push('k');
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        text.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    text
}

/// A length that a schema asks for, as far as the mock goes.
fn length(value: &Value) -> usize {
    let length = value.as_u64().unwrap_or_default();
    usize::try_from(length).map_or(LENGTH_MAX, |length| length.min(LENGTH_MAX))
}

/// Schemas of tools are some five levels deep.
const DEPTH_MAX: usize = 16;

/// In one document; more than any real schema makes.
const VALUES_MAX: usize = 200;

/// Of a text or a list: a schema cannot make an answer long.
const LENGTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_the_schema() {
        #[track_caller]
        fn check(schema: Value, expected: Value) {
            assert_eq!(fitting(&schema), expected, "{schema}");
        }
        check(json!({"type": "string"}), json!("mock"));
        check(json!({"type": "STRING"}), json!("mock"));
        check(json!({"type": ["null", "integer"]}), json!(1));
        check(json!({"type": "null"}), json!(null));
        check(json!({"type": "boolean"}), json!(false));
        check(json!({"enum": ["a", "b"]}), json!("a"));
        check(json!({"const": 3}), json!(3));
        check(json!({"type": "string", "default": "x"}), json!("x"));
        check(json!({"type": "string", "minLength": 6}), json!("mockkk"));
        check(json!({"type": "string", "maxLength": 2}), json!("mo"));
        check(
            json!({"type": "string", "format": "date"}),
            json!("2024-01-01"),
        );
        check(json!({"type": "number"}), json!(1));
        check(json!({"type": "number", "minimum": 0.5}), json!(1));
        check(json!({"type": "integer", "minimum": 5}), json!(5));
        check(json!({"type": "integer", "exclusiveMinimum": 5}), json!(6));
        check(json!({"type": "integer", "maximum": 0}), json!(-1));
        check(
            json!({"type": "integer", "minimum": 5, "multipleOf": 4}),
            json!(8),
        );
        check(
            json!({"type": "array", "items": {"type": "string"}}),
            json!([]),
        );
        let two = json!({"type": "array", "items": {"type": "string"}, "minItems": 2});
        check(two, json!(["mock", "mock"]));
        check(
            json!({"anyOf": [{"type": "null"}, {"type": "integer"}]}),
            json!(1),
        );
        let object = json!({
            "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/b"}, "c": {}},
            "required": ["a", "b"],
            "$defs": {"b": {"type": "object", "properties": {"d": {"type": "integer"}}, "required": ["d"]}},
        });
        check(object, json!({"a": "mock", "b": {"d": 1}}));
        check(json!({"type": "object"}), json!({}));
    }

    #[test]
    fn a_schema_that_contains_itself_or_asks_for_much_has_a_small_value() {
        #[track_caller]
        fn check(schema: &Value) {
            let len = fitting(schema).to_string().len();
            assert!((10..50_000).contains(&len), "{len} bytes");
        }
        let next = json!({"$ref": "#"});
        check(&json!({
            "type": "object", "properties": {"a": next, "b": next}, "required": ["a", "b"],
        }));
        let long = json!({"type": "string", "minLength": u64::MAX});
        check(&json!({"type": "array", "minItems": u64::MAX, "items": long}));
        let mut deep = long;
        for _ in 0..12 {
            deep = json!({"type": "array", "minItems": 64, "items": deep});
        }
        check(&deep);
    }
}
