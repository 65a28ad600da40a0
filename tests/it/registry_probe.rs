//! A port is in use if a program listens on it, on any address, and only then.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use interceptor::registry::{Availability, Port, availability};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use crate::cli_home::free_port;

fn probe(port: u16) -> Availability {
    availability(Port::try_from(port).unwrap())
}

#[test]
fn a_port_with_a_listener_on_any_address_is_in_use() {
    let addresses: [IpAddr; 4] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    for address in addresses {
        let port = free_port();
        let Ok(listener) = TcpListener::bind((address, port)) else {
            eprintln!("skipped: no {address} here");
            continue;
        };
        assert_eq!(probe(port), Availability::InUse, "{address}");
        drop(listener);
        assert_eq!(
            probe(port),
            Availability::Free,
            "{address}: the listener is closed"
        );
    }
}

#[test]
#[cfg(target_os = "linux")] // elsewhere the wildcard passes by listeners on one address
fn a_port_with_a_listener_on_another_address_of_this_machine_is_in_use() {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 9, 8, 7), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(probe(port), Availability::InUse);
}

#[test]
fn concurrent_probes_do_not_affect_one_another() {
    let port = free_port();
    for (family, address) in [
        (AddressFamily::INET, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    ] {
        // Another process during its probe.
        let Ok(other) = socket(family, SocketType::STREAM, None) else {
            continue;
        };
        sockopt::set_socket_reuseaddr(&other, true).unwrap();
        bind(&other, &SocketAddr::new(address, port)).unwrap();
        assert_eq!(probe(port), Availability::Free, "{address}");
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(probe(port), Availability::Free);
                }
            });
        }
    });
}

#[test]
fn a_port_with_closed_connections_is_free() {
    let port = free_port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"bye").unwrap();
    // The side that closes first enters TIME_WAIT: here the listening side.
    drop(server);
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    drop(client);
    drop(listener);
    assert_eq!(probe(port), Availability::Free);
}
