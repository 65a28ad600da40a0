//! Restrictions of containers: few descriptors, little memory, no `/proc`, a read-only file system, no home. Everything
//! works under them, or an error names what is missing.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli_home::{Home, Serving, free_port};
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Restrictions that a shell applies before it executes the program.
const ROWS: &[(&str, &str)] = &[
    ("all variables, HOME among them", "exec env -i \"$@\""),
    ("descriptors: 64", "ulimit -n 64 && exec \"$@\""),
    ("memory: 16 MiB of data", "ulimit -d 16384 && exec \"$@\""),
    (
        "a root that can be written",
        "mount -o remount,ro,bind / && exec \"$@\"",
    ),
    ("/proc", "mount -t tmpfs none /proc && exec \"$@\""),
    (
        "options of sockets: setsockopt(2)",
        "exec strace -DDD -f -qq -o /dev/null -e inject=setsockopt:error=EPERM \"$@\"",
    ),
    (
        "transfers within the kernel: splice(2)",
        "exec strace -DDD -f -qq -o /dev/null -e inject=splice:error=ENOSYS \"$@\"",
    ),
    (
        "pipes: pipe2(2)",
        "exec strace -DDD -f -qq -o /dev/null -e inject=pipe2:error=EPERM \"$@\"",
    ),
];

#[test]
fn it_works_under_the_restrictions_of_a_container() {
    for &(what, script) in ROWS {
        let mut wrapper = vec!["sh", "-c", script, "sh"];
        if script.starts_with("mount") {
            if !may_mount() {
                println!("skipped: {what}: mount namespaces are not permitted here");
                continue;
            }
            wrapper.splice(0..0, ["unshare", "--mount"]);
        }
        if script.contains("strace") && !may_trace() {
            println!("skipped: {what}: strace is not installed or not permitted");
            continue;
        }
        let origin = Origin::answering(|request, _| {
            let body = request.body.len().to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            Reply::Bytes((head + &body).into_bytes())
        });
        let interceptor = Launch::before(&origin).under(&wrapper).start();
        let mut client = interceptor.client();
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0", "without {what}");
        // More than the allowed memory.
        let len = 24 << 20;
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n"
        ));
        client.send(vec![b'x'; len]);
        assert_eq!(
            client.response("POST").text(),
            len.to_string(),
            "without {what}"
        );
    }
    count("confined: restrictions", ROWS.len());
}

#[test]
fn clients_get_a_503_when_there_are_no_descriptors() {
    let origin = Origin::listen();
    let script = "ulimit -n 64 && exec \"$@\"";
    let interceptor = Launch::before(&origin)
        .under(&["sh", "-c", script, "sh"])
        .start();
    let said = interceptor.wait_for_errors("a warning", |said| said.contains("ulimit -n"));
    assert!(
        said.contains("16 clients at once, and 16 are let in"),
        "{said}"
    );
    let mut clients: Vec<Conn> = (0..20)
        .map(|_| {
            let mut client = interceptor.client();
            client.offer(GET);
            client
        })
        .collect();
    let (first, others) = clients.split_at_mut(16);
    let mut served: Vec<Conn> = first.iter().map(|_| origin.accept()).collect();
    for client in others {
        assert_eq!(client.response("GET").status, 503);
    }
    for served in &mut served {
        served.request();
        served.send(OK);
    }
    for client in first {
        assert_eq!(client.response("GET").status, 200);
    }
    drop(clients);
    // Descriptors are free again after it has noticed the disconnects.
    let since = Instant::now();
    loop {
        let mut client = interceptor.client();
        client.offer("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if client.response("GET").status == 200 {
            break;
        }
        assert!(
            since.elapsed() < DEADLINE,
            "no connection becomes available"
        );
    }
}

#[test]
fn the_commands_on_the_registry_work_on_a_read_only_file_system() {
    if !may_mount() {
        println!("skipped: mount namespaces are not permitted here");
        return;
    }
    let rows: &[(&str, i32)] = &[
        ("list", 0),
        ("show /", 1),
        ("check 9997", 0),
        ("suggest", 0),
        ("allocate /", 3),
    ];
    for &(command, code) in rows {
        let script = format!(
            "mount -o remount,ro,bind / && mount -t tmpfs none /proc && exec env -i \
             PORT_REGISTRY_PATH=/nowhere/registry.json \"$0\" {command}"
        );
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_ic")])
            .output()
            .expect("a shell starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command}: {errors}");
        let is_explained = code != 3 || errors.starts_with("ic: ");
        assert!(is_explained, "{command}: {errors}");
    }
    count("confined: commands on a read-only root", rows.len());
}

