//! Removes secrets from text that is shown or logged: keys, passwords, cookies, the values of a query.
//!
//! The feed, the log, errors and values of settings are shown through this module, and only here is decided what a secret is. It is
//! known by its name (a field, a JSON member, a form, a setting), by what is in front of it (an authentication scheme, an
//! option, the `//` of a URL), or by the prefix that its issuer gives it. A secret that is split over several texts, such as the
//! events of a stream, is not found. A peer chooses the input, so every function takes time linear in its length.

mod names;

use std::ops::Range;

use self::names::{
    NAME_BYTES_MAX, SCHEMES, WORD_SCHEMES, ends_with_scheme, is_http_name, is_plain_key, is_secret,
    is_secret_field, is_url_field, is_whole_line, starts_key,
};

/// Stands for a removed secret.
pub const REDACTED: &str = "…";

/// Returns the value of a field without secrets. Bytes that are not UTF-8 become U+FFFD.
pub fn field(name: &str, value: &[u8]) -> String {
    if is_secret_field(name) {
        return REDACTED.to_owned();
    }
    if name.eq_ignore_ascii_case("Sec-WebSocket-Protocol") {
        return subprotocols(&String::from_utf8_lossy(value));
    }
    let value = String::from_utf8_lossy(value);
    let value = Scan::of(value.as_bytes(), Source::Field).without_secrets();
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

/// Returns a text without secrets. If it `is_truncated`, it may end within a key.
pub fn text(text: &str, is_truncated: bool) -> String {
    String::from_utf8_lossy(&bytes(text.as_bytes(), is_truncated)).into_owned()
}

/// As [`text`], for bytes that need not be UTF-8.
pub fn bytes(bytes: &[u8], is_truncated: bool) -> Vec<u8> {
    Scan::of(bytes, Source::Text { is_truncated }).without_secrets()
}

/// Returns the value of an option or a variable without keys and, where it may be a URL, without user name, password and query
/// values. A password may hold characters that end the authority (RFC 3986 §3.2), so everything up to the last `@` is removed.
pub fn setting(value: &str) -> String {
    let start = value.find("://").map_or(0, |at| at + "://".len());
    let is_path = start == 0 && (value.starts_with(['/', '.', '~']) || value.starts_with("unix:"));
    let user_end = value[start..].rfind('@').map(|at| start + at);
    let mut shown = String::new();
    match user_end {
        Some(end) if start > 0 || (!is_path && value[..end].contains(':')) => {
            shown.push_str(&value[..start]);
            shown.push_str(REDACTED);
            push_url(&value[end..], &mut shown);
        }
        _ => push_url(value, &mut shown),
    }
    shown
}

/// Returns the value of `Sec-WebSocket-Protocol` without what follows the name of a secret in a subprotocol
/// (`openai-insecure-api-key.KEY`) or as the next one (`access_token, KEY`): browsers can set no other field.
fn subprotocols(value: &str) -> String {
    let mut shown = String::new();
    let mut follows_name = false;
    for (index, protocol) in value.split(',').map(str::trim).enumerate() {
        if index > 0 {
            shown.push_str(", ");
        }
        if std::mem::take(&mut follows_name) {
            shown.push_str(REDACTED);
            continue;
        }
        let mut end = 0;
        for part in protocol.split('.') {
            end += part.len();
            if is_secret(part.as_bytes()) {
                follows_name = end == protocol.len();
                break;
            }
            end = (end + 1).min(protocol.len());
        }
        shown.push_str(&text(&protocol[..end], false));
        if end < protocol.len() {
            shown.push('.');
            shown.push_str(REDACTED);
        }
    }
    shown
}

/// Returns a field's value with the query values of its URLs removed.
fn without_query_values(name: &str, value: &str) -> String {
    let holds_url = is_url_field(name);
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
            // The name of a parameter without a value, or a value without a name.
            None if part.len() < KEY_BYTES_MIN && !is_credential(part.as_bytes()) => {
                shown.push_str(&text(part, false));
            }
            None => shown.push_str(REDACTED),
        }
    }
}

/// Where a text comes from, which decides what is a secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A field's value: what follows `Bearer` or `Basic` is a secret, whatever it looks like (RFC 9110 §11.4).
    Field,
    /// Any other text, such as JSON; its end may be missing.
    Text { is_truncated: bool },
}

/// What the word before says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Unknown,
    /// It is a secret if it looks like one.
    Likely,
    /// It is a secret.
    Secret,
}

/// A secret, and the quotes that its replacement needs: a number is replaced by a string.
#[derive(Debug, Clone)]
struct Secret {
    at: Range<usize>,
    quote: Range<usize>,
}

/// One pass over a text: each word and each separator is looked at once.
#[derive(Debug)]
struct Scan<'a> {
    bytes: &'a [u8],
    source: Source,
    /// In order.
    secrets: Vec<Secret>,
    next: Next,
    /// In an object of JSON that has the name of a secret: `{"name":"Authorization","value":…}`.
    is_pair: bool,
    /// In a line with `form-data`.
    is_form_data: bool,
    /// In the head of a part of multipart/form-data with the name of a secret (RFC 7578 §4.2).
    is_secret_part: bool,
}

