//! `PortRegistry`, the registry as a library, with typed errors.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use interceptor::registry::{Exhausted, StoreError};
use interceptor::{PortRegistry, RegistryError, RegistryOptions};

use crate::cli_home::{free_port, held_port};

fn registry(folder: &Path, port_min: u16, port_max: u16) -> PortRegistry {
    PortRegistry::new(RegistryOptions {
        port_min: Some(port_min),
        port_max: Some(port_max),
        registry_file: Some(folder.join("r.json")),
    })
    .unwrap()
}

#[test]
fn a_project_gets_its_port_keeps_it_and_can_release_it() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    let first = free_port();
    let ports = registry(&home, first, first + 500);
    let (shop, gone) = (home.join("shop"), home.join("gone"));
    fs::create_dir(&shop).unwrap();

    assert_eq!(ports.get_port(&shop).unwrap(), None);
    assert!(!ports.remove_mapping(&shop).unwrap());
    assert!(!home.join("r.json").exists(), "reading creates nothing");

    let port = ports.get_or_allocate_port(&shop).unwrap();
    assert!((first..=first + 500).contains(&port.get()));
    // All spellings are one project, and the path need not exist.
    assert_eq!(
        ports.get_or_allocate_port(shop.join("../shop/")).unwrap(),
        port
    );
    let other = ports.get_or_allocate_port(&gone).unwrap();
    assert_ne!(other, port);
    let expected: Vec<(PathBuf, _)> = vec![(gone.clone(), other), (shop.clone(), port)];
    assert_eq!(Vec::from_iter(ports.list_mappings().unwrap()), expected);

    let info = ports.get_info().unwrap();
    assert_eq!(info.registry_file, home.join("r.json"));
    assert_eq!(
        info.port_range.to_string(),
        format!("{first}-{}", first + 500)
    );
    assert_eq!(
        (info.total_ports, info.allocated_ports, info.available_ports),
        (501, 2, 499)
    );
    assert!(info.next_available > other);

    assert!(ports.remove_mapping(&gone).unwrap());
    assert!(!ports.remove_mapping(&gone).unwrap());
    assert_eq!(ports.get_port(&gone).unwrap(), None);
    assert_eq!(ports.clone().get_port(&shop).unwrap(), Some(port));
}

#[test]
fn a_port_is_available_if_it_can_be_bound() {
    let folder = tempfile::tempdir().unwrap();
    let ports = registry(folder.path(), 8888, 9999);
    let (_listener, held) = held_port();
    assert!(!ports.is_port_available(held));
    assert!(!ports.is_port_available(0));
    assert!(ports.is_port_available(free_port()));
}

#[test]
fn errors_can_be_distinguished() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, held) = held_port();
    let full = registry(folder.path(), held, held);
    match full.get_or_allocate_port(folder.path()) {
        Err(RegistryError::Exhausted(Exhausted {
            range,
            assigned,
            bad: 0,
            refusal: None,
        })) => {
            assert_eq!((range.start().get(), range.len(), assigned), (held, 1, 0));
        }
        other => panic!("{other:?}"),
    }
    assert!(!folder.path().join("r.json").exists());
    match full.get_port("") {
        Err(RegistryError::Path { path, source }) => {
            assert_eq!(
                (path.as_path(), source.kind()),
                (Path::new(""), ErrorKind::InvalidInput)
            );
        }
        other => panic!("{other:?}"),
    }
    fs::create_dir(folder.path().join("r.json")).unwrap();
    for failed in [
        full.get_or_allocate_port("/p").map(drop),
        full.get_port("/p").map(drop),
        full.list_mappings().map(drop),
        full.remove_mapping("/p").map(drop),
        full.get_info().map(drop),
    ] {
        match failed {
            Err(RegistryError::Store(StoreError::NotAFile { file, what })) => {
                assert_eq!((file, what), (folder.path().join("r.json"), "a folder"));
            }
            other => panic!("{other:?}"),
        }
    }
    let options = |port_min, port_max| RegistryOptions {
        port_min: Some(port_min),
        port_max: Some(port_max),
        registry_file: Some("r.json".into()),
    };
    match PortRegistry::new(options(0, 9)) {
        Err(RegistryError::NotAPort {
            name: "port_min",
            value,
        }) => assert_eq!(value, "0"),
        other => panic!("{other:?}"),
    }
    match PortRegistry::new(options(9, 8)) {
        Err(RegistryError::EmptyRange(range)) => assert_eq!(range.start.get(), 9),
        other => panic!("{other:?}"),
    }
}
