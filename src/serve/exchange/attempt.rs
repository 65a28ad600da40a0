//! One attempt to send a request and to pass its response on: what the upload and the download know of each other.

use std::cell::{Cell, OnceCell, RefCell};

use crate::http::connection::{AfterResponse, Persistence};
use crate::serve::buffers::Outgoing;
use crate::serve::conn::WriteErrorKind;
use crate::serve::deadline::{Deadline, InactivityTimeout, Limits};
use crate::serve::end_mark::EndMark;
use crate::serve::error::{ClientError, ForwardError, UpstreamError};
use crate::serve::exchange::request::Request;
use crate::serve::site::Site;

/// One attempt at a request.
pub struct Attempt<'a> {
    pub request: &'a Request,
    pub site: &'a Site,
    pub limits: Limits<'a>,
    /// It is sent on a kept connection, which the origin may be about to close.
    pub is_reused: bool,
    /// `out` is the whole request, and repeating it changes nothing.
    is_repeatable: bool,
    /// The request's head and the start of its body, for as long as it may be sent again.
    pub out: Cell<Option<Outgoing>>,
    pub progress: Cell<RequestProgress>,
    /// The status of the final response whose start the client has been sent.
    pub response_status: Cell<Option<u16>>,
    /// Follows the response if it is an event stream that may be complete before its body ends.
    pub end_mark: OnceCell<RefCell<EndMark>>,
    /// Interim responses that have arrived.
    pub interim: Cell<usize>,
    /// The client has been sent a 100.
    pub has_continued: Cell<bool>,
    /// A write found that the origin has reset its connection.
    pub was_reset: Cell<bool>,
}

/// How much of the request has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestProgress {
    Nothing,
    Part,
    Whole,
}

/// A response that has been passed on.
pub struct Completion {
    pub status: u16,
    /// What becomes of the client's connection.
    pub next: AfterResponse,
    /// What becomes of the origin's connection.
    pub persistence: Persistence,
}

impl<'a> Attempt<'a> {
    /// An attempt at `request`, whose head and start of the body are in `out`. `is_repeatable`: that is all of it, and
    /// repeating it changes nothing.
    pub fn new(
        request: &'a Request,
        site: &'a Site,
        limits: Limits<'a>,
        out: Outgoing,
        is_repeatable: bool,
    ) -> Self {
        Attempt {
            request,
            site,
            limits,
            is_reused: false,
            is_repeatable,
            out: Cell::new(Some(out)),
            progress: Cell::new(RequestProgress::Nothing),
            response_status: Cell::new(None),
            end_mark: OnceCell::new(),
            interim: Cell::new(0),
            has_continued: Cell::new(false),
            was_reset: Cell::new(false),
        }
    }

    /// Whether the client has been sent the start of a final response.
    pub fn has_response(&self) -> bool {
        self.response_status.get().is_some()
    }

    /// The response's status if the client has all of it but the end of its framing, and disconnected: no fault.
    pub fn status_at_end_mark(&self, fault: &ForwardError) -> Option<u16> {
        let has_left = matches!(fault, ForwardError::Client(ClientError::Gone));
        let mark = self.end_mark.get().filter(|_| has_left)?;
        self.response_status
            .get()
            .filter(|_| mark.borrow().is_sent())
    }

    /// Whether the whole request has been sent.
    pub fn is_sent(&self) -> bool {
        self.progress.get() == RequestProgress::Whole
    }

    /// Whether the request may be sent again: only if no byte of it was sent, or if repeating it changes nothing, and if no
    /// interim response has come, which shows that the origin has read it (RFC 9110 §9.2.2). Its body is then as it was.
    pub fn can_repeat(&self) -> bool {
        let out = self.out.take();
        let is_there = out.is_some();
        self.out.set(out);
        is_there && self.is_harmless_to_repeat() && self.interim.get() == 0
    }

    fn is_harmless_to_repeat(&self) -> bool {
        self.is_repeatable || self.progress.get() == RequestProgress::Nothing
    }

    /// Keeps `out` if the request may have to be sent again; [`progress`](Attempt::progress) says how much of it was sent.
    pub fn keep(&self, out: Outgoing) {
        if self.is_reused && !self.has_response() && self.is_harmless_to_repeat() {
            self.out.set(Some(out.settle()));
        }
    }

    /// Prepares another attempt over a new connection, if that is allowed after `fault`.
    pub fn restart_after(&self, fault: &ForwardError) -> bool {
        // The origin may have closed a kept connection just before it was used.
        let was_stale = self.is_reused
            && matches!(
                fault,
                ForwardError::Upstream(UpstreamError::Closed | UpstreamError::Failed(_))
            );
        let may_restart = was_stale && !self.has_response() && self.can_repeat();
        if may_restart {
            self.progress.set(RequestProgress::Nothing);
            self.was_reset.set(false);
        }
        may_restart
    }

    /// The limit on a stall of a body, timed by `deadline`.
    pub fn inactivity<'d>(&self, deadline: &'d Deadline) -> InactivityTimeout<'d> {
        InactivityTimeout {
            deadline,
            most: self.site.service.timeouts.body,
        }
    }
}

/// Why the client gets no more of a response.
pub fn client_fault(kind: WriteErrorKind) -> ForwardError {
    match kind {
        WriteErrorKind::Failed(_) => ClientError::Gone.into(),
        WriteErrorKind::Stalled => ClientError::Stalled.into(),
    }
}
