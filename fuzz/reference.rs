//! The reference: a strict, simple and slow parser for the grammar of RFC 9110 and RFC 9112. The program must agree with it
//! on complete inputs.

use interceptor::http::Sender;
use interceptor::http::framing::Framing;

/// A field line: name and value.
pub type Line = (String, Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The parts of the first line.
    pub line: Vec<String>,
    pub fields: Vec<Line>,
    pub len: usize,
}

pub enum Verdict {
    Taken(Head),
    Refused,
    /// Incomplete: valid so far, or already invalid.
    Unended,
}

/// `request-line CRLF *( field-line CRLF ) CRLF`, one empty line before it allowed.
pub fn request(input: &[u8]) -> Verdict {
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    head(input, skipped, Sender::Client, |line| {
        let parts: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
        let [method, target, version] = parts[..] else {
            return None;
        };
        let is_right = is_token(method.as_bytes())
            && !target.is_empty()
            && target.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        is_right.then_some(vec![
            method.to_owned(),
            target.to_owned(),
            version_of(version)?,
        ])
    })
}

/// `status-line CRLF *( field-line CRLF ) CRLF`; the space before an empty reason may be missing.
pub fn response(input: &[u8]) -> Verdict {
    head(input, 0, Sender::Target, |line| {
        let version = version_of(std::str::from_utf8(line.get(..8)?).ok()?)?;
        let status_and_reason = line.get(8..)?.strip_prefix(b" ")?;
        let (status, reason) = status_and_reason.split_at_checked(3)?;
        let is_right = (reason.is_empty() || reason[0] == b' ')
            && reason.iter().all(|&byte| is_value_byte(byte))
            && status.iter().all(u8::is_ascii_digit)
            && status[0] != b'0';
        let status_text = String::from_utf8(status.to_vec()).ok()?;
        let line_text = status_and_reason.escape_ascii().to_string();
        is_right.then_some(vec![version, status_text, line_text])
    })
}

fn head(
    input: &[u8],
    skipped: usize,
    sender: Sender,
    first_line: impl Fn(&[u8]) -> Option<Vec<String>>,
) -> Verdict {
    let Some(end) = find(&input[skipped..], b"\r\n\r\n") else {
        return Verdict::Unended;
    };
    let len = skipped + end + 4;
    let mut lines = split_lines(&input[skipped..skipped + end]).into_iter();
    let line = lines.next().and_then(first_line);
    let fields: Option<Vec<Line>> = lines.map(|line| field_line(line, sender)).collect();
    match (line, fields) {
        (Some(line), Some(fields)) if fields.len() <= 128 && len <= 65536 => {
            Verdict::Taken(Head { line, fields, len })
        }
        _ => Verdict::Refused,
    }
}

/// `field-name ":" OWS field-value OWS`. White space before the colon of a response is removed.
fn field_line(line: &[u8], sender: Sender) -> Option<Line> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (mut name, value) = (&line[..colon], &line[colon + 1..]);
    while let (Sender::Target, Some(rest)) = (sender, trim_one(name)) {
        name = rest;
    }
    let is_right = is_token(name) && value.iter().all(|&byte| is_value_byte(byte));
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !is_space(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !is_space(byte))
        .map_or(start, |last| last + 1);
    let name = String::from_utf8(name.to_vec()).ok()?;
    is_right.then(|| (name, value[start..end].to_vec()))
}

fn version_of(text: &str) -> Option<String> {
    match text {
        "HTTP/1.1" => Some("Http11".to_owned()),
        "HTTP/1.0" => Some("Http10".to_owned()),
        _ => None,
    }
}

