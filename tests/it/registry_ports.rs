//! Allocation of ports: the order of the search, which ports are skipped, and the error if no port is free.

use std::path::Path;

use interceptor::registry::{Allocated, Exhausted, Port, PortRange, Project, Registry};
use serde_json::{Value, json};

/// A registry with these ports assigned, each to `/p/PORT`, and with this `next_available`.
fn registry(assigned: &[u16], next_available: Value) -> Registry {
    let mappings: serde_json::Map<String, Value> = assigned
        .iter()
        .map(|port| (format!("/p/{port}"), json!(port)))
        .collect();
    let text = json!({
        "port_range": {"start": 1, "end": 3},
        "mappings": mappings,
        "next_available": next_available,
    });
    Registry::parse(text.to_string().as_bytes()).unwrap()
}

#[test]
fn the_search_starts_at_next_available_and_wraps_around_once() {
    /// The start of the search in 210–215, assigned ports, and ports that cannot be bound; all ports in the order of the search.
    #[track_caller]
    fn check(next: Value, assigned: &[u16], taken: &[u16], order: &[u16]) {
        let registry = registry(assigned, next);
        let mut asked = Vec::new();
        let free: Vec<u16> = registry
            .free_ports(range(210, 215), |port| {
                asked.push(port.get());
                !taken.contains(&port.get())
            })
            .map(Port::get)
            .collect();
        assert_eq!(free, order);
        asked.sort_unstable();
        let unassigned: Vec<u16> = (210..=215)
            .filter(|port| !assigned.contains(port))
            .collect();
        assert_eq!(
            asked, unassigned,
            "each port is probed once, assigned ports never"
        );
    }
    let from_start = [210, 211, 212, 213, 214, 215];
    check(json!(210), &[], &[], &from_start);
    check(json!(213), &[], &[], &[213, 214, 215, 210, 211, 212]);
    check(json!(215), &[], &[], &[215, 210, 211, 212, 213, 214]);
    check(json!(213), &[213, 215, 210], &[], &[214, 211, 212]);
    check(json!(213), &[], &[213, 214, 215], &[210, 211, 212]);
    check(json!(213), &[214], &[213, 210], &[215, 211, 212]);
    check(json!(212), &[210, 211, 212, 213, 214], &[], &[215]);
    check(json!(212), &[210, 211, 212], &[213, 214, 215], &[]);
    check(json!(212), &[210, 211, 212, 213, 214, 215], &[], &[]);
    check(
        json!(212),
        &[1, 209, 216, 65535],
        &[],
        &[212, 213, 214, 215, 210, 211],
    );
    // A value outside of the current range, or not a port, starts at the first port.
    for odd in [
        json!(209),
        json!(216),
        json!(0),
        json!(65536),
        json!(-212),
        json!("212"),
        json!(212.0),
        json!(null),
        json!([212]),
    ] {
        check(odd, &[], &[], &from_start);
    }
}

#[test]
fn the_range_can_contain_the_lowest_and_the_highest_port() {
    let mut registry = registry(&[], json!(65535));
    let ends = range(65534, 65535);
    let given: Vec<u16> = ["/a", "/b"]
        .map(|path| allocate(&mut registry, path, ends).unwrap().port.get())
        .into();
    assert_eq!(given, [65535, 65534]);
    assert_eq!(registry.next_in(ends), port(65535));
    assert_eq!(
        allocate(&mut registry, "/c", range(2, 2)).unwrap().port,
        port(2)
    );
    assert_eq!(registry.next_in(range(2, 2)), port(2));
    let all = PortRange::new(port(1), port(65535)).unwrap();
    assert_eq!(all.len(), 65535);
    assert_eq!(registry.free_ports(all, |_| true).count(), 65532 - 82);
    assert!(PortRange::new(port(2), port(1)).is_err());
}

#[test]
fn a_new_mapping_advances_the_search_and_records_the_range() {
    /// The recorded start, end and next port, as the Python tool reads them.
    #[track_caller]
    fn check(registry: &Registry, start: u16, end: u16, next: u16) {
        let text: Value = serde_json::from_str(&registry.to_text()).unwrap();
        assert_eq!(text["port_range"], json!({"start": start, "end": end}));
        assert_eq!(text["next_available"], json!(next));
    }
    let mut registry = registry(&[211], json!(211));
    let today = range(210, 213);
    check(&registry, 1, 3, 211);
    let given = |port_number, created| Allocated {
        port: port(port_number),
        created,
    };
    assert_eq!(allocate(&mut registry, "/a", today), Ok(given(212, true)));
    check(&registry, 210, 213, 213);
    assert_eq!(allocate(&mut registry, "/b", today), Ok(given(213, true)));
    check(&registry, 210, 213, 210);
    assert_eq!(allocate(&mut registry, "/b", today), Ok(given(213, false)));
    check(&registry, 210, 213, 210);
    assert_eq!(allocate(&mut registry, "/c", today), Ok(given(210, true)));
    check(&registry, 210, 213, 211);

    // A released port is not reused immediately, because clients may still use it.
    assert_eq!(registry.remove(&project("/c")), Some(port(210)));
    check(&registry, 210, 213, 211);
    assert_eq!(allocate(&mut registry, "/d", today), Ok(given(210, true)));
}

