//! What of a message is nobody's business, the user's own screen included: keys, cookies, the values of a query.
//!
//! Decided here: what is taken out, and what stands in its place. What an API key looks like is known of the usual ones; a
//! field that holds one is known by its name, whatever is in it.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

/// Stands for what was taken out.
pub const GONE: &str = "…";

/// A field's value as it may be shown. What is not UTF-8 in it is replaced as well.
pub fn field<'a>(name: &str, value: &'a [u8]) -> Cow<'a, str> {
    if holds_secret(name) {
        return Cow::Borrowed(GONE);
    }
    let value = String::from_utf8_lossy(value);
    let steps: [fn(&str, &str) -> Option<String>; 3] = [
        |_, value| changed(text(value, false)),
        |_, value| without_credentials(value),
        without_queries,
    ];
    steps
        .iter()
        .fold(value, |value, step| match step(name, &value) {
            Some(shown) => Cow::Owned(shown),
            None => value,
        })
}

fn changed(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

/// Without what follows `Bearer` or `Basic`, which is a secret whatever it looks like (RFC 9110 §11.4).
fn without_credentials(value: &str) -> Option<String> {
    let mut shown: Option<String> = None;
    let (mut at, mut written) = (0, 0);
    while let Some(space) = value[at..].find(' ').map(|offset| at + offset) {
        at = space + 1;
        let is_scheme = SCHEMES.iter().any(|scheme| {
            let before = value[..space].len().checked_sub(scheme.len());
            before.is_some_and(|start| {
                value.as_bytes()[start..space].eq_ignore_ascii_case(scheme.as_bytes())
                    && !value[..start].ends_with(|before: char| before.is_ascii_alphanumeric())
            })
        });
        let rest = &value[at..];
        let start = at + rest.len() - rest.trim_start_matches(' ').len();
        let len = value[start..].find(|character: char| !is_of_token68(character));
        let end = len.map_or(value.len(), |len| start + len);
        if is_scheme && end > start {
            let shown = shown.get_or_insert_default();
            shown.push_str(&value[written..start]);
            shown.push_str(GONE);
            (at, written) = (end, end);
        }
    }
    shown.map(|shown| shown + &value[written..])
}

/// With the names of what the URLs in it ask for, and no values.
fn without_queries(name: &str, value: &str) -> Option<String> {
    if !value.contains(['?', '#']) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let holds_url = URL_ENDS.iter().any(|end| name.ends_with(end));
    // What stands around a URL, and never in one (RFC 3986 §2).
    let words = value.split_inclusive([' ', '\t', '<', '>', '"']);
    let mut shown = String::new();
    for word in words {
        if holds_url || word.starts_with('/') || word.contains("://") {
            let bare = word.trim_end_matches([' ', '\t', '<', '>', '"']);
            shown.push_str(&url(bare));
            shown.push_str(&word[bare.len()..]);
        } else {
            shown.push_str(word);
        }
    }
    (shown != value).then_some(shown)
}

fn url(url: &str) -> String {
    match url.split_once('#') {
        None => path(url),
        // OAuth hands over tokens there (RFC 6749 §4.2.2).
        Some((before, fragment)) => {
            let mut shown = path(before);
            add_query(fragment, '#', &mut shown);
            shown
        }
    }
}

/// A path with the names of its query.
pub fn path(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut shown = text(path, false).into_owned();
    if let Some(query) = query {
        add_query(query, '?', &mut shown);
    }
    shown
}

fn add_query(query: &str, first: char, shown: &mut String) {
    for (index, part) in query.split('&').enumerate() {
        shown.push(if index == 0 { first } else { '&' });
        match part.split_once('=') {
            Some((name, _)) => {
                shown.push_str(&text(name, false));
                shown.push('=');
                shown.push_str(GONE);
            }
            None => shown.push_str(&text(part, false)),
        }
    }
}

/// Text without what looks like a key. What `is_cut` may end within one.
pub fn text(text: &str, is_cut: bool) -> Cow<'_, str> {
    let mut keys = keys(text.as_bytes(), is_cut);
    if keys.is_empty() {
        return Cow::Borrowed(text);
    }
    keys.sort_unstable_by_key(|key| key.start);
    let mut shown = String::new();
    // Up to here it has been written.
    let mut written = 0;
    for key in keys {
        // Two that begin in one word end with it.
        if key.start >= written {
            shown.push_str(&text[written..key.start]);
            shown.push_str(GONE);
            written = key.end;
        }
    }
    shown.push_str(&text[written..]);
    Cow::Owned(shown)
}