/// A name before a separator.
#[derive(Debug)]
struct Name {
    at: Range<usize>,
    /// Its closing quote, with the backslashes of JSON inside a JSON string (the arguments of a tool call); empty without one.
    quote: Range<usize>,
    /// There is white space between it and the separator.
    is_apart: bool,
}

impl<'a> Scan<'a> {
    fn of(bytes: &'a [u8], source: Source) -> Scan<'a> {
        let mut scan = Scan {
            bytes,
            source,
            secrets: Vec::new(),
            next: Next::Unknown,
            is_pair: false,
            is_form_data: false,
            is_secret_part: false,
        };
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let is_of_word = match scan.next {
                Next::Unknown => is_of_key,
                Next::Likely | Next::Secret => is_of_token68,
            };
            let end = at + run_len(&bytes[at..], is_of_word);
            at = if end > at {
                scan.read_word(at..end)
            } else {
                scan.read_mark(at, byte)
            };
        }
        scan
    }

    fn without_secrets(self) -> Vec<u8> {
        let mut shown = Vec::with_capacity(self.bytes.len());
        let mut copied = 0;
        for Secret { at, quote } in self.secrets {
            let quote = &self.bytes[quote];
            shown.extend_from_slice(&self.bytes[copied..at.start]);
            for part in [quote, REDACTED.as_bytes(), quote] {
                shown.extend_from_slice(part);
            }
            copied = at.end;
        }
        shown.extend_from_slice(&self.bytes[copied..]);
        shown
    }

    /// Adds a secret, unless it is empty, and returns its end.
    fn remove(&mut self, at: Range<usize>) -> usize {
        let end = at.end;
        if !at.is_empty() {
            let quote = end..end;
            self.secrets.push(Secret { at, quote });
        }
        end
    }

    /// Reads a word and returns where to go on.
    fn read_word(&mut self, at: Range<usize>) -> usize {
        let word = &self.bytes[at.clone()];
        let is_secret = match std::mem::replace(&mut self.next, Next::Unknown) {
            Next::Secret => true,
            Next::Likely if is_credential(word) => true,
            // As a word without `+`, `/`, `=`.
            Next::Likely => return at.start,
            Next::Unknown => false,
        };
        if self.bytes.get(at.end) == Some(&b' ') {
            self.next = self.next_after(&at);
        }
        if is_secret {
            return self.remove(at);
        }
        if word.ends_with(b"-----BEGIN") {
            return self.read_pem(at.end);
        }
        self.is_form_data |= word == b"form-data";
        let is_cut =
            self.source == Source::Text { is_truncated: true } && at.end == self.bytes.len();
        match key_start(self.bytes, &at, is_cut) {
            Some(start) => self.remove(start..at.end),
            None => at.end,
        }
    }

    /// Returns what a word before a space says of the next one.
    fn next_after(&self, at: &Range<usize>) -> Next {
        let mut word = &self.bytes[at.clone()];
        // The letter of an escape such as `\n` does not belong to the word.
        if at.start.checked_sub(1).map(|before| self.bytes[before]) == Some(b'\\') {
            word = &word[1..];
        }
        if ends_with_scheme(word, SCHEMES) {
            return match self.source {
                Source::Field => Next::Secret,
                Source::Text { .. } => Next::Likely,
            };
        }
        let is_option = word.starts_with(b"--") && is_secret(word);
        if is_option || ends_with_scheme(word, WORD_SCHEMES) {
            return Next::Likely;
        }
        Next::Unknown
    }

    /// Reads a byte between words and returns where to go on.
    fn read_mark(&mut self, at: usize, byte: u8) -> usize {
        if byte != b' ' {
            self.next = Next::Unknown;
        }
        match byte {
            b'{' | b'}' => self.is_pair = false,
            b'\n' => return self.read_line_end(at),
            b':' | b'=' | b',' => return self.read_separator(at, byte),
            _ => {}
        }
        at + 1
    }

    /// Reads what follows a name if it is that of a secret. `at` is the separator.
    fn read_separator(&mut self, at: usize, separator: u8) -> usize {
        let bytes = self.bytes;
        if separator == b':'
            && let Some(user_info) = user_info(bytes, at + 1)
        {
            return self.remove(user_info);
        }
        let Some(name) = Name::before(bytes, at) else {
            return at + 1;
        };
        let text = &bytes[name.at.clone()];
        let is_named = match separator {
            b':' => is_secret(text) || (text == b"value" && std::mem::take(&mut self.is_pair)),
            b'=' => is_secret(text) || (is_plain_key(text) && name.is_of_query(bytes)),
            _ => name.is_quoted() && is_http_name(text) && is_secret(text),
        };
        if !is_named {
            if matches!(text, b"name" | b"key" | b"header")
                && Value::after(bytes, at, &name).is_secret_name(bytes)
            {
                self.is_pair |= separator == b':' && name.is_quoted();
                self.is_secret_part |= separator == b'=' && self.is_form_data;
            }
            return at + 1;
        }
        match (Value::after(bytes, at, &name), separator) {
            // A member, and no element of a list.
            (Value::Text(text), b',') if is_before_colon(bytes, text.end) => at + 1,
            (Value::Text(text), _) => self.remove(text).max(at + 1),
            (Value::Nested(start), b':') => self.read_nested(start, name.quote.len()),
            // A `token` that is a number is one of a model's.
            (Value::Number(at), b':') if !ends_with_token(text) => {
                let end = at.end;
                self.secrets.push(Secret {
                    at,
                    quote: name.quote,
                });
                end
            }
            (Value::Bare(start), b':' | b'=') => {
                let end = bare_value_end(bytes, &name, start, separator);
                self.remove(start..end).max(at + 1)
            }
            _ => at + 1,
        }
    }

