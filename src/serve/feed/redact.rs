//! Removes secrets from what the feed shows: keys, credentials, cookies, the values of a query.
//!
//! A field or a JSON member that holds a secret is known by its name; a key inside a text by the prefix that its issuer gives it.
//! A peer chooses the input, so every function takes time linear in its length.

use std::ops::Range;

/// Stands for a removed secret.
pub const REDACTED: &str = "…";

/// Returns the value of a field without secrets. Bytes that are not UTF-8 become U+FFFD.
pub fn field(name: &str, value: &[u8]) -> String {
    if holds_secret(name) {
        return REDACTED.to_owned();
    }
    let value = String::from_utf8_lossy(value);
    let secrets = secrets(value.as_bytes(), Source::Field);
    let value = without(value.as_bytes(), &secrets);
    without_query_values(name, &String::from_utf8_lossy(&value))
}

/// Returns a path with the names of its query, without the values.
pub fn path(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut shown = text(path, false);
    if let Some(query) = query {
        push_query('?', query, &mut shown);
    }
    shown
}

/// Returns a text without keys and, where it is JSON, without the strings of secret members. If it `is_truncated`, it may end
/// within a key.
pub fn text(text: &str, is_truncated: bool) -> String {
    String::from_utf8_lossy(&bytes(text.as_bytes(), is_truncated)).into_owned()
}

/// As [`text`], for bytes that need not be UTF-8.
pub fn bytes(bytes: &[u8], is_truncated: bool) -> Vec<u8> {
    without(bytes, &secrets(bytes, Source::Text { is_truncated }))
}

/// Returns a field's value with the query values of its URLs removed.
fn without_query_values(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    let holds_url = URL_NAME_ENDS.iter().any(|end| name.ends_with(end));
    let mut shown = String::new();
    // These delimit a URL and never occur in one (RFC 3986 §2).
    let delimiters = [' ', '\t', '<', '>', '"'];
    for word in value.split_inclusive(delimiters) {
        if holds_url || word.starts_with('/') || word.contains("://") {
            let bare = word.trim_end_matches(delimiters);
            push_url(bare, &mut shown);
            shown.push_str(&word[bare.len()..]);
        } else {
            shown.push_str(word);
        }
    }
    shown
}

fn push_url(url: &str, shown: &mut String) {
    match url.split_once('#') {
        None => shown.push_str(&path(url)),
        // OAuth passes tokens in the fragment (RFC 6749 §4.2.2).
        Some((before, fragment)) => {
            shown.push_str(&path(before));
            push_query('#', fragment, shown);
        }
    }
}

fn push_query(delimiter: char, query: &str, shown: &mut String) {
    shown.push(delimiter);
    for (index, part) in query.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        match part.split_once('=') {
            Some((name, _)) => {
                shown.push_str(&text(name, false));
                shown.push('=');
                shown.push_str(REDACTED);
            }
            None => shown.push_str(&text(part, false)),
        }
    }
}

/// Returns `bytes` with [`REDACTED`] in place of each of `secrets`, which are in order.
fn without(bytes: &[u8], secrets: &[Range<usize>]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for secret in secrets {
        shown.extend_from_slice(&bytes[copied..secret.start]);
        shown.extend_from_slice(REDACTED.as_bytes());
        copied = secret.end;
    }
    shown.extend_from_slice(&bytes[copied..]);
    shown
}

/// Where a text comes from, which decides what is a secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A field's value: what follows `Bearer` or `Basic` is a secret, whatever it looks like (RFC 9110 §11.4).
    Field,
    /// Any other text, such as JSON; its end may be missing.
    Text { is_truncated: bool },
}

