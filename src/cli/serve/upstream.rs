//! The way to the target: its address, its TLS, a proxy before it; or the embedded mock in its place.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::proxies::proxy;
use super::settings::Upstream;
use super::trust::tls;
use crate::cli::outcome::Failure;
use crate::cli::settings::Environment;
use crate::mock;
use crate::serve::{BadUrl, RequestRewriter, Target, Trust, UpstreamOptions};
use crate::text::{Escaped, io_message};

/// Where requests go. Reads certificates, or starts the mock.
///
/// # Errors
///
/// Bad usage for a target, a certificate or a proxy that cannot be used; "could not" for a file that cannot be read
/// and a mock that cannot be started.
pub fn upstream(
    upstream: &Upstream,
    uses_proxies: bool,
    trust: &Trust,
    environment: &Environment<'_>,
) -> Result<UpstreamOptions, Failure> {
    let target = match upstream {
        Upstream::Target(target) => target.target()?,
        Upstream::Mock(interval) => {
            return Ok(UpstreamOptions {
                target: start_mock(*interval)?,
                tls: None,
                proxy: None,
            });
        }
    };
    let proxy = if uses_proxies {
        proxy(&target, environment)?
    } else {
        None
    };
    Ok(UpstreamOptions {
        tls: tls(trust, &target)?,
        proxy,
        target,
    })
}

/// What sets `fields` on each request for this target. Moves credentials for the proxy to where the proxy reads them.
///
/// # Errors
///
/// Bad usage: one of the fields cannot be set.
pub fn rewriter(
    upstream: &mut UpstreamOptions,
    fields: &[(String, String)],
) -> Result<RequestRewriter, Failure> {
    let (host, path) = (upstream.target.host_field(), upstream.target.base_path());
    let mut rewriter = RequestRewriter::new(host, path, fields).map_err(|unsettable| {
        Failure::usage(format!(
            "the field `{}` cannot be set; leave it out",
            Escaped(&unsettable.0)
        ))
    })?;
    if let Some(proxy) = upstream.proxy.take() {
        upstream.proxy = Some(if upstream.tls.is_none() {
            rewriter = rewriter.through_proxy(proxy.authorization());
            proxy
        } else {
            // Through a tunnel the proxy sees only the CONNECT request.
            match rewriter.take("Proxy-Authorization") {
                Some(value) => proxy.with_authorization(value),
                None => proxy,
            }
        });
    }
    Ok(rewriter)
}

/// Starts the mock in a thread that ends with the process; returns its address as a target.
fn start_mock(interval: Duration) -> Result<Target, Failure> {
    let failed = |error: &io::Error| {
        Failure::could_not(format!("cannot start the mock: {}", io_message(error)))
    };
    let options = mock::Options {
        interval,
        ..mock::Options::default()
    };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = mock::Server::bind(&[any_port]).map_err(|error| failed(&error))?;
    let address = server.addresses()[0];
    std::thread::Builder::new()
        .name("mock".to_owned())
        .spawn(move || server.run(options))
        .map_err(|error| failed(&error))?;
    format!("http://{address}")
        .parse()
        .map_err(|error: BadUrl| Failure::could_not(format!("the mock's address {error}")))
}
