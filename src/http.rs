//! HTTP/1.1 without I/O: bytes in, decisions out (RFC 9110, RFC 9112).
//!
//! Decided here: whether bytes are a message, where it ends, what of it is forwarded, and the reply to a malformed request. Not
//! decided here: when to read, from where, how long to wait. Nothing in this module does I/O, awaits, reads a clock, or grows
//! without a limit, so that a fuzzer calls the functions that the program runs.
//!
//! A message is handled in this order:
//!
//! 1. [`head::request`] or [`head::response`] turns bytes into a borrowed head; [`scan`] says when one that arrives slowly is
//!    decided,
//! 2. [`framing`] decides, once, how its body ends,
//! 3. [`target`] and [`guard`] decide whether the request is served,
//! 4. [`rewrite`] writes the head for the next hop,
//! 5. [`body::Body`] follows the body's bytes to their end,
//! 6. [`connection`] decides whether the connection serves another request.
//!
//! [`forward`] calls them in this order.

pub mod body;
pub mod chunked;
pub mod connection;
mod error;
pub mod forward;
pub mod framing;
pub(crate) mod grammar;
pub mod guard;
pub mod head;
pub mod reply;
pub mod rewrite;
pub mod scan;
pub mod target;
pub mod trailer;

pub use self::error::{Error, Parsed};
pub use self::grammar::{Sender, is_field_value, is_token};
pub use self::head::{FIELDS_MAX, HEAD_BYTES_MAX, values};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fmt::Debug;

    /// Checks the rule for every parser here: a result is final. All of `bytes` give `expected`; each shorter prefix gives
    /// [`Parsed::Partial`] or already the same error; bytes after them change nothing.
    #[track_caller]
    pub(crate) fn check_in_pieces<T: PartialEq + Debug>(
        why: &str,
        bytes: &[u8],
        expected: Result<T, Error>,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, Error>,
    ) {
        let expected = expected.map(Parsed::Complete);
        let shown = bytes.escape_ascii();
        assert_eq!(parse(bytes), expected, "{why}: {shown}");

        let prefixes = || (0..bytes.len()).map(|len| parse(&bytes[..len]));
        let undecided = prefixes()
            .take_while(|verdict| *verdict == Ok(Parsed::Partial))
            .count();
        for verdict in prefixes().skip(undecided) {
            assert!(verdict.is_err(), "{why}: complete too early: {shown}");
            assert_eq!(verdict, expected, "{why}: another verdict early: {shown}");
        }
        for behind in BEHIND {
            assert_eq!(
                parse(&[bytes, behind].concat()),
                expected,
                "{why}: {shown} and behind it {}",
                behind.escape_ascii()
            );
        }
    }

    /// Parses `text` as a request head and passes it to `question`.
    #[track_caller]
    pub(crate) fn with_request<T>(
        text: &str,
        question: impl FnOnce(&head::RequestHead<'_, '_>) -> T,
    ) -> T {
        match head::request(text.as_bytes(), &mut head::Slots::default()) {
            Ok(Parsed::Complete(head)) => question(&head),
            verdict => panic!("no head: {text:?}: {verdict:?}"),
        }
    }

    /// Parses `text` as a response head and passes it to `question`.
    #[track_caller]
    pub(crate) fn with_response<T>(
        text: &str,
        question: impl FnOnce(&head::ResponseHead<'_, '_>) -> T,
    ) -> T {
        match head::response(text.as_bytes(), &mut head::Slots::default()) {
            Ok(Parsed::Complete(head)) => question(&head),
            verdict => panic!("no head: {text:?}: {verdict:?}"),
        }
    }

    /// Bytes that may follow a message on its connection, or be smuggled in after it.
    const BEHIND: [&[u8]; 8] = [
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b" folded\r\n\r\n",
        b"a: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ];
}
