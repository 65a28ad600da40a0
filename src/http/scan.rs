//! The grammar of a head, byte by byte: where it ends, or the first byte that makes it malformed.
//!
//! httparse reads a whole head faster, but says too little of others: it takes bare line feeds, and whether it sees a mistake
//! depends on how much has arrived. So it reads heads that are whole and well-formed, and this decides about all others: with
//! the byte that is at fault, wherever the head is cut, and looking at each byte once.

use super::error::{Error, Parsed};
use super::grammar::{Sender, is_field_value, is_tchar};

/// The longest head accepted, in bytes, its end included. Apache allows 8 KiB a line, nginx 32 KiB, node 16 KiB; clients of
/// models send long cookies and beta lists, and tokens of several KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields in a head or a trailer section. Apache and haproxy allow about 100.
pub const FIELDS_MAX: usize = 128;

/// The position in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    sender: Sender,
    state: State,
    /// The field lines begun.
    fields: u8,
    /// The bytes scanned.
    len: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request.
    Start,
    /// Behind the CR of an empty line before it.
    StartLf,
    /// Before the first character of a method.
    MethodStart,
    Method,
    TargetStart,
    Target,
    /// Behind this many characters of a version.
    Version(u8),
    /// Behind the digit of another major version.
    VersionMajor,
    /// Behind this many characters of a status code, and the space before it.
    Status(u8),
    /// Behind a status code.
    StatusEnd,
    Reason,
    /// Behind a version that ends a request line.
    LineEnd,
    /// Behind the CR that ends the first line; the error if no LF follows.
    LineLf(Error),
    /// Before a field line or the empty line.
    FieldStart,
    Name,
    /// Behind white space between a name and its colon, in a response.
    NameSpace,
    Value,
    /// Behind the CR that ends a value.
    ValueLf,
    /// Behind the CR of the empty line.
    EndLf,
    End,
    Failed(Error),
}

impl Scan {
    /// The start of a head that `sender` sends.
    pub fn head(sender: Sender) -> Self {
        Scan::from(
            sender,
            match sender {
                Sender::Client => State::Start,
                Sender::Target => State::Version(0),
            },
        )
    }

    /// The start of a trailer section that `sender` sends.
    pub fn trailers(sender: Sender) -> Self {
        Scan::from(sender, State::FieldStart)
    }

    fn from(sender: Sender, state: State) -> Self {
        Scan {
            sender,
            state,
            fields: 0,
            len: 0,
        }
    }

