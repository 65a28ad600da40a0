//! Validates chunked framing without decoding it (RFC 9112 §7.1).
//!
//! Decided here: which bytes are data, which are framing, and whether the framing follows the grammar. The trailer section is
//! reported and left to [`trailer`](super::trailer).

use super::error::Error;
use super::grammar::{Sender, is_tchar};

/// The position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    sender: Sender,
    state: State,
    /// The size read so far; in [`State::Data`], the bytes of data left in this chunk.
    left: u64,
    /// By how many bytes the framing outweighs the data so far, after an allowance for each chunk.
    excess: u64,
    /// The bytes of the current size line.
    line: u64,
}

/// What the next bytes of a chunked body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// This many bytes of data.
    Data(usize),
    /// This many bytes of framing: sizes, extensions, line endings.
    Framing(usize),
    /// The trailer section starts here and is not empty.
    Trailers,
    /// The body has ended before these bytes.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a chunk size.
    SizeStart,
    /// Behind this many digits.
    Size(u8),
    /// Behind white space that only `;` or the end of the line may follow.
    SizeSpace,
    Extension(Extension),
    /// Behind the CR of a size line.
    SizeEnd,
    /// In a chunk's data.
    Data,
    /// Behind a chunk's data.
    DataEnd,
    /// Behind the CR that ends a chunk's data.
    DataEndLf,
    /// Behind the last chunk's size line.
    Last,
    /// Behind the CR of an empty trailer section.
    LastLf,
    /// Before a trailer section that is not empty.
    Trailers,
    End,
    /// Before a byte that is malformed.
    Failed(Error),
}

/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    NameSpace,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    /// Behind a closing quote.
    Closed,
    /// Behind white space that only `;` or the end of the line may follow.
    ValueSpace,
}

impl Chunked {
    /// The start of a body that `sender` sends.
    pub fn new(sender: Sender) -> Self {
        Chunked {
            sender,
            state: State::SizeStart,
            left: 0,
            excess: 0,
            line: 0,
        }
    }

    /// How many of the next bytes are data of the current chunk.
    pub fn opaque(&self) -> u64 {
        if self.state == State::Data {
            self.left
        } else {
            0
        }
    }

    /// Records that `count` bytes of data have passed; at most [`Chunked::opaque`].
    pub fn advance(&mut self, count: u64) {
        debug_assert!(
            count <= self.opaque(),
            "no byte passes that no chunk has accounted for"
        );
        self.left -= count;
        if self.left == 0 && self.state == State::Data {
            self.state = State::DataEnd;
        }
    }

    /// Whether the body is complete, its trailer section included.
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Whether a trailer section that is not empty comes next.
    pub fn is_at_trailers(&self) -> bool {
        self.state == State::Trailers
    }

    /// Who sends the body.
    pub fn sender(&self) -> Sender {
        self.sender
    }