#[test]
fn a_project_keeps_its_port_if_the_range_changes() {
    let mut registry = registry(&[9000, 80], json!(9001));
    let before = registry.to_text();
    let nothing_is_free = |_| -> bool { panic!("an assigned port is not probed") };
    for (path, number) in [("/p/9000", 9000), ("/p/80", 80)] {
        let kept = registry.allocate(&project(path), range(210, 211), nothing_is_free);
        assert_eq!(
            kept.map(|kept| (kept.port, kept.created)),
            Ok((port(number), false))
        );
    }
    assert_eq!(registry.to_text(), before);
    assert_eq!(registry.assigned_in(range(80, 9000)), 2);
    assert_eq!(registry.assigned_in(range(81, 8999)), 0);
}

#[test]
fn the_recorded_range_does_not_replace_the_configured_one() {
    let recorded = r#"{"port_range": {"start": 1, "end": 3}, "mappings": {}, "next_available": 2}"#;
    let mut registry = Registry::parse(recorded.as_bytes()).unwrap();
    let first = registry.free_ports(PortRange::DEFAULT, |_| true).next();
    assert_eq!(first, Some(port(8888)));
    let given = allocate(&mut registry, "/a", PortRange::DEFAULT).unwrap();
    assert_eq!(given.port, port(8888));
}

#[test]
fn without_a_free_port_the_error_says_what_to_do_and_nothing_changes() {
    #[track_caller]
    fn check(assigned: &[u16], said: &str) {
        let mut registry = registry(assigned, json!(211));
        let before = registry.to_text();
        let refused = registry.allocate(&project("/new"), range(210, 212), |_| false);
        assert_eq!(
            refused,
            Err(Exhausted {
                range: range(210, 212),
                assigned: registry.assigned_in(range(210, 212)),
                bad: 0,
                refusal: None,
            })
        );
        let ways_out =
            "; raise INTERCEPTOR_PORT_MAX, or give up mappings with `ic prune` or `ic remove`";
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!("no port is free in 210-212: {said}{ways_out}")
        );
        assert_eq!(registry.to_text(), before);
        assert_eq!(registry.port_of(&project("/new")), None);
    }
    check(
        &[210, 211, 212],
        "3 assigned to projects, 0 in use by other programs",
    );
    check(
        &[210, 212, 9000],
        "2 assigned to projects, 1 in use by other programs",
    );
    check(&[], "0 assigned to projects, 3 in use by other programs");
}

#[test]
fn ports_that_browsers_refuse_are_not_assigned() {
    let ports = |registry: &Registry, range: PortRange| -> Vec<u16> {
        registry
            .free_ports(range, |_| true)
            .map(Port::get)
            .collect()
    };
    let empty = registry(&[], json!(6600));
    assert_eq!(ports(&empty, range(6664, 6670)), [6664, 6670]);
    assert_eq!(ports(&empty, range(10079, 10081)), [10079, 10081]);
    assert_eq!(empty.unassigned_in(range(6664, 6670)), 2);
    assert_eq!(empty.unassigned_in(PortRange::DEFAULT), 1112);

    // One that another program has assigned is kept, and counted once.
    let mut assigned = registry(&[6667, 6670], json!(6665));
    assert_eq!(assigned.unassigned_in(range(6664, 6670)), 1);
    let kept = allocate(&mut assigned, "/p/6667", range(6664, 6670));
    assert_eq!(kept.map(|kept| kept.port), Ok(port(6667)));
    let new = allocate(&mut assigned, "/new", range(6664, 6670));
    assert_eq!(new.map(|new| new.port), Ok(port(6664)));
    let refused = allocate(&mut assigned, "/other", range(6664, 6670)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no port is free in 6664-6670: 3 assigned to projects, 0 in use by other programs, 4 refused by browsers; \
         raise INTERCEPTOR_PORT_MAX, or give up mappings with `ic prune` or `ic remove`"
    );

    // Nor is one given again to a project that returns.
    let gone = r#"{"mappings": {}, "ic": {"projects": {"/a": {"former_port": 6667}, "/b": {"former_port": 6670}}}}"#;
    let mut gone = Registry::parse(gone.as_bytes()).unwrap();
    for (path, expected) in [("/a", 6664), ("/b", 6670)] {
        let given = allocate(&mut gone, path, range(6664, 6670));
        assert_eq!(given.map(|given| given.port), Ok(port(expected)), "{path}");
    }
}

#[test]
fn reset_restarts_the_search() {
    let mut registry = registry(&[9000, 210, 211], json!(212));
    assert_eq!(registry.reset(range(210, 212)), 3);
    assert!(registry.is_empty());
    assert_eq!(registry.next_in(range(210, 212)), port(210));
    let text: Value = serde_json::from_str(&registry.to_text()).unwrap();
    assert_eq!(text["next_available"], json!(210));
    assert_eq!(text["port_range"], json!({"start": 210, "end": 212}));
    assert_eq!(registry.reset(range(210, 212)), 0);
}

fn allocate(registry: &mut Registry, path: &str, range: PortRange) -> Result<Allocated, Exhausted> {
    registry.allocate(&project(path), range, |_| true)
}

fn project(path: &str) -> Project {
    Project::recorded(Path::new(path)).unwrap()
}

fn range(start: u16, end: u16) -> PortRange {
    PortRange::new(port(start), port(end)).unwrap()
}

fn port(number: u16) -> Port {
    Port::try_from(number).unwrap()
}
