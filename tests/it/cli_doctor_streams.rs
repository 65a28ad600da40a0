//! `ic doctor` on streams that are not buffered: of a fast model, compressed, or left open by the server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli_doctor::{serve, wrong};
use crate::cli_home::Home;
use crate::support::DEADLINE;

/// A target that lists one model; `stream` responds to a chat.
fn a_model(stream: impl Fn(TcpStream) + Send + 'static) -> String {
    serve(move |mut client, request| match request {
        [b'G', ..] => {
            let _ = client.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{\"data\":[{\"id\":\"mod\"}]}",
            );
        }
        _ => stream(client),
    })
}

/// The finding of the check `Streaming` with this target.
#[track_caller]
fn streaming_finding(target: &str) -> String {
    let ran = Home::new().ic(["doctor", "--target", target]);
    assert_eq!(wrong(&ran), [""; 0]);
    let mut lines = ran.out.lines();
    let line = lines.find(|line| line.contains(" Streaming "));
    line.unwrap_or_else(|| panic!("no check of the stream: {ran:?}"))
        .to_owned()
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

#[test]
fn a_fast_model_is_not_said_to_buffer() {
    let target = a_model(|mut client| {
        let _ = client.set_nodelay(true);
        let _ = client.write_all(format!("{EVENTS}Connection: close\r\n\r\n").as_bytes());
        // It thinks for long, and then generates 2,000 tokens a second.
        thread::sleep(Duration::from_millis(450));
        for _ in 0..40 {
            thread::sleep(Duration::from_micros(500));
            let _ = client.write_all(b"data: {}\n\n");
        }
        let _ = client.write_all(b"data: [DONE]\n\n");
    });
    let said = streaming_finding(&target);
    assert!(
        said.starts_with("✓ Streaming  41 events through ic"),
        "{said}"
    );
}

#[test]
fn a_compressed_stream_is_named_as_such() {
    let target = a_model(|mut client| {
        let head = format!("{EVENTS}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n");
        let _ = client.write_all(head.as_bytes());
        let _ = client.write_all(&[0x1f, 0x8b, 8, 0]);
    });
    let said = streaming_finding(&target);
    assert!(
        said.contains("sends the stream compressed (gzip)"),
        "{said}"
    );
    assert!(!said.contains("events came"), "{said}");
}

#[test]
fn a_stream_ends_at_its_end_mark_though_the_connection_stays_open() {
    let open = Mutex::new(Vec::new());
    let target = a_model(move |mut client| {
        let _ = client.write_all(format!("{EVENTS}\r\n").as_bytes());
        for _ in 0..40 {
            thread::sleep(Duration::from_millis(1));
            let _ = client.write_all(b"data: {}\n\n");
        }
        let _ = client.write_all(b"data: [DONE]\n\n");
        open.lock().expect("no failure").push(client);
    });
    let began = Instant::now();
    let said = streaming_finding(&target);
    // Two streams that wait for the end of the connection take two minutes.
    assert!(began.elapsed() < Duration::from_secs(30), "{said}");
    assert!(
        said.starts_with("✓ Streaming  41 events through ic"),
        "{said}"
    );
}

#[test]
fn each_check_is_printed_as_it_ends() {
    let (told, chats) = mpsc::channel::<()>();
    let chats = Mutex::new(chats);
    let target = a_model(move |_client| {
        // The chat is answered when the checks before it have been read.
        let _ = chats.lock().expect("no failure").recv_timeout(DEADLINE);
    });
    let home = Home::new();
    let mut doctor = home.command(["doctor", "--target", &target]);
    let mut doctor = doctor.stdout(Stdio::piped()).spawn().expect("ic starts");
    let out = BufReader::new(doctor.stdout.take().expect("a pipe"));
    let began = Instant::now();
    let mut lines = out.lines().map(|line| line.expect("UTF-8"));
    let api = lines.find(|line| line.contains(" API "));
    assert!(api.is_some(), "the list of models is checked");
    assert!(began.elapsed() < DEADLINE, "printed before the stream");
    drop(told);
    let rest: Vec<String> = lines.collect();
    assert!(
        rest.iter().any(|line| line.contains(" Streaming ")),
        "{rest:?}"
    );
    doctor.wait().expect("it ends");
}