#[test]
fn ports_that_cannot_be_probed_are_neither_free_nor_in_use() {
    if !may_trace() {
        println!("skipped: strace is not installed or not permitted");
        return;
    }
    const DENIED: &str = "operation not permitted";
    const MANY: &str = "too many open files";
    const UNKNOWN: &str = r#""available":false,"state":"unknown","#;
    let rows: &[(&str, &str, i32, &str)] = &[
        ("socket:error=EPERM", "check 9997", 3, DENIED),
        ("socket:error=EMFILE", "check 9997", 3, MANY),
        ("socket:error=EPERM", "suggest", 3, DENIED),
        ("bind:error=ENOSYS", "suggest", 3, "not implemented"),
        ("socket:error=EPERM", "allocate /var", 3, DENIED),
        ("socket:error=EMFILE", "allocate /var", 3, MANY),
        ("socket:error=EPERM", "health 9997", 1, DENIED),
        ("bind:error=EPERM", "serve --port 9997", 3, "sandbox"),
        ("socket:error=EPERM", "list", 0, ""),
        ("socket:error=EMFILE", "list --json", 0, UNKNOWN),
        ("socket:error=EMFILE", "show --json /p", 0, UNKNOWN),
        ("setsockopt:error=EPERM", "suggest", 0, ""),
        ("setsockopt:error=ENOSYS", "allocate /var", 0, ""),
    ];
    for &(refused, command, code, said) in rows {
        let home = Home::new().with_registry(r#"{"mappings": {"/p": 9996}}"#);
        let inject = format!("inject={refused}");
        let output = Command::new("strace")
            .args(["-DDD", "-f", "-qq", "-o", "/dev/null", "-e", &inject])
            .arg(env!("CARGO_BIN_EXE_ic"))
            .args(command.split(' '))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", home.path(""))
            .output()
            .expect("it starts");
        let texts = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&texts);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{refused}, {command}: {text}"
        );
        assert!(text.contains(said), "{refused}, {command}: {text}");
        let blames = ["in use", "1024", "ic remove"].map(|blame| text.contains(blame));
        assert_eq!(blames, [false; 3], "{refused}, {command}: {text}");
    }
    count("confined: ports that cannot be tried", rows.len());
}

#[test]
fn status_reports_when_listening_processes_cannot_be_found() {
    let home = Home::new();
    let port = free_port();
    let home = home
        .with("INTERCEPTOR_PORT_MIN", port.to_string())
        .with("INTERCEPTOR_PORT_MAX", (port + 500).to_string());
    let _serving = Serving::start(&home, &[]);
    let tells = cfg!(all(target_os = "linux", not(ic_portable)));
    if tells && !may_mount() {
        println!("skipped: mount namespaces are not permitted here");
        return;
    }
    let ic = env!("CARGO_BIN_EXE_ic");
    let script = "mount -t tmpfs none /proc && exec \"$0\" status --json";
    let (words, path) = if tells {
        let words = vec!["unshare", "--mount", "sh", "-c", script, ic];
        (words, std::env::var_os("PATH").unwrap_or_default())
    } else {
        (vec![ic, "status", "--json"], "/nowhere".into())
    };
    let output = Command::new(words[0])
        .args(&words[1..])
        .env_clear()
        .env("HOME", home.path(""))
        .env("PATH", path)
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.starts_with("ic: warning: ")
            && errors.contains("; only the ports of projects are ")
            && errors.lines().count() == 1,
        "{errors}"
    );
    let status: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(status["held"], json!([]));
    let path = home.path("shop");
    let found = status["interceptors"].as_array().expect("a list");
    assert_eq!(found.len(), 1, "{status}");
    assert_eq!(found[0]["path"], path.to_str().expect("text"), "{status}");
}

/// Whether strace can inject failures of system calls, as the filter of a sandbox causes them (seccomp(2)).
fn may_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-DDD", "-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    traced.is_ok_and(|output| output.status.success())
}

/// Whether mounting is permitted; in containers often not even for root.
pub fn may_mount() -> bool {
    let try_it = "mount -o remount,ro,bind / && mount -t tmpfs none /proc";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", try_it])
        .output();
    output.is_ok_and(|output| output.status.success())
}
