//! `ic health`, the probe for containers.

use serde_json::{Value, json};

use crate::cli_home::{Home, free_port, held_port};
use crate::support::{Launch, Origin};

#[test]
fn health_finds_a_running_interceptor_by_port_and_by_project() {
    let origin = Origin::agreeing();
    let ic = Launch::before(&origin)
        .args(["--instance-id", "me-1"])
        .start();
    let home = Home::new();
    let shop = home.path("shop");
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let before = home.content();
    let expected = format!(
        "✓ Port {}: me-1 → {}, pid {}\n",
        ic.port,
        origin.url(),
        ic.pid()
    );
    let port = ic.port.to_string();
    for arguments in [
        &["health"][..],
        &["health", &port],
        &["health", "."],
        &["health", "--ready"],
        &["health", &port, "--ready"],
    ] {
        assert_eq!(home.ic(arguments).result(0), expected, "{arguments:?}");
    }
    for (ready, word) in [(Value::Null, "health"), (json!(true), "--ready")] {
        let words: &[&str] = if word == "health" {
            &[word]
        } else {
            &["health", word]
        };
        assert_eq!(
            home.ic([words, &["--json"]].concat()).json(0),
            json!({
                "port": ic.port, "up": true, "ready": ready,
                "instance_id": "me-1", "target": origin.url(), "pid": ic.pid(),
            })
        );
    }
    assert_eq!(home.content(), before, "nothing is written");
    let elsewhere = Home::new().with("INTERCEPTOR_PORT", &port);
    assert_eq!(elsewhere.ic(["health"]).result(0), expected);
}

#[test]
fn health_reports_other_programs_and_invalid_values() {
    let home = Home::new();
    let free = free_port();
    assert_eq!(
        home.ic(["health", &free.to_string()]).complaint(1),
        format!("nothing listens on port {free}; `ic serve` starts an interceptor")
    );
    let ran = home.ic(["health", "--json", &free.to_string()]);
    assert_eq!((ran.exit, ran.err.lines().count()), (Some(1), 1), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        found,
        json!({
            "port": free, "up": false, "ready": null, "instance_id": null, "target": null, "pid": null,
        })
    );
    let (_listener, held) = held_port();
    let said = home.ic(["health", &held.to_string()]).complaint(1);
    let start = format!("no interceptor answers on port {held}, which is in use");
    assert!(said.starts_with(&start), "{said}");
    let said = home.ic(["health"]).complaint(1);
    assert!(said.starts_with("no port is assigned to "), "{said}");
    let ran = home.ic(["health", "--json"]);
    assert_eq!((ran.exit, ran.err.lines().count()), (Some(1), 1), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        (&found["port"], &found["up"]),
        (&Value::Null, &json!(false))
    );
    let said = home.ic(["health", "70000"]).complaint(2);
    assert!(said.starts_with("`70000` is not a port"), "{said}");
    let said = home.ic(["health", ""]).complaint(2);
    assert!(said.starts_with("PATH is empty"), "{said}");
}

#[test]
fn an_interceptor_whose_target_is_down_is_up_but_not_ready() {
    let target = format!("http://127.0.0.1:{}", free_port());
    let ic = Launch::toward(&target).start();
    let (home, port) = (Home::new(), ic.port.to_string());
    home.ic(["health", &port]).result(0);
    assert_eq!(
        home.ic(["health", &port, "--ready"]).complaint(1),
        format!(
            "the interceptor on port {port} is up, but its target {target} refuses connections; start it, or wait"
        )
    );
    let ran = home.ic(["health", &port, "--ready", "--json"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        (&found["up"], &found["ready"]),
        (&json!(true), &json!(false))
    );
}
