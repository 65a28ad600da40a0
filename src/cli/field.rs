//! The value of `--header`: a field that is set on every request. Fields that belong to the connection are refused.

use crate::cli::outcome::Failure;
use crate::cli::settings::SourcedValue;

use crate::cli::template::{Purpose, Template};

/// The name and value of a field.
///
/// # Errors
///
/// Bad usage: it is not a field, or not one that may be set.
pub fn field(given: &SourcedValue) -> Result<(String, Template), Failure> {
    let text = given.text()?;
    let Some((name, value)) = text.split_once(':') else {
        return Err(given.refused("is not a field; write it as `Name: value`"));
    };
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(given.refused(
            "has a name that no field can have; names are letters, digits and `-`, and end at the colon",
        ));
    }
    if let Some(kept) = KEPT_FIELDS
        .iter()
        .find(|kept| kept.eq_ignore_ascii_case(name))
    {
        return Err(given.refused(format_args!(
            "cannot be set: `{kept}` belongs to the connection, and ic writes it itself; leave it out"
        )));
    }
    let value = Template::parse(value.trim(), Purpose::Field);
    let value = value.map_err(|unknown| given.refused(unknown))?;
    Ok((name.to_owned(), value))
}

/// Whether two names are those of one field, also with `_` for `-`: some servers read both as the same variable.
pub fn is_same_field(one: &str, other: &str) -> bool {
    one.replace('_', "-")
        .eq_ignore_ascii_case(&other.replace('_', "-"))
}

/// RFC 9110 §5.6.2: `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that frame a message, belong to one hop or guard against loops. Setting them would break every request.
const KEPT_FIELDS: [&str; 12] = [
    "Connection",
    "Content-Length",
    "Expect",
    "Host",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Via",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::HEADER;

    #[test]
    fn a_field_is_split_at_its_first_colon() {
        #[track_caller]
        fn check(text: &str, name: &str, value: &str) {
            let split = field(&SourcedValue::flag(HEADER, text)).expect(text);
            let value = Template::parse(value, Purpose::Field).expect(value);
            assert_eq!(split, (name.to_owned(), value));
        }
        check("x-team: blue", "x-team", "blue");
        check("X-Url:http://a:1/", "X-Url", "http://a:1/");
        check("x-team:  two words ", "x-team", "two words");
        check("x-empty:", "x-empty", "");
        check("!#$%&'*+-.^_`|~09Az: ü", "!#$%&'*+-.^_`|~09Az", "ü");
        check("hostname: a", "hostname", "a"); // only begins like `Host`
    }

    #[test]
    fn fields_that_must_not_be_set_are_refused() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let refused = field(&SourcedValue::flag(HEADER, text)).expect_err(text);
            assert_eq!(refused.exit, crate::cli::outcome::Exit::BadUsage);
            // The value may be a key.
            let shown = match text.find([':', ' ']) {
                Some(end) => format!("{}…", &text[..=end]),
                None => text.to_owned(),
            };
            let start = format!("`--header {shown}` {expected}");
            assert!(refused.to_string().starts_with(&start), "{refused}");
        }
        check("x-team", "is not a field");
        check("", "is empty");
        check(": a", "has a name that no field can have");
        check("x team: a", "has a name that no field can have");
        check("x-team : a", "has a name that no field can have");
        check("x-é: a", "has a name that no field can have");
        check("(x): a", "has a name that no field can have");
        check("x: a\r\nb: c", "contains a control character");
        check("x: a\tb", "contains a control character");
        check("x: {brnach}", "contains the unknown placeholder `{brnach}`");
        for kept in KEPT_FIELDS {
            check(
                &format!("{}: 1", kept.to_lowercase()),
                &format!(
                    "cannot be set: `{kept}` belongs to the connection, and ic writes it itself; leave it out"
                ),
            );
        }
    }
}
