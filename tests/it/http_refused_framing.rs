//! Requests that are refused because of their framing fields.

use crate::support::refusal::*;

#[test]
fn a_request_with_both_framings_is_refused() {
    check_all(
        "refusals: both lengths",
        &[
            framed(
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                BAD,
                "RFC 9112 §6.3 (3): smuggling",
            ),
            framed(
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                BAD,
                "the other order",
            ),
            framed(
                "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0",
                BAD,
                "a length of 0",
            ),
            framed(
                "transfer-encoding: chunked\r\ncontent-length: 5",
                BAD,
                "names are case-insensitive (RFC 9110 §5.1)",
            ),
            framed(
                "Content-Length: 5\r\nTransfer-Encoding: identity",
                CODING,
                "with an invalid coding",
            ),
            framed(
                "Content-Length: 5\r\nTransfer-Encoding:",
                BAD,
                "with an empty coding",
            ),
            framed(
                "Content-Length:\r\nTransfer-Encoding: chunked",
                BAD,
                "with an empty length",
            ),
            framed(
                "Content-Length: x\r\nTransfer-Encoding: x",
                CODING,
                "both malformed",
            ),
        ],
    );
}

#[test]
fn a_malformed_length_is_refused() {
    check_all(
        "refusals: lengths",
        &[
            framed(
                "Content-Length: 5\r\nContent-Length: 6",
                BAD,
                "RFC 9112 §6.3 (5): differing",
            ),
            framed(
                "Content-Length: 6\r\nX: y\r\ncontent-length: 5",
                BAD,
                "different lengths, not adjacent, in another case",
            ),
            framed("Content-Length: 5, 6", BAD, "a list of different lengths"),
            framed(
                "Content-Length: 5, 5",
                BAD,
                "a list (refused, although RFC 9110 §8.6 allows repair)",
            ),
            framed("Content-Length: 5,", BAD, "a list with an empty member"),
            framed("Content-Length: ,5", BAD, "an empty member at the start"),
            framed(
                "Content-Length: 0, 5",
                BAD,
                "a list with an empty first member",
            ),
            framed(
                "Content-Length: +5",
                BAD,
                "RFC 9110 §8.6: digits; Rust's `parse` accepts this sign",
            ),
            framed("Content-Length: -5", BAD, "a negative length"),
            framed("Content-Length: -0", BAD, "a negative zero"),
            framed("Content-Length: 5 5", BAD, "a space inside"),
            framed("Content-Length: 5\t5", BAD, "a tab inside"),
            framed("Content-Length: 0x5", BAD, "hexadecimal"),
            framed("Content-Length: 5h", BAD, "a letter after it"),
            framed("Content-Length: a", BAD, "a hexadecimal digit"),
            framed("Content-Length: 5.0", BAD, "a fraction"),
            framed("Content-Length: 1e1", BAD, "an exponent"),
            framed("Content-Length: 1_0", BAD, "an underscore"),
            framed("Content-Length: \"5\"", BAD, "quoted"),
            framed("Content-Length: 5;x=y", BAD, "a parameter"),
            framed("Content-Length:", BAD, "empty"),
            framed("Content-Length: \t ", BAD, "only white space"),
            framed(
                "Content-Length: 18446744073709551616",
                BAD,
                "2^64: overflow",
            ),
            framed(
                "Content-Length: 18446744073709551621",
                BAD,
                "2^64 + 5: overflow that wraps to 5",
            ),
            framed(
                "Content-Length: 99999999999999999999999999999999999999999",
                BAD,
                "a larger overflow",
            ),
            framed("Content-Length: \u{0665}", BAD, "a digit of another script"),
            framed("Content-Length: \u{ff15}", BAD, "a wide digit"),
            framed(b"Content-Length: 5\xa0", BAD, "a no-break space in Latin-1"),
            framed(
                b"Content-Length: \x0b5",
                BAD,
                "a vertical tab is not white space",
            ),
            framed(
                b"Content-Length: 5\x0c",
                BAD,
                "a form feed is not white space",
            ),
        ],
    );
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    check_all(
        "refusals: codings",
        &[
            framed(
                "Transfer-Encoding: xchunked",
                CODING,
                "a word that ends in chunked",
            ),
            framed(
                "Transfer-Encoding: chunkedx",
                CODING,
                "a word that begins with chunked",
            ),
            framed("Transfer-Encoding: chunke", CODING, "almost"),
            framed(
                "Transfer-Encoding: chunked, chunked",
                BAD,
                "RFC 9112 §6.1: not twice",
            ),
            framed(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                BAD,
                "chunked twice, on two lines",
            ),
            framed("Transfer-Encoding: chunked, identity", CODING, "not last"),
            framed("Transfer-Encoding: identity, chunked", CODING, "not alone"),
            framed(
                "Transfer-Encoding: identity",
                CODING,
                "obsolete (RFC 9112 §7)",
            ),
            framed(
                "Transfer-Encoding: gzip, chunked",
                CODING,
                "RFC 9112 §6.1: 501 for a coding not understood",
            ),
            framed(
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                CODING,
                "over two lines",
            ),
            framed(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
                CODING,
                "and last",
            ),
            framed(
                "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: x",
                CODING,
                "not adjacent, in another case",
            ),
            framed(
                "Transfer-Encoding: gzip",
                CODING,
                "RFC 9112 §6.3 (4): a request's end cannot be known",
            ),
            framed("Transfer-Encoding: ,chunked", BAD, "not exactly chunked"),
            framed("Transfer-Encoding: chunked,", BAD, "not exactly chunked"),
            framed("Transfer-Encoding:", BAD, "empty"),
            framed("Transfer-Encoding: \t", BAD, "only white space"),
            framed("Transfer-Encoding: chunked;q=1", CODING, "a parameter"),
            framed("Transfer-Encoding: \"chunked\"", CODING, "quoted"),
            framed(
                "Transfer-Encoding: 'chunked'",
                CODING,
                "quoted with single quotes",
            ),
            framed(
                "Transfer-Encoding: chunked chunked",
                CODING,
                "a space inside",
            ),
            framed("Transfer-Encoding: chun ked", CODING, "a space in the word"),
            framed(
                "Transfer-Encoding : chunked",
                BAD,
                "RFC 9112 §5.1: white space before the colon",
            ),
            framed(
                "Transfer-Encoding\t: chunked",
                BAD,
                "a tab before the colon",
            ),
            framed(
                b"Transfer-Encoding: \x0bchunked",
                CODING,
                "a vertical tab is not white space",
            ),
            framed(
                b"Transfer-Encoding: chunked\x0c",
                CODING,
                "a form feed is not white space",
            ),
            framed(
                b"Transfer-Encoding: \xa0chunked",
                CODING,
                "a no-break space is not white space",
            ),
            framed(
                "Transfer-Encoding: chunke\u{212a}d",
                CODING,
                "a Kelvin sign is not a k",
            ),
            framed(
                "Transfer-Encoding:\r\n chunked",
                BAD,
                "RFC 9112 §5.2: obs-fold",
            ),
            framed(
                "Transfer-Encoding: chunked\r\n , gzip",
                BAD,
                "obs-fold with a further member",
            ),
            framed("Transfer-Encoding: chunked\r\n\t", BAD, "an empty obs-fold"),
            framed(
                "X: y\r\n Transfer-Encoding: chunked",
                BAD,
                "obs-fold that looks like a field",
            ),
            framed(
                "X: y\rTransfer-Encoding: chunked",
                BAD,
                "after a bare CR (RFC 9112 §2.2)",
            ),
            framed("X: y\nTransfer-Encoding: chunked", BAD, "after a bare LF"),
            framed("Transfer-Encoding: chunked\rX: y", BAD, "before a bare CR"),
            framed(b"Transfer-Encoding: chunked\0", BAD, "with a NUL"),
            framed(
                b"Transfer\0-Encoding: chunked",
                BAD,
                "with a NUL in the name",
            ),
            row(
                "POST /bad HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
                BAD,
                "RFC 9112 §6.1: HTTP/1.0 has no codings",
            ),
            row(
                "POST /bad HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                BAD,
                "also with a length",
            ),
        ],
    );
}
