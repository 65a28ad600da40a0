//! The limits of `ic serve`: durations and connections.

use std::time::Duration;

use super::arguments::Serve;
use crate::cli::outcome::Failure;
use crate::cli::settings::SourcedValue;
use crate::serve::Timeouts;

/// The time limits. `None` is no limit.
pub fn timeouts(serve: &Serve) -> Result<Timeouts, Failure> {
    let limit = |name, value, default| -> Result<Option<Duration>, Failure> {
        Ok(Some(seconds(name, value, default)?).filter(|limit| !limit.is_zero()))
    };
    Ok(Timeouts {
        head: limit("--head-timeout", &serve.head_timeout, "30")?,
        idle: limit("--idle-timeout", &serve.idle_timeout, "75")?,
        connect: limit("--connect-timeout", &serve.connect_timeout, "10")?,
        first_byte: limit("--first-byte-timeout", &serve.first_byte_timeout, "0")?,
        body: limit("--body-timeout", &serve.body_timeout, "0")?,
        hold: seconds("--hold", &serve.hold, "0")?,
        grace: seconds("--grace", &serve.grace, "10")?,
        idle_exit: limit("--idle-exit", &serve.idle_exit, "0")?,
    })
}

/// The maximum number of simultaneous client connections, at least 1.
pub fn connections_max(serve: &Serve) -> Result<usize, Failure> {
    match &serve.max_connections {
        Some(number) => SourcedValue::flag("--max-connections", number).count(1),
        None => Ok(CONNECTIONS_MAX),
    }
}

/// Refuses `--threads`, which no longer exists.
pub fn refuse_threads(serve: &Serve) -> Result<(), Failure> {
    match serve.threads {
        Some(_) => Err(Failure::usage(
            "`--threads` is removed: one thread serves tens of thousands of requests a second; \
             for more, run several interceptors behind a load balancer",
        )),
        None => Ok(()),
    }
}

fn seconds(
    name: &'static str,
    value: &Option<String>,
    default: &'static str,
) -> Result<Duration, Failure> {
    match value {
        Some(value) => SourcedValue::flag(name, value).seconds(),
        None => SourcedValue::default(default).seconds(),
    }
}

/// A connection costs two sockets and about 20 KiB; many systems allow a process 1024 open files by default.
const CONNECTIONS_MAX: usize = 1024;
