//! The progress of a body that is forwarded: how much is left, and how many bytes need no inspection.
//!
//! A forwarder asks one question of a body: how many of the next bytes may pass without inspection? [`Body::opaque`] answers it
//! for every framing, so that the relay is one loop that is independent of the framing, and copy and splice are
//! interchangeable.

use super::chunked::{Chunked, Piece};
use super::error::{Error, Parsed};
use super::framing::Framing;
use super::grammar::Sender;
use super::trailer;

/// The progress of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    progress: Progress,
    has_passed_trailers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Complete,
}

/// How a body is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// As received, chunk framing included.
    Verbatim,
    /// The data without chunk framing, for an HTTP/1.0 client.
    Dechunked,
}

/// The sender closed the connection before the body was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

impl Body {
    /// The body of a request that is framed as `framing`, from its start.
    pub fn new(framing: Framing) -> Self {
        Body::sent_by(Sender::Client, framing)
    }

    /// The body of a response, in whose chunks common deviations pass.
    pub fn of_response(framing: Framing) -> Self {
        Body::sent_by(Sender::Target, framing)
    }

    fn sent_by(sender: Sender, framing: Framing) -> Self {
        Body {
            progress: match framing {
                Framing::Empty | Framing::Length(0) => Progress::Complete,
                Framing::Length(length) => Progress::Length(length),
                Framing::Chunked => Progress::Chunked(Chunked::new(sender)),
                Framing::UntilClose => Progress::UntilClose,
            },
            has_passed_trailers: false,
        }
    }

    /// Whether all of it has passed.
    pub fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// How many of the next bytes may pass without inspection; `u64::MAX` means all.
    pub fn opaque(&self) -> u64 {
        match &self.progress {
            Progress::Length(left) => *left,
            Progress::Chunked(chunked) => chunked.opaque(),
            Progress::UntilClose => u64::MAX,
            Progress::Complete => 0,
        }
    }

    /// Records that `count` bytes have passed without inspection; at most [`Body::opaque`].
    pub fn advance(&mut self, count: u64) {
        debug_assert!(
            count <= self.opaque(),
            "no byte passes that the body has not accounted for"
        );
        match &mut self.progress {
            Progress::Length(left) => *left -= count,
            Progress::Chunked(chunked) => chunked.advance(count),
            Progress::UntilClose | Progress::Complete => {}
        }
        self.update_complete();
    }

