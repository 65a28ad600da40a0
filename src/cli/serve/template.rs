//! Values of `--header` with placeholders in them: which there are, how they are written, and what takes their place.
//!
//! Decided here: `{name}`, in lower-case letters, is a placeholder and must be a known one; `{{name}}` is the text
//! `{name}`; every other brace stands for itself, so that JSON can be a value. What is filled in is percent-encoded
//! where a field cannot hold it. Where the values come from is decided in `placeholders`.

use std::fmt::Write as _;

use crate::text::raw;

/// A value of a field, with what has to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Filled(Placeholder),
}

/// What can be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The instance identifier.
    Instance,
    /// The name of the project's folder.
    Project,
    /// The port that is listened on.
    Port,
    /// The branch that is checked out in the project.
    Branch,
    /// The user whom the interceptor runs for.
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

    /// As it is written, without the braces.
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

/// A placeholder that there is not; displays as what is wrong with the value that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(String);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.0;
        let known = Placeholder::ALL.map(|known| format!("{{{}}}", known.name()));
        write!(
            f,
            "has `{{{name}}}` in it, which stands for nothing; there are {}, and `{{{{{name}}}}}` is the bare text",
            known.join(" ")
        )
    }
}

/// A value that was filled in otherwise than it is, because a field cannot hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// For what it was filled in.
    pub placeholder: Placeholder,
    /// How it is sent.
    pub sent: String,
}

impl Template {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<Template, Unknown> {
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
                    .ok_or_else(|| Unknown(name.to_owned()))?;
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Filled(placeholder));
                rest = after;
            } else {
                text.push('{');
                rest = &braces_on[1..];
            }
        }
        pieces.push(Piece::Text(text + rest));
        Ok(Template(pieces))
    }

    /// Whether the value of `placeholder` is needed.
    pub fn wants(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Piece::Filled(placeholder))
    }

    /// The value as it is sent, and what of it had to be encoded. `value_of` may give any bytes, carried in text.
    pub fn fill(&self, value_of: impl Fn(Placeholder) -> String) -> (String, Vec<Encoded>) {
        let mut filled = String::new();
        let mut encoded = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Filled(placeholder) => {
                    let value = value_of(*placeholder);
                    if can_stand(&value) {
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

/// The lower-case word between `open` and `close` at the start of `text`, and what is behind it.
fn word_in<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let inside = text.strip_prefix(open)?;
    let end = inside.find(|c: char| !c.is_ascii_lowercase())?;
    let (word, rest) = inside.split_at(end);
    let rest = rest.strip_prefix(close)?;
    (!word.is_empty()).then_some((word, rest))
}

/// Whether a field holds `value` as it is: visible ASCII with spaces, but none at an end, where they would get lost
/// (RFC 9110 §5.5).
fn can_stand(value: &str) -> bool {
    value.trim() == value && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `%` itself is encoded as well: whoever sees one can decode the value and gets what it was.
fn percent_encoded(value: &str) -> String {
    let bytes = raw::from_text(value).into_encoded_bytes();
    let ends = [0, bytes.len().saturating_sub(1)];
    let mut encoded = String::new();
    for (at, &byte) in bytes.iter().enumerate() {
        let stands = matches!(byte, b'!'..=b'~') || (byte == b' ' && !ends.contains(&at));
        if stands && byte != b'%' {
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
    fn what_stands_in_braces_is_filled_in() {
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
        // Every other brace is one.
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
            assert_eq!(Template::parse(value), Err(Unknown(name.to_owned())));
        }
        check("{x}", "x");
        check("{port} {brnach}", "brnach");
        check("{{{x}", "x");
        assert_eq!(
            Unknown("x".to_owned()).to_string(),
            "has `{x}` in it, which stands for nothing; there are {instance} {project} {port} {branch} {user} {host}, \
             and `{{x}}` is the bare text"
        );
    }

    #[test]
    fn what_a_field_cannot_hold_is_percent_encoded() {
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
