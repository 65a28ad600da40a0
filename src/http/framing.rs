//! How a body ends (RFC 9112 §6.3).
//!
//! Only this file interprets `Content-Length` and `Transfer-Encoding`. Where the standard lets a recipient repair or guess, the
//! message is refused: it must mean the same to the next recipient.

use super::error::Error;
use super::grammar::{Sender, is_token, number};
use super::head::{Field, RequestHead, ResponseHead, Version};

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// It has this many bytes.
    Length(u64),
    /// It is in chunks (RFC 9112 §7.1).
    Chunked,
    /// It ends when the target closes the connection. Responses only.
    UntilClose,
}

/// Which request a response belongs to: its framing depends on the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseTo {
    /// `HEAD`: the response has no body whatever its fields say.
    Head,
    /// Any other method that is forwarded.
    Other,
}

impl ResponseTo {
    /// A response to a request with `method`.
    pub fn method(method: &str) -> Self {
        if method == "HEAD" {
            ResponseTo::Head
        } else {
            ResponseTo::Other
        }
    }
}

/// How the body of a request ends. Checked before everything else: an error here leaves the end of the message unknown.
///
/// # Errors
///
/// If the framing fields are malformed, repeated or contradictory.
pub fn of_request(head: &RequestHead<'_, '_>) -> Result<Framing, Error> {
    if is_disguised(head.method) {
        return Err(Error::RequestLine);
    }
    // §6.3 (7): "If this is a request message and none of the above are true": no body.
    let framing =
        framing_fields(head.fields, head.version, Sender::Client)?.unwrap_or(Framing::Empty);
    // RFC 9110 §9.3.6: "A CONNECT request message does not have content."
    if head.method == "CONNECT" && framing != Framing::Empty {
        return Err(Error::ConnectBody);
    }
    Ok(framing)
}

/// How the body of a response ends.
///
/// # Errors
///
/// As [`of_request`].
pub fn of_response(head: &ResponseHead<'_, '_>, asked: ResponseTo) -> Result<Framing, Error> {
    // Before §6.3 (1), so that contradictory fields of a response without body are refused as well.
    let framing = framing_fields(head.fields, head.version, Sender::Target)?;
    // §6.3 (1)
    if asked == ResponseTo::Head || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Empty);
    }
    // §6.3 (8)
    Ok(framing.unwrap_or(Framing::UntilClose))
}

/// Whether `method` differs only in case from one that affects framing. Methods are case-sensitive (RFC 9110 §9.1), but a target
/// that treats `head` as `HEAD` would send no body, and this hop would wait for one. No client sends these; nginx refuses all
/// methods in lower case.
fn is_disguised(method: &str) -> bool {
    ["HEAD", "CONNECT"]
        .iter()
        .any(|known| method != *known && method.eq_ignore_ascii_case(known))
}

/// Whether `name` is a framing field. `Connection` cannot make it hop-by-hop.
pub fn is_framing(name: &str) -> bool {
    is_length(name) || is_coding(name)
}

/// Whether `name` is `Transfer-Encoding`.
pub fn is_coding(name: &str) -> bool {
    name.eq_ignore_ascii_case("Transfer-Encoding")
}

fn is_length(name: &str) -> bool {
    name.eq_ignore_ascii_case("Content-Length")
}

/// Whether `name` is `known` with `_` for `-`: CGI and WSGI do not tell them apart.
fn is_disguise_of(known: &str, name: &str) -> bool {
    let same = |(byte, other): (u8, &u8)| {
        byte.eq_ignore_ascii_case(other) || (byte == b'_' && *other == b'-')
    };
    name.len() == known.len() && name.contains('_') && name.bytes().zip(known.as_bytes()).all(same)
}

