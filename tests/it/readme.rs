//! The examples of the README, run against the real program as a reader would run them.
//!
//! A fenced `console` block is a transcript: `$ ` begins a command (`\` at its end continues it), and the lines below it are
//! its output on both streams. Within a line `…` stands for any text; alone on a line, for any lines. Blocks inside an HTML
//! comment are run as well: they prepare an example without being shown.
//!
//! - A section (`## `) has its own home folder, shown as `/home/me`; its commands share the current folder and exported
//!   variables.
//! - `ic serve` and `ic mock` run until their section ends; they count as started when all output in the README has been
//!   printed.
//! - `cargo run -- …` is the program under test; `curl` is run if it is installed, and `ic status` if the machine can list
//!   listening sockets.
//! - The ports in the README are the default ones, which may be in use: the tests use others of the same width and translate
//!   in both directions (see [`Ports`]).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli_home::commands;
use crate::support::tells_who_listens;

const README: &str = include_str!("../../README.md");

/// An example takes milliseconds; the limit allows for a busy machine.
const EXAMPLE_TIME_MAX: Duration = Duration::from_secs(30);

#[test]
fn the_examples_of_the_readme_are_true() {
    let sections = sections(README);
    let examples: usize = sections.iter().map(|section| section.examples.len()).sum();
    assert!(examples > 0, "the README shows no example");
    let failures: String = sections.iter().map(run).collect();
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn the_readme_describes_every_command() {
    let help = Command::new(IC)
        .arg("--help")
        .output()
        .expect("`ic --help` runs");
    let help = String::from_utf8(help.stdout).expect("help is text");
    let commands: Vec<&str> = commands(&help).collect();
    assert!(commands.contains(&"serve"), "no commands found in:\n{help}");
    for command in commands {
        assert!(
            README.contains(&format!("| `ic {command}")),
            "the README has no `ic {command}`"
        );
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    let ci = include_str!("../../.ci/run");
    let command = "cargo test";
    assert!(
        README.lines().any(|line| line == command),
        "README: {command}"
    );
    assert!(
        ci.lines().any(|line| line.ends_with(command)),
        ".ci/run: {command}"
    );
}

const IC: &str = env!("CARGO_BIN_EXE_ic");

/// A part of the README under one `## ` heading, with its examples.
#[derive(Debug, PartialEq)]
struct Section<'a> {
    title: &'a str,
    examples: Vec<Example>,
}

/// A command and its output.
#[derive(Debug, PartialEq)]
struct Example {
    /// The line of its `$ `, counted from 1.
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn sections(readme: &str) -> Vec<Section<'_>> {
    let mut sections = vec![Section {
        title: "(before the first heading)",
        examples: Vec::new(),
    }];
    let mut lines = readme.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section {
                title,
                examples: Vec::new(),
            });
        } else if line == "```console" {
            let block: Vec<_> = lines
                .by_ref()
                .take_while(|(_, line)| *line != "```")
                .collect();
            let section = sections.last_mut().expect("there is one from the start");
            section.examples.extend(examples(&block));
        } else if line.starts_with("```") {
            // Another block, in which `## ` is not a heading.
            lines.by_ref().find(|(_, line)| *line == "```");
        }
    }
    sections
}

/// The examples of one block, whose lines come with their index in the README.
fn examples(block: &[(usize, &str)]) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut continues = false;
    for (index, line) in block {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (_, Some(example)) if continues => {
                example.command.push('\n');
                example.command.push_str(line);
                continues = line.ends_with('\\');
            }
            (Some(command), _) => {
                continues = command.ends_with('\\');
                examples.push(Example {
                    line: index + 1,
                    command: command.to_owned(),
                    expected: Vec::new(),
                });
            }
            (None, Some(example)) => example.expected.push((*line).to_owned()),
            (None, None) => panic!("README, line {}: output without a command", index + 1),
        }
    }
    assert!(!examples.is_empty(), "an empty console block");
    for example in &mut examples {
        // An empty line before the next command is only formatting.
        while example.expected.last().is_some_and(String::is_empty) {
            example.expected.pop();
        }
    }
    examples
}

/// Runs a section and returns the differences from the README.
fn run(section: &Section<'_>) -> String {
    let mut failures = String::new();
    if section.examples.is_empty() {
        return failures;
    }
    let mut reader = Reader::new();
    for example in &section.examples {
        let followed = match reader.follow(example) {
            Ok(followed) => followed,
            Err(why) => {
                eprintln!("README, line {}: left out, {why}", example.line);
                continue;
            }
        };
        if !followed.as_it_says {
            let _ = write!(
                failures,
                "\nREADME, line {} ({}): $ {}\n-- it says\n{}\n-- it is{}\n{}\n",
                example.line,
                section.title,
                example.command,
                example.expected.join("\n"),
                followed.end,
                followed.printed,
            );
        }
    }
    failures
}

/// The result of an example, with the paths and ports of the README.
struct Followed {
    printed: String,
    as_it_says: bool,
    /// A note on how it ended.
    end: &'static str,
}

