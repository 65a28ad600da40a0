//! `ic completions`, `ic man` and `--help`, checked with the programs that read them.

use std::process::{Command, Stdio};

use crate::cli_home::{self, Home};

/// The commands that the help lists.
fn commands(home: &Home) -> Vec<String> {
    let help = home.ic(["--help"]).result(0);
    cli_home::commands(&help).map(str::to_owned).collect()
}

/// The output of a program, if it is installed; it must not print errors.
#[track_caller]
fn read_by(program: &str, arguments: &[&str], text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("ic");
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(program)
        .args(arguments)
        .arg(&file)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no {program}");
        return None;
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{program}: {output:?}"
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn completions_are_valid_scripts_with_every_command() {
    let home = Home::new();
    let commands = commands(&home);
    assert!(commands.contains(&"completions".to_owned()), "{commands:?}");
    for (shell, check) in [
        ("bash", &["-n"][..]),
        ("zsh", &["-f", "-n"]),
        ("fish", &["--no-config", "--no-execute"]),
    ] {
        let script = home.ic(["completions", shell]).result(0);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(!script.contains("{{"), "{shell}: no doubled braces");
        read_by(shell, check, &script);
    }
    let said = home.ic(["completions", "tcsh"]).complaint(2);
    assert!(
        said.starts_with("`tcsh` is not a shell that ic knows"),
        "{said}"
    );
}

#[test]
fn bash_completes_commands_and_their_options() {
    let home = Home::new();
    let script = home.ic(["completions", "bash"]).result(0);
    // As bash calls it, with the word to complete last.
    let complete = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _ic; echo \"${{COMPREPLY[@]}}\""
        );
        read_by("bash", &[], &ask)
    };
    let Some(found) = complete("ic he") else {
        return;
    };
    assert_eq!(found, "health\n");
    assert_eq!(complete("ic serve --targ").as_deref(), Some("--target\n"));
    assert_eq!(complete("ic list --j").as_deref(), Some("--json\n"));
    // Without candidates, bash completes files.
    for line in ["ic remove ''", "ic show ''", "ic import ''", "ic health ''"] {
        assert_eq!(complete(line).as_deref(), Some("\n"), "{line}");
    }
    let found = complete("ic list ''").unwrap_or_default();
    assert_eq!(found, "--help --json\n");
    // Only the first word after the options is the command.
    let found = complete("ic allocate env --").unwrap_or_default();
    assert!(!found.contains("--shell"), "{found}");
    let found = complete("ic --port-min list env --sh").unwrap_or_default();
    assert_eq!(found, "--shell\n");
    assert_eq!(complete("ic serve --port ''").as_deref(), Some("\n"));
}

#[test]
fn fish_completes_commands_and_their_options() {
    let home = Home::new();
    let script = home.ic(["completions", "fish"]).result(0);
    let complete = |line: &str| {
        let ask = format!("{script}\ncomplete -C '{line}'");
        read_by("fish", &["--no-config"], &ask)
    };
    let Some(found) = complete("ic he") else {
        return;
    };
    assert!(
        found.starts_with("health\t") && found.lines().count() == 1,
        "{found}"
    );
    let found = complete("ic serve --targ").unwrap_or_default();
    assert!(
        found.starts_with("--target\t") && found.lines().count() == 1,
        "{found}"
    );
}

const KINDS: &str = "jetbrains continue codex claude junie aider gemini qwen opencode copilot cline pi zed goose \
     systemd systemd-socket compose kubernetes";

