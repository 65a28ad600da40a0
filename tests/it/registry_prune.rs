//! Which mappings can be pruned, and the notes of the registry on projects, as pure functions.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interceptor::registry::prune::{Pruned, Reason, Recycling};
use interceptor::registry::{
    BadSettings, Header, Port, PortRange, Project, Registry, Settings, Timestamp,
};

const DAY: Duration = Duration::from_secs(86_400);
const NO_GRAIN: Duration = Duration::ZERO;

/// Four projects at 8888–8891: used 40 days ago, used 50 days ago and pinned, never known to be used, used 35 days ago.
const TEXT: &str = r#"{
  "mappings": {"/p/forty": 8888, "/p/pinned": 8889, "/p/unknown": 8890, "/p/thirtyfive": 8891},
  "ic": {"projects": {
    "/p/forty": {"last_used": 4320000, "colour": "blue"},
    "/p/pinned": {"last_used": 3456000, "pinned": true},
    "/p/thirtyfive": {"last_used": 4752000}
  }, "more": [1]}
}"#;

fn now() -> Timestamp {
    at(90 * DAY)
}

fn at(since_1970: Duration) -> Timestamp {
    let time: SystemTime = UNIX_EPOCH + since_1970;
    time.into()
}

fn registry() -> Registry {
    Registry::parse(TEXT.as_bytes()).expect("a registry")
}

fn port(number: u16) -> Port {
    Port::try_from(number).expect("not 0")
}

fn project(path: &str) -> Project {
    Project::recorded(Path::new(path)).expect("absolute")
}

fn range(start: u16, end: u16) -> PortRange {
    PortRange::new(port(start), port(end)).expect("not empty")
}