/// Where keys are. This runs over whole bodies: it looks at what nearly all prefixes have and few words do, their hyphen or
/// underline, and for the others one by one.
fn keys(bytes: &[u8], is_cut: bool) -> Vec<Range<usize>> {
    let separators = memchr::memchr2_iter(b'-', b'_', bytes);
    let before = |at: usize| WORD_LENS.rev().filter_map(move |len| at.checked_sub(len));
    let mut keys = Vec::new();
    add_keys(bytes, is_cut, separators.flat_map(before), &mut keys);
    for prefix in PREFIXES_OF_ONE_WORD {
        let starts = memchr::memmem::find_iter(bytes, prefix);
        add_keys(bytes, is_cut, starts, &mut keys);
    }
    keys
}

/// Adds the keys that begin at one of `starts`.
fn add_keys(
    bytes: &[u8],
    is_cut: bool,
    starts: impl Iterator<Item = usize>,
    keys: &mut Vec<Range<usize>>,
) {
    let mut behind = 0;
    for start in starts {
        // None within another, or a word full of prefixes would be looked through for each of them.
        if start >= behind
            && is_first(bytes, start)
            && let Some(end) = key_at(bytes, start, is_cut)
        {
            behind = end;
            keys.push(start..end);
        }
    }
}

/// Whether a word may begin there: behind what is of no word, be it a hyphen (`openai-insecure-api-key.sk-…`), or behind an
/// escape (`\n`, `\u0020`, `%3D`), whose letters are none of what follows.
fn is_first(bytes: &[u8], start: usize) -> bool {
    let before = |count: usize| start.checked_sub(count).map(|at| bytes[at]);
    !before(1).is_some_and(|byte| byte.is_ascii_alphanumeric())
        || before(2) == Some(b'\\')
        || before(3) == Some(b'%')
        || (before(6) == Some(b'\\') && before(5) == Some(b'u'))
}

/// Where the key that begins at `start` ends, if one does.
fn key_at(bytes: &[u8], start: usize, is_cut: bool) -> Option<usize> {
    let rest = &bytes[start..];
    let mut prefixes = PREFIXES.iter().chain(PREFIXES_OF_ONE_WORD);
    if !prefixes.any(|prefix| rest.starts_with(prefix)) {
        return None;
    }
    let len = rest.iter().position(|byte| !is_of_key(*byte));
    let end = len.map_or(bytes.len(), |len| start + len);
    let is_long = end - start >= KEY_BYTES_MIN || (is_cut && end == bytes.len());
    is_long.then_some(end)
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn is_of_token68(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~+/=".contains(character)
}

fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Many tokens are a number.
    let names_token = || {
        name.match_indices("token")
            .any(|(at, token)| !name[at + token.len()..].starts_with('s'))
    };
    SECRET_PARTS.iter().any(|part| name.contains(part))
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
        || name == "key"
        || names_token()
}

/// `Authorization`, `X-Auth`, `Set-Cookie`, `X-Goog-Api-Key`, and what people call their own.
const SECRET_PARTS: &[&str] = &[
    "auth",
    "secret",
    "credential",
    "cookie",
    "api-key",
    "api_key",
    "apikey",
    "password",
];

const SECRET_ENDS: &[&str] = &["-key", "_key"];

/// What stands in front of credentials.
const SCHEMES: &[&str] = &["bearer", "basic"];

/// `Location`, `Referer`, `X-Original-URL`: what they hold is a URL, also a relative one.
const URL_ENDS: &[&str] = &["location", "referer", "url", "uri"];

/// What keys of the usual makers begin with.
const PREFIXES: &[&[u8]] = &[
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
];

/// The same, without a hyphen or underline.
const PREFIXES_OF_ONE_WORD: &[&[u8]] = &[b"AIza", b"AKIA", b"eyJ"];

/// How many bytes stand before the first hyphen or underline of a prefix: `hf_`, `github_pat_`.
const WORD_LENS: RangeInclusive<usize> = 2..=6;

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
    fn every_prefix_is_found() {
        for prefix in PREFIXES.iter().chain(PREFIXES_OF_ONE_WORD) {
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
        check("anthropic-ratelimit-tokens-limit", b"17", "17");
        check("X-CSRFToken", b"x", GONE);
        check("X-Auth", b"x", GONE);
        check("X-Amz-Security-Token", b"x", GONE);
        check("Client-Secret-Id", b"x", GONE);
        check("x-note", b"Basic", "Basic");
        check("x-note", b"basic  a+/=; BEARER b", "basic  …; BEARER …");
        check("x-note", b"a forbearer is", "a forbearer is");
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
}
