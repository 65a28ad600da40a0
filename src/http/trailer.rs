//! Trailer sections: which of their fields may pass (RFC 9110 §6.5, RFC 9112 §7.1.2).
//!
//! A trailer section is accepted or refused as a whole. Fields that could change how a message is framed, described, routed or
//! authorised after its head was processed are removed.

use super::error::{Error, Parsed};
use super::grammar::Sender;
use super::head::{self, Field};

/// The longest trailer section, in bytes. Checksums and timings take some hundred.
pub const TRAILERS_BYTES_MAX: usize = 8 * 1024;

/// Parses the trailer section at the start of `bytes` (what follows the last chunk's size line), writes the lines that may
/// pass and the empty line to `out`, and returns its length in bytes. `sender` is who sends them.
///
/// Fields for which `is_dropped` is true do not pass either: those that this hop sets, and those that `Connection` names.
pub fn pass(
    bytes: &[u8],
    sender: Sender,
    is_dropped: impl Fn(&str) -> bool,
    out: &mut Vec<u8>,
) -> Result<Parsed<usize>, Error> {
    match head::fields(bytes, sender) {
        Ok(Parsed::Complete((len, fields))) if len <= TRAILERS_BYTES_MAX => {
            for field in fields.filter(|field| !is_forbidden(field) && !is_dropped(field.name)) {
                super::rewrite::line(&field, out);
            }
            out.extend_from_slice(b"\r\n");
            Ok(Parsed::Complete(len))
        }
        Ok(Parsed::Partial) if bytes.len() < TRAILERS_BYTES_MAX => Ok(Parsed::Partial),
        _ => Err(Error::Trailer),
    }
}

/// Fields that frame, describe, route or authorise a message: a recipient that merges trailers into the head must
/// not get one of these from there (RFC 9110 §6.5.1).
fn is_forbidden(field: &Field<'_>) -> bool {
    FORBIDDEN
        .iter()
        .any(|name| name.eq_ignore_ascii_case(field.name))
}

const FORBIDDEN: [&str; 29] = [
    // Framing.
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    // This hop's.
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Upgrade",
    "HTTP2-Settings",
    // What the body is, and how it is asked for: decided before its first byte.
    "Content-Encoding",
    "Content-Range",
    "Content-Type",
    "Expect",
    "Range",
    // Routing, and what the guard has judged.
    "Host",
    "Origin",
    "Via",
    "Max-Forwards",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    // Authority.
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Set-Cookie",
    "X-Api-Key",
    "Api-Key",
];

#[cfg(test)]
mod tests {
    use super::super::head::FIELDS_MAX;
    use super::super::tests::check_in_pieces;
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Parsed<(usize, String)>, Error> {
        let mut out = Vec::new();
        let is_ours = |name: &str| name.eq_ignore_ascii_case("x-source");
        let parsed = pass(bytes, Sender::Client, is_ours, &mut out)?;
        let text = out.escape_ascii().to_string();
        Ok(match parsed {
            Parsed::Complete(len) => Parsed::Complete((len, text)),
            Parsed::Partial => {
                assert_eq!(text, "", "nothing is written before all is there");
                Parsed::Partial
            }
        })
    }

    /// `expected` is what passes.
    #[track_caller]
    fn check(why: &str, bytes: &[u8], expected: Result<&[u8], Error>) {
        let expected = expected.map(|passed| (bytes.len(), passed.escape_ascii().to_string()));
        check_in_pieces(why, bytes, expected, parse);
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn trailers_pass_unless_they_frame_route_or_authorise() {
        check("none", b"\r\n", Ok(b"\r\n"));
        check("a checksum", b"Content-MD5: abc\r\n\r\n", Ok(b"Content-MD5: abc\r\n\r\n"));
        check("gRPC's", b"grpc-status: 0\r\ngrpc-message:\r\n\r\n", Ok(b"grpc-status: 0\r\ngrpc-message: \r\n\r\n"));
        check("one in the middle is left out", b"a: 1\r\nContent-Length: 5\r\nb: 2\r\n\r\n", Ok(b"a: 1\r\nb: 2\r\n\r\n"));
        check("in any case", b"TRANSFER-encoding: chunked\r\n\r\n", Ok(b"\r\n"));
        check("what this hop sets itself", b"X-Source: me\r\n\r\n", Ok(b"\r\n"));
        for name in FORBIDDEN {
            let bytes = format!("{name}: 1\r\nA: 1\r\n\r\n");
            check(name, bytes.as_bytes(), Ok(b"A: 1\r\n\r\n"));
        }
    }
    #[test]
    #[rustfmt::skip] // A table.
    fn a_trailer_section_is_taken_whole_or_not_at_all() {
        use Error::Trailer;
        check("a bare LF", b"\n", Err(Trailer));
        check("a bare LF behind a field", b"a: 1\nb: 2\r\n\r\n", Err(Trailer));
        check("a bare LF at the end", b"a: 1\r\n\n", Err(Trailer));
        check("a bare CR", b"a: 1\rb: 2\r\n\r\n", Err(Trailer));
        check("a folded line", b"a: 1\r\n b\r\n\r\n", Err(Trailer));
        check("white space before a colon", b"a : 1\r\n\r\n", Err(Trailer));
        check("NUL", b"a: \0\r\n\r\n", Err(Trailer));
        check("no colon", b"a\r\n\r\n", Err(Trailer));
        check("a mistake behind what may pass", b"a: 1\r\nb: 2\r\n:\r\n\r\n", Err(Trailer));
        check("a request in its place", b"GET / HTTP/1.1\r\n\r\n", Err(Trailer));
        check("129 fields", "a:\r\n".repeat(FIELDS_MAX + 1).as_bytes(), Err(Trailer));
        let most = "a: \r\n".repeat(FIELDS_MAX) + "\r\n";
        check("128 fields", most.as_bytes(), Ok(most.as_bytes()));
    }

    #[test]
    fn white_space_before_the_colon_of_a_response_is_removed() {
        let bytes = b"a : 1\r\nCONTENT-Length \t: 5\r\nb\t:\r\n\r\n";
        let mut out = Vec::new();
        let parsed = pass(bytes, Sender::Target, |_| false, &mut out);
        assert_eq!(parsed, Ok(Parsed::Complete(bytes.len())), "RFC 9112 §5.1");
        assert_eq!(out, b"a: 1\r\nb: \r\n\r\n");
    }

    #[test]
    fn a_trailer_section_of_8_kib_is_taken_and_one_of_a_byte_more_is_not() {
        let of = |len: usize| format!("a: {}\r\n\r\n", "x".repeat(len - 7)).into_bytes();
        let fits = of(TRAILERS_BYTES_MAX);
        assert!(matches!(
            parse(&fits),
            Ok(Parsed::Complete((TRAILERS_BYTES_MAX, _)))
        ));
        assert_eq!(parse(&fits[..TRAILERS_BYTES_MAX - 1]), Ok(Parsed::Partial));
        let over = of(TRAILERS_BYTES_MAX + 1);
        assert_eq!(parse(&over), Err(Error::Trailer));
        assert_eq!(
            parse(&over[..TRAILERS_BYTES_MAX]),
            Err(Error::Trailer),
            "at once"
        );
    }
}