    /// Returns what the next `bytes` start with and advances past it. `bytes` must not be empty.
    ///
    /// # Errors
    ///
    /// If their first byte is malformed, then every time: the bytes in front of it come first.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Error> {
        match self.state {
            State::End => return Ok(Piece::End),
            State::Trailers => return Ok(Piece::Trailers),
            State::Failed(error) => return Err(error),
            State::Data => {
                let count = self.left.min(bytes.len() as u64);
                self.advance(count);
                // No more than `bytes.len()`.
                return Ok(Piece::Data(count as usize));
            }
            _ => {}
        }
        let mut count = 0;
        for &byte in bytes {
            match self.state {
                State::Data | State::End | State::Trailers => break,
                _ => {}
            }
            if self.state == State::Last && byte != b'\r' {
                self.state = State::Trailers;
                break;
            }
            match self.step(byte) {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed(error);
                    break;
                }
            }
            count += 1;
        }
        match self.state {
            State::Trailers if count == 0 => Ok(Piece::Trailers),
            State::Failed(error) if count == 0 => Err(error),
            _ => Ok(Piece::Framing(count)),
        }
    }

    /// Records that the trailer section has been consumed: the body is complete.
    pub fn trailers_taken(&mut self) {
        debug_assert_eq!(
            self.state,
            State::Trailers,
            "only an announced trailer section is taken"
        );
        self.state = State::End;
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Error> {
        self.line += 1;
        match self.state {
            State::SizeStart => self.digit(byte, 0),
            State::Size(digits) => match byte {
                b'\r' => Ok(State::SizeEnd),
                b';' => Ok(State::Extension(Extension::NameStart)),
                b' ' | b'\t' if self.sender == Sender::Target => Ok(State::SizeSpace),
                _ => self.digit(byte, digits),
            },
            State::SizeSpace => match byte {
                b' ' | b'\t' => self.within_budget(State::SizeSpace),
                b'\r' => Ok(State::SizeEnd),
                b';' => Ok(State::Extension(Extension::NameStart)),
                _ => Err(Error::ChunkSize),
            },
            State::Extension(extension) => {
                let state = extension_step(extension, byte, self.sender)?;
                self.within_budget(state)
            }
            State::SizeEnd if byte == b'\n' => self.size_line_ended(),
            State::SizeEnd => Err(Error::ChunkSize),
            State::DataEnd if byte == b'\r' => Ok(State::DataEndLf),
            State::DataEndLf if byte == b'\n' => {
                self.line = 0;
                Ok(State::SizeStart)
            }
            State::DataEnd | State::DataEndLf => Err(Error::ChunkEnd),
            State::Last if byte == b'\r' => Ok(State::LastLf),
            State::LastLf if byte == b'\n' => Ok(State::End),
            State::Last | State::LastLf => Err(Error::Trailer),
            // `next` never steps within these.
            State::Data | State::Trailers | State::End | State::Failed(_) => Ok(self.state),
        }
    }

    fn digit(&mut self, byte: u8, digits: u8) -> Result<State, Error> {
        let digit = char::from(byte).to_digit(16).ok_or(Error::ChunkSize)?;
        if digits == SIZE_DIGITS_MAX || self.left > SIZE_MAX >> 4 {
            return Err(Error::ChunkSize);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size(digits + 1))
    }

    fn size_line_ended(&mut self) -> Result<State, Error> {
        let allowance = LINE_ALLOWANCE.saturating_add(self.left.saturating_mul(2));
        self.excess = (self.excess + self.line).saturating_sub(allowance);
        self.line = 0;
        self.within_budget(if self.left == 0 {
            State::Last
        } else {
            State::Data
        })
    }

    fn within_budget(&self, state: State) -> Result<State, Error> {
        if self.excess + self.line > EXCESS_MAX {
            Err(Error::ChunkOverhead)
        } else {
            Ok(state)
        }
    }
}