    /// Reads an object or array whose strings are secrets, keys of objects apart; their quotes have `quote_len` bytes.
    fn read_nested(&mut self, start: usize, quote_len: usize) -> usize {
        let bytes = self.bytes;
        if is_schema(&bytes[start..]) {
            return start;
        }
        let mut at = start;
        let mut depth = 0_usize;
        loop {
            at += run_len(&bytes[at..], |byte| !b"[]{}\"'".contains(&byte));
            match bytes.get(at) {
                None => return at,
                Some(b'[' | b'{') => depth += 1,
                Some(b']' | b'}') if depth <= 1 => return at + 1,
                Some(b']' | b'}') => depth -= 1,
                Some(&quote) => {
                    let end = string_end(bytes, at + 1, quote, quote_len.saturating_sub(1));
                    if !is_before_colon(bytes, end) {
                        self.remove(at + 1..end);
                    }
                    at = (end + quote_len).min(bytes.len());
                    continue;
                }
            }
            at += 1;
        }
    }

    /// Reads a PEM block (RFC 7468) behind its first `-----BEGIN`; those of private keys are secrets.
    fn read_pem(&mut self, begin: usize) -> usize {
        let line = &self.bytes[begin..self.bytes.len().min(begin + PEM_LABEL_BYTES_MAX)];
        let label_len = run_len(line, |byte| byte.is_ascii_uppercase() || byte == b' ');
        let is_private = line[..label_len]
            .windows(11)
            .any(|part| part == b"PRIVATE KEY");
        let start = begin + label_len + "-----".len();
        if !is_private || !line[label_len..].starts_with(b"-----") {
            return begin;
        }
        let mut end = start;
        loop {
            end += run_len(&self.bytes[end..], |byte| !matches!(byte, b'-' | b'"'));
            match self.bytes.get(end) {
                Some(b'-') if !self.bytes[end..].starts_with(b"-----END") => end += 1,
                _ => return self.remove(start..end),
            }
        }
    }

    /// Reads the end of a line, and behind an empty one the content of a part with the name of a secret.
    fn read_line_end(&mut self, at: usize) -> usize {
        self.is_form_data = false;
        let behind = &self.bytes[at + 1..];
        let empty_line = [&b"\r\n"[..], b"\n"]
            .into_iter()
            .find(|end| behind.starts_with(end));
        let Some(empty_line) = empty_line else {
            return at + 1;
        };
        if !std::mem::take(&mut self.is_secret_part) {
            return at + 1;
        }
        let start = at + 1 + empty_line.len();
        let mut end = start;
        loop {
            end += run_len(&self.bytes[end..], |byte| byte != b'\n');
            if end == self.bytes.len() || self.bytes[end..].starts_with(b"\n--") {
                break;
            }
            end += 1;
        }
        if end < self.bytes.len() && self.bytes[start..end].ends_with(b"\r") {
            end -= 1;
        }
        self.remove(start..end)
    }
}

impl Name {
    /// Returns the name before the separator at `end`: what is in quotes, or a word. Of a longer one its end counts.
    fn before(bytes: &[u8], end: usize) -> Option<Name> {
        let space = run_len_back(&bytes[..end], |byte| byte.is_ascii_whitespace());
        let mut end = end - space;
        // `user[password]=`, `environ["API_KEY"] =`.
        end -= usize::from(bytes[..end].ends_with(b"]"));
        let quote_end = end;
        let of_name: fn(u8) -> bool = match bytes[..end].last() {
            Some(b'"') => |byte| !matches!(byte, b'"' | b'\\' | b'\n'),
            Some(b'\'') => |byte| !matches!(byte, b'\'' | b'\\' | b'\n'),
            _ => is_of_name,
        };
        if bytes[..end].ends_with(b"\"") || bytes[..end].ends_with(b"'") {
            end -= 1;
            end -= run_len_back(&bytes[..end], is_backslash);
        }
        let start = end - run_len_back(&bytes[end.saturating_sub(NAME_BYTES_MAX)..end], of_name);
        let name = Name {
            at: start..end,
            quote: end..quote_end,
            is_apart: space > 0,
        };
        (start < end).then_some(name)
    }

    fn is_quoted(&self) -> bool {
        !self.quote.is_empty()
    }

    /// Whether it is that of a parameter of a URL.
    fn is_of_query(&self, bytes: &[u8]) -> bool {
        bytes[..self.at.start].ends_with(b"?") || bytes[..self.at.start].ends_with(b"&")
    }

    /// Whether nothing but white space and the dash of a list in YAML is before it in its line.
    fn starts_line(&self, bytes: &[u8]) -> bool {
        let before = &bytes[..self.at.start];
        let space = run_len_back(before, |byte| matches!(byte, b' ' | b'\t' | b'-'));
        let before = &before[..before.len() - space];
        let end = before.last();
        before.ends_with(b"\\n") || end.is_none_or(|end| b"\n\"'\\`".contains(end))
    }
}