/// Returns where the secrets are, in order. One pass: each word is looked at once.
fn secrets(bytes: &[u8], source: Source) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut at = 0;
    let mut follows_scheme = false;
    while at < bytes.len() {
        let is_of_word = if follows_scheme {
            is_of_token68
        } else {
            is_of_key
        };
        let word = at..at + run_len(&bytes[at..], is_of_word);
        if word.is_empty() {
            follows_scheme &= bytes[at] == b' ';
            at += 1;
            continue;
        }
        if source != Source::Field
            && let Some(value) = secret_member(bytes, &word)
        {
            at = value.end;
            secrets.push(value);
            continue;
        }
        let secret = if follows_scheme {
            Some(word.start)
        } else {
            let is_truncated =
                source == Source::Text { is_truncated: true } && word.end == bytes.len();
            key_start(bytes, &word, is_truncated)
        };
        secrets.extend(secret.map(|start| start..word.end));
        follows_scheme = source == Source::Field
            && bytes.get(word.end) == Some(&b' ')
            && ends_with_scheme(&bytes[word.clone()]);
        at = word.end;
    }
    secrets
}

/// Returns the string that is the value of a secret JSON member, without its quotes, if `name` is the name of one.
///
/// JSON inside a JSON string (the arguments of a tool call) has backslashes before its quotes.
fn secret_member(bytes: &[u8], name: &Range<usize>) -> Option<Range<usize>> {
    if name.start.checked_sub(1).map(|at| bytes[at]) != Some(b'"') {
        return None;
    }
    let mut at = name.end + run_len(&bytes[name.end..], is_backslash);
    for expected in [b'"', b':'] {
        if bytes.get(at) != Some(&expected) {
            return None;
        }
        at += 1 + run_len(&bytes[at + 1..], |byte| byte.is_ascii_whitespace());
    }
    let escapes = run_len(&bytes[at..], is_backslash);
    at += escapes;
    if bytes.get(at) != Some(&b'"') || !names_secret_member(&bytes[name.clone()]) {
        return None;
    }
    let start = at + 1;
    at = start;
    loop {
        at += run_len(&bytes[at..], |byte| !matches!(byte, b'"' | b'\\'));
        let backslashes = run_len(&bytes[at..], is_backslash);
        at += backslashes;
        match bytes.get(at) {
            // More backslashes than before the first quote either escape this one or, as multiples, each other.
            Some(b'"')
                if backslashes
                    .saturating_sub(escapes)
                    .is_multiple_of(2 * (escapes + 1)) =>
            {
                return Some(start..at - backslashes.min(escapes));
            }
            Some(_) => at += 1,
            None => return Some(start..at),
        }
    }
}

/// Returns how many bytes at the start of `bytes` are `of_run`.
fn run_len(bytes: &[u8], of_run: fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !of_run(*byte));
    let len = end.unwrap_or(bytes.len());
    #[cfg(test)]
    tests::count_steps(len + 1);
    len
}

/// Returns where in a word a key starts, which ends with the word. The rest of a truncated word is missing.
fn key_start(bytes: &[u8], word: &Range<usize>, is_truncated: bool) -> Option<usize> {
    let len_min = if is_truncated { 1 } else { KEY_BYTES_MIN };
    let mut starts = word.start..(word.end + 1).saturating_sub(len_min);
    starts.find(|start| {
        #[cfg(test)]
        tests::count_steps(1);
        let rest = &bytes[*start..word.end];
        is_word_start(bytes, *start) && KEY_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
    })
}

/// Whether a key may start here: after a hyphen (`openai-insecure-api-key.sk-…`) and other characters that are not
/// alphanumeric, or after an escape (`\n`, `\u0020`, `%3D`), whose letters do not belong to the key.
fn is_word_start(bytes: &[u8], start: usize) -> bool {
    let before = |count: usize| start.checked_sub(count).map(|at| bytes[at]);
    !before(1).is_some_and(|byte| byte.is_ascii_alphanumeric())
        || before(2) == Some(b'\\')
        || before(3) == Some(b'%')
        || (before(6) == Some(b'\\') && before(5) == Some(b'u'))
}