    /// Returns what the next `bytes` start with and advances past it. `bytes` must not be empty.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Error> {
        let piece = match &mut self.progress {
            Progress::Complete => Piece::End,
            Progress::Chunked(chunked) => chunked.next(bytes)?,
            Progress::Length(_) | Progress::UntilClose => {
                let count = usize::try_from(self.opaque())
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.advance(count as u64);
                Piece::Data(count)
            }
        };
        self.update_complete();
        Ok(piece)
    }

    /// Returns how many of the next `bytes` belong to this body and may pass as they are, and advances past them.
    ///
    /// Fewer than all means that the body has ended, that its trailer section is next ([`Body::has_trailers`]), or that the next
    /// byte is malformed, which the next call returns.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.follow_data(bytes, |_| {})
    }

    /// The same; calls `show` with each piece of data.
    pub fn follow_data(
        &mut self,
        bytes: &[u8],
        mut show: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < bytes.len() {
            match self.next(&bytes[count..]) {
                Ok(Piece::Framing(piece)) => count += piece,
                Ok(Piece::Data(piece)) => {
                    show(&bytes[count..count + piece]);
                    count += piece;
                }
                Ok(Piece::Trailers | Piece::End) => break,
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Whether the next bytes are a trailer section for [`Body::take_trailers`].
    pub fn has_trailers(&self) -> bool {
        matches!(&self.progress, Progress::Chunked(chunked) if chunked.is_at_trailers())
    }

    /// Whether fields of its trailer section were passed on.
    pub fn has_passed_trailers(&self) -> bool {
        self.has_passed_trailers
    }

    /// Parses the trailer section at the start of `bytes`, writes what may pass of it to `out`, and returns its length: see
    /// [`trailer::pass`].
    pub fn take_trailers(
        &mut self,
        bytes: &[u8],
        is_dropped: impl Fn(&str) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<Parsed<usize>, Error> {
        let before = out.len();
        let parsed = trailer::pass(bytes, self.sender(), is_dropped, out)?;
        if let (Parsed::Complete(_), Progress::Chunked(chunked)) = (parsed, &mut self.progress) {
            chunked.trailers_taken();
            self.has_passed_trailers = out.len() > before + b"\r\n".len();
            self.update_complete();
        }
        Ok(parsed)
    }

    /// Writes what of `bytes` belongs to this body and may pass to `out`, so that it is sent together with the head, or refused
    /// before the head is sent. Returns how many bytes it consumed; an incomplete trailer section is not consumed.
    ///
    /// # Errors
    ///
    /// If they are malformed; in a response only if no data comes before that, which would be lost. Later calls return it.
    pub fn take_ready(
        &mut self,
        bytes: &[u8],
        mode: BodyMode,
        is_dropped: impl Fn(&str) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let (mut used, mut has_data) = (0, false);
        while used < bytes.len() {
            let rest = &bytes[used..];
            let taken = match self.next(rest) {
                Ok(Piece::Data(count)) => {
                    has_data = true;
                    out.extend_from_slice(&rest[..count]);
                    Ok(count)
                }
                Ok(Piece::Framing(count)) => {
                    if mode == BodyMode::Verbatim {
                        out.extend_from_slice(&rest[..count]);
                    }
                    Ok(count)
                }
                Ok(Piece::Trailers) => self.take_ready_trailers(rest, mode, &is_dropped, out),
                Ok(Piece::End) => Ok(0),
                Err(error) => Err(error),
            };
            match taken {
                Ok(0) => break,
                Ok(count) => used += count,
                Err(_) if has_data && self.sender() == Sender::Target => break,
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }

    /// The same for the trailer section; 0 if it is incomplete.
    fn take_ready_trailers(
        &mut self,
        bytes: &[u8],
        mode: BodyMode,
        is_dropped: impl Fn(&str) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let len = out.len();
        let parsed = self.take_trailers(bytes, is_dropped, out)?;
        if mode == BodyMode::Dechunked {
            out.truncate(len);
        }
        Ok(match parsed {
            Parsed::Complete(count) => count,
            Parsed::Partial => 0,
        })
    }

    /// Who sends it; only chunks depend on that.
    fn sender(&self) -> Sender {
        match &self.progress {
            Progress::Chunked(chunked) => chunked.sender(),
            _ => Sender::default(),
        }
    }

    /// Records that the sender has closed the connection.
    ///
    /// # Errors
    ///
    /// If the body is not complete.
    pub fn end_of_file(&mut self) -> Result<(), Truncated> {
        match self.progress {
            Progress::Complete => Ok(()),
            Progress::UntilClose => {
                self.progress = Progress::Complete;
                Ok(())
            }
            Progress::Length(_) | Progress::Chunked(_) => Err(Truncated),
        }
    }

    fn update_complete(&mut self) {
        let over = match &self.progress {
            Progress::Length(left) => *left == 0,
            Progress::Chunked(chunked) => chunked.is_complete(),
            Progress::UntilClose | Progress::Complete => false,
        };
        if over {
            self.progress = Progress::Complete;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Framing::{Chunked, Empty, Length, UntilClose};

    /// Passes `bytes`, in pieces of `step` bytes, through a body framed as `framing`: how many of them belong to
    /// it, trailer section included, and what is sent on of them.
    fn pass(framing: Framing, bytes: &[u8], step: usize) -> Result<(usize, Vec<u8>), Error> {
        let mut body = Body::new(framing);
        let mut sent = Vec::new();
        let (mut taken, mut arrived) = (0, 0);
        while !body.is_complete() && arrived < bytes.len() {
            arrived = bytes.len().min(arrived + step);
            let mut news = &bytes[taken..arrived];
            let count = body.follow(news)?;
            sent.extend_from_slice(&news[..count]);
            taken += count;
            news = &news[count..];
            if body.has_trailers() {
                if let Parsed::Complete(len) = body.take_trailers(news, |_| false, &mut sent)? {
                    taken += len;
                }
            } else if !body.is_complete() && !news.is_empty() {
                let error = body.follow(news);
                return Err(error.expect_err("only an end or an error holds bytes back"));
            }
        }
        Ok((taken, sent))
    }

    /// `expected` is how many of `bytes` belong to the body.
    #[track_caller]
    fn check(why: &str, framing: Framing, bytes: &[u8], expected: Result<usize, Error>) {
        for step in 1..=bytes.len().max(1) {
            let passed = pass(framing, bytes, step);
            let count = passed.as_ref().map(|(count, _)| *count);
            assert_eq!(
                count,
                expected.as_ref().copied(),
                "{why}, {step} bytes at a time"
            );
            if let Ok((count, sent)) = passed {
                assert_eq!(
                    sent,
                    bytes[..count],
                    "{why}: all of it and nothing else is sent on"
                );
            }
        }
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn a_body_takes_its_own_bytes_and_no_more() {
        check("none", Empty, b"GET / HTTP/1.1\r\n", Ok(0));
        check("a length of zero", Length(0), b"GET / HTTP/1.1\r\n", Ok(0));
        check("by length, a request behind it", Length(5), b"helloGET / HTTP/1.1\r\n", Ok(5));
        check("by length, not all there", Length(9), b"hello", Ok(5));
        check("by length, whatever is in it", Length(7), b"0\r\n\r\n\0\xff!", Ok(7));
        check("until the connection closes", UntilClose, b"hello\r\n\r\n\0", Ok(10));
        check("in chunks, a request behind it", Chunked, b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n", Ok(15));
        check("in chunks, not all there", Chunked, b"5\r\nhel", Ok(6));
        check("in chunks, with trailers", Chunked, b"1\r\nx\r\n0\r\na: 1\r\n\r\nGET /", Ok(17));
        check("in chunks, with part of the trailers", Chunked, b"1\r\nx\r\n0\r\na: 1\r\n", Ok(9));
        check("a wrong chunk", Chunked, b"5\r\nhello\r\nx\r\n", Err(Error::ChunkSize));
        check("a wrong end", Chunked, b"5\r\nhello!\r\n", Err(Error::ChunkEnd));
        check("a wrong trailer", Chunked, b"0\r\na : 1\r\n\r\n", Err(Error::Trailer));
    }

    #[test]
    fn trailers_that_must_not_pass_do_not() {
        let bytes = b"0\r\nContent-Length: 5\r\nx-source: me\r\na:1\r\n\r\nmore";
        let mut body = Body::new(Chunked);
        assert_eq!(body.follow(bytes), Ok(3));
        assert!(body.has_trailers() && !body.is_complete());
        let mut out = Vec::new();
        let is_ours = |name: &str| name == "x-source";
        let taken = body.take_trailers(&bytes[3..], is_ours, &mut out);
        assert_eq!(taken, Ok(Parsed::Complete(bytes.len() - 3 - 4)));
        assert_eq!(out, b"a: 1\r\n\r\n");
        assert!(body.is_complete() && !body.has_trailers());
    }

    /// What is taken of `bytes` together with a head, and what leaves with it.
    #[track_caller]
    fn check_ready(
        why: &str,
        framing: Framing,
        mode: BodyMode,
        bytes: &[u8],
        expected: Result<(usize, &[u8]), Error>,
    ) {
        check_ready_of(why, Body::new(framing), mode, bytes, expected);
    }

    #[track_caller]
    fn check_ready_of(
        why: &str,
        mut body: Body,
        mode: BodyMode,
        bytes: &[u8],
        expected: Result<(usize, &[u8]), Error>,
    ) {
        let mut out = Vec::new();
        let is_dropped = |name: &str| name == "ours";
        let used = body.take_ready(bytes, mode, is_dropped, &mut out);
        let taken = used.map(|used| (used, out.escape_ascii().to_string()));
        let expected = expected.map(|(used, out)| (used, out.escape_ascii().to_string()));
        assert_eq!(taken, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn what_came_with_the_head_leaves_with_it_or_is_refused_with_it() {
        use BodyMode::{Verbatim, Dechunked};
        check_ready("nothing came", Length(5), Verbatim, b"", Ok((0, b"")));
        check_ready("there is none", Empty, Verbatim, b"GET /", Ok((0, b"")));
        check_ready("part of a length", Length(5), Verbatim, b"he", Ok((2, b"he")));
        check_ready("a length and more", Length(2), Verbatim, b"hello", Ok((2, b"he")));
        check_ready("a chunk", Chunked, Verbatim, b"5\r\nhello\r\n0\r\n\r\nGET", Ok((15, b"5\r\nhello\r\n0\r\n\r\n")));
        check_ready("a chunk, for who knows none", Chunked, Dechunked, b"5\r\nhello\r\n0\r\n\r\nGET", Ok((15, b"hello")));
        check_ready("trailers", Chunked, Verbatim, b"1\r\nx\r\n0\r\na: 1\r\nours: 2\r\n\r\nGET", Ok((26, b"1\r\nx\r\n0\r\na: 1\r\n\r\n")));
        check_ready("trailers, for who knows none", Chunked, Dechunked, b"1\r\nx\r\n0\r\na: 1\r\n\r\nGET", Ok((17, b"x")));
        check_ready("part of the trailers", Chunked, Verbatim, b"1\r\nx\r\n0\r\na: 1\r\n", Ok((9, b"1\r\nx\r\n0\r\n")));
        check_ready("a wrong chunk", Chunked, Verbatim, b"5\r\nhello\r\nx\r\n", Err(Error::ChunkSize));
        check_ready("a wrong trailer", Chunked, Verbatim, b"0\r\na : b\r\n\r\n", Err(Error::Trailer));
        check_ready("a wrong trailer, not all there", Chunked, Verbatim, b"0\r\na : b", Err(Error::Trailer));
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn the_data_of_a_response_in_front_of_a_malformed_chunk_is_not_lost() {
        use BodyMode::{Verbatim, Dechunked};
        let check = |why: &str, mode, bytes, expected| check_ready_of(why, Body::of_response(Chunked), mode, bytes, expected);
        check("a wrong size", Verbatim, b"5\r\nhello\r\nx\r\n", Ok((10, b"5\r\nhello\r\n")));
        check("the data alone", Dechunked, b"5\r\nhello\r\nx\r\n", Ok((10, b"hello")));
        check("a wrong end", Verbatim, b"5\r\nhello!\r\n", Ok((8, b"5\r\nhello")));
        check("a wrong trailer", Verbatim, b"1\r\nx\r\n0\r\na b: c\r\n\r\n", Ok((9, b"1\r\nx\r\n0\r\n")));
        check("no data in front of it", Verbatim, b"5;a=\r\nhello\r\n", Err(Error::ChunkExtension));
        check("no data in front of a wrong trailer", Verbatim, b"0\r\na b: c\r\n\r\n", Err(Error::Trailer));
        let mut body = Body::of_response(Chunked);
        assert_eq!(body.take_ready(b"1\r\nx\r\nx", Verbatim, |_| false, &mut Vec::new()), Ok(6));
        assert_eq!(body.follow(b"x"), Err(Error::ChunkSize), "the error comes later");
    }

    #[test]
    fn what_is_opaque_may_pass_unseen() {
        let mut body = Body::new(Length(5));
        assert_eq!(body.opaque(), 5);
        body.advance(2);
        assert_eq!(
            body.next(b"xyz more"),
            Ok(Piece::Data(3)),
            "only what is left"
        );
        assert!(body.is_complete());
        assert_eq!((body.opaque(), body.next(b"more")), (0, Ok(Piece::End)));

        let mut body = Body::new(UntilClose);
        assert_eq!(body.opaque(), u64::MAX);
        body.advance(1 << 40);
        assert_eq!(body.opaque(), u64::MAX, "there is no end to count to");

        let mut body = Body::new(Chunked);
        assert_eq!((body.opaque(), body.follow(b"5\r\n")), (0, Ok(3)));
        assert_eq!(body.opaque(), 5);
        body.advance(5);
        assert_eq!(
            (body.opaque(), body.follow(b"\r\n0\r\n\r\nmore")),
            (0, Ok(7))
        );
        assert!(body.is_complete());
    }

    #[test]
    fn only_a_body_that_ends_with_its_connection_may_end_with_it() {
        #[track_caller]
        fn check(why: &str, framing: Framing, bytes: &[u8], expected: Result<(), Truncated>) {
            let mut body = Body::new(framing);
            body.follow(bytes)
                .expect("rows are right as far as they go");
            assert_eq!(body.end_of_file(), expected, "{why}");
            assert_eq!(body.is_complete(), expected.is_ok(), "{why}");
        }
        check("none", Empty, b"", Ok(()));
        check("a whole length", Length(5), b"hello", Ok(()));
        check("half of it", Length(5), b"he", Err(Truncated));
        check("nothing of it", Length(5), b"", Err(Truncated));
        check("until close", UntilClose, b"hello", Ok(()));
        check("until close, nothing", UntilClose, b"", Ok(()));
        check("whole chunks", Chunked, b"1\r\nx\r\n0\r\n\r\n", Ok(()));
        check("no last chunk", Chunked, b"1\r\nx\r\n", Err(Truncated));
        check(
            "no end of the last chunk",
            Chunked,
            b"1\r\nx\r\n0\r\n",
            Err(Truncated),
        );
        check("half an end", Chunked, b"1\r\nx\r\n0\r\n\r", Err(Truncated));
        check("within data", Chunked, b"5\r\nhe", Err(Truncated));
        check("within a size", Chunked, b"5", Err(Truncated));
        check("within trailers", Chunked, b"0\r\na: 1", Err(Truncated));
    }
}