/// What both fields together say; `None` if the message has neither.
fn framing_fields(
    fields: &[Field<'_>],
    version: Version,
    sender: Sender,
) -> Result<Option<Framing>, Error> {
    let mut length = None;
    let mut coding = None;
    for field in fields {
        if is_length(field.name) {
            // §6.3 (5) allows equal lengths to be merged; no real client sends two, and nginx refuses them as well.
            if length.replace(field.value).is_some() {
                return Err(Error::LengthRepeated);
            }
        } else if is_coding(field.name) {
            // Several lines are one list (RFC 9110 §5.3), and only a list of one coding is supported.
            if coding.replace(field.value).is_some() {
                return Err(Error::CodingMalformed);
            }
        } else if is_disguise_of("Content-Length", field.name) {
            return Err(Error::LengthMalformed);
        } else if is_disguise_of("Transfer-Encoding", field.name) {
            return Err(Error::CodingMalformed);
        }
    }
    match (coding, length) {
        // §6.3 (3): "ought to be handled as an error".
        (Some(_), Some(_)) => Err(Error::LengthAndCoding),
        (Some(coding), None) => {
            // §6.1: "treat the message as if the framing is faulty [...] and close the connection after processing the
            // message". Some servers of HTTP/1.0 send chunks, which every client decodes.
            if version == Version::Http10 && sender == Sender::Client {
                return Err(Error::CodingInHttp10);
            }
            // §6.3 (4)
            chunked_only(coding)?;
            Ok(Some(Framing::Chunked))
        }
        // §6.3 (6)
        (None, Some(length)) => match number(length) {
            Some(0) => Ok(Some(Framing::Empty)),
            // Many recipients use signed numbers.
            Some(length) if length <= i64::MAX as u64 => Ok(Some(Framing::Length(length))),
            _ => Err(Error::LengthMalformed),
        },
        (None, None) => Ok(None),
    }
}

/// `Ok` for exactly `chunked`; else whether the list is malformed or names an unsupported coding.
fn chunked_only(coding: &[u8]) -> Result<(), Error> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut elements = coding.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let ends_in_token = elements.next_back().is_some_and(is_token);
    let is_other_coding =
        |element: &[u8]| is_token(element) && !element.eq_ignore_ascii_case(b"chunked");
    Err(if ends_in_token && elements.all(is_other_coding) {
        Error::CodingUnknown
    } else {
        Error::CodingMalformed
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{with_request, with_response};
    use super::*;

    /// A request of HTTP/1.1 with these field lines.
    #[track_caller]
    fn check(why: &str, lines: &str, expected: Result<Framing, Error>) {
        check_method(why, "POST", lines, expected);
    }

    /// A request with this method and these field lines.
    #[track_caller]
    fn check_method(why: &str, method: &str, lines: &str, expected: Result<Framing, Error>) {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\nbody");
        assert_eq!(with_request(&text, of_request), expected, "{why}");
    }

    /// A response with this start of the status line and these field lines, to a request with `method`.
    #[track_caller]
    fn check_response(
        why: &str,
        method: &str,
        line: &str,
        lines: &str,
        expected: Result<Framing, Error>,
    ) {
        let text = format!("HTTP/1.{line} Reason\r\n{lines}\r\nbody");
        let framing = with_response(&text, |head| of_response(head, ResponseTo::method(method)));
        assert_eq!(framing, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_length_is_one_run_of_digits_in_one_field() {
        use Error::{LengthMalformed, LengthRepeated};
        use Framing::{Empty, Length};
        check("none: no body (§6.3 (7))", "", Ok(Empty));
        check("the usual (§6.3 (6))", "Content-Length: 5\r\n", Ok(Length(5)));
        check("names in any case", "cONTENT-lENGTH: 5\r\n", Ok(Length(5)));
        check("zero", "Content-Length: 0\r\n", Ok(Empty));
        check("zeros", "Content-Length: 000\r\n", Ok(Empty));
        check("leading zeros are decimal", "Content-Length: 010\r\n", Ok(Length(10)));
        check("white space around", "Content-Length: \t 5 \t\r\n", Ok(Length(5)));
        check("2^63 - 1", "Content-Length: 9223372036854775807\r\n", Ok(Length(i64::MAX as u64)));
        check("many zeros before it", &format!("Content-Length: {}9223372036854775807\r\n", "0".repeat(60)), Ok(Length(i64::MAX as u64)));

        check("2^63 is negative to some", "Content-Length: 9223372036854775808\r\n", Err(LengthMalformed));
        check("2^64 wraps to 0", "Content-Length: 18446744073709551616\r\n", Err(LengthMalformed));
        check("2^64 + 5 wraps to 5", "Content-Length: 18446744073709551621\r\n", Err(LengthMalformed));
        check("2^128 + 5", "Content-Length: 340282366920938463463374607431768211461\r\n", Err(LengthMalformed));
        check("nothing", "Content-Length:\r\n", Err(LengthMalformed));
        check("white space", "Content-Length:  \r\n", Err(LengthMalformed));
        check("a plus", "Content-Length: +5\r\n", Err(LengthMalformed));
        check("a minus", "Content-Length: -5\r\n", Err(LengthMalformed));
        check("minus zero", "Content-Length: -0\r\n", Err(LengthMalformed));
        check("hexadecimal", "Content-Length: 0x5\r\n", Err(LengthMalformed));
        check("a hexadecimal digit", "Content-Length: 5a\r\n", Err(LengthMalformed));
        check("octal as Python writes it", "Content-Length: 0o5\r\n", Err(LengthMalformed));
        check("digits grouped as Python reads them", "Content-Length: 1_0\r\n", Err(LengthMalformed));
        check("a decimal point", "Content-Length: 5.0\r\n", Err(LengthMalformed));
        check("an exponent", "Content-Length: 5e0\r\n", Err(LengthMalformed));
        check("a quoted number", "Content-Length: \"5\"\r\n", Err(LengthMalformed));
        check("a space between digits", "Content-Length: 5 5\r\n", Err(LengthMalformed));
        check("a parameter", "Content-Length: 5;q=1\r\n", Err(LengthMalformed));
        check("Arabic-Indic digits", "Content-Length: ٥\r\n", Err(LengthMalformed));
        check("a full-width digit", "Content-Length: ５\r\n", Err(LengthMalformed));
        check("a no-break space", "Content-Length: \u{a0}5\r\n", Err(LengthMalformed));
        check("a word", "Content-Length: five\r\n", Err(LengthMalformed));
        check("a list of equal lengths", "Content-Length: 5, 5\r\n", Err(LengthMalformed));
        check("a list of different lengths", "Content-Length: 5,6\r\n", Err(LengthMalformed));
        check("a list with an empty element", "Content-Length: 5,\r\n", Err(LengthMalformed));
        check("two equal fields (§6.3 (5))", "Content-Length: 5\r\nContent-Length: 5\r\n", Err(LengthRepeated));
        check("two different fields", "Content-Length: 5\r\nContent-Length: 6\r\n", Err(LengthRepeated));
        check("two fields in different case", "Content-Length: 5\r\nX: y\r\ncontent-length: 0\r\n", Err(LengthRepeated));
        check("two fields, one of them empty", "Content-Length: 5\r\nContent-Length:\r\n", Err(LengthRepeated));
        check("a name that only starts like it", "Content-Lengths: 5\r\n", Ok(Empty));
        check("a name that only ends like it", "X-Content-Length: 5\r\n", Ok(Empty));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn the_only_transfer_coding_is_chunked() {
        use Error::{CodingMalformed, CodingUnknown};
        use Framing::{Chunked, Empty};
        check("the usual (§6.3 (4))", "Transfer-Encoding: chunked\r\n", Ok(Chunked));
        check("in any case", "TRANSFER-encoding: ChUnKeD\r\n", Ok(Chunked));
        check("white space around", "Transfer-Encoding:\t chunked \t\r\n", Ok(Chunked));

        check("identity, which RFC 7230 removed", "Transfer-Encoding: identity\r\n", Err(CodingUnknown));
        check("gzip", "Transfer-Encoding: gzip\r\n", Err(CodingUnknown));
        check("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", Err(CodingUnknown));
        check("a word that ends in it", "Transfer-Encoding: xchunked\r\n", Err(CodingUnknown));
        check("a word that starts with it", "Transfer-Encoding: chunkedx\r\n", Err(CodingUnknown));
        check("a hyphen", "Transfer-Encoding: x-chunked\r\n", Err(CodingUnknown));
        check("its first half", "Transfer-Encoding: chunk\r\n", Err(CodingUnknown));
        check("nothing", "Transfer-Encoding:\r\n", Err(CodingMalformed));
        check("white space", "Transfer-Encoding: \t\r\n", Err(CodingMalformed));
        check("a comma", "Transfer-Encoding: ,\r\n", Err(CodingMalformed));
        check("a comma behind it", "Transfer-Encoding: chunked,\r\n", Err(CodingMalformed));
        check("a comma before it", "Transfer-Encoding: , chunked\r\n", Err(CodingMalformed));
        check("chunked twice (§7.1: not more than once)", "Transfer-Encoding: chunked, chunked\r\n", Err(CodingMalformed));
        check("chunked not last", "Transfer-Encoding: chunked, gzip\r\n", Err(CodingMalformed));
        check("chunked, identity", "Transfer-Encoding: chunked, identity\r\n", Err(CodingMalformed));
        check("chunked around another", "Transfer-Encoding: chunked, gzip, chunked\r\n", Err(CodingMalformed));
        check("a parameter", "Transfer-Encoding: chunked;q=1\r\n", Err(CodingMalformed));
        check("a semicolon", "Transfer-Encoding: chunked;\r\n", Err(CodingMalformed));
        check("quotes", "Transfer-Encoding: \"chunked\"\r\n", Err(CodingMalformed));
        check("apostrophes make another token", "Transfer-Encoding: 'chunked'\r\n", Err(CodingUnknown));
        check("a space within", "Transfer-Encoding: chun ked\r\n", Err(CodingMalformed));
        check("words with a space", "Transfer-Encoding: identity chunked\r\n", Err(CodingMalformed));
        check("a field within the value", "Transfer-Encoding: : chunked\r\n", Err(CodingMalformed));
        check("a no-break space", "Transfer-Encoding: \u{a0}chunked\r\n", Err(CodingMalformed));
        check("a Kelvin sign folds to k", "Transfer-Encoding: chun\u{212a}ed\r\n", Err(CodingMalformed));
        check("two fields are one list", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(CodingMalformed));
        check("two fields, the last another coding", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Err(CodingMalformed));
        check("two fields, the first another coding", "Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n", Err(CodingMalformed));
        check("two fields, the first empty", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", Err(CodingMalformed));
        check("a name that only starts like it", "Transfer-Encodings: chunked\r\n", Ok(Empty));
        check("TE says what is taken, not what is sent", "TE: chunked\r\n", Ok(Empty));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn length_and_coding_never_stand_together() {
        use Error::{LengthAndCoding, LengthRepeated};
        check("the length first (§6.3 (3))", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding));
        check("the coding first", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(LengthAndCoding));
        check("a length of zero", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Err(LengthAndCoding));
        check("an unknown coding", "Transfer-Encoding: x\r\nContent-Length: 5\r\n", Err(LengthAndCoding));
        check("an empty coding", "Transfer-Encoding:\r\nContent-Length: 5\r\n", Err(LengthAndCoding));
        check("a malformed length", "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", Err(LengthAndCoding));
        check("an empty length", "Transfer-Encoding: chunked\r\nContent-Length:\r\n", Err(LengthAndCoding));
        check("two lengths as well", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 5\r\n", Err(LengthRepeated));
    }

    #[test]
    fn http_1_0_knows_no_transfer_coding() {
        let framing_of =
            |lines| with_request(&format!("POST / HTTP/1.0\r\n{lines}\r\n"), of_request);
        assert_eq!(framing_of("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing_of(""), Ok(Framing::Empty));
        assert_eq!(
            framing_of("Transfer-Encoding: chunked\r\n"),
            Err(Error::CodingInHttp10)
        );
        assert_eq!(
            framing_of("Transfer-Encoding: identity\r\n"),
            Err(Error::CodingInHttp10)
        );
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn any_method_may_have_a_body_but_connect() {
        use Error::{ConnectBody, RequestLine};
        use Framing::{Chunked, Empty, Length};
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"] {
            check_method(method, method, "Content-Length: 5\r\n", Ok(Length(5)));
            check_method(method, method, "Transfer-Encoding: chunked\r\n", Ok(Chunked));
            check_method(method, method, "", Ok(Empty));
        }
        check_method("CONNECT without body: refused for its target", "CONNECT", "", Ok(Empty));
        check_method("CONNECT that says so", "CONNECT", "Content-Length: 0\r\n", Ok(Empty));
        check_method("CONNECT with a length (RFC 9110 §9.3.6)", "CONNECT", "Content-Length: 5\r\n", Err(ConnectBody));
        check_method("CONNECT in chunks", "CONNECT", "Transfer-Encoding: chunked\r\n", Err(ConnectBody));
        check_method("CONNECT with both", "CONNECT", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Error::LengthAndCoding));
        for method in ["head", "Head", "hEAD", "connect", "Connect"] {
            check_method("a lenient origin takes it for the method that it is not", method, "", Err(RequestLine));
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn names_that_some_origins_take_for_framing_are_refused() {
        use Error::{CodingMalformed, LengthMalformed};
        check("WSGI and CGI know no difference between _ and -", "Content_Length: 5\r\n", Err(LengthMalformed));
        check("the other one", "transfer_encoding: chunked\r\n", Err(CodingMalformed));
        check("beside the right one", "Content-Length: 5\r\nContent_Length: 6\r\n", Err(LengthMalformed));
        check("beside the other right one", "Transfer-Encoding: chunked\r\nContent_Length: 6\r\n", Err(LengthMalformed));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_response_ends_as_its_status_its_request_and_its_fields_say() {
        use Error::{CodingMalformed, CodingUnknown, LengthAndCoding, LengthMalformed, LengthRepeated};
        use Framing::{Chunked, Empty, Length, UntilClose};
        check_response("by length", "GET", "1 200", "Content-Length: 5\r\n", Ok(Length(5)));
        check_response("by a length of zero", "GET", "1 200", "Content-Length: 0\r\n", Ok(Empty));
        check_response("in chunks", "GET", "1 200", "Transfer-Encoding: chunked\r\n", Ok(Chunked));
        check_response("with the connection (§6.3 (8))", "GET", "1 200", "", Ok(UntilClose));
        check_response("with the connection, as HTTP/1.0 does", "GET", "0 200", "", Ok(UntilClose));
        check_response("errors have bodies", "POST", "1 500", "", Ok(UntilClose));
        check_response("205 has one if it says so (RFC 9110 §15.3.6)", "POST", "1 205", "Content-Length: 0\r\n", Ok(Empty));
        check_response("unheard-of statuses have bodies", "GET", "1 600", "Content-Length: 5\r\n", Ok(Length(5)));

        check_response("HEAD: none (§6.3 (1))", "HEAD", "1 200", "Content-Length: 5\r\n", Ok(Empty));
        check_response("HEAD in chunks", "HEAD", "1 200", "Transfer-Encoding: chunked\r\n", Ok(Empty));
        check_response("HEAD without either", "HEAD", "1 200", "", Ok(Empty));
        check_response("HEAD of HTTP/1.0", "HEAD", "0 200", "", Ok(Empty));
        check_response("204: none", "GET", "1 204", "", Ok(Empty));
        check_response("204 that says zero", "GET", "1 204", "Content-Length: 0\r\n", Ok(Empty));
        check_response("204 that promises bytes, which it cannot have", "GET", "1 204", "Content-Length: 5\r\n", Ok(Empty));
        check_response("204 in chunks, as some send", "GET", "1 204", "Transfer-Encoding: chunked\r\n", Ok(Empty));
        check_response("304 with the length that a 200 would have", "GET", "1 304", "Content-Length: 5\r\n", Ok(Empty));
        check_response("100: none", "POST", "1 100", "", Ok(Empty));
        check_response("101: none, the tunnel follows", "GET", "1 101", "", Ok(Empty));
        check_response("103", "GET", "1 103", "Link: x\r\n", Ok(Empty));
        check_response("199", "GET", "1 199", "", Ok(Empty));

        check_response("both", "GET", "1 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding));
        check_response("both, to HEAD", "HEAD", "1 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding));
        check_response("both, in a 304", "GET", "1 304", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding));
        check_response("two lengths", "GET", "1 200", "Content-Length: 5\r\nContent-Length: 6\r\n", Err(LengthRepeated));
        check_response("a malformed length", "GET", "1 200", "Content-Length: 5x\r\n", Err(LengthMalformed));
        check_response("a malformed length, to HEAD", "HEAD", "1 200", "Content-Length: -1\r\n", Err(LengthMalformed));
        check_response("chunks in HTTP/1.0, as some servers send", "GET", "0 200", "Transfer-Encoding: chunked\r\n", Ok(Chunked));
        check_response("another coding in HTTP/1.0", "GET", "0 200", "Transfer-Encoding: gzip\r\n", Err(CodingUnknown));
        check_response("both in HTTP/1.0", "GET", "0 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding));
        check_response("another coding", "GET", "1 200", "Transfer-Encoding: gzip, chunked\r\n", Err(CodingUnknown));
        check_response("a coding that is no list", "GET", "1 200", "Transfer-Encoding: chunked, \r\n", Err(CodingMalformed));
    }

    #[test]
    fn only_the_two_framing_fields_are_framing() {
        for name in [
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "TRANSFER-ENCODING",
        ] {
            assert!(is_framing(name), "{name}");
        }
        for name in ["TE", "Trailer", "Content-Encoding", "Content_Length", ""] {
            assert!(!is_framing(name), "{name}");
        }
        assert!(is_coding("transfer-encoding") && !is_coding("Content-Length"));
    }
}
