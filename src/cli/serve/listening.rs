//! Where `ic serve` listens, and which clients it accepts there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::arguments::Serve;
use crate::cli::address::addresses;
use crate::cli::outcome::Failure;
use crate::cli::settings::SourcedValue;
use crate::http::guard::{allowed_host, allowed_origin};
use crate::serve::Guard;

/// A Unix socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Absolute, and no longer than the system allows.
    pub path: PathBuf,
    /// The permissions of its file.
    pub mode: u32,
}

/// The names and addresses to listen on, not resolved: texts without white space; `*` is all addresses. At least one.
pub fn hosts(serve: &Serve) -> Result<Vec<String>, Failure> {
    if serve.host.is_empty() {
        return Ok(vec![HOST.to_owned()]);
    }
    let read = |host: &String| {
        let given = SourcedValue::flag("--host", host);
        let text = given.text()?;
        if text.contains(char::is_whitespace) {
            return Err(given.refused("contains white space; leave it out"));
        }
        Ok(text.to_owned())
    };
    serve.host.iter().map(read).collect()
}

/// The addresses of each host, without those on which an earlier host listens already.
pub fn addresses_of(hosts: &[String]) -> Result<Vec<Vec<IpAddr>>, Failure> {
    let mut all = Vec::new();
    for host in hosts {
        all.push(match &**host {
            "*" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            host => addresses(host)?,
        });
    }
    // 0.0.0.0 includes every address of its family, so that no other socket can have the port.
    let wild: Vec<IpAddr> = all
        .iter()
        .flatten()
        .copied()
        .filter(IpAddr::is_unspecified)
        .collect();
    let mut seen = Vec::new();
    for ips in &mut all {
        ips.retain(|ip| {
            let is_included = wild
                .iter()
                .any(|it| it != ip && it.is_ipv4() == ip.is_ipv4());
            let is_new = !is_included && !seen.contains(ip);
            seen.push(*ip);
            is_new
        });
    }
    all.retain(|ips| !ips.is_empty());
    Ok(all)
}

/// The Unix socket of `--listen`.
pub fn socket(serve: &Serve) -> Result<Option<Socket>, Failure> {
    let Some(listen) = &serve.listen else {
        return match &serve.listen_mode {
            Some(_) => Err(Failure::usage(
                "`--listen-mode` is for a Unix socket; give `--listen` as well",
            )),
            None => Ok(None),
        };
    };
    let places = [
        ("--host", !serve.host.is_empty()),
        ("--port", serve.port.is_some()),
    ];
    if let Some((option, _)) = places.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::usage(format!(
            "`--listen` takes the place of a port; give `--listen` or `{option}`"
        )));
    }
    Ok(Some(Socket {
        path: SourcedValue::flag("--listen", listen).socket()?,
        mode: match &serve.listen_mode {
            Some(mode) => file_mode(&SourcedValue::flag("--listen-mode", mode))?,
            None => SOCKET_MODE,
        },
    }))
}

/// Octal digits, as chmod(1) takes them.
fn file_mode(given: &SourcedValue) -> Result<u32, Failure> {
    let text = given.text()?;
    let is_octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| is_octal && mode <= 0o777)
        .ok_or_else(|| given.refused("is not a mode; give octal digits such as 660"))
}

/// Which requests are served. `local_hosts_only` is false; see [`local_hosts_only`].
pub fn guard(serve: &Serve) -> Result<Guard, Failure> {
    Ok(Guard {
        local_hosts_only: false,
        allowed_hosts: parse_each(
            "--allow-host",
            &serve.allow_host,
            |text| allowed_host(text).map(str::to_owned),
            "is not a host; give its name without scheme and port, such as `llm.example`",
        )?,
        allowed_origins: parse_each(
            "--allow-origin",
            &serve.allow_origin,
            allowed_origin,
            "is not an origin; give scheme and host, such as `https://chat.example`, or `null`",
        )?,
    })
}

/// The values of a repeated option, each as `parse` reads it; `why` says what would be accepted.
fn parse_each(
    option: &'static str,
    values: &[String],
    parse: impl Fn(&str) -> Option<String>,
    why: &str,
) -> Result<Vec<String>, Failure> {
    let read = |value: &String| {
        let given = SourcedValue::flag(option, value);
        parse(given.text()?).ok_or_else(|| given.refused(why))
    };
    values.iter().map(read).collect()
}

/// These addresses on a port.
pub fn addresses_on(ips: &[Vec<IpAddr>], port: u16) -> Vec<Vec<SocketAddr>> {
    let on = |ips: &Vec<IpAddr>| ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
    ips.iter().map(on).collect()
}

/// Whether an interceptor on these TCP addresses, and possibly on Unix sockets, accepts only `Host` values that mean
/// this machine unless `--allow-host` names others. The check stops DNS rebinding by web pages. A browser cannot connect
/// to a Unix socket, and the reverse proxies that do may pass on any name.
pub fn local_hosts_only(addresses: &[SocketAddr]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_loopback(&address.ip()))
}

/// Whether only this machine reaches `ip`; an IPv4 address in IPv6 form (`::ffff:127.0.0.1`) counts as IPv4.
pub fn is_loopback(ip: &IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

const HOST: &str = "localhost";

/// Access to the target may cost money: other users need explicit permission.
const SOCKET_MODE: u32 = 0o600;
