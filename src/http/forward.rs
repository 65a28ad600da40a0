//! What is decided about a message from its head, in this order.
//!
//! A request ([`request`]):
//!
//! 1. parse the head (RFC 9112 §3, §5),
//! 2. decide how the body ends (RFC 9112 §6.3),
//! 3. parse the request target (RFC 9112 §3.2),
//! 4. check `Host`, `Origin`, `Sec-Fetch-Site` and `Via` ([`Guard`]),
//! 5. read the connection options (RFC 9110 §7.6.1),
//! 6. write the head for the target ([`rewrite`]).
//!
//! A response ([`response`]): parse the head, decide how the body ends, read the connection options, tell interim responses, a
//! tunnel and the final response apart, decide what becomes of both connections (RFC 9112 §9.3), write the head for the client.
//!
//! Not decided here: when to read, and how bytes move. `serve::exchange` and the fuzz target `exchange` call these two
//! functions, so that the code that is fuzzed is the code that runs.

use super::body::BodyMode;
use super::connection::{
    self, AfterResponse, CloseReason, ConnectionOptions, NominatedFields, Persistence,
};
use super::error::{Error, Parsed};
use super::framing::{self, Framing, ResponseTo};
use super::guard::Guard;
use super::head::{self, RequestHead, ResponseHead, Slots, Version};
use super::reply::ConnectionField;
use super::rewrite::{self, RequestRewriter};
use super::target::Target;

/// A request that is forwarded, and whose head has been written for the target.
#[derive(Debug)]
pub struct ForwardedRequest<'h, 'b> {
    /// The head, as the client sent it.
    pub head: RequestHead<'h, 'b>,
    /// The request target.
    pub target: Target<'b>,
    /// How the body ends.
    pub framing: Framing,
    /// What the response depends on.
    pub context: RequestContext,
    /// Fields that must not pass in the trailer section.
    pub nominated: NominatedFields,
    /// It is not to be forwarded but to be answered here: see [`rewrite::ends_here`].
    pub ends_here: bool,
}

/// What the treatment of a response depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    /// Whether the method was `HEAD`, whose response has no body.
    pub response_to: ResponseTo,
    /// The client's version.
    pub version: Version,
    /// The client keeps its connection open after the response.
    pub is_persistent: bool,
    /// The forwarded head asks for an upgrade.
    pub upgrades: bool,
    /// The target's connection is this client's alone: this request or an earlier one has [authenticated] it.
    ///
    /// [authenticated]: connection::authenticates
    pub is_pinned: bool,
}

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// The method is `HEAD`: the reply has no body.
    pub head_only: bool,
}

/// Decides about the request at the start of `bytes`, and writes its head for the target to `out`; nothing is written unless it
/// is forwarded.
///
/// # Errors
///
/// The first rule that it breaks, in the order above.
pub fn request<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    guard: &Guard,
    rewriter: &RequestRewriter,
    out: &mut Vec<u8>,
) -> Result<Parsed<ForwardedRequest<'h, 'b>>, Refused> {
    let refused = |head_only| move |error| Refused { error, head_only };
    let Parsed::Complete(head) = head::request(bytes, slots).map_err(refused(false))? else {
        return Ok(Parsed::Partial);
    };
    let response_to = ResponseTo::method(head.method);
    let refused = refused(response_to == ResponseTo::Head);
    // Where the message ends comes before where it goes.
    let framing = framing::of_request(&head).map_err(refused)?;
    let target = Target::parse(head.method, head.target).map_err(refused)?;
    guard.check(&head, &target, framing).map_err(refused)?;
    let options = ConnectionOptions::parse(head.fields).map_err(refused)?;
    let upgrades = rewrite::request(&head, &target, &options, framing, rewriter, out);
    let context = RequestContext {
        response_to,
        version: head.version,
        is_persistent: options.is_persistent(head.version),
        upgrades,
        is_pinned: connection::authenticates(head.fields, REQUEST_CREDENTIALS),
    };
    Ok(Parsed::Complete(ForwardedRequest {
        nominated: nominated_trailers(&options, framing),
        ends_here: rewrite::ends_here(&head),
        head,
        target,
        framing,
        context,
    }))
}

