//! The peers of the program under test: scripted client and origin on loopback, and the program itself.
//!
//! Roles: `Interceptor` is the real `ic serve`; `Origin` is its target; a client is a `Conn` from
//! `Interceptor::client`. All calls block, and every wait fails at a deadline with a message.

pub mod interceptor;
pub mod listener;
pub mod message;
pub mod origin;
pub mod refusal;
pub mod stage;
pub mod tls;
pub mod wire;

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

pub use interceptor::{
    Interceptor, Launch, free_port, has_ipv6, scratch_folder, scratch_socket, tells_who_listens,
};
pub use listener::Listener;
pub use message::{Framing, Request, Response, latin1};
pub use origin::{Origin, Reply, Seen, requests_of};
pub use stage::{OK, Stage};
pub use wire::{Body, Conn, Stop, excerpt};

/// The limit of every wait.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Polls until `ask` returns the expected value, for conditions that send no notification.
#[track_caller]
pub fn wait_until<T: PartialEq + Debug>(what: &str, expected: T, ask: impl Fn() -> T) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = ask();
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: still {found:?} and not {expected:?} after {DEADLINE:?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// An origin whose connections the test scripts, and an interceptor in front of it.
#[track_caller]
pub fn scripted() -> (Origin, Interceptor) {
    let origin = Origin::listen();
    let interceptor = Interceptor::before(&origin);
    (origin, interceptor)
}

/// An origin that responds `ok` to every request, and an interceptor in front of it.
#[track_caller]
pub fn agreeing() -> (Origin, Interceptor) {
    let origin = Origin::agreeing();
    let interceptor = Interceptor::before(&origin);
    (origin, interceptor)
}

/// Checks the format of an error response of the interceptor, which is the same for every status; returns its code.
#[track_caller]
pub fn check_own_error(response: &Response, statuses: &[u16]) -> String {
    assert!(
        statuses.contains(&response.status),
        "a status of {statuses:?}: {response:?}, {}",
        response.text()
    );
    let code = response
        .fields
        .one("x-ic-error")
        .unwrap_or_else(|| panic!("an error of the interceptor has `x-ic-error`: {response:?}"));
    assert!(
        !code.is_empty(),
        "the code of an error is not empty: {response:?}"
    );
    let kind = response.fields.one("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("application/json"),
        "an error of the interceptor is JSON: {response:?}"
    );
    let document: serde_json::Value =
        serde_json::from_slice(&response.body).unwrap_or_else(|error| {
            panic!(
                "an error of the interceptor is JSON: {error}: {}",
                response.text()
            )
        });
    assert_eq!(document["type"], "error", "{document}");
    let error = &document["error"];
    assert!(
        error["type"].as_str().is_some_and(|kind| !kind.is_empty()),
        "{document}"
    );
    assert_eq!(
        error["code"], code,
        "the code is the same in the field and in the document: {document}"
    );
    assert!(
        error.get("param").is_some_and(serde_json::Value::is_null),
        "`param` is null: {document}"
    );
    assert!(document["request_id"].is_string(), "{document}");
    let message = error["message"].as_str().unwrap_or_default();
    let one_line = !message.is_empty()
        && message.chars().count() <= 200
        && !message.chars().any(char::is_control);
    assert!(
        one_line,
        "a message is one line of at most 200 characters: {document}"
    );
    if [400, 508].contains(&response.status) {
        assert_eq!(
            response.fields.one("x-should-retry"),
            Some("false"),
            "a retry cannot succeed: {response:?}"
        );
        assert!(
            !response.fields.has("retry-after"),
            "a retry cannot succeed: {response:?}"
        );
    }
    code.to_owned()
}

/// Whether the tests were started with `signal` ignored, as by nohup; `ic` keeps that for SIGHUP, `ic run` for all.
pub fn is_ignored(signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> (signal.as_raw() - 1) & 1 == 1);
    if ignored {
        eprintln!("skipped: the tests were started with {signal:?} ignored");
    }
    ignored
}

/// Fields that a row expects, as (name, value).
pub type Lines<'a> = &'a [(&'a str, &'a str)];

/// Prints a number of cases; `cargo test -- --nocapture` shows it.
pub fn count(category: &str, cases: usize) {
    println!("cases: {category}: {cases}");
}
