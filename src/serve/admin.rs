//! The interceptor's own pages under `/_ic/`, and its answers to requests that end here. Every other request is forwarded.

use std::fmt::Write as _;

use serde_json::json;

use super::metrics::Metrics;
use super::site::Site;
use crate::http::head::{RequestHead, Version};
use crate::http::reply::{self, ReplyOptions};
use crate::text::{EscapedJson, redact};

/// A page of the interceptor itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Who this is: `/_ic/health`.
    Health,
    /// What it has done, for Prometheus: `/_ic/metrics`.
    Metrics,
    /// This is the last hop of a request: what an `OPTIONS` gets.
    Options,
    /// The same for a `TRACE`: the request as it was received.
    Trace(String),
}

impl Page {
    /// The page that a request asks for, if it is one of these.
    pub fn at(method: &str, path: &str) -> Option<Self> {
        if !matches!(method, "GET" | "HEAD") {
            return None;
        }
        match path {
            "/_ic/health" => Some(Page::Health),
            "/_ic/metrics" => Some(Page::Metrics),
            _ => None,
        }
    }

    /// The answer to a request that is not to be forwarded (RFC 9110 §9.3.7, §9.3.8).
    pub fn last_hop(head: &RequestHead<'_, '_>) -> Self {
        if head.method != "TRACE" {
            return Page::Options;
        }
        let version = match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        let mut text = format!("TRACE {} {version}\r\n", redact::path(head.target));
        for field in head.fields {
            let value = redact::field(field.name, field.value);
            // Writing to a string cannot fail.
            let _ = write!(text, "{}: {value}\r\n", field.name);
        }
        Page::Trace(text + "\r\n")
    }

    /// Writes the whole response, and counts it.
    pub fn write(&self, site: &Site, options: ReplyOptions, out: &mut Vec<u8>) {
        site.metrics.count_own_response(match self {
            Page::Health => "health",
            Page::Metrics => "metrics",
            Page::Options | Page::Trace(_) => "last_hop",
        });
        let (media_type, body) = match self {
            Page::Health => ("application/json", health(site)),
            Page::Metrics => ("text/plain; version=0.0.4", metrics(site)),
            Page::Options => ("text/plain", String::new()),
            Page::Trace(text) => ("message/http", text.clone()),
        };
        reply::document(200, media_type, "", body.as_bytes(), options, out);
    }
}

fn health(site: &Site) -> String {
    let (metrics, connector) = (&site.metrics, &site.upstream.connector);
    let classes = metrics.classes();
    let last_error = metrics.last_error().map(|(age, message)| {
        json!({
            "message": message,
            "seconds_ago": age.as_secs(),
        })
    });
    let document = json!({
        "status": "healthy",
        "instance_id": site.about.instance_id,
        "target": connector.target().to_string(),
        "proxy": connector.proxy().map(ToString::to_string),
        "insecure": connector.is_insecure(),
        "project": site.about.project,
        "pid": std::process::id(),
        "served_by": site.about.served_by,
        "uptime_seconds": metrics.uptime().as_secs(),
        "grace_seconds": site.service.timeouts.grace.as_secs_f64(),
        "version": env!("CARGO_PKG_VERSION"),
        "requests": classes.iter().sum::<u64>(),
        "errors": metrics.failed.get(),
        "client_gone": metrics.client_gone(),
        "in_flight": metrics.in_flight(),
        "last_error": last_error,
    });
    format!("{}\n", EscapedJson(&document.to_string()))
}

fn metrics(site: &Site) -> String {
    let metrics = &site.metrics;
    let mut text = response_counters(metrics);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "# HELP ic_requests_in_flight Requests being served.\n\
         # TYPE ic_requests_in_flight gauge\n\
         ic_requests_in_flight {}\n\
         # HELP ic_request_bytes_total Bytes relayed to the target.\n\
         # TYPE ic_request_bytes_total counter\n\
         ic_request_bytes_total {}\n\
         # HELP ic_response_bytes_total Bytes relayed to clients.\n\
         # TYPE ic_response_bytes_total counter\n\
         ic_response_bytes_total {}\n\
         # HELP ic_target_connects_total Connections made to the target.\n\
         # TYPE ic_target_connects_total counter\n\
         ic_target_connects_total {}\n\
         # HELP ic_target_reuses_total Requests on a kept connection.\n\
         # TYPE ic_target_reuses_total counter\n\
         ic_target_reuses_total {}\n\
         # HELP ic_connections Client connections.\n\
         # TYPE ic_connections gauge\n\
         ic_connections {}\n\
         # HELP ic_uptime_seconds Seconds since the start.\n\
         # TYPE ic_uptime_seconds gauge\n\
         ic_uptime_seconds {}\n",
        metrics.in_flight(),
        metrics.bytes_up.get(),
        metrics.bytes_down.get(),
        metrics.connects.get(),
        metrics.reuses.get(),
        site.service.connections(),
        metrics.uptime().as_secs(),
    );
    metrics.first_byte.write(
        "ic_time_to_first_byte_seconds",
        "From the first byte of a request to the first of its response.",
        &mut text,
    );
    metrics.duration.write(
        "ic_request_duration_seconds",
        "From the first byte of a request to the last of its response.",
        &mut text,
    );
    text
}

fn response_counters(metrics: &Metrics) -> String {
    let mut text = String::from(
        "# HELP ic_requests_total Requests by class of status, or gone if the client disconnected; includes refused requests and connections.\n\
         # TYPE ic_requests_total counter\n",
    );
    for (class, count) in CLASS_NAMES.iter().zip(metrics.classes()) {
        let _ = writeln!(text, "ic_requests_total{{class=\"{class}\"}} {count}");
    }
    let _ = write!(
        text,
        "# HELP ic_requests_failed_total Requests with a status of 400 or above, or a response that broke off.\n\
         # TYPE ic_requests_failed_total counter\n\
         ic_requests_failed_total {}\n\
         # HELP ic_requests_client_gone_total Requests whose client disconnected before the end of the response, or the end mark of an event stream.\n\
         # TYPE ic_requests_client_gone_total counter\n\
         ic_requests_client_gone_total {}\n",
        metrics.failed.get(),
        metrics.client_gone(),
    );
    text.push_str(
        "# HELP ic_own_responses_total Responses of ic itself by reason: x-ic-error, or the page.\n\
         # TYPE ic_own_responses_total counter\n",
    );
    for (reason, count) in metrics.own_responses() {
        let _ = writeln!(
            text,
            "ic_own_responses_total{{reason=\"{reason}\"}} {count}"
        );
    }
    text
}

const CLASS_NAMES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];