/// A response that is forwarded, and whose head has been written for the client.
#[derive(Debug)]
pub struct ForwardedResponse<'h, 'b> {
    /// The head, as the target sent it.
    pub head: ResponseHead<'h, 'b>,
    /// What follows it.
    pub kind: ResponseKind,
}

/// What follows a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseKind {
    /// Another response: this is a 1xx other than 101 (RFC 9110 §15.2).
    Interim,
    /// Another protocol: this is a 101 (RFC 9110 §7.8).
    Tunnel,
    /// The body of the final response.
    Final(FinalResponse),
}

/// How a final response goes on after its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalResponse {
    /// How the body ends.
    pub framing: Framing,
    /// How the body is passed on.
    pub mode: BodyMode,
    /// What becomes of the client's connection.
    pub next: AfterResponse,
    /// What becomes of the target's connection.
    pub persistence: Persistence,
    /// Fields that must not pass in the trailer section.
    pub nominated: NominatedFields,
}

/// Why a response is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// It is not HTTP/1.1, or contradicts itself.
    Malformed(Error),
    /// A 101 to a request that did not ask for an upgrade.
    UnaskedUpgrade,
}

/// The state of the exchange when a response arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeState {
    /// The whole request has been sent.
    pub is_request_sent: bool,
    /// The interceptor is stopping.
    pub is_stopping: bool,
}

/// Decides about the response at the start of `bytes`, and writes its head for the client to `out`; nothing is written unless it
/// is forwarded.
///
/// # Errors
///
/// If it is malformed, or changes protocols without being asked to.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    context: &RequestContext,
    state: ExchangeState,
    out: &mut Vec<u8>,
) -> Result<Parsed<ForwardedResponse<'h, 'b>>, ResponseError> {
    let malformed = ResponseError::Malformed;
    let Parsed::Complete(head) = head::response(bytes, slots).map_err(malformed)? else {
        return Ok(Parsed::Partial);
    };
    let framing = framing::of_response(&head, context.response_to).map_err(malformed)?;
    let options = ConnectionOptions::parse(head.fields).map_err(malformed)?;
    // RFC 9112 §6.1: an HTTP/1.0 client must not get a Transfer-Encoding.
    let is_http_1_0 = context.version == Version::Http10;
    let (kind, connection_field) = match head.status {
        101 if context.upgrades => (ResponseKind::Tunnel, ConnectionField::Upgrade),
        101 => return Err(ResponseError::UnaskedUpgrade),
        100..=199 => (ResponseKind::Interim, ConnectionField::Absent),
        _ => {
            let mode = if is_http_1_0 && framing == Framing::Chunked {
                BodyMode::Dechunked
            } else {
                BodyMode::Verbatim
            };
            let is_pinned = context.is_pinned || connection::authenticates(head.fields, CHALLENGES);
            let persistence = match target_persistence(&head, &options, framing) {
                Persistence::KeepAlive { .. } if is_pinned => Persistence::Pinned,
                persistence => persistence,
            };
            let next = match after_response(context, framing, mode, state) {
                AfterResponse::KeepAlive if is_pinned && persistence == Persistence::Close => {
                    AfterResponse::Close(CloseReason::TargetCloses)
                }
                next => next,
            };
            let connection_field = connection_field(next, context.version);
            let kind = ResponseKind::Final(FinalResponse {
                framing,
                mode,
                next,
                persistence,
                nominated: nominated_trailers(&options, framing),
            });
            (kind, connection_field)
        }
    };
    rewrite::response(&head, &options, connection_field, is_http_1_0, out);
    Ok(Parsed::Complete(ForwardedResponse { head, kind }))
}

/// The fields of a request whose scheme may authenticate its connection.
const REQUEST_CREDENTIALS: [&str; 2] = ["Authorization", "Proxy-Authorization"];

/// The fields of a response that ask for such a scheme (RFC 9110 §11.6.1, §11.7.1).
const CHALLENGES: [&str; 2] = ["WWW-Authenticate", "Proxy-Authenticate"];