/// Whether a word is an authentication scheme, or ends with one after a character that is not alphanumeric.
fn ends_with_scheme(word: &[u8]) -> bool {
    let last = word.rsplit(|byte| !byte.is_ascii_alphanumeric()).next();
    last.is_some_and(|last| {
        last.eq_ignore_ascii_case(b"bearer") || last.eq_ignore_ascii_case(b"basic")
    })
}

fn is_backslash(byte: u8) -> bool {
    byte == b'\\'
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn is_of_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// Whether a field with this name holds a secret.
fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `X-Auth`, `Authentication`, and similar names of private fields.
    name.contains("auth")
        || name == "key"
        || SECRET_NAME_ENDS.iter().any(|end| name.ends_with(end))
        || names_secret(&name)
}

/// Whether a JSON member with this name holds a secret.
fn names_secret_member(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // `author` and `cache_key` are no secrets.
    name == "auth" || name.contains("authorization") || names_secret(&name)
}

/// Whether a name in lower case is that of a secret, in a field and in JSON.
fn names_secret(name: &str) -> bool {
    // `x-ratelimit-remaining-tokens` and `max_tokens` hold numbers.
    let mut after_token = name.split("token").skip(1);
    after_token.any(|rest| !rest.starts_with('s'))
        || SECRET_NAME_PARTS.iter().any(|part| name.contains(part))
}

/// `Set-Cookie`, `X-Goog-Api-Key`, `client_secret`.
const SECRET_NAME_PARTS: &[&str] = &[
    "secret",
    "credential",
    "cookie",
    "api-key",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "passwd",
    "password",
];

const SECRET_NAME_ENDS: &[&str] = &["-key", "_key"];

/// `Location`, `Referer`, `X-Original-URL`: the value is a URL, also a relative one.
const URL_NAME_ENDS: &[&str] = &["location", "referer", "url", "uri"];

/// How the keys of common services start.
const KEY_PREFIXES: &[&[u8]] = &[
    b"sk-",
    b"sk_live_",
    b"sk_test_",
    b"rk_live_",
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
    b"AIza",
    b"AKIA",
    b"eyJ",
];