    /// Scans what has arrived since the last call of `bytes`, which start at the head's start. Returns the head's length.
    ///
    /// # Errors
    ///
    /// The first mistake in it.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Parsed<usize>, Error> {
        for &byte in bytes.get(self.len as usize..).unwrap_or_default() {
            match self.state {
                State::End | State::Failed(_) => break,
                // Most bytes are those of values.
                State::Value if is_field_value(&[byte]) => {}
                state => match self.step(state, byte) {
                    Ok(state) => self.state = state,
                    Err(error) => {
                        self.state = State::Failed(error);
                        break;
                    }
                },
            }
            self.len += 1;
            if self.len as usize == HEAD_BYTES_MAX && self.state != State::End {
                self.state = State::Failed(self.too_large());
            }
        }
        match self.state {
            State::End => Ok(Parsed::Complete(self.len as usize)),
            State::Failed(error) => Err(error),
            _ => Ok(Parsed::Partial),
        }
    }

    /// Whether the head, of which `bytes` have arrived, is decided, which it is with [`HEAD_BYTES_MAX`] of them at the latest.
    pub fn is_decided(&mut self, bytes: &[u8]) -> bool {
        self.follow(bytes) != Ok(Parsed::Partial)
    }

    fn too_large(&self) -> Error {
        let is_in_line = !matches!(
            self.state,
            State::FieldStart
                | State::Name
                | State::NameSpace
                | State::Value
                | State::ValueLf
                | State::EndLf
        );
        match self.sender {
            Sender::Client if is_in_line => Error::RequestLineTooLong,
            _ => Error::HeadTooLarge,
        }
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Error> {
        match state {
            State::Start
            | State::StartLf
            | State::MethodStart
            | State::Method
            | State::TargetStart
            | State::Target => request_line(state, byte),
            State::Version(read) => self.version(read, byte),
            // Version 2 or 3 is well-formed; `01.1` and `10.1` are not.
            State::VersionMajor if matches!(byte, b'.' | b'\r') => Err(Error::VersionMajor),
            State::VersionMajor => Err(Error::Version),
            State::Status(_) | State::StatusEnd | State::Reason => status_line(state, byte),
            State::LineEnd if byte == b'\r' => Ok(State::LineLf(Error::LineEnding)),
            State::LineEnd => Err(Error::LineEnding),
            State::LineLf(_) if byte == b'\n' => Ok(State::FieldStart),
            State::LineLf(error) => Err(error),
            State::FieldStart => self.field_start(byte),
            State::Name | State::NameSpace => self.name(state, byte),
            State::Value if byte == b'\r' => Ok(State::ValueLf),
            State::Value if byte == b'\n' => Err(Error::LineEnding),
            State::Value if is_field_value(&[byte]) => Ok(State::Value),
            State::ValueLf if byte == b'\n' => Ok(State::FieldStart),
            State::Value | State::ValueLf => Err(Error::FieldValue),
            State::EndLf if byte == b'\n' => Ok(State::End),
            State::EndLf => Err(Error::LineEnding),
            // `follow` never steps within these.
            State::End | State::Failed(_) => Ok(state),
        }
    }

    /// `HTTP-version = "HTTP/" DIGIT "." DIGIT` (RFC 9112 §2.3).
    fn version(&self, read: u8, byte: u8) -> Result<State, Error> {
        let is_request = self.sender == Sender::Client;
        let expected = VERSION.get(usize::from(read));
        match (read, byte) {
            // TLS record types 21 and 22: an alert or a handshake. The target expects TLS and got plain text.
            (0, 0x15 | 0x16) if !is_request => Err(Error::Tls),
            (0, b'\r' | b'\n') if !is_request => Err(Error::StatusLine),
            (MAJOR, b'0' | b'2'..=b'9') if is_request => Ok(State::VersionMajor),
            (MINOR, b'0' | b'1') if is_request => Ok(State::LineEnd),
            (_, _) if expected == Some(&byte) || (read == MINOR && matches!(byte, b'0' | b'1')) => {
                match read + 1 == VERSION_LEN {
                    true => Ok(State::Status(0)),
                    false => Ok(State::Version(read + 1)),
                }
            }
            // Probably a space in the URL.
            (0..MAJOR, _) if is_request => Err(Error::RequestLine),
            _ => Err(Error::Version),
        }
    }

    fn field_start(&mut self, byte: u8) -> Result<State, Error> {
        match byte {
            b'\r' => Ok(State::EndLf),
            b'\n' => Err(Error::LineEnding),
            _ if !is_tchar(byte) => Err(Error::FieldName),
            _ if usize::from(self.fields) == FIELDS_MAX => Err(Error::TooManyFields),
            _ => {
                self.fields += 1;
                Ok(State::Name)
            }
        }
    }

    fn name(&self, state: State, byte: u8) -> Result<State, Error> {
        match byte {
            b':' => Ok(State::Value),
            // RFC 9112 §5.1: a proxy removes it from a response, and refuses a request.
            b' ' | b'\t' if self.sender == Sender::Target => Ok(State::NameSpace),
            _ if state == State::Name && is_tchar(byte) => Ok(State::Name),
            _ => Err(Error::FieldName),
        }
    }
}

/// `method SP request-target SP` (RFC 9112 §3), after at most one empty line (§2.2).
fn request_line(state: State, byte: u8) -> Result<State, Error> {
    match (state, byte) {
        // TLS record type 22, a handshake: the client uses https:// for a plain port.
        (State::Start | State::MethodStart, 0x16) => Err(Error::Tls),
        (State::Start, b'\r') => Ok(State::StartLf),
        (State::StartLf, b'\n') => Ok(State::MethodStart),
        (State::StartLf, _) | (State::Start | State::MethodStart, b'\r' | b'\n') => {
            Err(Error::LineEnding)
        }
        (State::Start | State::MethodStart | State::Method, _) if is_tchar(byte) => {
            Ok(State::Method)
        }
        (State::Method, b' ') => Ok(State::TargetStart),
        (State::TargetStart | State::Target, b'!'..=b'~') => Ok(State::Target),
        (State::TargetStart | State::Target, 0x80..) => Err(Error::Target),
        (State::Target, b' ') => Ok(State::Version(0)),
        _ => Err(Error::RequestLine),
    }
}

/// `SP status-code [ SP [ reason-phrase ] ]`, behind the version (RFC 9112 §4). Some servers leave out the last space.
fn status_line(state: State, byte: u8) -> Result<State, Error> {
    match (state, byte) {
        (State::Status(0), b'1'..=b'9') => Ok(State::Status(1)),
        (State::Status(1), b'0'..=b'9') => Ok(State::Status(2)),
        (State::Status(2), b'0'..=b'9') => Ok(State::StatusEnd),
        (State::StatusEnd, b' ') => Ok(State::Reason),
        (State::StatusEnd | State::Reason, b'\r') => Ok(State::LineLf(Error::StatusLine)),
        (State::StatusEnd | State::Reason, b'\n') => Err(Error::LineEnding),
        (State::Reason, _) if is_field_value(&[byte]) => Ok(State::Reason),
        _ => Err(Error::StatusLine),
    }
}

/// A version, and what follows it in a status line.
const VERSION: &[u8; 9] = b"HTTP/1.1 ";
const VERSION_LEN: u8 = VERSION.len() as u8;

/// Where its digits stand.
const MAJOR: u8 = 5;
const MINOR: u8 = 7;