/// The framing by `fields`: `None` if invalid, `Some(None)` without framing fields.
pub fn announced(fields: &[Line], may_be_chunked: bool) -> Option<Option<Framing>> {
    let all = lowercased(fields);
    let named = |wanted: &str| -> Vec<&Vec<u8>> {
        let found = all
            .iter()
            .filter(|(name, _)| name.replace('_', "-") == wanted);
        found.map(|(_, value)| value).collect()
    };
    let disguised = all.iter().any(|(name, _)| {
        ["content-length", "transfer-encoding"].contains(&&name.replace('_', "-")[..])
            && name.contains('_')
    });
    if disguised {
        return None;
    }
    match (
        &named("content-length")[..],
        &named("transfer-encoding")[..],
    ) {
        ([], []) => Some(None),
        ([], [coding]) => {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            (is_chunked && may_be_chunked).then_some(Some(Framing::Chunked))
        }
        ([length], []) => {
            let is_digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let length: i64 = std::str::from_utf8(length).ok()?.parse().ok()?;
            is_digits.then_some(Some(match length {
                0 => Framing::Empty,
                length => Framing::Length(length.unsigned_abs()),
            }))
        }
        _ => None,
    }
}

pub enum Chunks {
    /// The number of bytes up to the end or to a non-empty trailer section, and the data among them.
    Taken((usize, Vec<u8>)),
    Refused,
    Unended,
}

/// `*chunk last-chunk`, and the empty line if there is no trailer section. A request has no white space in its size lines.
pub fn chunked(input: &[u8], sender: Sender) -> Chunks {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let Some(line_end) = find(rest, b"\r\n") else {
            return Chunks::Unended;
        };
        let line = &rest[..line_end];
        let Some(size) = chunk_size(line).filter(|_| sender == Sender::Target || !has_blank(line))
        else {
            return Chunks::Refused;
        };
        at += line_end + 2;
        let rest = &input[at..];
        if size == 0 {
            return match rest {
                [] | [b'\r'] => Chunks::Unended,
                [b'\r', b'\n', ..] => Chunks::Taken((at + 2, data)),
                [b'\r', ..] => Chunks::Refused,
                _ => Chunks::Taken((at, data)),
            };
        }
        let Some(behind) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else {
            return Chunks::Unended;
        };
        data.extend_from_slice(&rest[..rest.len() - behind.len()]);
        match behind {
            [] | [b'\r'] => return Chunks::Unended,
            [b'\r', b'\n', ..] => at += rest.len() - behind.len() + 2,
            _ => return Chunks::Refused,
        }
    }
}

/// Whether there is white space outside of quotes.
fn has_blank(line: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(bytes.next()),
            b' ' | b'\t' if !is_quoted => return true,
            _ => {}
        }
    }
    false
}

/// `chunk-size [ chunk-ext ]`
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, mut rest) = line.split_at(digits);
    // `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
    while !trim_start(rest).is_empty() {
        rest = trim_start(trim_start(rest).strip_prefix(b";")?);
        rest = skip_token(rest)?;
        if let Some(value) = trim_start(rest).strip_prefix(b"=") {
            let value = trim_start(value);
            rest = match value.strip_prefix(b"\"") {
                Some(quoted) => skip_quoted(quoted)?,
                None => skip_token(value)?,
            };
        }
    }
    if !(1..=16).contains(&digits) {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    (size < 1 << 63).then_some(size)
}

fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let len = text.iter().take_while(|&&byte| is_token(&[byte])).count();
    (len > 0).then(|| &text[len..])
}

/// Returns the text after the closing quote.
fn skip_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', byte, rest @ ..] if is_value_byte(*byte) => rest,
            [b'\\', ..] => return None,
            [byte, rest @ ..] if is_value_byte(*byte) => rest,
            _ => return None,
        }
    }
}

/// A section of field lines: a trailer section.
pub enum Section {
    /// The lines, and their length including the empty line.
    Taken(Vec<Line>, usize),
    Refused,
    Unended,
}

/// `*( field-line CRLF ) CRLF`
pub fn section(input: &[u8], sender: Sender) -> Section {
    if input.starts_with(b"\r\n") {
        return Section::Taken(Vec::new(), 2);
    }
    let Some(end) = find(input, b"\r\n\r\n") else {
        return Section::Unended;
    };
    let lines = split_lines(&input[..end])
        .into_iter()
        .map(|line| field_line(line, sender));
    match lines.collect::<Option<Vec<Line>>>() {
        Some(lines) => Section::Taken(lines, end + 4),
        None => Section::Refused,
    }
}

