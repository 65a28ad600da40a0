//! Values of `--header` and `--instance-id` with placeholders.
//!
//! Decided here: `{name}`, in lower-case letters, is a placeholder and must be a known one; so is `{env:NAME}`, a variable, in
//! a field; `{{name}}` is the text `{name}`; every other brace is itself, so that JSON can be a value. Where the values come
//! from is decided in `serve`.

use std::fmt::Write as _;

use crate::text::raw;

/// A value with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
    /// The environment variable of this name.
    Variable(String),
}

/// What a value can contain in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The instance identifier.
    Instance,
    /// The name of the project's folder.
    Project,
    /// The name of the folder above the project's.
    Parent,
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
    const ALL: [Placeholder; 7] = [
        Placeholder::Instance,
        Placeholder::Project,
        Placeholder::Parent,
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
            Placeholder::Parent => "parent",
            Placeholder::Port => "port",
            Placeholder::Branch => "branch",
            Placeholder::User => "user",
            Placeholder::Host => "host",
        }
    }
}

/// What a value with placeholders is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The value of a field.
    Field,
    /// The instance identifier, which is shown everywhere and therefore holds no variables.
    InstanceId,
}

impl Purpose {
    fn allows(self, placeholder: Placeholder) -> bool {
        self == Purpose::Field || placeholder != Placeholder::Instance
    }
}

/// An unknown placeholder; displays as what is wrong with the value that contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPlaceholder(String, Purpose);

impl std::fmt::Display for UnknownPlaceholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let UnknownPlaceholder(name, purpose) = self;
        write!(
            f,
            "contains the unknown placeholder `{{{name}}}`; known are"
        )?;
        for known in Placeholder::ALL {
            if purpose.allows(known) {
                write!(f, " {{{}}}", known.name())?;
            }
        }
        if *purpose == Purpose::Field {
            f.write_str(" {env:NAME}")?;
        }
        write!(f, ", and `{{{{{name}}}}}` is the literal text")
    }
}

impl Template {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// It contains an unknown placeholder.
    pub fn parse(value: &str, purpose: Purpose) -> Result<Template, UnknownPlaceholder> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('{') {
            let (before, braces_on) = rest.split_at(at);
            text.push_str(before);
            if let Some((name, after)) = name_in(braces_on, "{{", "}}") {
                text.push_str(&format!("{{{name}}}"));
                rest = after;
            } else if let Some((name, after)) = name_in(braces_on, "{", "}") {
                let unknown = || UnknownPlaceholder(name.to_owned(), purpose);
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::named(name, purpose).ok_or_else(unknown)?);
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

    /// The text beside the placeholders, with spaces for them; `None` if there are none.
    pub fn around_placeholders(&self) -> Option<String> {
        let texts = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Placeholder(_) | Piece::Variable(_) => " ",
        });
        let has_placeholders = self.0.iter().any(|piece| !matches!(piece, Piece::Text(_)));
        has_placeholders.then(|| texts.collect())
    }

    /// The value with these variables in it.
    ///
    /// # Errors
    ///
    /// Those of `value_of`.
    pub fn with_variables<E>(
        self,
        value_of: impl Fn(&str) -> Result<String, E>,
    ) -> Result<Template, E> {
        let pieces = self.0.into_iter().map(|piece| match piece {
            Piece::Variable(name) => value_of(&name).map(Piece::Text),
            piece => Ok(piece),
        });
        pieces.collect::<Result<_, E>>().map(Template)
    }

    /// The value with these values of its placeholders. Variables that are not filled in stay as they are written.
    pub fn fill(&self, mut value_of: impl FnMut(Placeholder) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Placeholder(placeholder) => value_of(*placeholder),
            Piece::Variable(name) => format!("{{{VARIABLE}{name}}}"),
        });
        pieces.collect()
    }

    /// As [`fill`](Self::fill), for a field: what it cannot hold is percent-encoded, and returned too.
    pub fn fill_field(&self, value_of: impl Fn(Placeholder) -> String) -> (String, Vec<Encoded>) {
        let mut encoded = Vec::new();
        let filled = self.fill(|placeholder| {
            let value = value_of(placeholder);
            if is_field_value(&value) {
                return value;
            }
            let sent = percent_encoded(&value);
            encoded.push(Encoded {
                placeholder,
                sent: sent.clone(),
            });
            sent
        });
        (filled, encoded)
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name.as_str()),
            Piece::Text(_) | Piece::Placeholder(_) => None,
        })
    }

    /// The value to write for a field whose placeholders have these values: [`parse`](Self::parse) reads it, and only variables are
    /// left to fill in. What a field cannot hold is percent-encoded.
    pub fn field_with(&self, value_of: impl Fn(Placeholder) -> String) -> String {
        let (mut written, mut text) = (String::new(), String::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Placeholder(placeholder) => match value_of(*placeholder) {
                    value if is_field_value(&value) => text.push_str(&value),
                    value => text.push_str(&percent_encoded(&value)),
                },
                Piece::Variable(name) => {
                    // Escaped as a whole: braces of adjacent pieces can make a name.
                    written += &escaped(&std::mem::take(&mut text));
                    written += &format!("{{{VARIABLE}{name}}}");
                }
            }
        }
        written + &escaped(&text)
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

