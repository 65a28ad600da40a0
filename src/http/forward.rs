//! One message's forward: everything that is decided about it from its head, in the order that matters.
//!
//! Decided here: in which order the rules of this layer are asked, and what becomes of both connections. Not
//! decided here: when to read, and what is done with the verdict. `serve::exchange` and the fuzz target
//! `exchange` call these two functions, so that what is searched for mistakes is what runs.

use super::body::BodyMode;
use super::connection::{self, Next, NominatedFields, Options, Reason};
use super::error::{Error, Parsed};
use super::framing::{self, Asked, Framing};
use super::guard::Guard;
use super::head::{self, RequestHead, ResponseHead, Slots, Version};
use super::rewrite::{self, Persistence, RequestRewriter};
use super::target::Target;

/// A request that may go on, and whose head has been written for the origin.
#[derive(Debug)]
pub struct ForwardedRequest<'h, 'b> {
    /// Its head, as the client sent it.
    pub head: RequestHead<'h, 'b>,
    /// Where it is to go.
    pub target: Target<'b>,
    /// How its body ends.
    pub framing: Framing,
    /// What of it decides about its response.
    pub asking: RequestContext,
    /// The names that its trailer section must not bring back.
    pub named: NominatedFields,
}

/// What of a request decides about its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    /// What its response has to be read by.
    pub asked: Asked,
    /// The version that the client understands.
    pub version: Version,
    /// The client keeps its connection open behind the response.
    pub persists: bool,
    /// The head that went on asks for an upgrade.
    pub upgrades: bool,
}

/// A request that does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why not.
    pub error: Error,
    /// It is known to be a `HEAD`: the answer has no body.
    pub head_only: bool,
}

/// Reads a request's head from the start of `bytes`, judges it, and writes it for the origin to `out`. Nothing is
/// written unless it may go on.
pub fn request<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    guard: &Guard,
    onward: &RequestRewriter,
    out: &mut Vec<u8>,
) -> Result<Parsed<ForwardedRequest<'h, 'b>>, Refused> {
    let refused = |head_only| move |error| Refused { error, head_only };
    let Parsed::Complete(head) = head::request(bytes, slots).map_err(refused(false))? else {
        return Ok(Parsed::Partial);
    };
    let asked = Asked::by(head.method);
    let refused = refused(asked == Asked::Head);
    // Where the message ends comes before where it goes.
    let framing = framing::of_request(&head).map_err(refused)?;
    let target = Target::parse(head.method, head.target).map_err(refused)?;
    guard.admit(&head, &target).map_err(refused)?;
    let options = Options::of(head.fields).map_err(refused)?;
    let upgrades = rewrite::request(&head, &target, &options, framing, onward, out);
    let asking = RequestContext {
        asked,
        version: head.version,
        persists: options.persists(head.version),
        upgrades,
    };
    Ok(Parsed::Complete(ForwardedRequest {
        named: trailing(&options, framing),
        head,
        target,
        framing,
        asking,
    }))
}

/// A response that may come back, and whose head has been written for the client.
#[derive(Debug)]
pub struct ForwardedResponse<'h, 'b> {
    /// Its head, as the origin sent it.
    pub head: ResponseHead<'h, 'b>,
    /// What it is to the exchange.
    pub kind: Kind,
}

/// What a response is to the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It comes before the final one.
    Interim,
    /// It ends HTTP on this connection.
    Tunnel,
    /// It is the answer.
    Final(Final),
}

/// How an answer goes on behind its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// How its body ends.
    pub framing: Framing,
    /// How its body is passed on.
    pub form: BodyMode,
    /// What becomes of the client's connection.
    pub next: Next,
    /// The origin keeps its connection, for as many seconds as it announced.
    pub keep: Option<Option<u64>>,
    /// The names that its trailer section must not bring back.
    pub named: NominatedFields,
}

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// It is not HTTP/1.1, or contradicts itself.
    Malformed(Error),
    /// It changes to a protocol that nobody asked for.
    UnaskedUpgrade,
}