/// What follows a separator.
#[derive(Debug)]
enum Value {
    /// A string, without its quotes.
    Text(Range<usize>),
    /// An object or array of JSON.
    Nested(usize),
    /// A number of JSON.
    Number(Range<usize>),
    /// A word without quotes.
    Bare(usize),
    None,
}

impl Value {
    /// Returns the value of `name` behind the separator at `at`.
    fn after(bytes: &[u8], at: usize, name: &Name) -> Value {
        let space = run_len(&bytes[at + 1..], |byte| byte.is_ascii_whitespace());
        let start = at + 1 + space;
        let escapes = run_len(&bytes[start..], is_backslash);
        match bytes.get(start + escapes) {
            Some(&quote @ (b'"' | b'\'')) => {
                let start = start + escapes + 1;
                Value::Text(start..string_end(bytes, start, quote, escapes))
            }
            Some(b'[' | b'{') if name.is_quoted() && escapes == 0 => Value::Nested(start),
            Some(b'0'..=b'9' | b'-') if name.is_quoted() && escapes == 0 && bytes[at] == b':' => {
                let len = run_len(&bytes[start..], |byte| {
                    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
                });
                Value::Number(start..start + len)
            }
            Some(_) if name.is_quoted() && bytes[at] == b':' => Value::None,
            Some(_) if !bytes[at + 1..start].contains(&b'\n') => Value::Bare(start),
            _ => Value::None,
        }
    }

    /// Whether it is the name of a secret.
    fn is_secret_name(&self, bytes: &[u8]) -> bool {
        let start = match self {
            Value::Text(at) => at.start,
            Value::Bare(start) => *start,
            _ => return false,
        };
        let end = bytes.len().min(start + NAME_BYTES_MAX);
        is_secret(&bytes[start..start + run_len(&bytes[start..end], is_of_name)])
    }
}

/// Returns where the string ends that starts at `start`, without its closing quote. Of a missing one everything is of the string.
fn string_end(bytes: &[u8], start: usize, quote: u8, escapes: usize) -> usize {
    let is_of_text: fn(u8) -> bool = match quote {
        b'"' => |byte| !matches!(byte, b'"' | b'\\'),
        _ => |byte| !matches!(byte, b'\'' | b'\\' | b'\n'),
    };
    let mut at = start;
    loop {
        at += run_len(&bytes[at..], is_of_text);
        let backslashes = run_len(&bytes[at..], is_backslash);
        at += backslashes;
        match bytes.get(at) {
            // More backslashes than before the first quote either escape this one or, as multiples, each other.
            Some(&byte) if byte == quote => {
                if backslashes
                    .saturating_sub(escapes)
                    .is_multiple_of(2 * (escapes + 1))
                {
                    return at - backslashes.min(escapes);
                }
                at += 1;
            }
            // A string in single quotes ends with its line.
            Some(b'\n') if quote != b'"' => return at,
            Some(_) => at += 1,
            None => return at,
        }
    }
}

/// Whether a string that ends at `end`, before its quote, is the name of a member.
fn is_before_colon(bytes: &[u8], end: usize) -> bool {
    let quote = end + run_len(&bytes[end..], is_backslash);
    let behind = bytes.get(quote + 1..).unwrap_or_default();
    let space = run_len(behind, |byte| byte.is_ascii_whitespace());
    behind.get(space) == Some(&b':')
}

/// Returns where a value without quotes ends; at its start if it is no secret.
fn bare_value_end(bytes: &[u8], name: &Name, start: usize, separator: u8) -> usize {
    let text = &bytes[name.at.clone()];
    if separator == b':' && is_whole_line(text) && name.starts_line(bytes) {
        return start + run_len(&bytes[start..], |byte| !b"\r\n\"'`\\".contains(&byte));
    }
    let mut end = start + run_len(&bytes[start..], is_of_bare_value);
    // Of a list of arguments.
    end -= usize::from(bytes[start..end].ends_with(b","));
    let value = &bytes[start..end];
    // What is shown is read once more, for other secrets in it.
    if value.len() > SHOWN_VALUE_BYTES_MAX {
        return end;
    }
    let behind = bytes.get(end);
    let is_alone = behind.is_none_or(|byte| b"\r\n\"'`\\".contains(byte));
    let is_shown = match separator {
        // A comparison, a variable, a call or a constant.
        b'=' => {
            value.starts_with(b"=")
                || value.starts_with(b"$")
                || matches!(behind, Some(b'(' | b'['))
                || matches!(
                    value,
                    b"None" | b"null" | b"true" | b"false" | b"True" | b"False"
                )
                || (name.is_apart && !is_credential(value))
        }
        // A setting in YAML, but not a sentence.
        _ => !(is_credential(value) || (is_alone && name.starts_line(bytes))),
    };
    if is_shown { start } else { end }
}

/// Returns the user name and password of a URL (RFC 3986 §3.2.1) if `at` is behind the colon of its scheme. JSON may have `\/`
/// for `/`.
fn user_info(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &bytes[at..];
    let slashes = [&b"//"[..], b"\\/\\/", b"\\\\/\\\\/"]
        .into_iter()
        .find(|slashes| rest.starts_with(slashes))?;
    let start = at + slashes.len();
    let end = start
        + run_len(&bytes[start..], |byte| {
            !b" \t\r\n/?#\"'<>`\\".contains(&byte)
        });
    let len = bytes[start..end].iter().rposition(|byte| *byte == b'@')?;
    // As messages of `ic` write it where one is missing.
    (&bytes[start..start + len] != b"user:password").then_some(start..start + len)
}