/// What becomes of the client's connection after a final response (RFC 9112 §9.3).
pub fn after_response(
    context: &RequestContext,
    framing: Framing,
    mode: BodyMode,
    state: ExchangeState,
) -> AfterResponse {
    if !state.is_request_sent {
        AfterResponse::Close(CloseReason::RequestIncomplete)
    } else if !context.is_persistent {
        AfterResponse::Close(CloseReason::ClientRequested)
    } else if framing == Framing::UntilClose || mode == BodyMode::Dechunked {
        AfterResponse::Close(CloseReason::CloseDelimited)
    } else if state.is_stopping {
        AfterResponse::Close(CloseReason::Stopping)
    } else {
        AfterResponse::KeepAlive
    }
}

/// What a final response to a client of that version says of its connection (RFC 9112 §9.3).
pub fn connection_field(next: AfterResponse, version: Version) -> ConnectionField {
    match (next, version) {
        (AfterResponse::KeepAlive, Version::Http11) => ConnectionField::Absent,
        (AfterResponse::KeepAlive, Version::Http10) => ConnectionField::KeepAlive,
        (AfterResponse::Tunnel, _) => ConnectionField::Upgrade,
        (AfterResponse::Close(_), _) => ConnectionField::Close,
    }
}

/// What becomes of the target's connection after a final response (RFC 9112 §9.3).
fn target_persistence(
    head: &ResponseHead<'_, '_>,
    options: &ConnectionOptions<'_>,
    framing: Framing,
) -> Persistence {
    // RFC 9112 §6.1: such a framing is faulty, and its end not certain.
    let is_faulty = head.version == Version::Http10
        && head
            .fields
            .iter()
            .any(|field| framing::is_coding(field.name));
    if options.is_persistent(head.version) && framing != Framing::UntilClose && !is_faulty {
        Persistence::KeepAlive {
            announced_seconds: connection::announced_idle_seconds(head.fields),
        }
    } else {
        Persistence::Close
    }
}

