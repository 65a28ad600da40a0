//! One exchange and what each side received, for tests with tables of cases.

use std::sync::{Arc, Mutex};

use super::interceptor::{Interceptor, Launch};
use super::message::{Request, Response};
use super::origin::{Origin, Reply};
use super::wire::Conn;

/// The default response of an origin.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An interceptor in front of an origin whose responses the test sets.
pub struct Stage {
    // In this order, so that the interceptor ends first and the origin does not wait.
    pub interceptor: Interceptor,
    pub origin: Origin,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Stage {
    #[track_caller]
    pub fn new() -> Stage {
        Stage::with(&[])
    }

    /// Adds arguments of `ic serve`.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Stage {
        Stage::launch("", |launch| launch.args(arguments.iter().copied()))
    }

    /// With a base path in the target, and with a launch that `change` modifies.
    #[track_caller]
    pub fn launch(base: &str, change: impl FnOnce(Launch) -> Launch) -> Stage {
        let answer = Arc::new(Mutex::new(OK.to_vec()));
        let given = Arc::clone(&answer);
        let origin = Origin::answering(move |_, _| {
            Reply::Bytes(given.lock().expect("no holder of this lock panics").clone())
        });
        let interceptor = change(Launch::toward(origin.url() + base)).start();
        Stage {
            interceptor,
            origin,
            answer,
        }
    }

    /// Sets the response to all further requests.
    pub fn answer_with(&self, answer: impl AsRef<[u8]>) {
        *self.answer.lock().expect("no holder of this lock panics") = answer.as_ref().to_vec();
    }

    /// Sends a request on a new connection; returns the request as the origin received it, the response as the client
    /// received it, and the connection.
    #[track_caller]
    pub fn exchange(
        &self,
        request: impl AsRef<[u8]>,
        answer: impl AsRef<[u8]>,
    ) -> (Request, Response, Conn) {
        self.answer_with(answer);
        self.origin.forget();
        let mut client = self.interceptor.client();
        client.send(request.as_ref());
        let response = client.response(&method_of(request.as_ref()));
        let mut requests = self.origin.requests();
        assert_eq!(
            requests.len(),
            1,
            "exactly one request reaches the origin: {requests:?}; the client got {response:?} {}",
            response.text()
        );
        (requests.remove(0), response, client)
    }

    /// Sends a request and returns it as the origin received it.
    #[track_caller]
    pub fn forwarded(&self, request: impl AsRef<[u8]>) -> Request {
        self.exchange(request, OK).0
    }

    /// Returns a response to a GET as the client received it.
    #[track_caller]
    pub fn returned(&self, answer: impl AsRef<[u8]>) -> Response {
        self.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", answer)
            .1
    }
}

fn method_of(request: &[u8]) -> String {
    super::latin1(request)
        .trim_start()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}