/// Whether an object describes a value that is passed elsewhere, as the parameters of a tool do (JSON Schema).
fn is_schema(object: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&object[..object.len().min(SCHEMA_BYTES_MAX)]);
    let start: String = start
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "{:$".contains(*c))
        .collect();
    let type_or_text = start.strip_prefix('{').unwrap_or_default();
    let of_schema =
        |starts: &[&str], text: &str| starts.iter().any(|start| text.starts_with(start));
    of_schema(
        &[
            "description:",
            "title:",
            "anyOf:",
            "oneOf:",
            "allOf:",
            "$ref:",
            "enum:",
        ],
        type_or_text,
    ) || type_or_text.strip_prefix("type:").is_some_and(|kind| {
        of_schema(
            &[
                "string", "object", "array", "number", "integer", "boolean", "null",
            ],
            kind,
        )
    })
}

/// Whether a word that may be a credential looks like one: words of a language have no digits, and no capitals in their middle.
fn is_credential(word: &[u8]) -> bool {
    let has_capital = word
        .windows(2)
        .any(|two| two[0].is_ascii_lowercase() && two[1].is_ascii_uppercase());
    let has_sign = word
        .iter()
        .any(|byte| byte.is_ascii_digit() || b"+/=".contains(byte));
    word.len() >= CREDENTIAL_BYTES_MIN && (has_capital || has_sign || word.len() >= WORD_BYTES_MAX)
}

fn ends_with_token(name: &[u8]) -> bool {
    name.to_ascii_lowercase().ends_with(b"token")
}

/// Returns how many bytes at the start of `bytes` are `of_run`.
fn run_len(bytes: &[u8], of_run: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !of_run(*byte));
    let len = end.unwrap_or(bytes.len());
    #[cfg(test)]
    tests::count_steps(len + 1);
    len
}