/// Whether a trailer field with this lower-case name would affect framing, content, routing or authorisation.
pub fn stays_out_of_trailers(name: &str) -> bool {
    [
        "content-length transfer-encoding trailer connection keep-alive proxy-connection te upgrade http2-settings",
        "content-encoding content-range content-type expect range host origin via max-forwards forwarded",
        "x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip authorization proxy-authorization cookie",
        "set-cookie x-api-key api-key",
    ]
    .iter()
    .any(|names| names.split(' ').any(|forbidden| forbidden == name))
}

/// The lower-case names that `Connection` lists.
pub fn named(fields: &[Line]) -> Vec<String> {
    let fields = lowercased(fields);
    let values = fields.iter().filter(|(name, _)| name == "connection");
    let texts = values.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase());
    texts
        .flat_map(|text| {
            let options = text.split(',');
            let trimmed = options.map(|option| option.trim_matches([' ', '\t']).to_owned());
            trimmed.collect::<Vec<_>>()
        })
        .collect()
}

/// The fields that a hop forwards: all but hop-by-hop fields and those that `Connection` lists.
pub fn end_to_end(fields: &[Line]) -> Vec<Line> {
    let mut passing = forwarded(fields, false);
    passing.retain(|(name, _)| name != "te");
    passing
}

/// The same, with `TE: trailers` and the protocols that a request upgrades to in their places.
pub fn forwarded(fields: &[Line], upgrades: bool) -> Vec<Line> {
    let mut named = named(fields);
    let kept = ["host", "content-length", "transfer-encoding"];
    named.retain(|name| !kept.contains(&&name[..]));
    let known = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
    ];
    let pass = |(name, value): Line| {
        let value = match &name[..] {
            "te" => elements(value, |coding| coding.eq_ignore_ascii_case("trailers"))?,
            "upgrade" if upgrades => elements(value, is_protocol)?,
            _ if named.contains(&name) || known.contains(&&name[..]) => return None,
            _ => value,
        };
        Some((name, value))
    };
    lowercased(fields).into_iter().filter_map(pass).collect()
}

/// The elements of a list that pass, if any: `value` as it is if all do.
fn elements(value: Vec<u8>, passes: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(&value).into_owned();
    let trimmed = text
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']));
    let all: Vec<&str> = trimmed.filter(|element| !element.is_empty()).collect();
    let kept: Vec<&str> = all
        .iter()
        .copied()
        .filter(|element| passes(element))
        .collect();
    match kept.len() {
        0 => None,
        len if len == all.len() => Some(value),
        _ => Some(kept.join(", ").into_bytes()),
    }
}

/// `token [ "/" token ]`, and none of the protocols that this hop cannot forward.
fn is_protocol(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let unknown = ["h2", "h2c", "tls", "http"];
    parts.len() <= 2
        && parts.iter().all(|part| is_token(part.as_bytes()))
        && !unknown.contains(&&parts[0].to_ascii_lowercase()[..])
}

/// The same fields, with names in lower case.
pub fn lowercased(fields: &[Line]) -> Vec<Line> {
    fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}

/// The variable in which a program can find field `name`, without `HTTP_` (RFC 3875 §4.1.18; PHP and lighttpd write `_` for every
/// character that is neither a letter nor a digit).
pub fn variable(name: &str) -> String {
    let letters = name.to_ascii_uppercase();
    letters.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn split_lines(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        lines.push(&bytes[..end]);
        bytes = &bytes[end + 2..];
    }
    lines.push(bytes);
    lines
}

fn trim_one(text: &[u8]) -> Option<&[u8]> {
    text.strip_suffix(b" ").or_else(|| text.strip_suffix(b"\t"))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let spaces = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &text[spaces..]
}

fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

/// `HTAB / SP / VCHAR / obs-text`
fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}