#[track_caller]
fn check_pruned(
    unused_days: Option<u32>,
    deleted: &[&str],
    listening: &[u16],
    expected: &[(&str, &str)],
) {
    let recycling = unused_days.map(|days| Recycling {
        unused_for: days * DAY,
        now: now(),
    });
    let mut registry = registry();
    let pruned = registry.prune(
        recycling,
        |path| deleted.iter().any(|deleted| path == Path::new(deleted)),
        |port| listening.contains(&port.get()),
    );
    let told: Vec<_> = pruned
        .iter()
        .map(|Pruned { path, reason, .. }| {
            let why = match reason {
                Reason::Deleted => "deleted".to_owned(),
                Reason::Unused(time) => format!("{} days", time.as_secs() / 86_400),
            };
            (path.to_str().expect("UTF-8").to_owned(), why)
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(p, why)| (p.as_str(), why.as_str()))
        .collect();
    assert_eq!(told, expected);
    let left: HashSet<_> = registry
        .mappings()
        .map(|(path, _)| path.to_owned())
        .collect();
    assert_eq!(left.len(), 4 - expected.len());
    for (path, _) in expected {
        assert!(!left.contains(Path::new(path)));
        assert_eq!(
            registry.note(Path::new(path)).former_port,
            self::registry().port_of(&project(path)),
            "the project is remembered"
        );
    }
}

#[test]
fn deleted_projects_are_pruned_unless_their_port_is_in_use_or_pinned() {
    let all = ["/p/forty", "/p/pinned", "/p/unknown", "/p/thirtyfive"];
    check_pruned(None, &[], &[], &[]);
    check_pruned(None, &["/p/unknown"], &[], &[("/p/unknown", "deleted")]);
    check_pruned(None, &["/p/unknown"], &[8890], &[]);
    check_pruned(None, &["/p/pinned"], &[], &[]);
    check_pruned(
        None,
        &all,
        &[8891],
        &[("/p/unknown", "deleted"), ("/p/forty", "deleted")],
    );
}

#[test]
fn unused_ports_are_pruned_least_recently_used_first() {
    check_pruned(Some(41), &[], &[], &[]);
    check_pruned(Some(40), &[], &[], &[("/p/forty", "40 days")]);
    check_pruned(
        Some(30),
        &[],
        &[],
        &[("/p/forty", "40 days"), ("/p/thirtyfive", "35 days")],
    );
    check_pruned(Some(30), &[], &[8888], &[("/p/thirtyfive", "35 days")]);
    // An unknown use is not old, and deletion takes precedence as the reason.
    check_pruned(
        Some(0),
        &["/p/forty"],
        &[],
        &[("/p/forty", "deleted"), ("/p/thirtyfive", "35 days")],
    );
}

#[test]
fn a_use_in_the_future_does_not_count_as_old() {
    let mut registry = registry();
    registry.touch(&project("/p/forty"), at(200 * DAY), NO_GRAIN);
    let recycling = Recycling {
        unused_for: 36 * DAY,
        now: now(),
    };
    assert!(
        registry
            .prune(Some(recycling), |_| false, |_| false)
            .is_empty()
    );
    // The next use corrects it.
    registry.touch(&project("/p/forty"), now(), DAY);
    assert_eq!(registry.note(Path::new("/p/forty")).last_used, Some(now()));
}

#[test]
fn a_pruned_project_gets_its_old_port_again_if_it_is_free() {
    let deleted = |path: &Path| path == Path::new("/p/unknown");
    let all = range(8888, 8899);
    let pruned = || {
        let mut registry = registry();
        assert_eq!(registry.prune(None, deleted, |_| false).len(), 1);
        registry
    };
    let back = project("/p/unknown");

    let mut registry = pruned();
    let before = registry.next_in(all);
    let allocated = registry.allocate(&back, all, |_| true).expect("free");
    assert_eq!((allocated.port, allocated.created), (port(8890), true));
    assert_eq!(registry.note(back.path()).former_port, None);
    assert_eq!(registry.next_in(all), before);

    let mut in_use = pruned();
    let other = in_use.allocate(&back, all, |port| port.get() != 8890);
    assert_eq!(other.expect("others are free").port, port(8892));

    let mut outside = pruned();
    let moved = outside.allocate(&back, range(9000, 9009), |_| true);
    assert_eq!(moved.expect("free").port, port(9000));

    let mut given_away = pruned();
    let first = given_away.allocate(&project("/p/new"), range(8890, 8890), |_| true);
    assert_eq!(first.expect("free").port, port(8890));
    let second = given_away.allocate(&back, all, |_| true).expect("free");
    assert_ne!(second.port, port(8890));
}

#[test]
fn allocation_prunes_deleted_projects_only_without_a_free_port() {
    let deleted = |path: &Path| path == Path::new("/p/unknown") || path == Path::new("/p/pinned");
    let new = project("/p/new");

    let mut roomy = registry();
    let given = roomy.allocate_or_prune_with(&new, range(8888, 8892), |_| true, deleted);
    let given = given.expect("8892 is free");
    assert_eq!((given.allocated.port, given.pruned.len()), (port(8892), 0));

    let mut full = registry();
    let given = full.allocate_or_prune_with(&new, range(8888, 8891), |_| true, deleted);
    let given = given.expect("one was deleted");
    assert_eq!((given.allocated.port, given.pruned.len()), (port(8890), 1));

    for (why, listening, range) in [
        (
            "the port of the deleted project is in use",
            8890,
            range(8888, 8891),
        ),
        (
            "the port of the deleted project is outside the range",
            0,
            range(8888, 8889),
        ),
    ] {
        let mut registry = registry();
        let is_free = |port: Port| port.get() != listening;
        let exhausted = registry.allocate_or_prune_with(&new, range, is_free, deleted);
        assert!(exhausted.is_err(), "{why}");
        assert_eq!(registry, self::registry(), "{why}: nothing has changed");
    }
}

#[test]
fn unknown_fields_of_a_note_are_kept() {
    let mut registry = registry();
    registry.touch(&project("/p/forty"), now(), NO_GRAIN);
    registry.pin(&project("/p/unknown"), true);
    let text = registry.to_text();
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        value["ic"],
        serde_json::json!({
            "projects": {
                "/p/forty": {"colour": "blue", "last_used": 7_776_000},
                "/p/pinned": {"last_used": 3_456_000, "pinned": true},
                "/p/thirtyfive": {"last_used": 4_752_000},
                "/p/unknown": {"pinned": true},
            },
            "more": [1],
        })
    );
    // In the format of the Python tool, so that both write the same bytes.
    assert!(
        text.contains(
            "  \"ic\": {\n    \"projects\": {\n      \"/p/forty\": {\n        \"colour\""
        ),
        "{text}"
    );
    let again = Registry::parse(text.as_bytes()).expect("a registry");
    assert_eq!(again.to_text(), text);
}

#[test]
fn settings_are_kept_beside_members_of_other_programs_while_the_project_may_come_back() {
    let text = r#"{"mappings": {"/p/a": 8888}, "ic": {"projects": {"/p/a": {"settings": {"target": "old", "later": [1]}}}}}"#;
    let mut registry = Registry::parse(text.as_bytes()).expect("a registry");
    let a = project("/p/a");
    let settings = Settings {
        target: None,
        instance_id: Some("me".to_owned()),
        headers: vec![Header {
            name: "x-team".to_owned(),
            value: "blue".to_owned(),
        }],
    };
    registry.set_settings(&a, &settings);
    assert_eq!(registry.notes().settings(a.path()), Ok(settings.clone()));
    assert!(registry.to_text().contains("\"later\": [1]"));
    assert!(!registry.to_text().contains("target"));

    assert_eq!(registry.prune(None, |_| true, |_| false).len(), 1);
    let again = registry.allocate(&a, range(8888, 8899), |_| true);
    assert_eq!(again.expect("free").port, port(8888));
    assert_eq!(registry.notes().settings(a.path()), Ok(settings));

    registry.set_settings(&project("/p/other"), &Settings::default());
    assert!(!registry.to_text().contains("/p/other"), "it has no port");
    registry.remove(&a);
    assert_eq!(registry.notes().settings(a.path()), Ok(Settings::default()));
}

