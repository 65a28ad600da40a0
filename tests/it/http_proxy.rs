//! `--use-proxy-env`: targets on other machines, reached through the proxy that the environment names.
//!
//! No name here can be resolved, so every request that arrives was sent to the proxy, which the test provides.

use crate::support::{Launch, OK, Origin, check_own_error};

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: localhost\r\n\r\n";
const TARGET: &str = "http://llm.example.com:8764/base";

/// `ic serve --use-proxy-env` with the proxy in `variable`, optionally with a user name.
fn through(proxy: &Origin, variable: &str, user: &str, target: &str) -> Launch {
    let value = format!("http://{user}{}", proxy.address());
    Launch::toward(target)
        .args(["--use-proxy-env"])
        .env(variable, &value)
}

#[test]
fn a_request_to_a_plain_target_has_its_absolute_url() {
    let proxy = Origin::listen_in_plain();
    let interceptor = through(&proxy, "HTTP_PROXY", "", TARGET).start();
    let mut client = interceptor.client();
    client.send(GET);
    let mut served = proxy.accept();
    let request = served.request();
    assert_eq!(request.target, "http://llm.example.com:8764/base/a?b");
    assert_eq!(request.fields.one("host"), Some("llm.example.com:8764"));
    assert!(!request.fields.has("proxy-authorization"), "{request:?}");
    served.send(OK);
    assert_eq!(client.response("GET").text(), "ok");

    // The connection to the proxy is kept open.
    client.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(served.request().target, "http://llm.example.com:8764");
    served.send(OK);
    assert_eq!(client.response("OPTIONS").text(), "ok");
    let expected = format!("http://{}", proxy.address());
    assert_eq!(interceptor.health()["proxy"], expected.as_str());
    let said = interceptor.errors();
    let line = format!("Target:     {TARGET} through the proxy {expected}\n");
    assert!(said.contains(&line), "{said}");
}

