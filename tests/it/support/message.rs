//! A strict parser of HTTP/1.1 messages, to check what peers receive.
//!
//! It shares no code with the program, so that both cannot have the same error. It accepts only what RFC 9112 allows a
//! sender to generate. Bytes are displayed as Latin-1 text, one `char` per byte, without loss.

/// Each byte as the character of the same number.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Fields in their order, with names as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The values of all lines with this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(each, _): &&(String, String)| each.eq_ignore_ascii_case(name);
        self.0
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of the only line with this name; fails the test if there are several.
    #[track_caller]
    pub fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "`{name}` must occur at most once: {self:?}");
        all.first().copied()
    }

    /// Whether there is a line with this name.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The members of a list-valued field over all its lines, trimmed and in lower case.
    pub fn list(&self, name: &str) -> Vec<String> {
        let members = self
            .all(name)
            .into_iter()
            .flat_map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>());
        members
            .map(|member| member.trim().to_ascii_lowercase())
            .filter(|member| !member.is_empty())
            .collect()
    }

    /// The lines whose names are not among `names`, as (name, value).
    pub fn without(&self, names: &[&str]) -> Vec<(&str, &str)> {
        let kept = |(name, _): &&(String, String)| {
            !names.iter().any(|each| each.eq_ignore_ascii_case(name))
        };
        self.0
            .iter()
            .filter(kept)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

/// The three words of a start line and the fields under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Method, target, version; or version, status, reason.
    pub start: [String; 3],
    pub fields: Fields,
    /// The bytes of the head, including the empty line.
    pub raw: Vec<u8>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

/// A complete response, with the interim ones before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub interim: Vec<Head>,
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Fields,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl Response {
    /// The body as Latin-1 text.
    pub fn text(&self) -> String {
        latin1(&self.body)
    }
}

/// Parses one head; `bytes` ends with the empty line.
pub fn read_request_head(bytes: &[u8]) -> Result<Head, String> {
    let (line, fields) = split_head(bytes)?;
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(format!(
            "a request line has three words and two spaces: {:?}",
            latin1(line)
        ));
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(format!("a method is a token: {:?}", latin1(method)));
    }
    if target.is_empty() || target.iter().any(|&byte| byte < b'!' || byte == 0x7f) {
        return Err(format!(
            "a target has no control characters: {:?}",
            latin1(target)
        ));
    }
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err(format!(
            "a version is HTTP/1.1 or HTTP/1.0: {:?}",
            latin1(version)
        ));
    }
    Ok(Head {
        start: [latin1(method), latin1(target), latin1(version)],
        fields,
        raw: bytes.to_vec(),
    })
}

/// Parses one head; `bytes` ends with the empty line.
pub fn read_response_head(bytes: &[u8]) -> Result<Head, String> {
    let (line, fields) = split_head(bytes)?;
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (Some(version), Some(status), Some(reason)) = (words.next(), words.next(), words.next())
    else {
        return Err(format!(
            "a status line has a version, a status and a reason: {:?}",
            latin1(line)
        ));
    };
    if version != b"HTTP/1.1" {
        return Err(format!(
            "a proxy answers with its own version, HTTP/1.1: {:?}",
            latin1(version)
        ));
    }
    if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) || status[0] == b'0' {
        return Err(format!("a status has three digits: {:?}", latin1(status)));
    }
    if let Some(odd) = reason.iter().find(|&&byte| !is_text(byte)) {
        return Err(format!("byte {odd:#04x} in a reason: {:?}", latin1(reason)));
    }
    Ok(Head {
        start: [latin1(version), latin1(status), latin1(reason)],
        fields,
        raw: bytes.to_vec(),
    })
}

/// Parses the field lines after a last chunk, including the empty line.
pub fn read_trailers(bytes: &[u8]) -> Result<Fields, String> {
    let mut fields = Fields::default();
    for line in split_lines(bytes)? {
        fields.0.push(read_field(line)?);
    }
    Ok(fields)
}

/// The framing of a request body: RFC 9112 §6.3, refusing everything ambiguous.
pub fn request_framing(head: &Head) -> Result<Framing, String> {
    let coded = head.fields.all("transfer-encoding");
    let sized = head.fields.all("content-length");
    match (&coded[..], &sized[..]) {
        ([], []) => Ok(Framing::Empty),
        ([], [length]) => read_length(length),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") && head.start[2] == "HTTP/1.1" => {
            Ok(Framing::Chunked)
        }
        _ => Err(format!("an ambiguous framing: {:?}", head.fields)),
    }
}

/// The framing of the body of a response to `method`: RFC 9112 §6.3, refusing everything ambiguous.
pub fn response_framing(head: &Head, method: &str) -> Result<Framing, String> {
    let coded = head.fields.all("transfer-encoding");
    let sized = head.fields.all("content-length");
    let framing = match (&coded[..], &sized[..]) {
        ([], []) => Framing::UntilClose,
        ([], [length]) => read_length(length)?,
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        _ => return Err(format!("an ambiguous framing: {:?}", head.fields)),
    };
    let status = head.start[1].as_str();
    let bodiless =
        method == "HEAD" || status.starts_with('1') || status == "204" || status == "304";
    Ok(if bodiless { Framing::Empty } else { framing })
}

/// The size in the first line of a chunk (without CRLF); an extension is skipped.
pub fn read_chunk_size(line: &[u8]) -> Result<u64, String> {
    let end = line
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    let hexadecimal =
        !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    if !hexadecimal || !extension.iter().all(|&byte| is_text(byte)) {
        return Err(format!(
            "a chunk line is a hexadecimal size and perhaps an extension: {:?}",
            latin1(line)
        ));
    }
    u64::from_str_radix(&latin1(digits), 16).map_err(|error| error.to_string())
}

fn split_head(bytes: &[u8]) -> Result<(&[u8], Fields), String> {
    let lines = split_lines(bytes)?;
    let (line, rest) = lines.split_first().ok_or("a head has a first line")?;
    let mut fields = Fields::default();
    for line in rest {
        fields.0.push(read_field(line)?);
    }
    Ok((line, fields))
}

/// Splits lines that end with CRLF, the last of them empty; refuses any other CR, LF and NUL.
fn split_lines(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let Some(end) = rest
            .iter()
            .position(|&byte| matches!(byte, b'\r' | b'\n' | 0))
        else {
            return Err(format!("a line without its end: {:?}", latin1(rest)));
        };
        if !rest[end..].starts_with(b"\r\n") {
            return Err(format!("a bare CR, a bare LF or a NUL: {:?}", latin1(rest)));
        }
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    if rest.is_empty() {
        Ok(lines)
    } else {
        Err(format!("bytes after the empty line: {:?}", latin1(rest)))
    }
}

fn read_field(line: &[u8]) -> Result<(String, String), String> {
    let colon = line
        .iter()
        .position(|&byte| byte == b':')
        .ok_or_else(|| format!("a field without a colon: {:?}", latin1(line)))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(format!("a field name is a token: {:?}", latin1(line)));
    }
    if !value.iter().all(|&byte| is_text(byte)) {
        return Err(format!(
            "a control character in a value: {:?}",
            latin1(line)
        ));
    }
    Ok((
        latin1(name),
        latin1(value).trim_matches([' ', '\t']).to_owned(),
    ))
}

fn read_length(text: &str) -> Result<Framing, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a length is digits: {text:?}"));
    }
    text.parse()
        .map(Framing::Length)
        .map_err(|error| format!("{text:?}: {error}"))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5: visible characters, obs-text, space and tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
