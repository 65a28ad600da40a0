//! The command line: valid and invalid arguments, and which value wins.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cli_home::{Home, commands, free_port};
use crate::cli_terminal::{OnTerminal, lines};

/// The commands that come first.
const DAILY: [&str; 8] = [
    "serve", "run", "env", "status", "tail", "ui", "list", "show",
];

#[test]
fn ic_without_arguments_prints_its_help_to_standard_error() {
    let home = Home::new();
    let ran = home.ic([""; 0]);
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert_eq!(ran.err, home.ic(["--help"]).result(0));
}

#[test]
fn the_help_fits_the_width_of_the_terminal() {
    let home = Home::new();
    let full = home.ic(["--help"]).result(0);
    for columns in [60, 80, 100, 200] {
        for command in [
            None,
            Some("serve"),
            Some("env"),
            Some("list"),
            Some("status"),
        ] {
            let words = command.map(|command| [command, "--help"]);
            let ic = home.command(words.into_iter().flatten());
            let (exit, shown) = OnTerminal::start(ic, (columns, 24)).end();
            assert_eq!(exit, Some(if command.is_some() { 0 } else { 2 }), "{shown}");
            let shown = lines(&shown, columns);
            let heading = match columns {
                60 | 80 => "Options:",
                _ => "Usage: ic",
            };
            assert!(
                shown.iter().any(|line| line.starts_with(heading)),
                "{shown:?}"
            );
            if command.is_none() && columns >= 100 {
                let full: Vec<&str> = full.lines().filter(|line| !line.is_empty()).collect();
                assert_eq!(shown, full);
            }
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let home = Home::new();
    for version in ["--version", "-V"] {
        let expected = format!("ic {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(home.ic([version]).result(0), expected);
    }
}

#[test]
fn the_help_lists_every_command_and_every_option() {
    let home = Home::new();
    let help = home.ic(["--help"]).result(0);
    for option in [
        "--registry FILE",
        "--port-min N",
        "--port-max N",
        "-V, --version",
        "-h, --help",
    ] {
        assert!(help.contains(option), "{option} in {help}");
    }
    let commands: Vec<&str> = commands(&help).collect();
    assert_eq!(commands[..8], DAILY);
    for expected in [
        "list", "show", "allocate", "remove", "check", "suggest", "reset",
    ] {
        assert!(commands.contains(&expected), "{expected} in {commands:?}");
    }
    for command in commands {
        let help = home.ic([command, "--help"]).result(0);
        assert!(help.contains(&format!("\nUsage: ic {command}")), "{help}");
        assert_eq!(home.ic([command, "-h"]).result(0), help);
        assert_eq!(home.ic(["--help", command]).result(0), help);
        assert_eq!(home.ic(["help", command]).result(0), help);
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
        assert!(!help.contains('\x1b'), "{help}");
    }
}

#[test]
fn an_invalid_command_line_is_refused_with_a_hint() {
    let home = Home::new();
    let before = home.content();
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], expected: &str) {
        assert_eq!(home.ic(arguments).complaint(2), expected, "{arguments:?}");
    }
    check(
        &home,
        &["frobnicate"],
        "there is no command `frobnicate`; see `ic --help`",
    );
    check(
        &home,
        &["lsit"],
        "there is no command `lsit`; see `ic --help`",
    );
    check(
        &home,
        &["lst"],
        "there is no command `lst`; did you mean `list`?",
    );
    check(
        &home,
        &["help", "xyz"],
        "there is no command `xyz`; see `ic --help`",
    );
    check(
        &home,
        &["--jsn"],
        "`ic` has no option `--jsn`; see `ic --help`",
    );
    check(
        &home,
        &["list", "--jsn"],
        "`ic list` has no option `--jsn`; did you mean `--json`?",
    );
    check(
        &home,
        &["list", "-q"],
        "`ic list` has no option `-q`; see `ic list --help`",
    );
    check(
        &home,
        &["list", "help"],
        "unexpected argument `help` for `ic list`; see `ic list --help`",
    );
    check(
        &home,
        &["list", "--json=yes"],
        "`--json` takes no value; see `ic list --help`",
    );
    check(
        &home,
        &["--registry"],
        "`--registry` needs a value: `--registry FILE`; see `ic --help`",
    );
    check(
        &home,
        &["--registry", "f", "list", "--registry", "f"],
        "`--registry` is given more than once; see `ic list --help`",
    );
    check(
        &home,
        &["--port-min", "1", "--port-min=2", "list"],
        "`--port-min` is given more than once; see `ic --help`",
    );
    check(
        &home,
        &["check"],
        "`ic check` needs PORT; see `ic check --help`",
    );
    check(
        &home,
        &["show", "a", "b"],
        "unexpected argument `b` for `ic show`; see `ic show --help`",
    );
    check(
        &home,
        &["show", "-q", "--json"],
        "`--json` and `-q` exclude each other; give one of them",
    );
    for command in ["show", "allocate", "remove"] {
        check(
            &home,
            &[command, ""],
            "PATH is empty; give a folder, or nothing for the current one",
        );
    }
    check(
        &home,
        &["a\nb\x1b[31m"],
        "there is no command `a\\nb\\u{1b}[31m`; see `ic --help`",
    );
    assert_eq!(home.content(), before, "nothing was written");
}

#[test]
fn an_invalid_value_is_refused_by_name_before_anything_is_written() {
    #[track_caller]
    fn check(home: Home, arguments: &[&str], expected: &str) {
        let before = home.content();
        let complaint = home.ic(arguments).complaint(2);
        assert!(complaint.starts_with(expected), "{complaint}");
        assert!(
            complaint.contains("; give "),
            "the error says what is valid: {complaint}"
        );
        assert_eq!(home.content(), before, "nothing was written");
    }
    // Every command that uses the registry refuses an invalid range.
    let commands: [&[&str]; 7] = [
        &["list"],
        &["show"],
        &["allocate"],
        &["remove"],
        &["check", "8888"],
        &["suggest"],
        &["reset", "--yes"],
    ];
    for command in commands {
        for bad in ["0", "65536", "abc", "-1", "+5", "8888.0", " 8888"] {
            check(
                Home::new().with("INTERCEPTOR_PORT_MIN", bad),
                command,
                &format!("`INTERCEPTOR_PORT_MIN={bad}` is not a port; "),
            );
        }
        let mut with_flag = vec!["--port-max", "70000"];
        with_flag.extend(command);
        check(
            Home::new(),
            &with_flag,
            "`--port-max 70000` is not a port; ",
        );
        check(
            Home::new()
                .with("INTERCEPTOR_PORT_MIN", "9001")
                .with("INTERCEPTOR_PORT_MAX", "9000"),
            command,
            "`INTERCEPTOR_PORT_MIN=9001` is above `INTERCEPTOR_PORT_MAX=9000`; ",
        );
    }
    check(
        Home::new().with("INTERCEPTOR_PORT_MIN", "10000"),
        &["allocate"],
        "`INTERCEPTOR_PORT_MIN=10000` is above the default INTERCEPTOR_PORT_MAX, 9999; ",
    );
    check(
        Home::new().with("INTERCEPTOR_PORT_MIN", OsStr::from_bytes(b"\xff")),
        &["list"],
        "`INTERCEPTOR_PORT_MIN=\\xff` is not a port; ",
    );
    check(
        Home::new(),
        &["--registry", "", "list"],
        "`--registry ` is empty; ",
    );
    check(
        Home::new(),
        &["--registry=", "allocate"],
        "`--registry ` is empty; ",
    );
    for bad in [
        "0",
        "65536",
        "99999999999999999999",
        "abc",
        "+5",
        "",
        "0x50",
        "８０",
    ] {
        check(
            Home::new(),
            &["check", bad],
            &format!("`{bad}` is not a port; "),
        );
    }
    for bad in ["0", "x", "1.5"] {
        check(
            Home::new(),
            &["suggest", "-n", bad],
            &format!("`-n {bad}` is not a valid number"),
        );
        check(
            Home::new(),
            &["suggest", &format!("--number={bad}")],
            &format!("`-n {bad}` is not a valid number"),
        );
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_variable_is_unset() {
    #[track_caller]
    fn check(home: Home, flags: &[&str], start: u16, end: u16, registry: &Path) {
        // Before and after the command.
        for arguments in [
            [flags, &["list", "--json"]].concat(),
            [&["list", "--json"], flags].concat(),
        ] {
            let listed = home.ic(&arguments).json(0);
            assert_eq!(
                listed["port_range"],
                serde_json::json!({"start": start, "end": end})
            );
            assert_eq!(listed["registry_file"].as_str(), registry.to_str());
        }
    }
    let home = Home::new();
    let default = home.registry();
    check(home, &[], 8888, 9999, &default);

    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", "")
        .with("INTERCEPTOR_PORT_MAX", "")
        .with("PORT_REGISTRY_PATH", "");
    let default = home.registry();
    check(home, &[], 8888, 9999, &default);

    let variables = || {
        Home::new()
            .with("INTERCEPTOR_PORT_MIN", "9000")
            .with("INTERCEPTOR_PORT_MAX", "9100")
            .with("PORT_REGISTRY_PATH", "/nowhere/by-variable.json")
    };
    let by_variable = Path::new("/nowhere/by-variable.json");
    check(variables(), &[], 9000, 9100, by_variable);
    check(
        variables(),
        &["--port-min", "9050"],
        9050,
        9100,
        by_variable,
    );
    check(
        variables(),
        &["--registry=/nowhere/by-flag.json", "--port-max=9001"],
        9000,
        9001,
        Path::new("/nowhere/by-flag.json"),
    );

    // An overridden variable is not parsed.
    let home = Home::new()
        .with("INTERCEPTOR_PORT_MIN", "abc")
        .with("INTERCEPTOR_PORT_MAX", "0");
    let default = home.registry();
    check(
        home,
        &["--port-min", "1", "--port-max", "65535"],
        1,
        65535,
        &default,
    );

    // A relative path is resolved from the current folder.
    let home = Home::new();
    let here = home.path("shop/r.json");
    check(home, &["--registry", "r.json"], 8888, 9999, &here);

    // Variables of other commands.
    let home = Home::new()
        .with("INTERCEPTOR_PORT", "abc")
        .with("TARGET_LLM_URL", "nonsense")
        .with("SUPERMEMORY_USERNAME", "\n");
    let default = home.registry();
    check(home, &[], 8888, 9999, &default);
}

#[test]
fn the_given_range_and_registry_are_used() {
    let port = free_port();
    let home = Home::new();
    let range = format!("{port}");
    let arguments = [
        "--registry",
        "r.json",
        "--port-min",
        &range,
        "--port-max",
        &range,
    ];
    let mut allocate = arguments.to_vec();
    allocate.extend(["allocate", "-q"]);
    assert_eq!(home.ic(&allocate).result(0), format!("{port}\n"));
    assert!(home.path("shop/r.json").is_file());
    assert!(!home.registry().exists());

    // The only port is assigned: the next project gets an error that says what to do.
    let other = home.folder("other");
    let mut allocate = arguments.to_vec();
    allocate.extend(["allocate", other.to_str().expect("UTF-8")]);
    let complaint = home.ic(&allocate).complaint(3);
    for word in [
        &format!("{port}-{port}"),
        "1 assigned",
        "INTERCEPTOR_PORT_MAX",
        "ic remove",
    ] {
        assert!(complaint.contains(word), "{word} in {complaint}");
    }
    let mut suggest = arguments.to_vec();
    suggest.push("suggest");
    let complaint = home.ic(&suggest).complaint(1);
    assert!(complaint.contains(&format!("{port}-{port}")), "{complaint}");
    let mut list = arguments.to_vec();
    list.push("list");
    let listed = home.ic(&list).result(0);
    assert!(listed.contains("\nNext Available:   none\n"), "{listed}");
    list.push("--json");
    assert_eq!(
        home.ic(&list).json(0)["next_available"],
        serde_json::Value::Null
    );
}

#[test]
fn an_argument_after_two_dashes_is_a_path() {
    let home = Home::new();
    for (words, path) in [
        (["show", "--", "--json"], "shop/--json"),
        (["show", "--", "-"], "shop/-"),
        (["show", "-q", "-"], "shop/-"),
        (["show", "-q", "help"], "shop/help"),
    ] {
        let complaint = home.ic(words).complaint(1);
        let path = home.path(path);
        assert!(
            complaint.contains(path.to_str().expect("UTF-8")),
            "{complaint}"
        );
    }
}

#[test]
fn an_invalid_log_filter_is_a_warning() {
    for filter in ["foo=bar", "a/b/c", "foo=bar,warn"] {
        let ran = Home::new().with("RUST_LOG", filter).ic(["list", "--json"]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(
            ran.err.starts_with(&format!(
                "ic: warning: `RUST_LOG={filter}` is not a log filter; "
            )),
            "{ran:?}"
        );
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    for filter in [
        "off",
        "interceptor=debug",
        "other_program=trace",
        "info/word",
    ] {
        Home::new().with("RUST_LOG", filter).ic(["list"]).result(0);
    }
}
