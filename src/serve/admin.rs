//! The interceptor's own pages under `/_ic/`. Every other path is forwarded.

use std::fmt::Write as _;

use serde_json::json;

use super::site::Site;
use crate::http::reply::{self, ReplyOptions};

/// A page of the interceptor itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Who this is: `/_ic/health`.
    Health,
    /// What it has done, for Prometheus: `/_ic/metrics`.
    Metrics,
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

    /// Writes the whole response.
    pub fn write(self, site: &Site, options: ReplyOptions, out: &mut Vec<u8>) {
        let (media_type, body) = match self {
            Page::Health => ("application/json", health(site)),
            Page::Metrics => ("text/plain; version=0.0.4", metrics(site)),
        };
        reply::document(200, media_type, "", body.as_bytes(), options, out);
    }
}

fn health(site: &Site) -> String {
    let (metrics, connector) = (&site.metrics, &site.connector);
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
        "uptime_seconds": metrics.uptime().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        "requests": classes.iter().sum::<u64>(),
        "errors": classes[5],
        "in_flight": metrics.in_flight(),
        "last_error": last_error,
    });
    format!("{document}\n")
}

fn metrics(site: &Site) -> String {
    let metrics = &site.metrics;
    let mut text = String::new();
    family(
        &mut text,
        "requests_total",
        "counter",
        "Requests by class of status.",
    );
    for (class, count) in CLASS_NAMES.iter().zip(metrics.classes()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "ic_requests_total{{class=\"{class}\"}} {count}");
    }
    for (name, kind, help, value) in numbers(site) {
        family(&mut text, name, kind, help);
        let _ = writeln!(text, "ic_{name} {value}");
    }
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

/// Name, kind, meaning and value of each number without labels.
fn numbers(site: &Site) -> [(&'static str, &'static str, &'static str, u64); 7] {
    let metrics = &site.metrics;
    [
        (
            "requests_in_flight",
            "gauge",
            "Requests being served.",
            metrics.in_flight(),
        ),
        (
            "request_bytes_total",
            "counter",
            "Bytes relayed to the target.",
            metrics.bytes_up.get(),
        ),
        (
            "response_bytes_total",
            "counter",
            "Bytes relayed to clients.",
            metrics.bytes_down.get(),
        ),
        (
            "target_connects_total",
            "counter",
            "Connections made to the target.",
            metrics.connects.get(),
        ),
        (
            "target_reuses_total",
            "counter",
            "Requests on a kept connection.",
            metrics.reuses.get(),
        ),
        (
            "connections",
            "gauge",
            "Client connections.",
            site.connections() as u64,
        ),
        (
            "uptime_seconds",
            "gauge",
            "Seconds since the start.",
            metrics.uptime().as_secs(),
        ),
    ]
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP ic_{name} {help}\n# TYPE ic_{name} {kind}");
}

const CLASS_NAMES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];
