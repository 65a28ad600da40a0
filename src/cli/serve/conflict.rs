//! Why an interceptor could not start, or had to stop: one line, with the holder of a port or socket that is in use.

use std::io;
use std::path::Path;

use crate::cli::mapping::command_for;
use crate::cli::outcome::Failure;
use crate::machine::interceptor::{Identity, interceptor_at, interceptor_at_socket};
use crate::machine::listeners::{holder_of, holder_of_socket};
use crate::machine::process::Holder;
use crate::machine::survey::is_for;
use crate::registry::Port;
use crate::registry::project::Project;
use crate::serve::{Address, ServeError, ServedBy};
use crate::text::{escaped_path, io_message, raw};

use super::port::PortOrigin;

/// The failure for `error`. `port` is the port that was to be used, `project` the one whose interceptor was to start,
/// `alternative` returns another port that the registry could allocate.
pub fn failure(
    error: &ServeError,
    port: Option<(Port, PortOrigin)>,
    project: Option<&Project>,
    alternative: impl FnOnce() -> Option<Port>,
) -> Failure {
    let (address, error) = match error {
        ServeError::Bind(Address::Unix(path), error) => {
            return socket_failure(path, error, project);
        }
        ServeError::Bind(address, error) => (address, error),
        ServeError::TargetIsSelf(_) => return Failure::usage(error.to_string()),
        error => return Failure::could_not(error.to_string()),
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            return match port {
                Some((port, origin)) => port_in_use(port, origin, project, alternative()),
                None => Failure::could_not(io_message(error)),
            };
        }
        kind => bind_remedy(kind, address.port().unwrap_or_default()),
    };
    Failure::could_not(format!(
        "cannot listen on {address}: {}; {remedy}",
        io_message(error)
    ))
}

/// What to do where a port, which is not in use, cannot be listened on.
pub fn bind_remedy(error: io::ErrorKind, port: u16) -> &'static str {
    match error {
        io::ErrorKind::PermissionDenied if (1..1024).contains(&port) => {
            "choose a port of 1024 or above"
        }
        io::ErrorKind::PermissionDenied => "a sandbox may forbid it",
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput => {
            "give an address of this machine with --host, or leave it out"
        }
        _ => "check --host and the port",
    }
}

fn port_in_use(
    port: Port,
    origin: PortOrigin,
    project: Option<&Project>,
    alternative: Option<Port>,
) -> Failure {
    let remove = command_for("remove", project);
    let remedy = match (origin, alternative) {
        (PortOrigin::Flag | PortOrigin::Variable | PortOrigin::Inherited, _) => {
            format!("give another port with {origin} (`ic suggest` lists free ones)")
        }
        (_, Some(alternative)) => {
            format!("{remove} to get another port ({alternative} is free)")
        }
        (_, None) => format!("{remove} to get another port"),
    };
    let place = format!("port {port}");
    let identity = interceptor_at(port.get());
    let holder = || holder_of(port.get());
    in_use(&place, identity, project, holder, &remedy)
}

fn socket_failure(path: &Path, error: &io::Error, project: Option<&Project>) -> Failure {
    let socket = format!("unix:{}", escaped_path(path));
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let remedy = "give another path with --listen";
            let identity = interceptor_at_socket(path);
            let holder = || holder_of_socket(path);
            return in_use(&socket, identity, project, holder, remedy);
        }
        io::ErrorKind::AlreadyExists => "remove it, or give another path with --listen",
        io::ErrorKind::NotFound => "make its folder first",
        _ => "give a path in a folder of yours with --listen",
    };
    Failure::could_not(format!(
        "cannot listen on {socket}: {}; {remedy}",
        io_message(error)
    ))
}