/// The state of things when a response arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeState {
    /// The request has gone out, to its last byte.
    pub is_sent: bool,
    /// The interceptor is stopping.
    pub is_stopping: bool,
}

/// Reads a response's head from the start of `bytes`, judges it, and writes it for the client to `out`. Nothing is
/// written unless it may come back.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    asking: &RequestContext,
    moment: ExchangeState,
    out: &mut Vec<u8>,
) -> Result<Parsed<ForwardedResponse<'h, 'b>>, ResponseError> {
    let Parsed::Complete(head) = head::response(bytes, slots).map_err(ResponseError::Malformed)?
    else {
        return Ok(Parsed::Partial);
    };
    let framing = framing::of_response(&head, asking.asked).map_err(ResponseError::Malformed)?;
    let options = Options::of(head.fields).map_err(ResponseError::Malformed)?;
    // It must not get a transfer coding, announced or done (RFC 9112 §6.1).
    let knows_no_coding = asking.version == Version::Http10;
    let (kind, persistence) = match head.status {
        101 if asking.upgrades => (Kind::Tunnel, Persistence::Upgrade),
        101 => return Err(ResponseError::UnaskedUpgrade),
        100..=199 => (Kind::Interim, Persistence::Presumed),
        _ => {
            let form = if knows_no_coding && framing == Framing::Chunked {
                BodyMode::Dechunked
            } else {
                BodyMode::Verbatim
            };
            let next = next(asking, framing, form, moment);
            let persistence = match (next, asking.version) {
                (Next::Reuse, Version::Http11) => Persistence::Presumed,
                (Next::Reuse, Version::Http10) => Persistence::KeepAlive,
                _ => Persistence::Close,
            };
            let keep = (options.persists(head.version) && framing != Framing::UntilClose)
                .then(|| connection::announced_idle_seconds(head.fields));
            let kind = Kind::Final(Final {
                framing,
                form,
                next,
                keep,
                named: trailing(&options, framing),
            });
            (kind, persistence)
        }
    };
    rewrite::response(&head, &options, persistence, knows_no_coding, out);
    Ok(Parsed::Complete(ForwardedResponse { head, kind }))
}

/// What becomes of the client's connection behind a final response (RFC 9112 §9.3).
pub fn next(
    asking: &RequestContext,
    framing: Framing,
    form: BodyMode,
    moment: ExchangeState,
) -> Next {
    if !moment.is_sent {
        Next::Close(Reason::RequestUnfinished)
    } else if !asking.persists {
        Next::Close(Reason::ClientAsked)
    } else if framing == Framing::UntilClose || form == BodyMode::Dechunked {
        Next::Close(Reason::BodyEndsByClose)
    } else if moment.is_stopping {
        Next::Close(Reason::Stopping)
    } else {
        Next::Reuse
    }
}