#[test]
fn every_shell_completes_the_values_of_an_option() {
    let home = Home::new();
    home.ic(["allocate"]).result(0);
    let script = |shell| home.ic(["completions", shell]).result(0);
    // New kinds must be completed as well.
    let said = home.ic(["snippet", "no-such"]).complaint(2);
    let kinds = KINDS.replace(' ', ", ");
    assert!(said.ends_with(&format!("known are {kinds}")), "{said}");
    let (bash, zsh, fish) = (script("bash"), script("zsh"), script("fish"));
    for (line, words) in [
        ("ic snippet ", KINDS),
        ("ic completions ", "bash zsh fish"),
        ("ic service ", "install uninstall status print"),
        ("ic env --shell ", "sh fish powershell dotenv"),
        ("ic --project-root ", "folder git"),
    ] {
        // The command accepts these values; those of `ic service` would change this machine.
        for word in words.split(' ').filter(|_| line != "ic service ") {
            let mut line: Vec<&str> = line.split_whitespace().skip(1).collect();
            line.push(word);
            if line.len() == 2 && line[0].starts_with('-') {
                line.push("show");
            }
            let ran = home.ic(&line);
            assert_eq!(ran.exit, Some(0), "{line:?}: {ran:?}");
        }
        let mut sorted: Vec<&str> = words.split(' ').collect();
        sorted.sort_unstable();
        let ask = format!(
            "{bash}\nCOMP_WORDS=({line} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _ic; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        if let Some(found) = read_by("bash", &[], &ask) {
            let mut found: Vec<&str> = found
                .lines()
                .filter(|word| !word.starts_with('-'))
                .collect();
            found.sort_unstable();
            assert_eq!(found, sorted, "bash: {line}");
        }
        let ask = format!("{fish}\ncomplete -C '{line}'");
        if let Some(found) = read_by("fish", &["--no-config"], &ask) {
            let words = found
                .lines()
                .map(|line| line.split('\t').next().unwrap_or_default());
            let mut found: Vec<&str> = words.filter(|word| !word.starts_with('-')).collect();
            found.sort_unstable();
            assert_eq!(found, sorted, "fish: {line}");
        }
        // The specification for zsh.
        let function = match line.split_whitespace().nth(1) {
            Some(command) if !command.starts_with('-') => format!("_ic_{command}"),
            _ => "_ic".to_owned(),
        };
        let ask =
            format!("_arguments() {{ print -rl -- \"$@\" }}\ncompdef() {{ }}\n{zsh}\n{function}");
        if let Some(found) = read_by("zsh", &["-f"], &ask) {
            let option = line.split_whitespace().find(|word| word.starts_with("--"));
            let told = found
                .lines()
                .find(|line| line.ends_with(&format!(":({words})")));
            let expected = option.unwrap_or("1: :");
            assert!(
                told.is_some_and(|line| line.starts_with(expected)),
                "zsh: {line}: {found}"
            );
        }
    }
}

#[test]
fn the_manual_page_lists_every_command_and_formats_without_warnings() {
    let home = Home::new();
    let page = home.ic(["man"]).result(0);
    for command in commands(&home) {
        assert!(page.contains(&format!(".SS ic {command}")), "{command}");
    }
    if let Some(shown) = read_by(
        "groff",
        &["-man", "-ww", "-Tutf8", "-k", "-P-c", "-P-b", "-P-u"],
        &page,
    ) {
        for part in [
            "NAME",
            "SYNOPSIS",
            "--first-byte-timeout SECS",
            "INTERCEPTOR_PORT_MIN",
            "{branch}",
        ] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
    }
}

#[test]
fn every_help_text_has_an_example() {
    let home = Home::new();
    for command in commands(&home) {
        let help = home.ic([&command, "--help"]).result(0);
        assert!(help.contains(&format!("Usage: ic {command}")), "{help}");
        assert!(
            help.contains("\nExamples:\n  "),
            "`ic {command} --help` shows no example:\n{help}"
        );
        for line in help.lines() {
            assert!(line.chars().count() <= 110, "`ic {command} --help`: {line}");
        }
        assert!(!help.contains("{{"), "{help}");
    }
}

#[test]
fn a_typing_error_in_a_command_or_an_option_gets_a_suggestion() {
    let home = Home::new();
    for command in commands(&home) {
        // Two letters swapped.
        let mut letters: Vec<char> = command.chars().collect();
        let last = letters.len() - 1;
        letters.swap(last - 1, last);
        let slip: String = letters.into_iter().collect();
        if slip == command {
            continue;
        }
        let said = home.ic([&slip]).complaint(2);
        assert!(
            said.starts_with(&format!("there is no command `{slip}`")),
            "{said}"
        );
        // Short names are similar to several others.
        if command.len() > 4 {
            assert!(
                said.contains(&format!("did you mean `{command}`?")),
                "{said}"
            );
        }
    }
    let said = home.ic(["serve", "--targte", "http://a"]).complaint(2);
    assert_eq!(
        said,
        "`ic serve` has no option `--targte`; did you mean `--target`?"
    );
    let said = home.ic(["run", "--haeder=x: y", "--", "true"]).complaint(2);
    assert_eq!(
        said,
        "`ic run` has no option `--haeder`; did you mean `--header`?"
    );
}
