//! Formats of settings files: JSON with comments, TOML, and lines of variables.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

/// A JSON document that may have comments and commas in front of a closing bracket, as these clients accept it.
pub fn json(text: &str) -> Option<Value> {
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&without_comments(text)))
        .ok()
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = match next {
            '"' => string_len(rest),
            '/' if rest.starts_with("//") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest[2..].find("*/").map_or("", |end| &rest[end + 4..]);
                continue;
            }
            '}' | ']' => {
                let before = plain.trim_end();
                plain.truncate(before.strip_suffix(',').unwrap_or(before).len());
                1
            }
            other => other.len_utf8(),
        };
        plain.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    plain
}

/// The length of the string with which the text starts.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text[1..].find(|c| match (c, is_escaped) {
        ('"', false) => true,
        _ => {
            is_escaped = c == '\\' && !is_escaped;
            false
        }
    });
    end.map_or(text.len(), |end| end + 2)
}

/// The tables and strings of a TOML document; other values are null. The parser refuses what is nested deeper than 80 levels.
pub fn toml(text: &str) -> Option<Value> {
    let document = DeTable::parse(text).ok()?;
    Some(table(document.get_ref()))
}

fn table(members: &DeTable<'_>) -> Value {
    let value = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Table(inner) => table(inner),
        _ => Value::Null,
    };
    let members = members.iter();
    members
        .map(|(key, it)| (key.get_ref().to_string(), value(it.get_ref())))
        .collect()
}

/// The value of a variable in the lines of a file such as `.env`: of its last assignment, as clients read it.
pub fn variable<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let value_of = |line: &'a str| {
        let line = line.trim_start_matches('\u{feff}').trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let value = line.trim_start().strip_prefix(name)?.trim_start();
        let value = value.strip_prefix('=')?.trim();
        match value
            .chars()
            .next()
            .filter(|c| ['"', '\'', '`'].contains(c))
        {
            Some(quote) => value[1..].split(quote).next(),
            // A comment follows a space, so that `#` may be a part of the value.
            None => value.split(" #").next().map(str::trim_end),
        }
    };
    lines.lines().filter_map(value_of).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn comments_and_commas_are_removed_from_json_but_not_from_its_strings() {
        #[track_caller]
        fn check(text: &str, expected: Option<Value>) {
            assert_eq!(super::json(text), expected, "{text}");
        }
        check("{}", Some(json!({})));
        check(
            "// a\n{\"a\": /* \"b\" */ \"c//d\", // e\n\"f\": [1, 2,],\n}",
            Some(json!({"a": "c//d", "f": [1, 2]})),
        );
        let escaped = r#"{"a": "\\", "b": "\"//", /**/}"#;
        check(escaped, Some(json!({"a": "\\", "b": "\"//"})));
        for text in ["", "{", "/* {}", "{\"a\": \"b", "// {}", "{,}x", "é", "\""] {
            check(text, None);
        }
        check(&"[".repeat(100_000), None);
    }

    #[test]
    fn toml_has_tables_dotted_keys_and_inline_tables() {
        #[track_caller]
        fn check(text: &str, expected: Option<Value>) {
            assert_eq!(super::toml(text), expected, "{text:.40}");
        }
        let same = || Some(json!({"a": {"b.c": {"d": "e"}}}));
        check("\u{feff}a.\"b.c\".d = 'e' # f\r\n", same());
        check("[a.'b.c']\nd = \"\\u0065\"", same());
        check("a = {\"b.c\" = {d = 'e'}}", same());
        // A string of several lines is no table.
        check("a = '''\n[b]\n'''", Some(json!({"a": "[b]\n"})));
        check("a = 1979-05-27", Some(json!({"a": null})));
        let deep = format!("{}a = 1", "a.".repeat(100_000));
        for text in ["a", "a = \"b", "[a", "a = 1\na = 2", "{\"a\": 1}", &deep] {
            check(text, None);
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn the_last_assignment_of_a_variable_counts() {
        #[track_caller]
        fn check(lines: &str, expected: Option<&str>) {
            assert_eq!(variable(lines, "URL"), expected, "{lines}");
        }
        check("URL=a", Some("a"));
        check("  export URL = a # b\r\n", Some("a"));
        check("URL='a # b' # c", Some("a # b"));
        check("URL=\"a\"\nURL=b", Some("b"));
        check("URL=a#b", Some("a#b"));
        check("URL=", Some(""));
        for lines in ["", "# URL=a", "URLS=a", "MY_URL=a", "URL"] {
            check(lines, None);
        }
    }
}
