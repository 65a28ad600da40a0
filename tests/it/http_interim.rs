//! Interim responses and `Expect: 100-continue`: each interim response reaches an HTTP/1.1 client before the final one.

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn interim_responses_reach_the_client_before_the_final_one() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    // Each is received before the next is sent.
    for number in 0..3 {
        served.send(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </{number}>\r\n\r\n"
        ));
        let (head, _) = client.response_head("GET");
        assert_eq!(
            (head.start[1].as_str(), head.fields.one("link")),
            ("103", Some(&format!("</{number}>")[..])),
            "RFC 9110 §15.2"
        );
    }
    served.send(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n",
    );
    served.send(OK);
    let response = client.response("GET");
    let interim: Vec<&str> = response
        .interim
        .iter()
        .map(|head| head.start[1].as_str())
        .collect();
    assert_eq!(
        (interim, response.text().as_str()),
        (vec!["100", "102", "199"], "ok")
    );
}

#[test]
fn a_target_may_send_many_interim_responses_over_time() {
    const MANY: usize = 1000;
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(MANY));
    served.send(OK);
    let response = client.response("GET");
    assert_eq!(
        (response.interim.len(), response.text().as_str()),
        (MANY, "ok")
    );
}

#[test]
fn an_http_1_0_client_gets_no_interim_response() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let mut served = origin.accept();
    served.request();
    served.send("HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    served.send(OK);
    let response = client.response("GET");
    assert!(
        response.interim.is_empty(),
        "RFC 9110 §15.2: never to an HTTP/1.0 client: {response:?}"
    );
    assert_eq!(response.text(), "ok");
}

#[test]
fn a_client_that_expects_100_gets_the_100_of_the_origin_before_it_sends() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let (origin, interceptor) = scripted();
        let mut client = interceptor.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
        ));
        let mut served = origin.accept();
        let (head, framing) = served.request_head();
        assert_eq!(
            head.fields.one("expect"),
            Some("100-continue"),
            "the expectation is forwarded to the origin (RFC 9110 §10.1.1)"
        );
        served.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.response_head("POST").0.start[1], "100");
        client.send(if framing == Framing::Chunked {
            "5\r\nhello\r\n0\r\n\r\n"
        } else {
            "hello"
        });
        let mut body = Body::new(framing);
        served.expect_some(&mut body, "hello");
        served.expect_end_of(&mut body);
        served.send(OK);
        let response = client.response("POST");
        assert_eq!(
            (response.interim.len(), response.text().as_str()),
            (0, "ok"),
            "one 100, not two"
        );
        client.send(GET);
        served.request();
        served.send(OK);
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn a_client_that_expects_100_may_send_without_waiting() {
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    let mut served = origin.accept();
    assert_eq!(
        latin1(&served.request().body),
        "hello",
        "RFC 9110 §10.1.1: the proxy need not wait for the 100"
    );
    served.send(OK);
    assert_eq!(client.response("POST").text(), "ok");
}

#[test]
fn a_refused_expectation_reaches_the_client_instead_of_a_100() {
    for (status, why) in [
        ("417 Expectation Failed", "RFC 9110 §15.5.18"),
        ("413 Content Too Large", "as curl expects it"),
        ("401 Unauthorized", "authentication first"),
    ] {
        check_unsent_body(
            &format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"),
            why,
        );
        check_unsent_body(
            &format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"),
            why,
        );
    }
    check_unsent_body(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        "a final response needs no 100 before it",
    );
}

/// The client waits for a 100 and gets a final response. Then it sends its body or its next request; these must not be
/// confused (RFC 9110 §10.1.1).
#[track_caller]
fn check_unsent_body(answer: &str, why: &str) {
    const BODY: &str = "GET /body HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (origin, interceptor) = scripted();
    let mut client = interceptor.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    ));
    let mut served = origin.accept();
    served.request_head();
    served.send(answer);
    let response = client.response("POST");
    assert_eq!(
        (response.interim.len(), response.text().as_str()),
        (0, "no"),
        "{why}"
    );
    client.offer(BODY);
    client.finish_writing();
    let (rest, stop) = client.drain();
    assert_ne!(stop, Stop::Silent, "the connection is closed: {why}");
    assert_eq!(latin1(&rest), "", "a body gets no response: {why}");
    if let Some(mut other) = origin.try_accept(std::time::Duration::ZERO) {
        panic!(
            "a body was parsed as a request: {why}: {:?}",
            other.try_request()
        );
    }
    let (rest, _) = served.drain();
    assert!(
        rest.is_empty() || latin1(&rest) == BODY,
        "the body or no bytes: {why}: {:?}",
        latin1(&rest)
    );
}
