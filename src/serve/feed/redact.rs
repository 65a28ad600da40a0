//! What of a message is nobody's business, the user's own screen included: keys, cookies, the values of a query.
//!
//! Decided here: what is taken out, and what stands in its place. What an API key looks like is known of the usual ones; a
//! field that holds one is known by its name, whatever is in it.

use std::borrow::Cow;

/// Stands for what was taken out.
pub const GONE: &str = "…";

/// A field's value as it may be shown. What is not UTF-8 in it is replaced as well.
pub fn field<'a>(name: &str, value: &'a [u8]) -> Cow<'a, str> {
    if holds_secret(name) {
        return Cow::Borrowed(GONE);
    }
    match String::from_utf8_lossy(value) {
        Cow::Borrowed(value) => text(value, false),
        Cow::Owned(value) => Cow::Owned(text(&value, false).into_owned()),
    }
}

/// A path with the names of its query.
pub fn path(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut shown = text(path, false).into_owned();
    for (index, part) in query.iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match part.split_once('=') {
            Some((name, _)) => {
                shown.push_str(&text(name, false));
                shown.push('=');
                shown.push_str(GONE);
            }
            None => shown.push_str(&text(part, false)),
        }
    }
    shown
}

/// Text without what looks like a key. What `is_cut` may end within one.
pub fn text(text: &str, is_cut: bool) -> Cow<'_, str> {
    let mut shown: Option<String> = None;
    // Up to here it has been looked at, and up to here it has been written.
    let (mut at, mut written) = (0, 0);
    while let Some((start, end)) = next_key(text, at, is_cut) {
        let shown = shown.get_or_insert_with(String::new);
        shown.push_str(&text[written..start]);
        shown.push_str(GONE);
        (at, written) = (end, end);
    }
    match shown {
        None => Cow::Borrowed(text),
        Some(mut shown) => {
            shown.push_str(&text[written..]);
            Cow::Owned(shown)
        }
    }
}

/// Where the first key at or behind `from` begins and ends.
fn next_key(text: &str, from: usize, is_cut: bool) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        let word = at + bytes[at..].iter().position(|byte| is_of_key(*byte))?;
        let len = bytes[word..].iter().take_while(|byte| is_of_key(**byte));
        let end = word + len.count();
        let start = begins_at(bytes, word);
        let candidate = &bytes[start.min(end)..end];
        let is_long = candidate.len() >= KEY_BYTES_MIN || (is_cut && end == bytes.len());
        if is_long && PREFIXES.iter().any(|prefix| candidate.starts_with(prefix)) {
            return Some((start, end));
        }
        at = end;
    }
    None
}

/// Where a word begins that begins at `word` as it is written: behind the letter of an escape (`\n`, `%3D`).
fn begins_at(bytes: &[u8], word: usize) -> usize {
    match bytes[..word].last() {
        Some(b'\\') => match bytes.get(word) {
            Some(b'u') => word + 5,
            _ => word + 1,
        },
        Some(b'%') => word + 2,
        _ => word,
    }
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.contains(&name.as_str()) || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

const SECRET_NAMES: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "set-cookie2",
    "token",
    "key",
    "apikey",
];

/// `x-api-key`, `x-goog-api-key`, `x-amz-security-token`, and what people call their own.
const SECRET_ENDS: &[&str] = &[
    "-key", "_key", "-apikey", "-token", "_token", "-secret", "password",
];

/// What keys of the usual makers begin with.
const PREFIXES: &[&[u8]] = &[
    b"sk-",
    b"sk_live_",
    b"sk_test_",
    b"rk_live_",
    b"AIza",
    b"AKIA",
    b"eyJ",
    b"ghp_",
    b"gho_",
    b"ghs_",
    b"ghu_",
    b"github_pat_",
    b"glpat-",
    b"gsk_",
    b"hf_",
    b"nvapi-",
    b"pplx-",
    b"r8_",
    b"xai-",
    b"xoxb-",
    b"xoxp-",
];

/// The shortest are longer; what is shorter is a word.
const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // A table.
    fn what_looks_like_a_key_is_taken_out_of_a_text() {
        let key = "sk-proj-0123456789_abcdefghij";
        let check = |why: &str, given: &str, expected: &str| assert_eq!(text(given, false), expected, "{why}");
        check("nothing", "", "");
        check("no key", "the task-force-of-nineteen-people asks for sk-1", "the task-force-of-nineteen-people asks for sk-1");
        check("a key alone", key, "…");
        check("two keys, and what is around them", &format!("a {key}, {key}é"), "a …, …é");
        check("in JSON", &format!(r#"{{"key":"{key}"}}"#), r#"{"key":"…"}"#);
        check("behind an escaped line end", &format!(r#""a\n{key}\n""#), r#""a\n…\n""#);
        check("behind an escaped quote", &format!(r#""{{\"key\":\"{key}\"}}""#), r#""{\"key\":\"…\"}""#);
        check("behind a character by its number", &format!(r#""\u0020{key}""#), r#""\u0020…""#);
        check("in a form", &format!("a=b%3D{key}&c"), "a=b%3D…&c");
        check("a web token", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x_y", "Bearer …");
        check("an escape at the end", "a\\", "a\\");
        check("half an escape", "a\\u0", "a\\u0");
        check("half a percent", "a%3", "a%3");
        assert_eq!(text("a sk-1", true), "a …", "the rest of it was cut off");
        assert_eq!(text("a sk-1 b", true), "a sk-1 b", "that one was not");
    }

    #[test]
    fn a_path_keeps_the_names_of_its_query() {
        for (given, expected) in [
            ("/v1/messages", "/v1/messages"),
            ("/v1/messages?beta=true", "/v1/messages?beta=…"),
            ("/a?b=1&c=2=3&d&&e=", "/a?b=…&c=…&d&&e=…"),
            ("/a?", "/a?"),
            ("/a?sk-0123456789abcdef", "/a?…"),
            ("/a/sk-0123456789abcdef/b?c=d?e=f", "/a/…/b?c=…"),
            ("*", "*"),
        ] {
            assert_eq!(path(given), expected);
        }
    }

    #[test]
    fn a_field_that_holds_a_key_is_known_by_its_name() {
        #[track_caller]
        fn check(name: &str, value: &[u8], expected: &str) {
            assert_eq!(field(name, value), expected, "{name}");
        }
        check("AUTHORIZATION", b"Basic x", GONE);
        check("x-api-key", b"x", GONE);
        check("api-key", b"x", GONE);
        check("X-Goog-Api-Key", b"x", GONE);
        check("Cookie", b"a=b", GONE);
        check("Set-Cookie", b"a=b", GONE);
        check("Proxy-Authorization", b"x", GONE);
        check("x-ratelimit-remaining-tokens", b"17", "17");
        check("x-note", b"use sk-0123456789abcdef", "use …");
        check("x-name", b"caf\xe9", "caf\u{fffd}");
    }
}
