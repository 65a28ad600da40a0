//! Where the page is served, and how its address reaches the user. The rest is in [`ui`](crate::ui).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use crate::registry::{Port, PortRange, Registry};
use crate::serve::listen;

use crate::cli::address::addresses;
use crate::cli::context::{Context, RegistryHandle, report_damage};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::cli::settings::SourcedValue;
use crate::cli::signals;
use crate::cli::transfer;
use crate::httpd;
use crate::text::{escaped_path, io_message, raw};
use crate::ui::{AppState, Auth, Changes, Feeds, prices_line};

use super::commands::OwnCommands;
use super::open;

/// Serves the page until a signal.
///
/// # Errors
///
/// Bad usage for a port that is none; "could not": it cannot listen, or the registry or the prices cannot be read.
pub fn run(
    port: Option<&str>,
    no_open: bool,
    prices: Option<&str>,
    context: &mut Context<'_>,
) -> Result<Exit, Failure> {
    let wanted = wanted(port)?;
    let prices = prices.map(prices_in).transpose()?;
    let handle = context.registry_handle()?;
    let ips = addresses("localhost")?;
    let listeners = match wanted {
        Wanted::Port(port) => bind(&ips, port).map_err(|error| cannot_listen(port, &error))?,
        Wanted::Any => bind_any(&ips)?,
        Wanted::Usual => usual(&ips, handle.range, &handle.store.read()?.registry)?,
    };
    let address = listeners
        .first()
        .map_or(Err(io::ErrorKind::AddrNotAvailable.into()), |listener| {
            listener.local_addr()
        })
        .map_err(|error| cannot_listen(0, &error))?;
    let auth = Auth::new().map_err(|error| no_secret(&error))?;
    let RegistryHandle { store, range } = handle;
    let commands = OwnCommands {
        store: store.clone(),
        has_own_registry: context.has_own_registry(),
    };
    let app = Arc::new(AppState {
        auth,
        store,
        range,
        warn: |warning| report_damage(Some(warning)),
        feeds: context
            .feed_folder()
            .map(|folder| Arc::new(Feeds::new(folder))),
        prices,
        commands: Box::new(commands),
        changes: Changes::default(),
    });
    if let Some(feeds) = &app.feeds {
        let could_not =
            |error| Failure::could_not(format!("cannot start a thread: {}", io_message(&error)));
        feeds.start().map_err(could_not)?;
    }
    let stop = signals::signals()?;
    context.out.text(format_args!(
        "http://{address}/#token={}\n",
        app.auth.token()
    ))?;
    context.out.show()?;
    if !no_open {
        open::in_browser(address, &app, &context.environment);
    }
    let server = Arc::clone(&app);
    let ended = signals::run_until_signal(stop, "the page", || httpd::run(listeners, server));
    app.auth.revoke_code();
    ended
}

fn no_secret(error: &io::Error) -> Failure {
    Failure::could_not(format!(
        "cannot make a secret: {}; /dev/urandom is needed",
        io_message(error)
    ))
}

/// The line for the page that a file of prices results in.
fn prices_in(file: &str) -> Result<Vec<u8>, Failure> {
    let path = PathBuf::from(raw::from_text(file));
    let failure = |why: String| {
        let file = escaped_path(&path);
        Failure::could_not(format!(
            "cannot use the prices in `{file}`: {why}; give a file like LiteLLM's \
             model_prices_and_context_window.json"
        ))
    };
    let text = transfer::read(Some(&path)).map_err(|error| failure(io_message(&error)))?;
    prices_line(&text).map_err(|why| failure(format!("it {why}")))
}

fn wanted(port: Option<&str>) -> Result<Wanted, Failure> {
    match port {
        None => Ok(Wanted::Usual),
        Some("0") => Ok(Wanted::Any),
        Some(port) => {
            let given = SourcedValue::flag("--port", port);
            let port = given.port()?;
            if port.is_bad_for_fetch() {
                return Err(
                    given.refused("is a port that browsers refuse to connect to; give another one")
                );
            }
            Ok(Wanted::Port(port.get()))
        }
    }
}

/// Where to listen.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// There, or not at all.
    Port(u16),
    /// On any port that is free.
    Any,
    /// On [`USUAL`] if that can be had.
    Usual,
}

/// On the port that people's bookmarks know, unless it could be a project's.
fn usual(
    ips: &[IpAddr],
    range: PortRange,
    registry: &Registry,
) -> Result<Vec<TcpListener>, Failure> {
    let is_for_projects = Port::try_from(USUAL)
        .is_ok_and(|port| range.contains(port) || registry.path_of(port).is_some());
    if is_for_projects {
        return bind_any(ips);
    }
    bind(ips, USUAL).or_else(|error| {
        eprint_line(format_args!(
            "port {USUAL} cannot be had ({}); the page is on another one",
            io_message(&error)
        ));
        bind_any(ips)
    })
}

fn bind(ips: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let addresses: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    listen::bind_all(&addresses).map_err(|(_, error)| error)
}

/// One free port for all of the addresses.
fn bind_any(ips: &[IpAddr]) -> Result<Vec<TcpListener>, Failure> {
    let mut tries = 0..PORTS_TRIED_MAX;
    loop {
        match bind_one_for_all(ips) {
            Ok(listeners) => return Ok(listeners),
            // The others have that port in use.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
            Err(error) => return Err(cannot_listen(0, &error)),
        }
    }
}

fn bind_one_for_all(ips: &[IpAddr]) -> io::Result<Vec<TcpListener>> {
    let (first, others) = ips.split_first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut listeners = match bind(&[*first], 0) {
        // This machine has only the other family.
        Err(_) if !others.is_empty() => return bind_one_for_all(others),
        listeners => listeners?,
    };
    let port = listeners
        .first()
        .map_or(Ok(0), |one| one.local_addr().map(|address| address.port()))?;
    for ip in others {
        match bind(&[*ip], port) {
            Ok(more) => listeners.extend(more),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // One family is enough.
            Err(_) => {}
        }
    }
    Ok(listeners)
}

fn cannot_listen(port: u16, error: &io::Error) -> Failure {
    let port = match port {
        0 => "any port".to_owned(),
        port => format!("port {port}"),
    };
    Failure::could_not(format!(
        "cannot listen on {port}: {}; give another with --port",
        io_message(error)
    ))
}

/// Beside the ports that are given out by default, and no one's that is known.
const USUAL: u16 = 8887;

/// A port that is free for one address family is seldom taken for the other.
const PORTS_TRIED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_port_is_a_number_or_any() {
        let wanted = |port: Option<&str>| wanted(port).map_err(|failure| failure.exit);
        assert_eq!(wanted(None), Ok(Wanted::Usual));
        assert_eq!(wanted(Some("0")), Ok(Wanted::Any));
        assert_eq!(wanted(Some("8080")), Ok(Wanted::Port(8080)));
        assert_eq!(wanted(Some("65536")), Err(Exit::BadUsage));
        assert_eq!(wanted(Some("")), Err(Exit::BadUsage));
        assert_eq!(wanted(Some("00")), Err(Exit::BadUsage));
    }

    #[test]
    fn any_port_is_the_same_on_every_address() {
        let ips = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let listeners = bind_any(&ips).expect("a free port");
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound").port())
            .collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        assert!(bind(&ips, ports[0]).is_err(), "it is taken now");
    }
}
