//! Values of `--header` with placeholders.
//!
//! Decided here: `{name}`, in lower-case letters, is a placeholder and must be a known one; `{{name}}` is the text
//! `{name}`; every other brace is itself, so that JSON can be a value. A filled-in value is percent-encoded where a field
//! cannot hold it. Where the values come from is decided in `placeholders`.

use std::fmt::Write as _;

use crate::text::raw;

/// A field's value with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

/// What a value can contain in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The instance identifier.
    Instance,
    /// The name of the project's folder.
    Project,
    /// The port of the interceptor.
    Port,
    /// The branch that is checked out in the project.
    Branch,
    /// The user that the interceptor runs as.
    User,
    /// This machine's name.
    Host,
}

impl Placeholder {
    const ALL: [Placeholder; 6] = [
        Placeholder::Instance,
        Placeholder::Project,
        Placeholder::Port,
        Placeholder::Branch,
        Placeholder::User,
        Placeholder::Host,
    ];

    /// Its name, without the braces.
    pub fn name(self) -> &'static str {
        match self {
            Placeholder::Instance => "instance",
            Placeholder::Project => "project",
            Placeholder::Port => "port",
            Placeholder::Branch => "branch",
            Placeholder::User => "user",
            Placeholder::Host => "host",
        }
    }
}

/// An unknown placeholder; displays as what is wrong with the value that contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPlaceholder(String);

impl std::fmt::Display for UnknownPlaceholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.0;
        let known = Placeholder::ALL.map(|known| format!("{{{}}}", known.name()));
        write!(
            f,
            "contains the unknown placeholder `{{{name}}}`; known are {}, and `{{{{{name}}}}}` is the literal text",
            known.join(" ")
        )
    }
}

/// A filled-in value that was percent-encoded, because a field cannot hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The placeholder that it replaced.
    pub placeholder: Placeholder,
    /// The encoded value.
    pub sent: String,
}

impl Template {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// It contains an unknown placeholder.
    pub fn parse(value: &str) -> Result<Template, UnknownPlaceholder> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('{') {
            let (before, braces_on) = rest.split_at(at);
            text.push_str(before);
            if let Some((name, after)) = word_in(braces_on, "{{", "}}") {
                text.push_str(&format!("{{{name}}}"));
                rest = after;
            } else if let Some((name, after)) = word_in(braces_on, "{", "}") {
                let placeholder = Placeholder::ALL
                    .into_iter()
                    .find(|known| known.name() == name)
                    .ok_or_else(|| UnknownPlaceholder(name.to_owned()))?;
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Placeholder(placeholder));
                rest = after;
            } else {
                text.push('{');
                rest = &braces_on[1..];
            }
        }
        pieces.push(Piece::Text(text + rest));
        Ok(Template(pieces))
    }

    /// Whether the value contains `placeholder`.
    pub fn contains(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Piece::Placeholder(placeholder))
    }

    /// The value as it is sent, and the parts that were encoded. `value_of` may return any bytes, carried in text
    /// ([`raw`]).
    pub fn fill(&self, value_of: impl Fn(Placeholder) -> String) -> (String, Vec<Encoded>) {
        let mut filled = String::new();
        let mut encoded = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(placeholder) => {
                    let value = value_of(*placeholder);
                    if is_field_value(&value) {
                        filled.push_str(&value);
                    } else {
                        let sent = percent_encoded(&value);
                        filled.push_str(&sent);
                        encoded.push(Encoded {
                            placeholder: *placeholder,
                            sent,
                        });
                    }
                }
            }
        }
        (filled, encoded)
    }
}

/// The lower-case word between `open` and `close` at the start of `text`, and the text after it.
fn word_in<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let inside = text.strip_prefix(open)?;
    let end = inside.find(|c: char| !c.is_ascii_lowercase())?;
    let (word, rest) = inside.split_at(end);
    let rest = rest.strip_prefix(close)?;
    (!word.is_empty()).then_some((word, rest))
}

/// Whether a field holds `value` unchanged: visible ASCII and spaces, but no space at an end, where recipients strip it
/// (RFC 9110 §5.5).
fn is_field_value(value: &str) -> bool {
    value.trim() == value && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `%` itself is encoded as well, so that decoding always yields the original value.
fn percent_encoded(value: &str) -> String {
    let bytes = raw::from_text(value).into_encoded_bytes();
    let ends = [0, bytes.len().saturating_sub(1)];
    let mut encoded = String::new();
    for (at, &byte) in bytes.iter().enumerate() {
        let is_literal = matches!(byte, b'!'..=b'~') || (byte == b' ' && !ends.contains(&at));
        if is_literal && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(placeholder: Placeholder) -> String {
        format!("<{}>", placeholder.name())
    }

    #[test]
    fn placeholders_are_filled_in() {
        #[track_caller]
        fn check(value: &str, expected: &str) {
            let template = Template::parse(value).expect("all are known");
            assert_eq!(template.fill(value_of), (expected.to_owned(), Vec::new()));
        }
        check("", "");
        check("blue", "blue");
        check("{instance}", "<instance>");
        check("{project}@{branch}", "<project>@<branch>");
        check("{user} on {host}:{port}!", "<user> on <host>:<port>!");
        check("{port}{port}", "<port><port>");
        check("{{branch}}", "{branch}");
        check("{{anything}} {port}", "{anything} <port>");
        // Every other brace is literal.
        check(r#"{"a":{"b":"{port}"}}"#, r#"{"a":{"b":"<port>"}}"#);
        check("{", "{");
        check("}}{{", "}}{{");
        check("{}", "{}");
        check("{Branch}", "{Branch}");
        check("{ port }", "{ port }");
        check("{port", "{port");
        check("{é}", "{é}");
    }

    #[test]
    fn an_unknown_placeholder_is_refused_by_its_name() {
        #[track_caller]
        fn check(value: &str, name: &str) {
            assert_eq!(
                Template::parse(value),
                Err(UnknownPlaceholder(name.to_owned()))
            );
        }
        check("{x}", "x");
        check("{port} {brnach}", "brnach");
        check("{{{x}", "x");
        assert_eq!(
            UnknownPlaceholder("x".to_owned()).to_string(),
            "contains the unknown placeholder `{x}`; known are {instance} {project} {port} {branch} {user} {host}, \
             and `{{x}}` is the literal text"
        );
    }

    #[test]
    fn values_that_a_field_cannot_hold_are_percent_encoded() {
        #[track_caller]
        fn check(value: &str, sent: &str) {
            let template = Template::parse("a {project} b").expect("it is known");
            let (filled, encoded) = template.fill(|_| value.to_owned());
            assert_eq!(filled, format!("a {sent} b"));
            assert_eq!(encoded.is_empty(), value == sent, "{encoded:?}");
        }
        check("shop", "shop");
        check("my shop, 100%", "my shop, 100%");
        check("", "");
        check("größe", "gr%C3%B6%C3%9Fe");
        check("日本", "%E6%97%A5%E6%9C%AC");
        check("a\nb\r\n: c", "a%0Ab%0D%0A: c");
        check("\t", "%09");
        check("\u{7f}", "%7F");
        check("caf\0e9", "caf%E9"); // a byte that is not UTF-8
        check(" a b ", "%20a b%20"); // would be trimmed
        check("100% ü", "100%25 %C3%BC"); // decodable
    }
}
