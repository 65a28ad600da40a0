//! Requests to the target, and to an interceptor in front of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::cli::serve::Serve;
use crate::machine::client::{self, Request, Response};
use crate::machine::connect::{Unreachable, failed};
use crate::serve::{self, Address, Endpoint, Event, Listen, Target, reactor};

use super::stream::Streams;

/// How the target is reached.
pub struct Route {
    pub target: Target,
    pub proxy: Option<Target>,
    /// Certificates are not verified.
    pub is_insecure: bool,
    /// The project's interceptor, whose socket is known to be this user's; `None`: a temporary one is started.
    pub interceptor: Option<SocketAddr>,
}

/// The target, and an interceptor in front of it.
pub struct Chain<'a> {
    route: &'a Route,
    interceptor: SocketAddr,
    key: Option<String>,
}

impl<'a> Chain<'a> {
    /// Starts a temporary interceptor with these `options` if the route has none. They give a port, on which it does not listen.
    pub fn new(
        context: &Context<'_>,
        route: &'a Route,
        options: Serve,
    ) -> Result<Chain<'a>, Failure> {
        let key = context.environment.variable("OPENAI_API_KEY");
        let key = key.and_then(|given| given.text().ok().map(str::to_owned));
        Ok(Chain {
            route,
            interceptor: match route.interceptor {
                Some(address) => address,
                None => start_temporary(context, &route.target, options)?,
            },
            // Other characters may not stand in a header field.
            key: key.filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic())),
        })
    }

    /// Whether requests have the key in `OPENAI_API_KEY`.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The path of an endpoint that clients request: with `/v1`, unless the target's base path has another version.
    pub fn path(&self, endpoint: &str) -> String {
        let is_without = self.route.target.has_own_version();
        format!("{}{endpoint}", if is_without { "" } else { "/v1" })
    }

    /// Requests the list of models, which is at `path`, through the interceptor.
    pub fn models(&self, path: &str) -> Result<Response, Unreachable> {
        self.through("GET", path, None, ANSWER_TIME_MAX)
    }

    /// Requests the same stream twice: directly, and through the interceptor.
    pub fn stream(&self, model: &str) -> Streams {
        let body = json!({
            "model": model,
            "stream": true,
            "messages": [{"role": "user", "content": PROMPT}],
        })
        .to_string();
        let path = self.path("/chat/completions");
        let Route { target, proxy, .. } = self.route;
        let base = target.base_path();
        let direct = Request {
            method: "POST",
            path: &format!("{}{path}", base.strip_suffix("/v1").unwrap_or(base)),
            host: target.host_field(),
            key: self.key.as_deref(),
            body: Some(&body),
            ..Request::default()
        };
        let is_direct = !target.is_https() && proxy.is_none();
        Streams {
            target: target.to_string(),
            direct: is_direct.then(|| send(target.endpoint(), &direct, STREAM_TIME_MAX)),
            through: self.through("POST", &path, Some(&body), STREAM_TIME_MAX),
        }
    }

    fn through(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        limit: Duration,
    ) -> Result<Response, Unreachable> {
        let request = Request {
            method,
            path,
            host: &self.interceptor.to_string(),
            key: self.key.as_deref(),
            own_port: self.route.interceptor.map(|address| address.port()),
            body,
        };
        let (ip, port) = (self.interceptor.ip(), self.interceptor.port());
        send(&Endpoint::Tcp(ip.to_string(), port), &request, limit)
    }
}

fn send(
    endpoint: &Endpoint,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Response, Unreachable> {
    reactor::block_on(client::send(endpoint, request, limit))
        .unwrap_or_else(|error| Err(failed(&error)))
}

/// Starts an interceptor that ends with this process; returns its address.
fn start_temporary(
    context: &Context<'_>,
    target: &Target,
    options: Serve,
) -> Result<SocketAddr, Failure> {
    let serve = Serve {
        target: Some(target.to_string()),
        ..options
    };
    let (_, mut options, mut site) = serve.prepare(context, None, &[])?;
    site.listen = Listen::On(vec![vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]]);
    // Its thread ends with the process and could not remove the socket.
    options.feed = None;
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("interceptor".to_owned())
        .spawn(move || {
            // If it cannot start, the channel is closed.
            serve::run(options, site, &mut |event| {
                if let Event::Listening(addresses) = event {
                    let _ = sender.send(addresses.iter().find_map(Address::tcp));
                }
            })
        });
    spawned
        .ok()
        .and_then(|_| receiver.recv().ok().flatten())
        .ok_or_else(|| Failure::could_not("cannot start a temporary interceptor; try again"))
}

/// Its answer has about forty events, and costs little.
const PROMPT: &str = "Count from 1 to 40 in digits, separated by spaces. Say nothing else.";

/// For a list of models.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// For a stream: a model can think before its first token.
const STREAM_TIME_MAX: Duration = Duration::from_secs(60);