#[test]
fn settings_of_another_form_are_neither_used_nor_lost() {
    for bad in [
        "5",
        r#""http://x""#,
        r#"{"target": 5}"#,
        r#"{"headers": {"a": "b"}}"#,
        r#"{"headers": [{"name": "a"}]}"#,
        r#"{"headers": null}"#,
    ] {
        let text = format!(
            r#"{{"mappings": {{"/p/a": 8888}}, "ic": {{"projects": {{"/p/a": {{"settings": {bad}}}}}}}}}"#
        );
        let mut registry = Registry::parse(text.as_bytes()).expect(bad);
        registry.pin(&project("/p/a"), true);
        let settings = registry.notes().settings(Path::new("/p/a"));
        assert_eq!(settings, Err(BadSettings), "{bad}");
        assert!(registry.to_text().contains(bad), "{bad}");
    }
}

#[test]
fn an_ic_field_of_another_type_is_kept_and_contains_no_notes() {
    for foreign in [
        r#""ic""#,
        "7",
        "[]",
        r#"{"projects": 5}"#,
        r#"{"projects": {"/p/a": 8888}}"#,
    ] {
        let text = format!(r#"{{"mappings": {{"/p/a": 8888}}, "ic": {foreign}}}"#);
        let registry = Registry::parse(text.as_bytes()).expect(foreign);
        assert_eq!(
            registry.note(Path::new("/p/a")),
            Default::default(),
            "{foreign}"
        );
        assert!(registry.to_text().contains(foreign), "{foreign}");
    }
}

#[test]
fn removing_a_mapping_removes_its_note() {
    let mut removed = registry();
    removed.remove(&project("/p/pinned"));
    assert_eq!(removed.note(Path::new("/p/pinned")), Default::default());
    assert_eq!(removed.notes().iter().count(), 2);

    let mut reset = registry();
    reset.reset(PortRange::DEFAULT);
    assert_eq!(reset.notes().iter().count(), 0);
    assert!(
        reset.to_text().contains("\"more\""),
        "unknown fields are kept"
    );
}

#[test]
fn a_use_is_recorded_in_coarse_steps_and_only_for_projects_with_a_port() {
    let mut registry = registry();
    let before = registry.clone();
    registry.touch(&project("/p/nobody"), now(), NO_GRAIN);
    registry.pin(&project("/p/nobody"), true);
    registry.pin(&project("/p/forty"), false);
    registry.touch(
        &project("/p/forty"),
        at(50 * DAY + Duration::from_secs(3599)),
        DAY / 24,
    );
    assert_eq!(registry, before);
    registry.touch(
        &project("/p/forty"),
        at(50 * DAY + Duration::from_secs(3600)),
        DAY / 24,
    );
    assert_ne!(registry, before);
}

#[test]
fn the_number_of_remembered_projects_is_limited() {
    let mut registry = Registry::default();
    let range = range(1000, 3000);
    for number in 0..300 {
        let project = project(&format!("/p/{number}"));
        registry.allocate(&project, range, |_| true).expect("free");
        registry.prune(None, |_| true, |_| false);
    }
    let remembered: Vec<_> = registry
        .notes()
        .iter()
        .map(|(path, _)| path.to_owned())
        .collect();
    assert_eq!(remembered.len(), 256);
    assert_eq!(
        remembered[0],
        Path::new("/p/44"),
        "the oldest are removed first"
    );
    assert_eq!(remembered[255], Path::new("/p/299"));
}

#[test]
fn truncated_notes_are_not_read_as_mappings() {
    let mut registry = registry();
    registry.prune(None, |path| path == Path::new("/p/unknown"), |_| false);
    let text = registry.to_text();
    for cut in 0..text.len() {
        let recovered = interceptor::registry::recover::recover(&text.as_bytes()[cut..]).registry;
        assert_eq!(
            recovered.port_of(&project("/p/unknown")),
            None,
            "from {cut}"
        );
        let recovered = interceptor::registry::recover::recover(&text.as_bytes()[..cut]).registry;
        assert_eq!(
            recovered.port_of(&project("/p/unknown")),
            None,
            "up to {cut}"
        );
    }
}