/// Shorter words are no keys.
const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static STEPS: Cell<usize> = const { Cell::new(0) });

    /// Counts bytes that a scan looks at.
    pub fn count_steps(count: usize) {
        STEPS.with(|steps| steps.set(steps.get() + count));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn keys_are_removed_from_a_text() {
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
        check("behind a dot, a hyphen, an underline", &format!("key.{key} key-{key} key_{key}"), "key.… key-… key_…");
        check("within a word", &format!("task{key}"), &format!("task{key}"));
        check("behind a backslash that is escaped", &format!(r#""a\\{key}""#), r#""a\\…""#);
        check("many in one word", &key.repeat(1000), "…");
        check("of one word, and of several", &format!("AIza{key} eyJ_hf_{key}"), "… …");
        check("an escape at the end", "a\\", "a\\");
        check("half an escape", "a\\u0", "a\\u0");
        check("half a percent", "a%3", "a%3");
        assert_eq!(text("a sk-1", true), "a …", "the rest of it was cut off");
        assert_eq!(text("a sk-1 b", true), "a sk-1 b", "that one was not");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn secret_members_are_removed_from_json() {
        let check = |why: &str, given: &str, expected: &str| assert_eq!(text(given, false), expected, "{why}");
        check("a member", r#"{"password":"hunter2","user":"me"}"#, r#"{"password":"…","user":"me"}"#);
        check("names", r#"{"apiKey":"a","authorization_token":"b","secret":"c","token":"d"}"#, r#"{"apiKey":"…","authorization_token":"…","secret":"…","token":"…"}"#);
        check("other names", r#"{"author":"a","key":"b","max_tokens":"c","cache_key":"d"}"#, r#"{"author":"a","key":"b","max_tokens":"c","cache_key":"d"}"#);
        check("white space", "{\"token\" :\n \"a b\" }", "{\"token\" :\n \"…\" }");
        check("escapes in a value", r#"{"token":"a\"b\\","c":"d"}"#, r#"{"token":"…","c":"d"}"#);
        check("JSON in a string", r#""{\"token\": \"a\\\"b\\\\\", \"c\":\"d\"}""#, r#""{\"token\": \"…\", \"c\":\"d\"}""#);
        check("other types", r#"{"token":null,"secret":["a"],"password":1}"#, r#"{"token":null,"secret":["a"],"password":1}"#);
        check("a name as a value", r#"["token","a"]"#, r#"["token","a"]"#);
        check("without an end", r#"{"token":"a b"#, r#"{"token":"…"#);
        check("without a value", r#"{"token"  "#, r#"{"token"  "#);
        check("nothing after the colon", r#"{"token":"#, r#"{"token":"#);
    }

    #[test]
    fn every_prefix_is_found() {
        for prefix in KEY_PREFIXES {
            let prefix = String::from_utf8_lossy(prefix);
            let given = format!("a {prefix}0123456789abcdef b");
            assert_eq!(text(&given, false), "a … b", "{prefix}");
        }
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
    fn secrets_are_removed_from_a_field() {
        #[track_caller]
        fn check(name: &str, value: &[u8], expected: &str) {
            assert_eq!(field(name, value), expected, "{name}");
        }
        check("AUTHORIZATION", b"Basic x", REDACTED);
        check("x-api-key", b"x", REDACTED);
        check("api-key", b"x", REDACTED);
        check("X-Goog-Api-Key", b"x", REDACTED);
        check("Cookie", b"a=b", REDACTED);
        check("Set-Cookie", b"a=b", REDACTED);
        check("Proxy-Authorization", b"x", REDACTED);
        check("x-ratelimit-remaining-tokens", b"17", "17");
        check("anthropic-ratelimit-tokens-limit", b"17", "17");
        check("X-CSRFToken", b"x", REDACTED);
        check("X-Auth", b"x", REDACTED);
        check("X-Amz-Security-Token", b"x", REDACTED);
        check("Client-Secret-Id", b"x", REDACTED);
        check("x-note", b"Basic", "Basic");
        check("x-note", b"basic  a+/=; BEARER b", "basic  …; BEARER …");
        check("x-note", b"a forbearer is", "a forbearer is");
        check("x-note", b"Basic basic a", "Basic … …");
        check("x-note", b"x;basic a;b", "x;basic …;b");
        check("x-note", b"Bearer (a) b", "Bearer (a) b");
        check("x-note", b"Basic ", "Basic ");
        check("Location", b"cb?code=1", "cb?code=…");
        check("Location", b"/cb#access_token=1&b", "/cb#access_token=…&b");
        check(
            "Link",
            b"<http://a/?b=1>; rel=\"next\"",
            "<http://a/?b=…>; rel=\"next\"",
        );
        check("x-note", b"use sk-0123456789abcdef", "use …");
        check("x-name", b"caf\xe9", "caf\u{fffd}");
    }

    #[test]
    fn the_time_is_linear_in_the_length() {
        let steps = |piece: &str, len: usize| {
            let value = piece.repeat(len / piece.len());
            STEPS.set(0);
            field("location", value.as_bytes());
            field("x-note", value.as_bytes());
            text(&value, true);
            path(&value);
            STEPS.get()
        };
        for piece in [
            " ",
            "a",
            "a ",
            "a-",
            "sk-",
            "sk- ",
            "eyJ eyJ",
            "Basic ",
            "basic-",
            "bearer",
            "\\",
            "%3D",
            "/?",
            "&=",
            "/a?b=c#d ",
            "\"sk-\":\"",
            "\"token\":\"",
            "\"token\" ",
            "\\\"token",
        ] {
            let (short, long) = (steps(piece, 10_000), steps(piece, 100_000));
            assert!(
                long <= 11 * short && long <= 20 * 100_000,
                "{piece:?}: {short}, {long}"
            );
        }
    }
}