/// A reader who follows the README: a home, a shell in it, and the started servers.
struct Reader {
    folder: PathBuf,
    ports: Ports,
    servers: Vec<Child>,
    started: usize,
}

impl Reader {
    fn new() -> Reader {
        let name = format!("ic-readme-{}-{:?}", std::process::id(), Instant::now());
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("home")).expect("a folder can be created");
        let folder = folder.canonicalize().expect("the folder exists");
        Reader {
            folder,
            ports: Ports::probe(),
            servers: Vec::new(),
            started: 0,
        }
    }

    /// Runs the example, or returns why it cannot be run here.
    fn follow(&mut self, example: &Example) -> Result<Followed, &'static str> {
        let command = example.command.replace("cargo run -- ", "ic ");
        if command.contains("curl ") && !is_installed("curl") {
            return Err("curl is not installed");
        }
        if command.starts_with("ic status") && !tells_who_listens() {
            return Err("lsof is not installed");
        }
        let serves = ["ic serve", "ic mock"]
            .iter()
            .any(|server| command.starts_with(server));
        assert!(
            !serves || example.expected.iter().any(|line| line.trim() != "…"),
            "README, line {}: what a server prints must show when it has started",
            example.line
        );
        let sink = self.folder.join(format!("printed-{}", self.started));
        self.started += 1;
        let mut child = self.shell(&command, serves, &sink);
        let deadline = Instant::now() + EXAMPLE_TIME_MAX;
        loop {
            // Checked before reading, so that no output before the end is missed.
            let ended = child
                .try_wait()
                .expect("a child can be waited for")
                .is_some();
            let printed = self.in_the_readmes_terms(&read(&sink));
            // Empty lines at the end cannot be distinguished from those between two examples.
            let lines: Vec<&str> = printed.trim_end().lines().map(str::trim_end).collect();
            let fits = matches(&example.expected, &lines);
            let (as_it_says, end) = match (serves, ended) {
                (true, true) => (false, ", and it has exited"),
                (true, false) if fits => {
                    self.servers.push(child);
                    return Ok(Followed {
                        printed,
                        as_it_says: true,
                        end: "",
                    });
                }
                (false, true) => (fits, ""),
                (_, false) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                (_, false) => (false, ", and it is still running"),
            };
            stop(&mut child);
            return Ok(Followed {
                printed,
                as_it_says,
                end,
            });
        }
    }

    /// The command in a shell that continues with the folder and the variables of the previous one.
    fn shell(&self, command: &str, serves: bool, printed: &Path) -> Child {
        let home = self.home();
        let command = self.ports.to_ours(command).replace(HOME_SHOWN, &home);
        let script = if serves {
            format!("[ ! -e \"$0\" ] || . \"$0\"\nexec {command}\n")
        } else {
            format!(
                "[ ! -e \"$0\" ] || . \"$0\"\n{command}\nstatus=$?\n\
                 {{ export -p; printf 'cd \"%s\"\\n' \"$PWD\"; }} >\"$0\"\nexit $status\n"
            )
        };
        let program = Path::new(IC).parent().expect("a file has a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(program.to_owned()).chain(std::env::split_paths(&path));
        let sink = File::create(printed).expect("the folder can be written");
        Command::new("sh")
            .args(["-c", &script])
            .arg(self.folder.join("state"))
            .current_dir(&home)
            .env_clear()
            .env(
                "PATH",
                std::env::join_paths(path).expect("a list of paths can be joined"),
            )
            .env("HOME", &home)
            .env("INTERCEPTOR_PORT_MIN", self.ports.first.to_string())
            .env(
                "INTERCEPTOR_PORT_MAX",
                (self.ports.first + Ports::COUNT - 1).to_string(),
            )
            .stdin(Stdio::null())
            .stdout(sink.try_clone().expect("a file can be shared"))
            .stderr(sink)
            .spawn()
            .expect("a shell can be started")
    }

    fn in_the_readmes_terms(&self, text: &str) -> String {
        self.ports
            .to_readme(&text.replace(&self.home(), HOME_SHOWN))
    }

    fn home(&self) -> String {
        self.folder
            .join("home")
            .to_str()
            .expect("made of ASCII")
            .to_owned()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.servers.iter_mut().for_each(stop);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const HOME_SHOWN: &str = "/home/me";

fn stop(child: &mut Child) {
    // It may have exited already.
    let _ = child.kill();
    let _ = child.wait();
}

fn read(printed: &Path) -> String {
    let bytes = fs::read(printed).expect("the file was created before the child");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The default range of ports, moved to a place where its first ports are free.
///
/// Ports keep four digits, so that the columns of a listing do not move. The range keeps its length, which is shown as
/// well; only its first few ports are bound.
struct Ports {
    first: u16,
}

impl Ports {
    const README_FIRST: u16 = 8888;
    const COUNT: u16 = 1112;
    const BOUND: u16 = 16;
    /// Above 6697 there is no port that browsers refuse, and below 8764 no default port of `ic`.
    const OURS_FIRST: u16 = 6700;
    const OURS_LAST: u16 = 7500;

    fn probe() -> Ports {
        let steps = (Ports::OURS_LAST - Ports::OURS_FIRST) / Ports::BOUND;
        // Parallel test runs start at different ports.
        let offset = (std::process::id() % u32::from(steps)) as u16;
        let first = (0..steps)
            .map(|step| Ports::OURS_FIRST + (offset + step) % steps * Ports::BOUND)
            .find(|first| (*first..first + Ports::BOUND).all(can_bind))
            .expect("sixteen neighbouring ports are free somewhere");
        Ports { first }
    }

    fn to_ours(&self, text: &str) -> String {
        translate(text, Ports::README_FIRST, self.first)
    }

    fn to_readme(&self, text: &str) -> String {
        translate(text, self.first, Ports::README_FIRST)
    }
}

/// Moves every four-digit number of the range that starts at `from` to the range that starts at `to`.
fn translate(text: &str, from: u16, to: u16) -> String {
    let mut translated = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits_on) = rest.split_at(at);
        let length = digits_on
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits_on.len());
        let (digits, after) = digits_on.split_at(length);
        translated.push_str(before);
        match digits.parse::<u16>() {
            Ok(number) if length == 4 && (from..from + Ports::COUNT).contains(&number) => {
                translated.push_str(&(number - from + to).to_string());
            }
            _ => translated.push_str(digits),
        }
        rest = after;
    }
    translated + rest
}