/// Returns the value that is read as this text, with nothing to fill in.
pub fn escaped(text: &str) -> String {
    let mut value = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, braces_on) = rest.split_at(at);
        value.push_str(before);
        if let Some((name, after)) = name_in(braces_on, "{", "}") {
            value.push_str(&format!("{{{{{name}}}}}"));
            rest = after;
        } else {
            value.push('{');
            rest = &braces_on[1..];
        }
    }
    value + rest
}

impl Piece {
    /// The placeholder or variable with this name in braces, if it is known.
    fn named(name: &str, purpose: Purpose) -> Option<Piece> {
        if let Some(variable) = name.strip_prefix(VARIABLE) {
            // POSIX, Base Definitions §3.216: a name.
            let is_name = !variable.starts_with(|c: char| c.is_ascii_digit())
                && variable
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let is_known = is_name && !variable.is_empty() && purpose == Purpose::Field;
            return is_known.then(|| Piece::Variable(variable.to_owned()));
        }
        let mut known = Placeholder::ALL.into_iter();
        let placeholder = known.find(|known| known.name() == name && purpose.allows(*known));
        placeholder.map(Piece::Placeholder)
    }
}

/// The lower-case word, or the word behind `env:`, between `open` and `close` at the start of `text`, and the text after it.
fn name_in<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let inside = text.strip_prefix(open)?;
    let end = if inside.starts_with(VARIABLE) {
        inside.find(['{', '}'])?
    } else {
        inside.find(|c: char| !c.is_ascii_lowercase())?
    };
    let (name, rest) = inside.split_at(end);
    let rest = rest.strip_prefix(close)?;
    (!name.is_empty()).then_some((name, rest))
}

