//! `ic mock`: how it exits. Its responses are tested in `mock`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli_home::{Home, free_port};
use crate::support::is_ignored;

#[test]
fn it_exits_with_code_0_on_a_signal_even_as_process_1() {
    let as_first = ["unshare", "--pid", "--fork", "--kill-child", "--"];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        if signal == Signal::HUP && is_ignored(signal) {
            continue;
        }
        for around in [&[][..], &as_first] {
            let home = Home::new();
            let ic = home.command(["mock", "--port", &free_port().to_string()]);
            let mut command = match around.split_first() {
                None => ic,
                Some((first, others)) => {
                    let can = Command::new(first).args(others).arg("true").output();
                    if !can.is_ok_and(|ran| ran.status.success()) {
                        eprintln!("skipped: PID namespaces cannot be created here");
                        continue;
                    }
                    let mut command = Command::new(first);
                    command
                        .args(others)
                        .arg(ic.get_program())
                        .args(ic.get_args());
                    command
                }
            };
            let mut child = command
                .stderr(Stdio::piped())
                .spawn()
                .expect("unshare can be run");
            let mut said = String::new();
            BufReader::new(child.stderr.take().expect("a pipe"))
                .read_line(&mut said)
                .expect("text");
            assert!(said.starts_with("Mock: "), "{said}");
            let pid = match around {
                [] => Pid::from_child(&child),
                _ => child_of(child.id()),
            };
            kill_process(pid, signal).expect("it runs");
            let status = child.wait().expect("a child can be waited for");
            assert_eq!(status.code(), Some(0), "{signal:?} {around:?}");
        }
    }
}

/// The only child process of `pid`.
fn child_of(pid: u32) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child = children
        .expect("Linux says")
        .trim()
        .parse()
        .expect("a number");
    Pid::from_raw(child).expect("not 0")
}
