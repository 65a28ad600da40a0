//! `--threads`: several threads serve as one does, each its share of the clients.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_threads(origin: &Origin, threads: usize) -> Interceptor {
    Launch::before(origin)
        .args(["--threads", &threads.to_string()])
        .start()
}

/// A client whose first request was answered.
#[track_caller]
fn served(interceptor: &Interceptor) -> Conn {
    let mut client = interceptor.client();
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
    client
}

/// The value of a metric that has no labels.
#[track_caller]
fn metric(interceptor: &Interceptor, name: &str) -> f64 {
    let mut client = interceptor.client();
    client.send("GET /_ic/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = client.response("GET").text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .expect("the metric is there")
        .parse()
        .expect("a number")
}

/// How many descriptors of sockets each readiness queue of a process watches (proc_pid_fdinfo(5)), in order.
#[cfg(all(target_os = "linux", not(ic_portable)))]
fn watched(interceptor: &Interceptor) -> Vec<usize> {
    let folder = format!("/proc/{}/fdinfo", interceptor.pid());
    let entries = std::fs::read_dir(folder).expect("a running process has descriptors");
    let mut counts: Vec<usize> = entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .map(|text| text.lines().filter(|line| line.starts_with("tfd:")).count())
        .filter(|&count| count > 0)
        .collect();
    counts.sort_unstable();
    counts
}

#[cfg(all(target_os = "linux", not(ic_portable)))]
#[test]
fn each_thread_has_its_share_of_the_clients_also_of_those_that_come_one_by_one() {
    let origin = Origin::agreeing();
    let interceptor = with_threads(&origin, 4);
    // An origin's connection serves whoever comes next on its thread; so there are few of them.
    let clients: Vec<Conn> = (0..40).map(|_| served(&interceptor)).collect();
    let counts = watched(&interceptor);
    assert_eq!(counts.len(), 4, "one readiness queue for each: {counts:?}");
    // Ten clients each; beside them a bell, and an origin's connection or two; the first has listeners and signals.
    assert!(
        counts.iter().all(|count| (11..=11 + 8).contains(count)),
        "{counts:?}"
    );
    drop(clients);
}

#[test]
fn what_the_threads_count_is_added_up() {
    let origin = Origin::agreeing();
    let interceptor = with_threads(&origin, 3);
    let mut clients: Vec<Conn> = (0..9).map(|_| served(&interceptor)).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok");
    }
    // A thread counts an answer when it has left, which its client may see first.
    wait_until("requests and those in flight", [18, 0], || {
        let health = interceptor.health();
        ["requests", "in_flight"].map(|name| health[name].as_i64().expect("a number"))
    });
    wait_until("durations", 18.0, || {
        metric(&interceptor, "ic_request_duration_seconds_count")
    });
    let sent = metric(&interceptor, "ic_target_connects_total")
        + metric(&interceptor, "ic_target_reuses_total");
    assert_eq!(sent, 18.0, "each request went out once");
    // The nine, and whoever asks.
    wait_until("connections", 10.0, || {
        metric(&interceptor, "ic_connections")
    });
}

#[test]
fn the_last_error_is_told_whichever_thread_met_it() {
    let origin = Origin::answering(|_, _| {
        Reply::Bytes(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno".to_vec())
    });
    let interceptor = with_threads(&origin, 3);
    let mut clients: Vec<Conn> = (0..3).map(|_| interceptor.client()).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.response("GET").status, 503);
    }
    let expected = serde_json::json!([3, "the target answered 503"]);
    wait_until("errors, and the last", expected, || {
        let health = interceptor.health();
        serde_json::json!([health["errors"], health["last_error"]["message"]])
    });
}

#[test]
fn the_limit_on_connections_is_one_for_all_threads() {
    let origin = Origin::agreeing();
    let interceptor = Launch::before(&origin)
        .args(["--threads", "3", "--max-connections", "4"])
        .start();
    // Whoever asked whether it is ready may still be on the way out.
    let mut clients = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while clients.len() < 4 {
        let mut client = interceptor.client();
        client.offer(GET);
        if client
            .try_response("GET")
            .is_ok_and(|response| response.status == 200)
        {
            clients.push(client);
        }
        assert!(Instant::now() < deadline, "room never comes");
    }
    for _ in 0..3 {
        let mut client = interceptor.client();
        client.offer(GET);
        assert_eq!(client.response("GET").status, 503);
    }
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.response("GET").text(), "ok", "those who are in stay");
    }
}

#[test]
fn a_signal_stops_every_thread_when_its_requests_are_answered() {
    let origin = Origin::listen();
    let mut interceptor = with_threads(&origin, 3);
    let mut clients: Vec<Conn> = (0..6).map(|_| interceptor.client()).collect();
    let mut served: Vec<Conn> = Vec::new();
    for client in &mut clients {
        client.send(GET);
        let mut one = origin.accept();
        one.request();
        served.push(one);
    }
    let idle = interceptor.client();
    interceptor.terminate();
    interceptor.wait_for_errors("that it stops", |said| said.contains("stopping"));
    for (client, served) in clients.iter_mut().zip(&mut served) {
        served.send(OK);
        assert_eq!(client.response("GET").text(), "ok");
    }
    let status = interceptor.exit_within(DEADLINE);
    assert_eq!(status.code(), Some(0));
    drop(idle);
}

#[test]
fn a_second_signal_ends_every_thread_at_once_and_no_cut_answer_looks_complete() {
    let origin = Origin::listen();
    let mut interceptor = with_threads(&origin, 3);
    let mut clients: Vec<Conn> = (0..6).map(|_| interceptor.client()).collect();
    let mut served: Vec<Conn> = Vec::new();
    for client in &mut clients {
        client.send(GET);
        let mut one = origin.accept();
        one.request();
        one.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart");
        served.push(one);
        client.response_head("GET");
        client.expect("part");
    }
    interceptor.terminate();
    interceptor.wait_for_errors("that it stops", |said| said.contains("stopping"));
    interceptor.signal(Signal::TERM);
    let status = interceptor.exit_within(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    for client in &mut clients {
        assert_eq!(client.expect_end(), Stop::Reset);
    }
}

#[test]
fn the_grace_ends_on_every_thread() {
    let origin = Origin::listen();
    let mut interceptor = Launch::before(&origin)
        .args(["--threads", "2", "--grace", "0.2"])
        .start();
    let mut clients: Vec<Conn> = (0..4).map(|_| interceptor.client()).collect();
    let mut served = Vec::new();
    for client in &mut clients {
        client.send(GET);
        let mut one = origin.accept();
        one.request();
        served.push(one);
    }
    interceptor.terminate();
    assert_eq!(interceptor.exit_within(DEADLINE).code(), Some(0));
}

/// What the tests say of one thread, said of two: those of the process, of what it counts, of kept connections and of
/// clients that leave. With the variable, any of the tests can be run so.
#[test]
fn two_threads_do_what_one_does() {
    if std::env::var_os(THREADS).is_some() {
        return;
    }
    let tests = std::env::current_exe().expect("a running program has a path");
    let run = Command::new(tests)
        .args([
            "http_process::",
            "http_metrics::",
            "http_pool::",
            "http_departures::",
        ])
        .env(THREADS, "2")
        .output()
        .expect("this program can be run again");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let passed = said.lines().filter(|line| line.ends_with("... ok")).count();
    count("threads: tests of one thread, with two", passed);
    assert!(passed > 0, "{said}");
}