/// The fields that `Connection` names: they must not pass in a trailer section either (RFC 9110 §7.6.1). Only a chunked body has
/// one.
fn nominated_trailers(options: &ConnectionOptions<'_>, framing: Framing) -> NominatedFields {
    if framing == Framing::Chunked {
        options.nominated()
    } else {
        NominatedFields::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what a loopback listener forwards of a request head, up to `Via`, or why it refuses it.
    #[track_caller]
    fn check_request(why: &str, lines: &str, expected: Result<&str, (Error, bool)>) {
        let text = lines.replace(" | ", "\r\n") + "\r\n\r\n";
        let guard = Guard {
            local_hosts_only: true,
            ..Guard::default()
        };
        let rewriter = RequestRewriter::new("o:1", "/base", &[]).expect("it is valid");
        let mut out = Vec::new();
        let mut slots = Slots::default();
        let verdict = request(text.as_bytes(), &mut slots, &guard, &rewriter, &mut out);
        let sent = out.escape_ascii().to_string().replace(r"\r\n", " | ");
        let verdict = match &verdict {
            Ok(Parsed::Complete(forwarded)) => {
                assert_eq!(forwarded.head.len, text.len(), "{why}");
                Ok(sent.split(" | Via: ").next().unwrap_or_default())
            }
            Ok(Parsed::Partial) => panic!("rows are whole: {why}"),
            Err(refused) => {
                assert_eq!(sent, "", "nothing is written of a refused request: {why}");
                Err((refused.error, refused.head_only))
            }
        };
        assert_eq!(verdict, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn framing_is_checked_before_routing() {
        use Error::{Connect, ConnectBody, HostForeign, HostMissing, LengthAndCoding, OriginForeign, Target, TooManyOptions};
        check_request("a valid request", "GET /a HTTP/1.1 | Host: localhost", Ok("GET /base/a HTTP/1.1 | Host: o:1"));
        check_request("framing before everything", "GET * HTTP/1.1 | Content-Length: 1 | Transfer-Encoding: chunked", Err((LengthAndCoding, false)));
        check_request("a body on CONNECT before CONNECT", "CONNECT a:1 HTTP/1.1 | Content-Length: 1", Err((ConnectBody, false)));
        check_request("CONNECT before its host", "CONNECT a:1 HTTP/1.1", Err((Connect, false)));
        check_request("the target before the host", "GET * HTTP/1.1", Err((Target, false)));
        check_request("the host before the origin", "GET / HTTP/1.1 | Origin: http://a", Err((HostMissing, false)));
        check_request("a foreign host before the origin", "GET / HTTP/1.1 | Host: a | Origin: http://a", Err((HostForeign, false)));
        check_request("the origin before the options", &format!("GET / HTTP/1.1 | Host: localhost | Origin: http://a | Connection: {}", "a,".repeat(17)), Err((OriginForeign, false)));
        check_request("the options", &format!("GET / HTTP/1.1 | Host: localhost | Connection: {}", "a,".repeat(17)), Err((TooManyOptions, false)));
        check_request("a HEAD is refused without a body", "HEAD / HTTP/1.1", Err((HostMissing, true)));
    }

    /// Checks what follows a response to a request with `context` in that state, or why it is not forwarded.
    #[track_caller]
    fn check_response(
        why: &str,
        lines: &str,
        (context, state): (RequestContext, ExchangeState),
        expected: Result<ResponseKind, ResponseError>,
    ) {
        let text = lines.replace(" | ", "\r\n") + "\r\n\r\n";
        let mut out = Vec::new();
        let mut slots = Slots::default();
        let verdict = response(text.as_bytes(), &mut slots, &context, state, &mut out);
        assert_eq!(verdict.is_err(), out.is_empty(), "{why}");
        let verdict = verdict.map(|parsed| match parsed {
            Parsed::Complete(forwarded) => forwarded.kind,
            Parsed::Partial => panic!("rows are whole: {why}"),
        });
        assert_eq!(verdict, expected, "{why}");
    }

    #[test]
    #[rustfmt::skip] // A table.
    fn both_connections_persist_or_close_as_both_messages_say() {
        use Framing::{Chunked, Empty, Length, UntilClose};
        use CloseReason::{CloseDelimited, ClientRequested, RequestIncomplete, Stopping, TargetCloses};
        let get = RequestContext { response_to: ResponseTo::Other, version: Version::Http11, is_persistent: true, upgrades: false, is_pinned: false };
        let sent = ExchangeState { is_request_sent: true, is_stopping: false };
        let usual = (get, sent);
        let answer = |framing, next, persistence| Ok(ResponseKind::Final(FinalResponse { framing, mode: BodyMode::Verbatim, next, persistence, nominated: NominatedFields::default() }));
        let kept = Persistence::KeepAlive { announced_seconds: None };
        let closed = Persistence::Close;
        check_response("the usual", "HTTP/1.1 200 OK | Content-Length: 5", usual, answer(Length(5), AfterResponse::KeepAlive, kept));
        check_response("in chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", usual, answer(Chunked, AfterResponse::KeepAlive, kept));
        check_response("the target announces that it closes", "HTTP/1.1 200 OK | Content-Length: 5 | Connection: close", usual, answer(Length(5), AfterResponse::KeepAlive, closed));
        check_response("the target closes, as HTTP/1.0 does by default", "HTTP/1.0 200 OK | Content-Length: 5", usual, answer(Length(5), AfterResponse::KeepAlive, closed));
        check_response("an HTTP/1.0 target keeps its connection", "HTTP/1.0 200 OK | Content-Length: 5 | Connection: keep-alive", usual, answer(Length(5), AfterResponse::KeepAlive, kept));
        check_response("but not after chunks, which HTTP/1.0 does not have", "HTTP/1.0 200 OK | Transfer-Encoding: chunked | Connection: keep-alive", usual, answer(Chunked, AfterResponse::KeepAlive, closed));
        check_response("nor after a head that announces them", "HTTP/1.0 304 x | Transfer-Encoding: chunked | Connection: keep-alive", usual, answer(Empty, AfterResponse::KeepAlive, closed));
        check_response("for an announced time", "HTTP/1.1 200 OK | Content-Length: 5 | Keep-Alive: timeout=5", usual, answer(Length(5), AfterResponse::KeepAlive, Persistence::KeepAlive { announced_seconds: Some(5) }));
        check_response("the body ends with the connection", "HTTP/1.1 200 OK", usual, answer(UntilClose, AfterResponse::Close(CloseDelimited), closed));
        check_response("the client closes", "HTTP/1.1 200 OK | Content-Length: 5", (RequestContext { is_persistent: false, ..get }, sent), answer(Length(5), AfterResponse::Close(ClientRequested), kept));
        check_response("the response came before the end of the request", "HTTP/1.1 413 x | Content-Length: 5", (get, ExchangeState { is_request_sent: false, ..sent }), answer(Length(5), AfterResponse::Close(RequestIncomplete), kept));
        check_response("the interceptor is stopping", "HTTP/1.1 200 OK | Content-Length: 5", (get, ExchangeState { is_stopping: true, ..sent }), answer(Length(5), AfterResponse::Close(Stopping), kept));
        let pinned = (RequestContext { is_pinned: true, ..get }, sent);
        check_response("of an authenticated connection", "HTTP/1.1 200 OK | Content-Length: 5", pinned, answer(Length(5), AfterResponse::KeepAlive, Persistence::Pinned));
        check_response("that the target closes", "HTTP/1.1 200 OK | Content-Length: 5 | Connection: close", pinned, answer(Length(5), AfterResponse::Close(TargetCloses), closed));
        check_response("a challenge", "HTTP/1.1 401 x | Content-Length: 5 | WWW-Authenticate: NTLM", usual, answer(Length(5), AfterResponse::KeepAlive, Persistence::Pinned));
        check_response("in a list", "HTTP/1.1 401 x | Content-Length: 5 | www-authenticate: Basic realm=\"a\", negotiate TlR=", usual, answer(Length(5), AfterResponse::KeepAlive, Persistence::Pinned));
        check_response("of a proxy", "HTTP/1.1 407 x | Content-Length: 5 | Proxy-Authenticate: Basic | Proxy-Authenticate: Negotiate", usual, answer(Length(5), AfterResponse::KeepAlive, Persistence::Pinned));
        check_response("a challenge of each request", "HTTP/1.1 401 x | Content-Length: 5 | WWW-Authenticate: Basic realm=\"NTLM\", Bearer, NTLMv9", usual, answer(Length(5), AfterResponse::KeepAlive, kept));
        check_response("to HEAD", "HTTP/1.1 200 OK | Content-Length: 5", (RequestContext { response_to: ResponseTo::Head, ..get }, sent), answer(Empty, AfterResponse::KeepAlive, kept));
        check_response("304", "HTTP/1.1 304 x | Content-Length: 5", usual, answer(Empty, AfterResponse::KeepAlive, kept));
        let decoded = FinalResponse { framing: Chunked, mode: BodyMode::Dechunked, next: AfterResponse::Close(CloseDelimited), persistence: kept, nominated: NominatedFields::default() };
        check_response("HTTP/1.0 gets no chunks", "HTTP/1.1 200 OK | Transfer-Encoding: chunked", (RequestContext { version: Version::Http10, ..get }, sent), Ok(ResponseKind::Final(decoded)));
        check_response("100", "HTTP/1.1 100 Continue", usual, Ok(ResponseKind::Interim));
        check_response("103, before the request is over", "HTTP/1.1 103 Early Hints", (get, ExchangeState { is_request_sent: false, ..sent }), Ok(ResponseKind::Interim));
        check_response("a 101 to an upgrade", "HTTP/1.1 101 x | Upgrade: websocket", (RequestContext { upgrades: true, ..get }, sent), Ok(ResponseKind::Tunnel));
        check_response("a 101 to no upgrade", "HTTP/1.1 101 x | Upgrade: websocket", usual, Err(ResponseError::UnaskedUpgrade));
        check_response("both framings", "HTTP/1.1 200 OK | Content-Length: 5 | Transfer-Encoding: chunked", usual, Err(ResponseError::Malformed(Error::LengthAndCoding)));
        check_response("too many options", &format!("HTTP/1.1 200 OK | Connection: {}", "a,".repeat(17)), usual, Err(ResponseError::Malformed(Error::TooManyOptions)));
    }

    #[test]
    fn fields_that_connection_names_are_kept_for_the_trailer_section() {
        let named = |framing: &str| {
            let text = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, x-sum\r\n{framing}\r\n\r\n"
            );
            let (guard, rewriter) = (Guard::default(), RequestRewriter::new("o", "", &[]));
            let rewriter = rewriter.expect("it is valid");
            let mut slots = Slots::default();
            match request(
                text.as_bytes(),
                &mut slots,
                &guard,
                &rewriter,
                &mut Vec::new(),
            ) {
                Ok(Parsed::Complete(forwarded)) => forwarded.nominated,
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