fn extension_step(extension: Extension, byte: u8, sender: Sender) -> Result<State, Error> {
    use Extension::{
        Closed, Escaped, Name, NameSpace, NameStart, Quoted, Value, ValueSpace, ValueStart,
    };
    // RFC 9110 §5.6.3: a sender must not generate this white space. Of the servers that are in use, half refuse a request with
    // it, and some take it for a part of the size.
    let is_quoted = matches!(extension, Quoted | Escaped);
    if sender == Sender::Client && !is_quoted && matches!(byte, b' ' | b'\t') {
        return Err(Error::ChunkExtension);
    }
    let next = match (extension, byte) {
        (NameStart, b' ' | b'\t') => NameStart,
        (NameStart | Name, _) if is_tchar(byte) => Name,
        (Name | NameSpace, b' ' | b'\t') => NameSpace,
        (Name | NameSpace, b'=') => ValueStart,
        (ValueStart, b' ' | b'\t') => ValueStart,
        (ValueStart, b'"') => Quoted,
        (ValueStart | Value, _) if is_tchar(byte) => Value,
        (Value | Closed | ValueSpace, b' ' | b'\t') => ValueSpace,
        (Quoted, b'"') => Closed,
        (Quoted, b'\\') => Escaped,
        (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
        (Name | NameSpace | Value | Closed | ValueSpace, b';') => NameStart,
        // White space before a line's end is not in the grammar, but some targets pad their sizes with it.
        (Name | NameSpace | Value | Closed | ValueSpace, b'\r') => return Ok(State::SizeEnd),
        _ => return Err(Error::ChunkExtension),
    };
    Ok(State::Extension(next))
}

/// Sixteen digits hold every 64-bit number; longer sizes only serve to overflow a parser.
const SIZE_DIGITS_MAX: u8 = 16;

/// The largest chunk, in bytes: many recipients keep sizes in signed numbers.
const SIZE_MAX: u64 = i64::MAX as u64;

/// How many bytes of a size line do not count as overhead: size, CRLF, and the extensions seen in practice. Go's net/http allows
/// the same.
const LINE_ALLOWANCE: u64 = 16;

/// By how many bytes framing may outweigh data. Go's net/http allows the same.
const EXCESS_MAX: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::Parsed;
    use super::super::tests::check_in_pieces;
    use super::*;

    /// Follows `pieces` of a request's body to its end or to its trailer section: how many bytes came before that, and
    /// the data among them.
    fn follow<'p>(
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Parsed<(usize, String)>, Error> {
        follow_of(Sender::Client, pieces)
    }

    fn follow_of<'p>(
        sender: Sender,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Parsed<(usize, String)>, Error> {
        let mut chunked = Chunked::new(sender);
        let mut data = Vec::new();
        let mut len = 0;
        for mut piece in pieces {
            while !piece.is_empty() {
                let count = match chunked.next(piece)? {
                    Piece::Data(count) => {
                        data.extend_from_slice(&piece[..count]);
                        count
                    }
                    Piece::Framing(count) => count,
                    Piece::Trailers | Piece::End => break,
                };
                assert_ne!(count, 0, "every step makes progress");
                len += count;
                piece = &piece[count..];
            }
        }
        if chunked.is_complete() || chunked.is_at_trailers() {
            Ok(Parsed::Complete((len, data.escape_ascii().to_string())))
        } else {
            Ok(Parsed::Partial)
        }
    }

    /// `bytes` are a whole body of either message, `expected` is its data.
    #[track_caller]
    fn check(why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        check_of(Sender::Client, why, bytes, expected);
        check_of(Sender::Target, why, bytes, expected);
    }

    #[track_caller]
    fn check_of(sender: Sender, why: &str, bytes: &[u8], expected: Result<&str, Error>) {
        let expected = expected.map(|data| (bytes.len(), data.to_owned()));
        check_in_pieces(why, bytes, expected.clone(), |bytes| {
            follow_of(sender, [bytes])
        });
        let expected = expected.map(Parsed::Complete);
        for at in 1..bytes.len() {
            let (first, second) = bytes.split_at(at);
            let split = follow_of(sender, [first, second]);
            assert_eq!(split, expected, "{why}: split at {at}");
        }
        let slow = follow_of(sender, bytes.chunks(1));
        assert_eq!(slow, expected, "{why}: byte by byte");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_chunk_is_its_size_in_hexadecimal_and_its_data_each_ended_by_crlf() {
        use Error::{ChunkEnd, ChunkSize, Trailer};
        check("an empty body", b"0\r\n\r\n", Ok(""));
        check("one chunk", b"5\r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("two chunks", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Ok("hello world"));
        check("upper-case and lower-case digits", b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", Ok("01234567890123456789"));
        check("two digits", b"0B\r\n0123456789a\r\n0\r\n\r\n", Ok("0123456789a"));
        check("sixteen digits", b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", Ok("x"));
        check("data that looks like framing", b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", Ok("0\\r\\n\\r\\n\\r\\n"));
        check("any bytes as data", b"4\r\n\0\r\n\xff\r\n0\r\n\r\n", Ok("\\x00\\r\\n\\xff"));

        check("no size", b"\r\nhello\r\n", Err(ChunkSize));
        check("no size before an extension", b";a=b\r\nhello\r\n", Err(ChunkSize));
        check("a bare LF after the size", b"5\nhello\r\n", Err(ChunkSize));
        check("a bare CR after the size", b"5\rhello\r\n", Err(ChunkSize));
        check("CR CR LF", b"5\r\r\nhello\r\n", Err(ChunkSize));
        check("a plus sign", b"+5\r\nhello\r\n", Err(ChunkSize));
        check("a minus sign", b"-5\r\nhello\r\n", Err(ChunkSize));
        check("a prefix 0x", b"0x5\r\nhello\r\n", Err(ChunkSize));
        check("an underscore", b"0_5\r\nhello\r\n", Err(ChunkSize));
        check("not a digit", b"g\r\nhello\r\n", Err(ChunkSize));
        check("a comma", b"5,5\r\nhello\r\n", Err(ChunkSize));
        check("white space before the size", b" 5\r\nhello\r\n", Err(ChunkSize));
        check("white space between digits", b"5 5\r\nhello\r\n", Err(ChunkSize));
        check("NUL after the size", b"5\0\r\nhello\r\n", Err(ChunkSize));
        check("a vertical tab after the size", b"5\x0b\r\nhello\r\n", Err(ChunkSize));
        check("a full-width digit", "５\r\nhello\r\n".as_bytes(), Err(ChunkSize));
        check("seventeen digits", b"00000000000000005\r\nhello\r\n", Err(ChunkSize));
        check("2^63", b"8000000000000000\r\n", Err(ChunkSize));
        check("2^64 - 1", b"ffffffffffffffff\r\n", Err(ChunkSize));
        check("2^64 + 5", b"10000000000000005\r\n", Err(ChunkSize));

        check("no line end after the data", b"5\r\nhello0\r\n\r\n", Err(ChunkEnd));
        check("a bare LF after the data", b"5\r\nhello\n0\r\n\r\n", Err(ChunkEnd));
        check("a bare CR after the data", b"5\r\nhello\r0\r\n\r\n", Err(ChunkEnd));
        check("CR CR LF after the data", b"5\r\nhello\r\r\n0\r\n\r\n", Err(ChunkEnd));
        check("more data than announced", b"4\r\nhello\r\n0\r\n\r\n", Err(ChunkEnd));
        check("less data than announced", b"6\r\nhello\r\n0\r\n\r\n", Err(ChunkEnd));
        check("an empty line between chunks", b"5\r\nhello\r\n\r\n0\r\n\r\n", Err(ChunkSize));
        check("a bare CR after the last chunk", b"0\r\n\rX", Err(Trailer));
        check("CR CR LF after the last chunk", b"0\r\n\r\r\n", Err(Trailer));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn an_extension_is_a_name_with_an_optional_value() {
        use Error::ChunkExtension;
        check("a name", b"0;a\r\n\r\n", Ok(""));
        check("a name and a value", b"0;a=b\r\n\r\n", Ok(""));
        check("several extensions", b"0;a=b;c;d=e\r\n\r\n", Ok(""));
        check("every character of a token", b"0;!#$%&'*+-.^_`|~=1\r\n\r\n", Ok(""));
        check("a quoted value", b"0;a=\"b c\"\r\n\r\n", Ok(""));
        check("an empty quoted value", b"0;a=\"\"\r\n\r\n", Ok(""));
        check("a separator within quotes", b"0;a=\";=,\"\r\n\r\n", Ok(""));
        check("escapes within quotes", b"0;a=\"\\\"\\\\\\a\"\r\n\r\n", Ok(""));
        check("obs-text within quotes", b"0;a=\"\xc3\xa9\xff\"\r\n\r\n", Ok(""));
        check("another extension after a quoted value", b"0;a=\"b\";c\r\n\r\n", Ok(""));
        check("an escaped space", b"0;a=\"\\ b\"\r\n\r\n", Ok(""));
        check("on a chunk with data", b"5;sha=abc\r\nhello\r\n0\r\n\r\n", Ok("hello"));

        check("no name", b"0;\r\n\r\n", Err(ChunkExtension));
        check("white space instead of a name", b"0; \r\n\r\n", Err(ChunkExtension));
        check("no name before the value", b"0;=b\r\n\r\n", Err(ChunkExtension));
        check("no name before the next extension", b"0;;a\r\n\r\n", Err(ChunkExtension));
        check("no value", b"0;a=\r\n\r\n", Err(ChunkExtension));
        check("no value before the next extension", b"0;a=;b\r\n\r\n", Err(ChunkExtension));
        check("two values", b"0;a=b=c\r\n\r\n", Err(ChunkExtension));
        check("two words", b"0;a b\r\n\r\n", Err(ChunkExtension));
        check("two words as a value", b"0;a=b c\r\n\r\n", Err(ChunkExtension));
        check("white space instead of a value", b"0;a= \r\n\r\n", Err(ChunkExtension));
        check("a name that is not a token", b"0;a(b\r\n\r\n", Err(ChunkExtension));
        check("a quoted name", b"0;\"a\"=b\r\n\r\n", Err(ChunkExtension));
        check("more characters after a quoted value", b"0;a=\"b\"c\r\n\r\n", Err(ChunkExtension));
        check("a bare LF", b"0;a\n\r\n", Err(ChunkExtension));
        check("a bare LF, which some parsers accept as the line's end", b"2;\nxx\r\n4\r\n0\r\n\r\n", Err(ChunkExtension));
        check("a bare LF within quotes", b"0;a=\"\n\"\r\n\r\n", Err(ChunkExtension));
        check("a line end within quotes", b"0;a=\"b\r\n\r\n", Err(ChunkExtension));
        check("an escaped line end", b"0;a=\"\\\r\n\"\r\n\r\n", Err(ChunkExtension));
        check("NUL", b"0;a\0\r\n\r\n", Err(ChunkExtension));
        check("NUL within quotes", b"0;a=\"\0\"\r\n\r\n", Err(ChunkExtension));
        check("an escaped DEL", b"0;a=\"\\\x7f\"\r\n\r\n", Err(ChunkExtension));
        check("obs-text without quotes", b"0;a=\xe9\r\n\r\n", Err(ChunkExtension));
        check("CR without LF", b"0;a\rX", Err(Error::ChunkSize));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn white_space_in_size_lines_passes_in_responses_and_is_refused_in_requests() {
        use Error::{ChunkExtension, ChunkSize};
        #[track_caller]
        fn check(why: &str, bytes: &[u8], refused: Error) {
            check_of(Sender::Target, why, bytes, Ok("hello"));
            check_of(Sender::Client, why, bytes, Err(refused));
        }
        check("before ; (§7.1.1: BWS)", b"5 ;a\r\nhello\r\n0\r\n\r\n", ChunkSize);
        check("a tab before ;", b"5\t;a\r\nhello\r\n0\r\n\r\n", ChunkSize);
        check("after ;", b"5; a\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("before =", b"5;a =b\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("after =", b"5;a= b\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("a tab after =, before quotes", b"5;a=\t\"b\"\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("before another extension", b"5;a ;b\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("after a value", b"5;a=b ;c\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("after quotes", b"5;a=\"b\" ;c\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("on the last chunk", b"5\r\nhello\r\n0; a\r\n\r\n", ChunkExtension);
        check("after the size", b"5 \r\nhello\r\n0\r\n\r\n", ChunkSize);
        check("padding", b"5   \t \r\nhello\r\n0     \r\n\r\n", ChunkSize);
        check("only after the last size", b"5\r\nhello\r\n0 \r\n\r\n", ChunkSize);
        check("at the line's end, after a name", b"5;a \r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("at the line's end, after a value", b"5;a=b\t\r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("at the line's end, after quotes", b"5;a=\"b\" \r\nhello\r\n0\r\n\r\n", ChunkExtension);
        check("everywhere", b"5 \t; \ta \t= \tb \t; c\r\nhello\r\n0\r\n\r\n", ChunkSize);
    }

    #[test]
    fn a_trailer_section_is_reported_and_not_consumed() {
        #[track_caller]
        fn check(bytes: &[u8], trailers_at: usize) {
            let expected = Ok(Parsed::Complete((trailers_at, String::new())));
            assert_eq!(follow([bytes]), expected, "{}", bytes.escape_ascii());
            assert_eq!(
                follow(bytes.chunks(1)),
                expected,
                "{}",
                bytes.escape_ascii()
            );
        }
        check(b"0\r\na: 1\r\n\r\n", 3);
        check(b"0;x=y\r\na: 1\r\n\r\n", 7);
        // Malformed ones as well: the trailer parser refuses them.
        check(b"0\r\n\n", 3);
        check(b"0\r\n folded", 3);
        assert_eq!(
            follow([&b"0\r\n"[..]]),
            Ok(Parsed::Partial),
            "not known yet whether it is empty"
        );
    }

    #[test]
    fn what_comes_before_a_malformed_byte_passes_first() {
        #[track_caller]
        fn check(bytes: &[u8], valid: usize, expected: Error) {
            let mut chunked = Chunked::new(Sender::Client);
            let mut at = 0;
            let error = loop {
                assert!(at < bytes.len(), "no error: {}", bytes.escape_ascii());
                match chunked.next(&bytes[at..]) {
                    Ok(Piece::Data(count) | Piece::Framing(count)) => at += count,
                    Ok(piece) => panic!("{piece:?}: {}", bytes.escape_ascii()),
                    Err(error) => break error,
                }
            };
            assert_eq!((at, error), (valid, expected), "{}", bytes.escape_ascii());
            assert_eq!(chunked.next(b"\r\n5\r\n"), Err(expected), "it is final");
        }
        check(b"x\r\n", 0, Error::ChunkSize);
        check(b"5\r\nhello\r\nx\r\n", 10, Error::ChunkSize);
        check(b"5\r\nhello!\r\n", 8, Error::ChunkEnd);
        check(b"1\r\nx\r\n2\r\nxy\r\n5;=", 15, Error::ChunkExtension);
        check(b"1\r\nx\r\n0\r\n\rx", 10, Error::Trailer);
    }

    #[test]
    fn the_largest_chunk_has_2_to_the_63_minus_1_bytes() {
        let mut chunked = Chunked::new(Sender::Client);
        assert_eq!(
            chunked.next(b"7fffffffffffffff\r\nx"),
            Ok(Piece::Framing(18))
        );
        assert_eq!(chunked.opaque(), i64::MAX as u64);
        chunked.advance(i64::MAX as u64);
        assert_eq!(chunked.next(b"\r\n0\r\n\r\n"), Ok(Piece::Framing(7)));
        assert!(chunked.is_complete());
    }

    #[test]
    fn only_data_passes_without_inspection() {
        let mut chunked = Chunked::new(Sender::Client);
        assert_eq!(chunked.opaque(), 0, "before a size");
        assert_eq!(chunked.next(b"5"), Ok(Piece::Framing(1)));
        assert_eq!(chunked.opaque(), 0, "within a size");
        assert_eq!(chunked.next(b"\r\nhe"), Ok(Piece::Framing(2)));
        assert_eq!(chunked.opaque(), 5);
        assert_eq!(chunked.next(b"he"), Ok(Piece::Data(2)));
        assert_eq!(chunked.opaque(), 3);
        chunked.advance(0);
        chunked.advance(3);
        assert_eq!(chunked.opaque(), 0, "after the data");
        assert_eq!(chunked.next(b"\r\n0\r\n"), Ok(Piece::Framing(5)));
        assert!(!chunked.is_complete() && !chunked.is_at_trailers());
        assert_eq!(chunked.next(b"\r\nmore"), Ok(Piece::Framing(2)));
        assert!(chunked.is_complete());
        assert_eq!(chunked.next(b"more"), Ok(Piece::End));
        assert_eq!(chunked.opaque(), 0, "after the end");
    }

    #[test]
    fn framing_that_outweighs_the_data_is_refused() {
        /// `count` chunks of `data` bytes, their size lines `line` bytes long, line ends included.
        fn chunks(count: usize, line: usize, data: usize) -> Vec<u8> {
            let size = format!("{data:x};");
            let extension = "a".repeat(line - size.len() - 2);
            format!("{size}{extension}\r\n{}\r\n", "x".repeat(data))
                .repeat(count)
                .into_bytes()
        }
        let verdict = |bytes: &[u8]| follow_of(Sender::Target, [bytes]).map(|_| ());

        let bare = b"1\r\nx\r\n".repeat(100_000);
        assert_eq!(
            verdict(&bare),
            Ok(()),
            "tokens one by one, as models stream them"
        );
        assert_eq!(verdict(&chunks(10_000, 18, 1)), Ok(()), "short extensions");
        assert_eq!(
            verdict(&chunks(10_000, 116, 50)),
            Ok(()),
            "a signature on each chunk"
        );
        assert_eq!(
            verdict(&chunks(1, 16 * 1024, 1)),
            Ok(()),
            "one long extension"
        );

        let refused = Err(Error::ChunkOverhead);
        assert_eq!(
            verdict(&chunks(10_000, 117, 50)),
            Ok(()),
            "one byte over the allowance, in 10,000 chunks"
        );
        assert_eq!(
            verdict(&chunks(17_000, 117, 50)),
            refused,
            "in 17,000 chunks"
        );
        assert_eq!(
            verdict(&chunks(1_000, 100, 1)),
            refused,
            "long extensions on single bytes"
        );
        assert_eq!(
            verdict(&chunks(1, 17 * 1024, 1)),
            refused,
            "one extension of 17 KiB"
        );
        assert_eq!(
            verdict(&chunks(1, 17 * 1024, 100_000)),
            refused,
            "before the data that would outweigh it"
        );
        let unended = [&b"1;"[..], &b"a".repeat(17 * 1024)].concat();
        assert_eq!(verdict(&unended), refused, "before the end of the line");
        let spaces = [&b"1"[..], &b" ".repeat(17 * 1024)].concat();
        assert_eq!(verdict(&spaces), refused, "white space counts");
        let quoted = [&b"1;a=\""[..], &b"\\\\".repeat(9 * 1024)].concat();
        assert_eq!(verdict(&quoted), refused, "quotes count");
    }
}