fn can_bind(port: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Without IPv6 the port cannot be in use there.
    let v6 = match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    };
    v4 && v6
}

/// Whether `printed` matches `expected`, where a line `…` stands for any number of lines.
fn matches(expected: &[impl AsRef<str>], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((first, others)), _) if first.as_ref().trim() == "…" => {
            (0..=printed.len()).any(|skipped| matches(others, &printed[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, others)), Some((line, lines))) => {
            line_matches(first.as_ref(), line) && matches(others, lines)
        }
    }
}

/// Whether a line matches `expected`, where `…` stands for any text.
fn line_matches(expected: &str, line: &str) -> bool {
    match expected.split_once('…') {
        None => expected == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| line_matches(after, &rest[at..]))
        }),
    }
}

#[test]
fn only_an_ellipsis_stands_for_any_text() {
    #[track_caller]
    fn check(expected: &str, printed: &str, fits: bool) {
        let expected: Vec<&str> = expected.lines().collect();
        let printed: Vec<&str> = printed.lines().collect();
        assert_eq!(
            matches(&expected, &printed),
            fits,
            "{expected:?} for {printed:?}"
        );
    }
    check("a\nb", "a\nb", true);
    check("a\nb", "a", false); // a line too few
    check("a", "a\nb", false); // a line too many
    check("", "", true);
    check("", "a", false);
    check("a…c", "abc", true);
    check("a…c", "ac", true); // any text, none included
    check("a…c", "abcd", false);
    check("a…c…e", "abcde", true);
    check("pid …,", "pid 812,", true);
    check("…", "", true);
    check("…", "a\nb\nc", true);
    check("a\n…\nd", "a\nb\nc\nd", true);
    check("a\n…\nd", "a\nd", true);
    check("a\n…\nd", "a\nb\nc", false);
    check("  …\nd", "a\nd", true); // indented like its neighbours
    check("a.c", "abc", false); // not a pattern of any other kind
}

#[test]
fn only_ports_of_the_range_are_translated() {
    #[track_caller]
    fn check(readme: &str, ours: &str) {
        let ports = Ports { first: 3000 };
        assert_eq!(ports.to_ours(readme), ours);
        assert_eq!(ports.to_readme(ours), readme);
    }
    check("http://localhost:8888/v1", "http://localhost:3000/v1");
    check("Port Range:       8888-9999", "Port Range:       3000-4111");
    check("Total Ports:      1112", "Total Ports:      1112");
    check("  Port  8890          ✓", "  Port  3002          ✓");
    check("8764, 88888 and 888", "8764, 88888 and 888");
    check("2026-11-24", "2026-11-24");
    check("", "");
}

#[test]
fn a_console_block_is_parsed_as_commands_and_their_output() {
    let readme = "# t\n\n<!--\n```console\n$ mkdir a\n```\n-->\n\n## One\n\n```sh\n## no heading\n$ not run\n```\n\n\
        ```console\n$ ic list | \\\n  head -1\na\n\nb\n\n$ ic show\n```\n";
    let example = |line, command: &str, expected: &[&str]| Example {
        line,
        command: command.to_owned(),
        expected: expected.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(
        sections(readme),
        [
            Section {
                title: "(before the first heading)",
                examples: vec![example(5, "mkdir a", &[])],
            },
            Section {
                title: "One",
                examples: vec![
                    example(17, "ic list | \\\n  head -1", &["a", "", "b"]),
                    example(23, "ic show", &[]),
                ],
            },
        ]
    );
}