/// `place` is in use: by the interceptor with this `identity`, or by the `holder` that is found.
fn in_use(
    place: &str,
    identity: Option<Identity>,
    project: Option<&Project>,
    holder: impl Fn() -> Holder,
    remedy: &str,
) -> Failure {
    let Some(identity) = identity else {
        let by = match holder() {
            // The system does not list sockets, or the holder has just ended.
            unknown if unknown == Holder::default() => String::new(),
            holder => format!(" by {holder}"),
        };
        return Failure::could_not(format!("{place} is in use{by}; stop it, or {remedy}"));
    };
    let pid = identity.pid;
    let is_ours = project.is_some_and(|project| is_for(&identity, project.path()));
    let theirs = identity.project.map(|path| raw::from_text(&path));
    let theirs = theirs.and_then(|path| Project::recorded(path.as_ref()));
    let stop = match identity.served_by {
        ServedBy::All => "`ic stop --all`".to_owned(),
        ServedBy::Serve | ServedBy::Run => command_for("stop", theirs.as_ref()),
    };
    Failure::could_not(if is_ours {
        format!(
            "this project's interceptor is already running on {place} (pid {pid}); let clients use that one, or stop \
             it first with {stop}"
        )
    } else {
        format!(
            "{place} is in use by the interceptor `{}` (pid {pid}); stop it with {stop}, or {remedy}",
            identity.instance_id
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outcome::Exit;
    use std::io::{Read, Write};

    #[test]
    fn a_port_in_use_is_reported_with_its_holder_and_the_remedy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let port = Port::try_from(port).expect("bound to a port");
        #[track_caller]
        fn check(port: Port, origin: PortOrigin, another: Option<u16>, remedy: &str) {
            let another = another.map(|port| Port::try_from(port).expect("not 0"));
            let failure = port_in_use(port, origin, None, another);
            assert_eq!(failure.exit, Exit::CouldNot);
            let message = failure.to_string();
            assert!(
                message.starts_with(&format!("port {port} is in use")),
                "{message}"
            );
            assert!(message.ends_with(remedy), "{message}");
        }
        check(
            port,
            PortOrigin::Flag,
            None,
            "; stop it, or give another port with --port (`ic suggest` lists free ones)",
        );
        check(
            port,
            PortOrigin::Variable,
            None,
            "; stop it, or give another port with INTERCEPTOR_PORT (`ic suggest` lists free ones)",
        );
        let remove = "; stop it, or `ic remove` to get another port";
        check(port, PortOrigin::Registry, None, remove);
        let remove = format!("{remove} (8901 is free)");
        check(port, PortOrigin::Registry, Some(8901), &remove);
    }

    #[test]
    fn a_port_in_use_by_an_interceptor_is_reported_with_its_project() {
        #[track_caller]
        fn check(theirs: &str, by: &str, origin: PortOrigin, expected: &str) {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let port = Port::try_from(port).expect("bound to a port");
            let body = serde_json::json!({
                "status": "healthy", "instance_id": "pycharm-x", "target": "http://a",
                "project": theirs, "pid": std::process::id(), "uptime_seconds": 3,
                "served_by": by,
            });
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the question");
                let mut question = [0; 1024];
                assert_ne!(stream.read(&mut question).expect("the question"), 0);
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").expect("the answer");
            });
            let project = Project::recorded("/home/me/shop".as_ref()).expect("absolute");
            let message = port_in_use(port, origin, Some(&project), None).to_string();
            server.join().expect("no failure in the server");
            let message = message
                .replace(&format!("pid {}", std::process::id()), "pid 812")
                .replace(&format!("port {port}"), "port N");
            assert_eq!(message, expected);
        }
        let ours = "this project's interceptor is already running on port N (pid 812); let clients use that one, or stop \
                    it first with `ic stop /home/me/shop`";
        check("/home/me/shop", "run", PortOrigin::Registry, ours);
        check("/home/me/shop", "serve", PortOrigin::Flag, ours);
        let of_all = ours.replace("`ic stop /home/me/shop`", "`ic stop --all`");
        check("/home/me/shop", "all", PortOrigin::Flag, &of_all);
        check(
            "/home/me/else",
            "serve",
            PortOrigin::Variable,
            "port N is in use by the interceptor `pycharm-x` (pid 812); stop it with `ic stop /home/me/else`, or \
             give another port with INTERCEPTOR_PORT (`ic suggest` lists free ones)",
        );
    }
}