/// Returns how many bytes at the end of `bytes` are `of_run`.
fn run_len_back(bytes: &[u8], of_run: impl Fn(u8) -> bool) -> usize {
    let before = bytes.iter().rposition(|byte| !of_run(*byte));
    let len = before.map_or(bytes.len(), |before| bytes.len() - before - 1);
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
        is_word_start(bytes, *start) && starts_key(&bytes[*start..word.end], is_truncated)
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

fn is_backslash(byte: u8) -> bool {
    byte == b'\\'
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn is_of_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn is_of_name(byte: u8) -> bool {
    is_of_key(byte) || byte == b'%'
}

fn is_of_bare_value(byte: u8) -> bool {
    byte > b' ' && !b"&;\"'`\\<>()[]{}".contains(&byte)
}

/// Shorter words are no keys.
const KEY_BYTES_MIN: usize = 16;

/// Shorter words are no credentials.
const CREDENTIAL_BYTES_MIN: usize = 8;

/// Longer than the words of a language.
const WORD_BYTES_MAX: usize = 24;

/// Longer than an expression or a word of a sentence.
const SHOWN_VALUE_BYTES_MAX: usize = 256;

/// Longer than the label of any private key and its dashes.
const PEM_LABEL_BYTES_MAX: usize = 48;

/// Room for the first member of a schema, with white space.
const SCHEMA_BYTES_MAX: usize = 48;

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
    fn secrets_are_removed_by_their_names_from_every_structured_form() {
        let check = |why: &str, given: &str, expected: &str| assert_eq!(text(given, false), expected, "{why}");
        // JSON (RFC 8259).
        check("a member", r#"{"password":"hunter2","user":"me"}"#, r#"{"password":"…","user":"me"}"#);
        check("camel case", r#"{"apiKey":"a"}"#, r#"{"apiKey":"…"}"#);
        check("snake case", r#"{"api_key":"a"}"#, r#"{"api_key":"…"}"#);
        check("upper case", r#"{"OPENAI_API_KEY":"a"}"#, r#"{"OPENAI_API_KEY":"…"}"#);
        check("a space", r#"{"API key":"a"}"#, r#"{"API key":"…"}"#);
        check("the name of a field", r#"{"x-api-key":"a"}"#, r#"{"x-api-key":"…"}"#);
        check("authorization", r#"{"authorization":"Bearer a"}"#, r#"{"authorization":"…"}"#);
        check("of an MCP server", r#"{"authorization_token":"a"}"#, r#"{"authorization_token":"…"}"#);
        check("a path as a name", r#"{"headers.Authorization":"a"}"#, r#"{"headers.Authorization":"…"}"#);
        check("in a nested object", r#"{"headers":{"Authorization":"a","Accept":"b"}}"#, r#"{"headers":{"Authorization":"…","Accept":"b"}}"#);
        check("client_secret", r#"{"client_secret":"a"}"#, r#"{"client_secret":"…"}"#);
        check("secret, token", r#"{"secret":"a","token":"b"}"#, r#"{"secret":"…","token":"…"}"#);
        check("kinds of tokens", r#"{"access_token":"a","refreshToken":"b","id_token":"c"}"#, r#"{"access_token":"…","refreshToken":"…","id_token":"…"}"#);
        check("several tokens", r#"{"access_tokens":["a","b"]}"#, r#"{"access_tokens":["…","…"]}"#);
        check("kinds of keys", r#"{"privateKey":"a","aws_secret_access_key":"b","signing_key":"c","AccountKey":"d"}"#, r#"{"privateKey":"…","aws_secret_access_key":"…","signing_key":"…","AccountKey":"…"}"#);
        check("kinds of passwords", r#"{"passwd":"a","db_pwd":"b","passphrase":"c","pass":"d","otp":"e"}"#, r#"{"passwd":"…","db_pwd":"…","passphrase":"…","pass":"…","otp":"…"}"#);
        check("credentials, cookies, a web token", r#"{"credentials":"a","cookie":"b","jwt":"c","auth":"d","bearer":"e"}"#, r#"{"credentials":"…","cookie":"…","jwt":"…","auth":"…","bearer":"…"}"#);
        check("an array", r#"{"secret":["a","b"],"c":"d"}"#, r#"{"secret":["…","…"],"c":"d"}"#);
        check("an object", r#"{"credentials":{"user":"a","b":{"c":"]"}},"d":"e"}"#, r#"{"credentials":{"user":"…","b":{"c":"…"}},"d":"e"}"#);
        check("an array without an end", r#"{"secret":["a","b"#, r#"{"secret":["…","…"#);
        check("a number", r#"{"password":1234,"pin":1}"#, r#"{"password":"…","pin":1}"#);
        check("no value", r#"{"token":null,"secret":true,"password":""}"#, r#"{"token":null,"secret":true,"password":""}"#);
        check("white space", "{\"token\" :\n \"a b\" }", "{\"token\" :\n \"…\" }");
        check("escapes in a value", r#"{"token":"a\"b\\","c":"d"}"#, r#"{"token":"…","c":"d"}"#);
        check("JSON in a string", r#""{\"token\": \"a\\\"b\\\\\", \"c\":\"d\"}""#, r#""{\"token\": \"…\", \"c\":\"d\"}""#);
        check("JSON in a string in a string", r#""{\\\"password\\\":\\\"a\\\"}""#, r#""{\\\"password\\\":\\\"…\\\"}""#);
        check("an object in a string", r#""{\"secret\":{\"a\":\"b\"},\"c\":1}""#, r#""{\"secret\":{\"a\":\"…\"},\"c\":1}""#);
        check("a number in a string", r#""{\"password\":12}""#, r#""{\"password\":\"…\"}""#);
        check("a string without an end", r#"{"token":"a b"#, r#"{"token":"…"#);
        check("a name without a value", r#"{"token"  "#, r#"{"token"  "#);
        check("nothing after the colon", r#"{"token":"#, r#"{"token":"#);
        check("name and value of a HAR", r#"{"name":"Authorization","value":"a"},{"name":"b","value":"c"}"#, r#"{"name":"Authorization","value":"…"},{"name":"b","value":"c"}"#);
        check("a field as a pair", r#"[["Cookie","a=b"],["Accept","c"]]"#, r#"[["Cookie","…"],["Accept","c"]]"#);
        check("arguments of a program", r#"["-y","--api-key","a","--port","1"]"#, r#"["-y","--api-key","…","--port","1"]"#);
        check("in the data of an event", "data: {\"password\":\"a\"}\n\n", "data: {\"password\":\"…\"}\n\n");
        check("a dictionary of Python", "{'password': 'a', 'b': 'c'}", "{'password': '…', 'b': 'c'}");
        for kept in [
            r#"{"author":"a","authority":"b","authenticated":"c"}"#,
            r#"{"key":"b","cache_key":"c","public_key":"d","keyboard":"e","monkey":"f"}"#,
            r#"{"max_tokens":"c","prompt_tokens":1,"token_count":2,"tokenizer":"e","token_type":"bearer"}"#,
            r#"{"token":15339,"logprob":-0.5}"#,
            r#"{"pwd":"/home/me","OLDPWD":"/","bypass":"a","compass":"b","passage":"c"}"#,
            r#"{"session_id":"a","signature":"b","secretary":1}"#,
            r#"{"role":"user","content":"What is a password, a token or an API key?"}"#,
            r#"["token","a"]"#,
            r#"{"required":["api_key","model"]}"#,
            r#"{"properties":{"password":{"type":"string","description":"a"},"token":{"description":"b","type":"string"}}}"#,
            r#"{"name":"get_token","parameters":{"type":"object","value":"a"}}"#,
        ] {
            check("no secret in JSON", kept, kept);
        }
        // Forms, queries, variables and settings.
        check("a form", "grant_type=a&client_secret=b%26c&scope=d", "grant_type=a&client_secret=…&scope=d");
        check("a password grant", "username=me&password=a.b!c", "username=me&password=…");
        check("a nested name", "user[password]=a&user%5Btoken%5D=b&c=d", "user[password]=…&user%5Btoken%5D=…&c=d");
        check("an assertion", "client_assertion=eyJhbGciOiJIUzI1NiJ9.e30.x&a", "client_assertion=…&a");
        check("a query in a text", r#"{"url":"https://a/b?key=c&alt=sse"}"#, r#"{"url":"https://a/b?key=…&alt=sse"}"#);
        check("a signed URL", "https://a/b?X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Signature=e", "https://a/b?X-Amz-Credential=…&X-Amz-Date=d&X-Amz-Signature=…");
        check("a shared access signature", "https://a/b?sv=1&sig=c%3D", "https://a/b?sv=1&sig=…");
        check("a variable", "export OPENAI_API_KEY=abc\nA=b", "export OPENAI_API_KEY=…\nA=b");
        check("in quotes", r#"DB_PASSWORD="a b" C='d'"#, r#"DB_PASSWORD="…" C='d'"#);
        check("in a string of JSON", r#""A=b\nSECRET_KEY=c\nD=e""#, r#""A=b\nSECRET_KEY=…\nD=e""#);
        check("a file of AWS", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = …");
        check("TOML", "api_key = \"abc\"\nmodel = \"m\"", "api_key = \"…\"\nmodel = \"m\"");
        check("YAML", "user: me\npassword: hunter2\nhost: a", "user: me\npassword: …\nhost: a");
        check("a list in YAML", "  - token: abc\n", "  - token: …\n");
        check("YAML in JSON", r#""a: b\n  password: hunter2\nc: d""#, r#""a: b\n  password: …\nc: d""#);
        check("a connection string", "Server=a;User=b;Password=c;D=e", "Server=a;User=b;Password=…;D=e");
        check("an index", "environ[\"API_KEY\"] = \"abc\"", "environ[\"API_KEY\"] = \"…\"");
        check("a field in a text", "Authorization: Bearer abc\r\nAccept: d", "Authorization: …\r\nAccept: d");
        check("a cookie in a text", "Cookie: a=b; c=d\nAccept: e", "Cookie: …\nAccept: e");
        check("curl", r#"curl -H "x-api-key: 0123abcd" -H 'Authorization: Basic a' b"#, r#"curl -H "x-api-key: …" -H 'Authorization: …' b"#);
        check("an option", "tool --api-key 0123abcd --token=a b", "tool --api-key … --token=… b");
        for kept in [
            "max_tokens=5&sort_key=a&author=b&key",
            "if token == other: pass",
            "token = next_token()",
            "api_key=os.getenv('A')",
            "password=None, secret=false",
            "OPENAI_API_KEY=$OTHER",
            "PWD=/home/me",
            "sorted(a, key=b)",
            "Your password: it must be long.",
            "# Authorization: how it works",
            "What is a token: a word, or a part of one?",
            "See --token for more",
            "a: b, c = d",
        ] {
            check("no secret in a text", kept, kept);
        }
        // Multipart (RFC 7578).
        let part = |name: &str, value: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        check("a part", &[part("api_key", "a\r\nb"), part("c", "d"), "--x--".into()].concat(), &[part("api_key", "…"), part("c", "d"), "--x--".into()].concat());
        check("a part without an end", part("password", "a\nb").trim_end(), part("password", "…").trim_end());
        check("a part with another name", &part("file", "a: b"), &part("file", "a: b"));
        check("no part", "<input name=\"password\">\n\na", "<input name=\"password\">\n\na");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn secrets_are_removed_by_what_is_in_front_of_them() {
        let check = |why: &str, given: &str, expected: &str| assert_eq!(text(given, false), expected, "{why}");
        check("a password in a URL", "see https://me:pw@a.example/b", "see https://…@a.example/b");
        check("a token in a URL", "git clone https://abc@a.example/b", "git clone https://…@a.example/b");
        check("a database", r#"{"url":"postgres://me:p@ss@a:5432/b"}"#, r#"{"url":"postgres://…@a:5432/b"}"#);
        check("with escapes", r#""https:\/\/me:pw@a\/b""#, r#""https:\/\/…@a\/b""#);
        check("bearer", "send Bearer 0123abcdef to it", "send Bearer … to it");
        check("basic", "Basic dXNlcjpwYXNz", "Basic …");
        check("token", "Token 0123abcdef", "Token …");
        check("negotiate", "Negotiate YIIabc+/=", "Negotiate …");
        check("behind an escaped line end", r#""a\nbearer 0123abcdef""#, r#""a\nbearer …""#);
        let key = |kind: &str, content: &str| format!("-----BEGIN {kind}-----{content}-----END {kind}-----");
        check("a private key", &key("PRIVATE KEY", "\nMIIE\n"), &key("PRIVATE KEY", "…"));
        check("a key of RSA", &key("RSA PRIVATE KEY", "\nMIIE\nab-c\n"), &key("RSA PRIVATE KEY", "…"));
        check("a key of OpenSSH in JSON", &key("OPENSSH PRIVATE KEY", r"\nb3Bl\n"), &key("OPENSSH PRIVATE KEY", "…"));
        check("a key of PGP", &key("PGP PRIVATE KEY BLOCK", "\nab\n"), &key("PGP PRIVATE KEY BLOCK", "…"));
        check("a key without an end", "-----BEGIN EC PRIVATE KEY-----\nMII", "-----BEGIN EC PRIVATE KEY-----…");
        check("a key that its string ends", r#"["-----BEGIN PRIVATE KEY-----\nMII","a"]"#, r#"["-----BEGIN PRIVATE KEY-----…","a"]"#);
        for kept in [
            key("CERTIFICATE", "\nMIIE\n").as_str(),
            key("PUBLIC KEY", "\nMIIE\n").as_str(),
            "-----BEGIN", "-----BEGIN PRIVATE KEY", "-----BEGIN RSA PRIVATE KEY--",
            "https://a.example/b@c", "https://a.example?b@c", "me@a.example", "http://user:password@host:port",
            "the bearer of this ring", "Basic authentication", "basic responsibilities", "Token ring", "a token bucket", "Digest of mails",
            "pa-rt-of-something-long", "fw_update_something", "npm_config_registry", "sess-management-foo", "dapi_something_long", "ek_something_else_x",
        ] {
            check("no secret", kept, kept);
        }
    }

    #[test]
    fn every_prefix_is_found() {
        for prefix in names::KEY_PREFIXES.iter().chain(names::WORD_PREFIXES) {
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
            ("/a?abcdefghijklmnop", "/a?…"),
            ("/a?12345678&include&b", "/a?…&include&b"),
            ("/a;jsessionid=b/c", "/a;jsessionid=…"),
            ("http://me:pw@a/b", "http://…@a/b"),
            ("/a/sk-0123456789abcdef/b?c=d?e=f", "/a/…/b?c=…"),
            ("*", "*"),
        ] {
            assert_eq!(path(given), expected);
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_setting_is_shown_without_what_is_secret_in_a_url() {
        for (given, expected) in [
            ("http://localhost:8764", "http://localhost:8764"),
            ("http://me:pw@a:1/b", "http://…@a:1/b"),
            ("http://me:p/w?@#d@a:1", "http://…@a:1"),
            ("me:pw@a:1", "…@a:1"),
            ("https://a/v1?key=b", "https://a/v1?key=…"),
            ("https://a/sk-0123456789abcdef/v1", "https://a/…/v1"),
            ("sk-0123456789abcdef", "…"),
            ("/home/me:a@work/ports.json", "/home/me:a@work/ports.json"),
            ("unix:/run/a@b.sock", "unix:/run/a@b.sock"),
            ("{project}@{branch}", "{project}@{branch}"),
            ("70000", "70000"),
            ("", ""),
        ] {
            assert_eq!(setting(given), expected);
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
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
        for name in [
            "X-Hub-Signature", "X-Slack-Signature", "Signature", "X-Amzn-Jwt", "X-User-Pwd", "X-Passphrase", "X-Db-Session", "X-Session-Token",
            "Ocp-Apim-Subscription-Key", "Sec-WebSocket-Key", "WWW-Authenticate", "Authentication-Info", "api_key", "X-Access-Tokens",
        ] {
            check(name, b"x", REDACTED);
        }
        for name in ["Author", "Mcp-Session-Id", "X-Request-Id", "X-Token-Count", "OpenAI-Organization", "Keep", "Authors", "Signature-Input"] {
            check(name, b"x", "x");
        }
        check("Location", b"https://me:pw@a/b?c=d", "https://…@a/b?c=…");
        check("Location", b"/b?0123456789abcdef", "/b?…");
        check("x-note", b"Token 0123abcdef", "Token …");
        check("x-note", b"Negotiate YIIabc+/=", "Negotiate …");
        check("x-note", b"Token ring", "Token ring");
        check("x-note", br#"{"password":"a"}"#, r#"{"password":"…"}"#);
        let protocols = |value: &str, expected: &str| check("Sec-WebSocket-Protocol", value.as_bytes(), expected);
        protocols("realtime, openai-insecure-api-key.abc.d, openai-beta.realtime-v1", "realtime, openai-insecure-api-key.…, openai-beta.realtime-v1");
        protocols("base64url.bearer.authorization.k8s.io.abc", "base64url.bearer.…");
        protocols("access_token, abc,b", "access_token, …, b");
        protocols("ek_0123456789abcdef", "…");
        protocols("graphql-ws", "graphql-ws");
        protocols("", "");
        check("x-note", b"use sk-0123456789abcdef", "use …");
        check("x-name", b"caf\xe9", "caf\u{fffd}");
    }

    #[test]
    fn the_time_is_linear_in_the_length() {
        let steps = |piece: &str, len: usize| {
            let value = piece.repeat(len / piece.len()) + "(";
            STEPS.set(0);
            field("location", value.as_bytes());
            field("x-note", value.as_bytes());
            field("sec-websocket-protocol", value.as_bytes());
            setting(&value);
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
            "pa-",
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
            "\"token\":[",
            "\"token\":{\"a\":",
            "\"token\":1 ",
            "\"token\",",
            "\"name\":\"token",
            "token=",
            "token = ",
            "token=$",
            "token==",
            "name=token=",
            "\"name\":",
            "\"name\":\\\"",
            "token:",
            "token: ",
            "a=b:",
            "]=",
            ":://",
            "://a@",
            "://:",
            "-----BEGIN",
            "-----BEGIN PRIVATE KEY-----",
            "form-data; name=token\n\n",
            "form-data; name=token\n",
            "\n",
            "token. ",
            "token, ",
            "--token ",
            "token a=b ",
        ] {
            let (short, long) = (steps(piece, 1_000), steps(piece, 10_000));
            assert!(
                long <= 11 * short && long <= 40 * 10_000,
                "{piece:?}: {short}, {long}"
            );
        }
    }
}
