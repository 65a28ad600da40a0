//! The limit on open files, and what it suffices for.

/// Raises the limit on open files to its maximum (many systems start at 256 or 1024). Returns the limit; `None`: there is none.
pub fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let mut raised = limit;
    raised.current = limit.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            log::debug!("the limit on open files stays as it is: {error}");
            limit.current
        }
    }
}

/// How many of `connections_max` clients to let in where `limit` files may be open, of which listeners take `listeners`.
pub fn affordable_connections(
    limit: Option<u64>,
    listeners: usize,
    connections_max: usize,
) -> usize {
    let affordable = limit.map_or(usize::MAX, |limit| affordable(limit, listeners));
    // A limit above the usual one is meant for clients that are mostly idle, which need one descriptor each.
    match connections_max <= CONNECTIONS_USUAL {
        true => connections_max.min(affordable),
        false => connections_max,
    }
}

/// As [`affordable_connections`] after the limit has been raised. Logs a warning where the descriptors do not suffice for all of
/// them.
pub fn limit_connections(connections_max: usize) -> usize {
    let limit = raise_limit();
    let allowed = affordable_connections(limit, 0, connections_max);
    let affordable = limit.map_or(usize::MAX, |limit| affordable(limit, 0));
    if affordable < connections_max {
        log::warn!(
            "descriptors suffice for requests of {affordable} clients at once, and {allowed} are let in; \
             `ulimit -n` raises it",
        );
    }
    allowed
}

/// How many listeners there may be where `limit` files may be open: the rest is for clients.
pub fn listeners_max(limit: Option<u64>) -> usize {
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    limit - limit.min(limit / 2).min(CLIENT_DESCRIPTORS)
}

/// How many clients `descriptors` suffice for: two each, and half a one for clients that are rejected. A client that is let in
/// without a descriptor left for its connection to the target gets an error; the connection limit makes it retry.
fn affordable(descriptors: u64, listeners: usize) -> usize {
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    (left.saturating_sub(listeners) / 5 * 2).max(1)
}

/// Enough for the requests of 128 clients at once.
const CLIENT_DESCRIPTORS: usize = 344;

/// The default of `--max-connections`. Only limits up to this are lowered where descriptors are few.
const CONNECTIONS_USUAL: usize = 1024;

/// Standard streams, a few listeners, epoll, signals, a name that is resolved, and some pipes.
const OWN_DESCRIPTORS: u64 = 24;
