//! The confirmation of `ic reset` on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::cli_home::Home;

/// Both ends of a new terminal: that of the user and that of the program. Child processes of other tests do not inherit
/// them, because that would keep the terminal open.
pub fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    fcntl_setfd(&person, FdFlags::CLOEXEC).expect("mine");
    grantpt(&person).expect("mine");
    unlockpt(&person).expect("mine");
    let name = ptsname(&person, Vec::new()).expect("a terminal has a name");
    let program = open(
        &*name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .expect("the other end can be opened");
    (person.into(), program.into())
}

/// Runs `ic reset` on a terminal where the user types `answer`; returns its exit code and its output.
fn reset(home: &Home, answer: &[u8]) -> (Option<i32>, String) {
    let (mut person, program) = terminal();
    let same = || Stdio::from(program.try_clone().expect("a descriptor"));
    let mut ic = home
        .command(["reset"])
        .stdin(same())
        .stdout(same())
        .stderr(same())
        .spawn()
        .expect("the program can be run");
    drop(program);
    let mut shown = Vec::new();
    // A user answers after reading the question.
    let mut piece = [0; 256];
    while !shown.ends_with(b" [y/N] ") {
        match person.read(&mut piece) {
            Ok(count @ 1..) => shown.extend_from_slice(&piece[..count]),
            Ok(0) | Err(_) => break,
        }
    }
    // Without a question, no answer is read.
    let _ = person.write_all(answer);
    // Reading a terminal without open handles fails with EIO on Linux, and returns the end of file elsewhere. Linux may return
    // EIO before the last bytes, so it is read again after the exit. Elsewhere the exit waits until the output has been read, so
    // it must be read before as well.
    let _ = person.read_to_end(&mut shown);
    let exit = ic.wait().expect("it ends").code();
    let _ = person.read_to_end(&mut shown);
    (exit, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn reset_asks_on_a_terminal_and_needs_yes() {
    const END_OF_INPUT: &[u8] = b"\x04";
    for (answer, yes) in [
        (&b"y\n"[..], true),
        (b"YES\n", true),
        (b" yes \n", true),
        (b"n\n", false),
        (b"\n", false),
        (b"yess\n", false),
        (b"nonsense\n", false),
        (b"\xff\n", false),
        (END_OF_INPUT, false),
    ] {
        let home = Home::new().with_mappings(
            &[
                (Path::new("/home/me/a"), 8888),
                (Path::new("/home/me/b"), 8889),
            ],
            8890,
        );
        let before = home.content();
        let (exit, shown) = reset(&home, answer);
        let question = format!(
            "Remove all 2 port mappings from {}? [y/N] ",
            home.registry().display()
        );
        assert!(shown.contains(&question), "{answer:?}: {shown}");
        assert!(!shown.contains('\x1b'), "{shown}");
        if yes {
            assert_eq!(exit, Some(0), "{answer:?}: {shown}");
            assert!(
                shown.contains("✓ Registry reset: 2 port mappings removed"),
                "{shown}"
            );
        } else {
            assert_eq!(exit, Some(1), "{answer:?}: {shown}");
            assert!(
                shown.contains("ic: declined; nothing was changed"),
                "{shown}"
            );
            assert_eq!(home.content(), before, "{answer:?}");
        }
    }
}

#[test]
fn an_invalid_value_is_refused_before_the_question() {
    let home = Home::new().with("INTERCEPTOR_PORT_MIN", "abc");
    let (exit, shown) = reset(&home, b"");
    assert_eq!(exit, Some(2));
    assert!(!shown.contains("[y/N]"), "{shown}");
}