/// Whether a field holds `value` unchanged: visible ASCII and spaces, but no space at an end, where recipients strip it
/// (RFC 9110 §5.5).
pub fn is_field_value(value: &str) -> bool {
    value.trim() == value && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `%` itself is encoded as well, so that decoding always yields the original value. `value` may be any bytes, carried in text
/// ([`raw`]).
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

/// Begins the name of a placeholder that is a variable.
const VARIABLE: &str = "env:";

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
            let template = Template::parse(value, Purpose::Field).expect("all are known");
            let template = template.with_variables(|name| match name {
                "KEY_2" => Ok("{port}".to_owned()),
                _ => Err(name.to_owned()),
            });
            assert_eq!(
                template.map(|it| it.fill(value_of)),
                Ok(expected.to_owned())
            );
        }
        check("", "");
        check("blue", "blue");
        check("{instance}", "<instance>");
        check("{project}@{branch}", "<project>@<branch>");
        check("{user} on {host}:{port}!", "<user> on <host>:<port>!");
        check("{port}{port}", "<port><port>");
        check("{parent}/{project}", "<parent>/<project>");
        check("Bearer {env:KEY_2}", "Bearer {port}"); // not a template of its own
        check("{{env:KEY_2}}", "{env:KEY_2}");
        check("{env:KEY_2", "{env:KEY_2");
        check("{env:{port}", "{env:<port>");
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
        fn check(value: &str, purpose: Purpose, name: &str) {
            assert_eq!(
                Template::parse(value, purpose),
                Err(UnknownPlaceholder(name.to_owned(), purpose))
            );
        }
        for purpose in [Purpose::Field, Purpose::InstanceId] {
            check("{x}", purpose, "x");
            check("{port} {brnach}", purpose, "brnach");
            check("{{{x}", purpose, "x");
            check("{env}", purpose, "env");
            check("{env:}", purpose, "env:");
            check("{env:A-B}", purpose, "env:A-B");
            check("{env:2}", purpose, "env:2");
            check("{env: A}", purpose, "env: A");
        }
        check("{instance}", Purpose::InstanceId, "instance");
        check("{env:A}", Purpose::InstanceId, "env:A");
        assert_eq!(
            UnknownPlaceholder("x".to_owned(), Purpose::Field).to_string(),
            "contains the unknown placeholder `{x}`; known are {instance} {project} {parent} {port} {branch} {user} \
             {host} {env:NAME}, and `{{x}}` is the literal text"
        );
        assert_eq!(
            UnknownPlaceholder("x".to_owned(), Purpose::InstanceId).to_string(),
            "contains the unknown placeholder `{x}`; known are {project} {parent} {port} {branch} {user} {host}, and \
             `{{x}}` is the literal text"
        );
    }

    #[test]
    fn values_that_a_field_cannot_hold_are_percent_encoded() {
        #[track_caller]
        fn check(value: &str, sent: &str) {
            let template = Template::parse("a {project} b", Purpose::Field).expect("it is known");
            let (filled, encoded) = template.fill_field(|_| value.to_owned());
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

    #[test]
    fn a_field_with_the_values_of_its_placeholders_is_read_as_it_is_sent() {
        #[track_caller]
        fn check(value: &str, project: &str, written: &str) {
            let value_of = |_: Placeholder| project.to_owned();
            let template = Template::parse(value, Purpose::Field).expect("all are known");
            assert_eq!(template.field_with(value_of), written);
            let again = Template::parse(written, Purpose::Field).expect("all are known");
            assert!(template.variables().eq(again.variables()));
            let sent = |template: Template| {
                let filled = template.with_variables(|name| Ok::<_, ()>(format!("<{name}>")));
                filled.map(|it| it.fill_field(value_of).0)
            };
            assert_eq!(sent(again), sent(template), "{written}");
        }
        check("", "", "");
        check("blue", "", "blue");
        check("of {project}", "shop", "of shop");
        check("of {project}", "größe", "of gr%C3%B6%C3%9Fe");
        check("{project}", "{port}", "{{port}}");
        check("{{port}} {project}", "{env:A}", "{{port}} {{env:A}}");
        check("{{{project}", "port}", "{{{port}}");
        check("Bearer {env:A}{env:B}", "", "Bearer {env:A}{env:B}");
        check("{project}={env:A}", "a", "a={env:A}");
    }

    #[test]
    fn an_escaped_text_is_read_as_it_was() {
        for text in [
            "",
            "a",
            "{port}",
            "{x}",
            "{{x}}",
            "{{{x}}}",
            "{env:A}",
            "{env:a b}",
            "{X}",
            "{",
            "{a{b}",
            "}{x}{",
        ] {
            for purpose in [Purpose::Field, Purpose::InstanceId] {
                let template = Template::parse(&escaped(text), purpose);
                let filled = template.map(|it| it.fill(value_of));
                assert_eq!(filled, Ok(text.to_owned()));
            }
        }
    }
}