/// What `Connection` names stays on this hop in the trailer section, too (RFC 9110 §7.6.1), where there can be one.
fn trailing(options: &Options<'_>, framing: Framing) -> NominatedFields {
    if framing == Framing::Chunked {
        options.named()
    } else {
        NominatedFields::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a request to a loopback listener, judged: what goes on, up to `Via`, or why it does not.
    #[track_caller]
    fn check_request(why: &str, lines: &str, expected: Result<&str, (Error, bool)>) {
        let text = lines.replace(" | ", "\r\n") + "\r\n\r\n";
        let guard = Guard {
            local_hosts_only: true,
            ..Guard::default()
        };
        let onward = RequestRewriter::new("o:1", "/base", &[]).expect("it is settable");
        let mut out = Vec::new();
        let mut slots = Slots::new();
        let verdict = request(text.as_bytes(), &mut slots, &guard, &onward, &mut out);
        let sent = out.escape_ascii().to_string().replace(r"\r\n", " | ");
        let verdict = match &verdict {
            Ok(Parsed::Complete(onbound)) => {
                assert_eq!(onbound.head.len, text.len(), "{why}");
                Ok(sent.split(" | Via: ").next().unwrap_or_default())
            }
            Ok(Parsed::Partial) => panic!("rows are whole: {why}"),
            Err(refused) => {
                assert_eq!(sent, "", "nothing is written of what is refused: {why}");
                Err((refused.error, refused.head_only))
            }
        };
        assert_eq!(verdict, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn where_a_message_ends_is_judged_before_where_it_goes() {
        use Error::{Connect, ConnectBody, HostForeign, HostMissing, LengthAndCoding, OriginForeign, Target, TooManyOptions};
        check_request("nothing is wrong", "GET /a HTTP/1.1 | Host: localhost", Ok("GET /base/a HTTP/1.1 | Host: o:1"));
        check_request("framing before everything", "GET * HTTP/1.1 | Content-Length: 1 | Transfer-Encoding: chunked", Err((LengthAndCoding, false)));
        check_request("a body on CONNECT before CONNECT", "CONNECT a:1 HTTP/1.1 | Content-Length: 1", Err((ConnectBody, false)));
        check_request("CONNECT before its host", "CONNECT a:1 HTTP/1.1", Err((Connect, false)));
        check_request("the target before the host", "GET * HTTP/1.1", Err((Target, false)));
        check_request("the host before the origin", "GET / HTTP/1.1 | Origin: http://a", Err((HostMissing, false)));
        check_request("a foreign host before the origin", "GET / HTTP/1.1 | Host: a | Origin: http://a", Err((HostForeign, false)));
        check_request("the origin before the options", &format!("GET / HTTP/1.1 | Host: localhost | Origin: http://a | Connection: {}", "a,".repeat(17)), Err((OriginForeign, false)));
        check_request("the options", &format!("GET / HTTP/1.1 | Host: localhost | Connection: {}", "a,".repeat(17)), Err((TooManyOptions, false)));
        check_request("a HEAD is told without a body", "HEAD / HTTP/1.1", Err((HostMissing, true)));
    }

    /// What becomes of a response to a request with `asking`, judged at `moment`: its kind, or what is wrong.
    #[track_caller]
    fn check_response(
        why: &str,
        lines: &str,
        (asking, moment): (RequestContext, ExchangeState),
        expected: Result<Kind, ResponseError>,
    ) {
        let text = lines.replace(" | ", "\r\n") + "\r\n\r\n";
        let mut out = Vec::new();
        let mut slots = Slots::new();
        let verdict = response(text.as_bytes(), &mut slots, &asking, moment, &mut out);
        assert_eq!(verdict.is_err(), out.is_empty(), "{why}");
        let verdict = verdict.map(|parsed| match parsed {
            Parsed::Complete(inbound) => inbound.kind,
            Parsed::Partial => panic!("rows are whole: {why}"),
        });
        assert_eq!(verdict, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn both_connections_go_on_or_end_as_both_messages_say() {
        use Framing::{Chunked, Empty, Length, UntilClose};
        use Reason::{BodyEndsByClose, ClientAsked, RequestUnfinished, Stopping};
        let get = RequestContext { asked: Asked::Other, version: Version::Http11, persists: true, upgrades: false };
        let sent = ExchangeState { is_sent: true, is_stopping: false };
        let usual = (get, sent);
        let answer = |framing, next, keep| Ok(Kind::Final(Final { framing, form: BodyMode::Verbatim, next, keep, named: NominatedFields::default() }));
        let kept = Some(None);
        check_response("the usual", "HTTP/1.1 200 OK | Content-Length: 5", usual, answer(Length(5), Next::Reuse, kept));
        check_response("in chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", usual, answer(Chunked, Next::Reuse, kept));
        check_response("the origin closes, and says so", "HTTP/1.1 200 OK | Content-Length: 5 | Connection: close", usual, answer(Length(5), Next::Reuse, None));
        check_response("the origin closes, for HTTP/1.0 does", "HTTP/1.0 200 OK | Content-Length: 5", usual, answer(Length(5), Next::Reuse, None));
        check_response("the origin keeps its connection, though it speaks HTTP/1.0", "HTTP/1.0 200 OK | Content-Length: 5 | Connection: keep-alive", usual, answer(Length(5), Next::Reuse, kept));
        check_response("for a time", "HTTP/1.1 200 OK | Content-Length: 5 | Keep-Alive: timeout=5", usual, answer(Length(5), Next::Reuse, Some(Some(5))));
        check_response("the body ends with the connection", "HTTP/1.1 200 OK", usual, answer(UntilClose, Next::Close(BodyEndsByClose), None));
        check_response("the client asked for the end", "HTTP/1.1 200 OK | Content-Length: 5", (RequestContext { persists: false, ..get }, sent), answer(Length(5), Next::Close(ClientAsked), kept));
        check_response("the answer came before the request was over", "HTTP/1.1 413 x | Content-Length: 5", (get, ExchangeState { is_sent: false, ..sent }), answer(Length(5), Next::Close(RequestUnfinished), kept));
        check_response("the interceptor is stopping", "HTTP/1.1 200 OK | Content-Length: 5", (get, ExchangeState { is_stopping: true, ..sent }), answer(Length(5), Next::Close(Stopping), kept));
        check_response("to HEAD", "HTTP/1.1 200 OK | Content-Length: 5", (RequestContext { asked: Asked::Head, ..get }, sent), answer(Empty, Next::Reuse, kept));
        check_response("304", "HTTP/1.1 304 x | Content-Length: 5", usual, answer(Empty, Next::Reuse, kept));
        let decoded = Final { framing: Chunked, form: BodyMode::Dechunked, next: Next::Close(BodyEndsByClose), keep: kept, named: NominatedFields::default() };
        check_response("HTTP/1.0 gets no chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", (RequestContext { version: Version::Http10, ..get }, sent), Ok(Kind::Final(decoded)));
        check_response("100", "HTTP/1.1 100 Continue", usual, Ok(Kind::Interim));
        check_response("103, before the request is over", "HTTP/1.1 103 Early Hints", (get, ExchangeState { is_sent: false, ..sent }), Ok(Kind::Interim));
        check_response("101 that was asked for", "HTTP/1.1 101 x | Upgrade: websocket", (RequestContext { upgrades: true, ..get }, sent), Ok(Kind::Tunnel));
        check_response("101 that was not", "HTTP/1.1 101 x | Upgrade: websocket", usual, Err(ResponseError::UnaskedUpgrade));
        check_response("both framings", "HTTP/1.1 200 OK | Content-Length: 5 | Transfer-Encoding: chunked", usual, Err(ResponseError::Malformed(Error::LengthAndCoding)));
        check_response("too many options", &format!("HTTP/1.1 200 OK | Connection: {}", "a,".repeat(17)), usual, Err(ResponseError::Malformed(Error::TooManyOptions)));
    }

    #[test]
    fn what_connection_names_is_remembered_for_the_trailers() {
        let named = |framing: &str| {
            let text = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, x-sum\r\n{framing}\r\n\r\n"
            );
            let (guard, onward) = (Guard::default(), RequestRewriter::new("o", "", &[]));
            let onward = onward.expect("it is settable");
            let mut slots = Slots::new();
            match request(
                text.as_bytes(),
                &mut slots,
                &guard,
                &onward,
                &mut Vec::new(),
            ) {
                Ok(Parsed::Complete(onbound)) => onbound.named,
                verdict => panic!("{verdict:?}"),
            }
        };
        let of_chunks = named("Transfer-Encoding: chunked");
        assert!(of_chunks.has("X-Sum") && !of_chunks.has("X-Other") && !of_chunks.has("close"));
        assert_eq!(
            named("Content-Length: 1"),
            NominatedFields::default(),
            "no trailers, no names"
        );
    }
}