#[test]
fn a_password_in_the_variable_is_sent_only_to_the_proxy() {
    let proxy = Origin::listen_in_plain();
    let interceptor = through(&proxy, "http_proxy", "user:s%65cret@", TARGET)
        .env("RUST_LOG", "trace")
        .start();
    let mut client = interceptor.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nProxy-Authorization: mine\r\n\r\n");
    let mut served = proxy.accept();
    let request = served.request();
    assert_eq!(
        request.fields.all("proxy-authorization"),
        ["Basic dXNlcjpzZWNyZXQ="],
        "instead of the field of the client"
    );
    served.send("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(check_own_error(&response, &[502]), "proxy_password");
    assert_eq!(response.fields.one("x-should-retry"), Some("false"));
    let text = response.text();
    assert!(
        text.contains("does not accept the user name and password in http_proxy"),
        "{text}"
    );
    let health = interceptor.health().to_string();
    for told in [&text, &health, &interceptor.errors()] {
        for secret in ["secret", "s%65cret", "dXNlcjpzZWNyZXQ"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn an_error_names_a_proxy_that_does_not_listen() {
    let proxy = Origin::listen_in_plain();
    let address = proxy.address();
    let launch = through(&proxy, "ALL_PROXY", "", TARGET);
    drop(proxy);
    let interceptor = launch.start();
    let mut client = interceptor.client();
    client.send(GET);
    let response = client.response("GET");
    assert_eq!(check_own_error(&response, &[502]), "proxy_refused");
    let text = response.text();
    let says =
        format!("the proxy http://{address} refuses connections; start it, or correct ALL_PROXY");
    assert!(text.contains(&says), "{text}");
}

#[test]
fn a_target_on_this_machine_or_in_no_proxy_is_reached_without_a_proxy() {
    let proxy = Origin::listen_in_plain();
    let origin = Origin::agreeing();
    let local = through(&proxy, "HTTP_PROXY", "", &origin.url()).start();
    let mut client = local.client();
    client.send(GET);
    assert_eq!(client.response("GET").text(), "ok");
    assert_eq!(local.health()["proxy"], serde_json::Value::Null);

    let target = "http://llm.invalid";
    let excepted = through(&proxy, "HTTP_PROXY", "", target)
        .env("NO_PROXY", "invalid")
        .start();
    let unasked = Launch::toward(target)
        .env("HTTP_PROXY", &format!("http://{}", proxy.address()))
        .start();
    for interceptor in [excepted, unasked] {
        let mut client = interceptor.client();
        client.send(GET);
        let response = client.response("GET");
        assert_eq!(check_own_error(&response, &[502]), "target_unresolved");
    }
    assert!(proxy.try_accept(std::time::Duration::ZERO).is_none());
}

#[test]
fn an_invalid_proxy_variable_is_refused_at_start() {
    for (value, says) in [
        ("socks5://user:secret@proxy:1", "is not an http proxy"),
        ("https://proxy:1", "is not an http proxy"),
        ("http://user:secret@:1", "is not a proxy URL"),
        ("http://alice:8080/secret@proxy:3128", "percent-encode"),
        ("http://alice:8080?secret@proxy:3128", "percent-encode"),
        ("alice:80#secret@proxy:3128/", "percent-encode"),
    ] {
        let launch = Launch::toward(TARGET).args(["--use-proxy-env"]);
        let (code, said) = launch.env("HTTP_PROXY", value).fail();
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.starts_with("ic: the value of HTTP_PROXY ") && said.contains(says),
            "{said}"
        );
        assert!(!said.contains("secret"), "{said}");
    }
}

#[cfg(feature = "tls")]
mod in_tls {
    use super::*;
    use crate::support::Conn;
    use crate::support::tls::Authority;

    const SECURE: &str = "https://llm.example.com/base";
    const CONNECT: &str = "CONNECT llm.example.com:443 HTTP/1.1\r\nHost: llm.example.com:443\r\n";

    /// The connection to the target through the tunnel.
    fn in_tunnel(tunnel: Conn) -> Conn {
        let config = Authority::known()
            .issue(&["llm.example.com"], |_| {})
            .server();
        let stream = tunnel
            .stream()
            .try_clone()
            .expect("a socket can be duplicated");
        Conn::secure("target", stream, config).expect("a handshake")
    }

    #[test]
    fn an_https_target_is_reached_through_a_tunnel() {
        let proxy = Origin::listen_in_plain();
        let interceptor = through(&proxy, "HTTPS_PROXY", "user:secret@", SECURE).start();
        let mut client = interceptor.client();
        client.send(GET);
        let mut tunnel = proxy.accept();
        tunnel.expect(CONNECT);
        tunnel.expect("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n");
        tunnel.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n");
        let mut served = in_tunnel(tunnel);
        for _ in 0..2 {
            let request = served.request();
            assert_eq!(request.target, "/base/a?b");
            assert_eq!(request.fields.one("host"), Some("llm.example.com"));
            assert!(!request.fields.has("proxy-authorization"), "{request:?}");
            served.send(OK);
            assert_eq!(client.response("GET").text(), "ok");
            client.send(GET);
        }
        // A 407 of the target is an ordinary response.
        served.request();
        served.send("HTTP/1.1 407 Odd\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response("GET").status, 407);
    }

    #[test]
    fn an_error_names_a_proxy_that_refuses_the_tunnel_and_its_reason() {
        let rows: [(&[&str], &str, bool, &str); 6] = [
            (
                &["HTTP/1.1 407 No\r\nContent-Length: 9\r\n\r\n"],
                "proxy_password",
                false,
                "set HTTPS_PROXY to",
            ),
            (
                &["HTTP/1.1 403 Forb", "idden\r\n\r\nno"],
                "proxy_failed",
                false,
                "status 403",
            ),
            (
                &["HTTP/1.1 503 Busy\r\n\r\n"],
                "proxy_failed",
                true,
                "status 503",
            ),
            (
                &["SSH-2.0-OpenSSH_9\r\n"],
                "proxy_failed",
                true,
                "does not answer as one",
            ),
            (
                &["HTTP/1.1 200 OK\r\n\r\nhello"],
                "proxy_failed",
                true,
                "data follows its response",
            ),
            (&[""], "proxy_failed", true, "closed the connection"),
        ];
        for (answer, code, may_pass, says) in rows {
            let proxy = Origin::listen_in_plain();
            let interceptor = through(&proxy, "HTTPS_PROXY", "", SECURE).start();
            let mut client = interceptor.client();
            client.send(GET);
            let mut tunnel = proxy.accept();
            tunnel.expect(CONNECT);
            tunnel.expect("\r\n");
            for piece in answer {
                tunnel.send(piece);
            }
            tunnel.close();
            let response = client.response("GET");
            assert_eq!(check_own_error(&response, &[502]), code, "{answer:?}");
            assert!(
                response.text().contains(says),
                "{says}: {}",
                response.text()
            );
            let again = response.fields.one("retry-after") == Some("1");
            assert_eq!(again, may_pass, "{answer:?}");
        }
    }

    #[test]
    fn an_error_names_a_proxy_or_a_target_behind_it_that_does_not_respond() {
        for (answer, code, says) in [
            ("", "proxy_timeout", "the proxy http://"),
            (
                "HTTP/1.1 200 OK\r\n\r\n",
                "connect_timeout",
                "finish the TLS handshake",
            ),
        ] {
            let proxy = Origin::listen_in_plain();
            let interceptor = through(&proxy, "HTTPS_PROXY", "", SECURE)
                .args(["--connect-timeout", "0.3"])
                .start();
            let mut client = interceptor.client();
            client.send(GET);
            let mut tunnel = proxy.accept();
            tunnel.expect(CONNECT);
            tunnel.expect("\r\n");
            tunnel.send(answer);
            let response = client.response("GET");
            assert_eq!(check_own_error(&response, &[504]), code);
            let text = response.text();
            assert!(
                text.contains(says) && text.contains("--connect-timeout"),
                "{text}"
            );
            assert_eq!(response.fields.one("retry-after"), Some("1"), "{text}");
        }
    }

    #[test]
    fn configured_proxy_headers_are_sent_to_the_proxy_and_not_to_the_target() {
        let proxy = Origin::listen_in_plain();
        let interceptor = through(&proxy, "HTTPS_PROXY", "user:other@", SECURE)
            .args(["--header", "proxy-authorization: Bearer secret"])
            .args(["--header", "x-team: blue"])
            .start();
        let mut client = interceptor.client();
        client.send(GET);
        let mut tunnel = proxy.accept();
        tunnel.expect(CONNECT);
        tunnel.expect("Proxy-Authorization: Bearer secret\r\n\r\n");
        tunnel.send("HTTP/1.1 200 OK\r\n\r\n");
        let mut served = in_tunnel(tunnel);
        let request = served.request();
        assert!(!request.fields.has("proxy-authorization"), "{request:?}");
        assert_eq!(request.fields.one("x-team"), Some("blue"));
        assert_eq!(request.fields.one("x-source"), Some("pycharm-ai-chat"));
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(client.response("GET").text(), "ok");

        client.send(GET);
        let mut tunnel = proxy.accept();
        tunnel.expect(CONNECT);
        tunnel.expect("Proxy-Authorization: Bearer secret\r\n\r\n");
        tunnel.send("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(check_own_error(&response, &[502]), "proxy_password");
        let text = response.text();
        assert!(
            text.contains("--header") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn the_certificate_of_a_target_behind_a_proxy_is_verified() {
        let proxy = Origin::listen_in_plain();
        let interceptor = through(&proxy, "all_proxy", "", "https://other.example.com").start();
        let mut client = interceptor.client();
        client.send(GET);
        let mut tunnel = proxy.accept();
        tunnel.expect(
            "CONNECT other.example.com:443 HTTP/1.1\r\nHost: other.example.com:443\r\n\r\n",
        );
        tunnel.send("HTTP/1.1 200 OK\r\n\r\n");
        let config = Authority::known()
            .issue(&["llm.example.com"], |_| {})
            .server();
        let stream = tunnel
            .stream()
            .try_clone()
            .expect("a socket can be duplicated");
        assert!(Conn::secure("target", stream, config).is_err());
        let response = client.response("GET");
        assert_eq!(check_own_error(&response, &[502]), "target_certificate");
        assert!(
            response.text().contains("for llm.example.com;"),
            "{}",
            response.text()
        );
    }
}
