//! Watching one exchange in the live feed: its response is shown as it grows.

use serde_json::{Value, json};

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Connects and watches an exchange.
#[track_caller]
fn watch(interceptor: &Interceptor, id: u64) -> Listener {
    let mut watcher = Listener::of(interceptor);
    watcher.say(format!("{{\"watch\":{id}}}\n"));
    watcher
}

/// Skips what a watcher was sent of all exchanges before its command arrived.
#[track_caller]
fn next_shown(watcher: &mut Listener) -> Value {
    loop {
        let line = watcher.next();
        if line["event"] == "body" || line["event"] == "bye" {
            return line;
        }
    }
}

/// What a watcher gets of a response: all that has come of it.
fn part(data: &str, total: usize) -> Value {
    json!({"event":"body","id":1,"side":"response","encoding":"utf8","data":data,"truncated":true,"total":total})
}

#[test]
fn a_watched_response_is_shown_as_it_grows_and_no_part_of_a_secret() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    listener.record(true);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    listener.expect("start");
    // Before there is a response, and together with others.
    let mut watchers = [(); 2].map(|()| watch(&interceptor, 1));
    served.send(STREAM.to_owned() + &chunk("data: one\n\ndata: Bearer sk-01234"));
    client.expect("HTTP/1.1 200 OK\r\n");
    for watcher in &mut watchers {
        assert_eq!(next_shown(watcher), part("data: one\n\n", 32));
    }
    served.send(chunk("56789abcdef\n"));
    for watcher in &mut watchers {
        assert_eq!(
            watcher.expect("body"),
            part("data: one\n\ndata: Bearer …\n", 44)
        );
    }
    let [mut watcher, other] = watchers;
    drop(other);
    served.send(chunk("\ndata: two\n\n"));
    assert_eq!(
        watcher.expect("body"),
        part("data: one\n\ndata: Bearer …\n\ndata: two\n\n", 56)
    );
    // One that comes later gets the beginning too.
    let mut late = watch(&interceptor, 1);
    assert_eq!(
        next_shown(&mut late),
        part("data: one\n\ndata: Bearer …\n\ndata: two\n\n", 56)
    );
    served.send("0\r\n\r\n");
    for mut watcher in [watcher, late] {
        watcher.expect("bye");
        watcher.expect_end();
    }
    let whole = {
        listener.expect("head");
        listener.expect("body")
    };
    assert_eq!(
        (&whole["data"], &whole["truncated"]),
        (
            &json!("data: one\n\ndata: Bearer …\n\ndata: two\n\n"),
            &json!(false)
        ),
        "a subscriber gets the body once"
    );
    listener.expect("end");
}

#[test]
fn only_a_response_that_is_recorded_can_be_watched() {
    let (origin, interceptor) = scripted();
    let mut listener = Listener::of(&interceptor);
    let ends = |id| {
        let mut watcher = watch(&interceptor, id);
        assert_eq!(next_shown(&mut watcher)["event"], "bye", "{id}");
        watcher.expect_end();
    };
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    listener.expect("start");
    ends(1);
    served.send(OK);
    client.response("GET");
    listener.wait_for("end");
    listener.record(true);
    client.send(GET);
    served.request();
    served.send(STREAM.to_owned() + &chunk("data: one\n\n"));
    let mut watcher = watch(&interceptor, 2);
    assert_eq!(next_shown(&mut watcher)["data"], "data: one\n\n");
    ends(1);
    ends(3);
    // What was recorded is discarded.
    listener.say("{\"record\":false}\n");
    watcher.expect("bye");
    watcher.expect_end();
    served.send("0\r\n\r\n");
}

#[test]
fn a_watcher_needs_no_room_among_the_subscribers() {
    let (origin, interceptor) = scripted();
    let mut listeners = vec![Listener::of(&interceptor)];
    listeners[0].record(true);
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send(STREAM.to_owned() + &chunk("data: one\n\n"));
    listeners[0].expect("start");
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut watcher = watch(&interceptor, 1);
        assert_eq!(next_shown(&mut watcher)["data"], "data: one\n\n");
        watchers.push(watcher);
    }
    listeners.extend((0..7).map(|_| Listener::of(&interceptor)));
    let (mut watcher, _) = Listener::greeted(&interceptor);
    watcher.expect("full");
    watcher.say("{\"watch\":1}\n");
    assert_eq!(watcher.expect("body")["data"], "data: one\n\n");
    served.send("0\r\n\r\n");
    client.response("GET");
}
