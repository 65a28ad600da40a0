//! Standard output and standard error: closed, full, and with control characters in the output.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::cli_home::{Home, one_line};
use crate::support::Launch;

/// More mappings than fit into a pipe, so that `list` is still writing when its reader closes.
fn crowded() -> Home {
    let paths: Vec<PathBuf> = (0..1500)
        .map(|n| PathBuf::from(format!("/home/me/{}/{n}", "long".repeat(25))))
        .collect();
    let mappings: Vec<(&Path, u16)> = paths.iter().map(PathBuf::as_path).zip(1..).collect();
    Home::new().with_mappings(&mappings, 8888)
}

#[test]
fn a_closed_reader_is_not_an_error() {
    let home = crowded();
    for arguments in [["list"].as_slice(), &["list", "--json"], &["--help"]] {
        let mut ic = home
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let mut reader =
            BufReader::with_capacity(16, ic.stdout.take().expect("standard output is piped"));
        if arguments == ["list"] {
            let mut line = String::new();
            reader.read_line(&mut line).expect("the first line");
            assert_eq!(line.trim_end(), "=".repeat(80));
        }
        drop(reader);
        let mut err = String::new();
        let mut stderr = ic.stderr.take().expect("standard output is piped");
        stderr.read_to_string(&mut err).expect("UTF-8");
        let exit = ic.wait().expect("it ends").code();
        assert_eq!((exit, err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_command_with_a_closed_reader_is_carried_out() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ran = home
        .command(["allocate"])
        .stdout(writer)
        .output()
        .expect("the program can be run");
    assert_eq!(
        (ran.status.code(), ran.stderr.as_slice()),
        (Some(0), &b""[..])
    );
    home.ic(["show", "-q"]).result(0);

    // The exit code 1 is kept.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut show = home.command(["show", "--json", "/home/me/nobody"]);
    let ran = show
        .stdout(writer)
        .output()
        .expect("the program can be run");
    assert_eq!(ran.status.code(), Some(1));
}

#[test]
#[cfg(target_os = "linux")]
fn a_result_that_cannot_be_written_is_an_error() {
    let home = crowded();
    let shop = home.path("shop");
    home.ic(["allocate"]).result(0);
    let commands: [&[&str]; 9] = [
        &["show", "/home/me/nobody", "--json"],
        &["list"],
        &["list", "--json"],
        &["show"],
        &["show", "-q"],
        &["allocate"],
        &["suggest"],
        &["--help"],
        &["--version"],
    ];
    for arguments in commands {
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("Linux has /dev/full");
        let ran = home
            .command(arguments)
            .stdout(full)
            .output()
            .expect("the program can be run");
        let line = one_line(&String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(3), "{arguments:?}: {line}");
        assert!(
            line.starts_with("cannot write the result to standard output: no space left on device"),
            "{arguments:?}: {line}"
        );
    }
    assert!(shop.is_dir());
}

#[test]
#[cfg(target_os = "linux")]
fn an_unwritable_standard_error_does_not_change_the_result() {
    let home = Home::new();
    let full = || {
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("Linux has /dev/full")
    };
    for (arguments, exit) in [(["show"].as_slice(), 1), (&["nonsense"], 2), (&[], 2)] {
        let ran = home
            .command(arguments)
            .stderr(full())
            .output()
            .expect("the program can be run");
        assert_eq!(
            (ran.status.code(), ran.stdout.as_slice()),
            (Some(exit), &b""[..])
        );
    }
}

#[test]
fn the_output_has_no_control_characters_except_newlines() {
    let odd = "a\nb\u{1b}[31m\u{7}\u{9b}c\u{202e}d";
    for no_colour in [None, Some("1"), Some("")] {
        let home = Home::new();
        let path = home.path(odd);
        let mut home = home.with_mappings(&[(&path, 8888)], 8889);
        if let Some(value) = no_colour {
            home = home.with("NO_COLOR", value);
        }
        let path = path.to_str().expect("UTF-8");
        let commands: [&[&str]; 9] = [
            &["list"],
            &["list", "--json"],
            &["show", path],
            &["show", path, "--json"],
            &["check", "8888"],
            &["check", "8888", "--json"],
            &["allocate", path],
            &["remove", path],
            &["remove", path],
        ];
        for arguments in commands {
            let ran = home.ic(arguments);
            for text in [&ran.out, &ran.err] {
                let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!text.contains(acts), "{text:?}");
                assert!(!text.contains("a\nb"), "{arguments:?}: {text:?}");
            }
            if arguments.contains(&"--json") {
                assert!(
                    ran.out.contains(r"a\nb\u001b[31m\u0007\u009bc\u202ed"),
                    "{ran:?}"
                );
            } else {
                let all = format!("{}{}", ran.out, ran.err);
                assert!(
                    all.contains(r"a\nb\u{1b}[31m\u{7}\u{9b}c\u{202e}d"),
                    "{ran:?}"
                );
            }
        }
    }
}

#[test]
fn the_health_page_has_no_marks_that_change_the_writing_direction() {
    let ic = Launch::toward("http://localhost:1")
        .env("SUPERMEMORY_USERNAME", "a\u{202e}b\u{61c}c")
        .start();
    let mut client = ic.client();
    client.send("GET /_ic/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let page = client.response("GET");
    let member = r#""instance_id":"a\u202eb\u061cc""#;
    assert!(page.text().contains(member), "{}", page.text());
}

#[test]
fn no_command_shows_a_key_that_a_user_gave() {
    const KEY: &str = "hunter2";
    const LONG: &str = "sk-proj-0123456789abcdef";
    let url = format!("https://me:{KEY}@localhost:1/v1?key={KEY}");
    let odd_url = format!("http://me:{KEY}/a?b#c@localhost:1");
    let field = format!("Authorization Bearer {KEY}");
    let rows: &[(&[&str], Option<i32>, &str)] = &[
        (
            &["serve", "--target", &url],
            Some(2),
            "--target https://…@localhost:1",
        ),
        (
            &["serve", "--target", &odd_url],
            Some(2),
            "--target http://…@localhost:1",
        ),
        (
            &["serve", "--target", &format!("me:{KEY}@localhost:1")],
            Some(2),
            "--target …@localhost:1",
        ),
        (
            &["serve", "--header", &field],
            Some(2),
            "--header Authorization …",
        ),
        (
            &["serve", "--header", &format!("X-Key={KEY}")],
            Some(2),
            "--header X-Key=…",
        ),
        (
            &["serve", "--header", &format!("x: {KEY} {{nothing}}")],
            Some(2),
            "--header x:…",
        ),
        (
            &["serve", "--allow-origin", &url],
            Some(2),
            "--allow-origin https://…@localhost:1",
        ),
        (&["check", LONG], Some(2), "`…`"),
        (&["show", "a", LONG], Some(2), "`…`"),
        (&[LONG], Some(2), "`…`"),
    ];
    let home = Home::new();
    for (words, exit, expected) in rows {
        let ran = home.ic(*words);
        assert_eq!(ran.exit, *exit, "{ran:?}");
        assert!(ran.err.contains(expected), "{expected}: {ran:?}");
        assert!(!ran.err.contains(KEY) && !ran.err.contains(LONG), "{ran:?}");
    }
    for name in [
        "TARGET_LLM_URL",
        "OPENAI_BASE_URL",
        "ANTHROPIC_BASE_URL",
        "OPENAI_API_BASE",
        "http_proxy",
        "ALL_PROXY",
        "RUST_LOG",
    ] {
        for url in [&url, &odd_url] {
            let home = Home::new().with(name, url);
            for words in [
                &["serve"][..],
                &["doctor"],
                &["doctor", "--json"],
                &["status"],
            ] {
                if words == ["serve"] && name != "TARGET_LLM_URL" {
                    continue;
                }
                let ran = home.ic(words);
                assert!(
                    !ran.out.contains(KEY) && !ran.err.contains(KEY),
                    "{name}: {ran:?}"
                );
            }
        }
    }
}
