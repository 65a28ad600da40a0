//! Commands on a terminal: the question of `ic reset`, and tables that fit its width.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use interceptor::cli::terminal::width;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::cli_home::{Home, Serving, free_port, held_port};
use crate::cli_tail::get;
use crate::support::{DEADLINE, tells_who_listens};

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

/// A command on a terminal of its own, killed when it is dropped.
pub struct OnTerminal {
    person: File,
    child: Child,
    shown: Vec<u8>,
}

impl OnTerminal {
    /// Starts it, with all three streams on a terminal of this size.
    #[track_caller]
    pub fn start(mut command: Command, (columns, rows): (u16, u16)) -> OnTerminal {
        let (person, program) = terminal();
        resize(&person, columns, rows);
        let same = || Stdio::from(program.try_clone().expect("a descriptor"));
        let child = command
            .stdin(same())
            .stdout(same())
            .stderr(same())
            .spawn()
            .expect("the program can be run");
        OnTerminal {
            person,
            child,
            shown: Vec::new(),
        }
    }

    /// Waits until what it shows from now on contains `text`; returns that, up to and with `text`.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let finder = memchr::memmem::Finder::new(text);
        loop {
            if let Some(at) = finder.find(&self.shown) {
                let rest = self.shown.split_off(at + text.len());
                let shown = std::mem::replace(&mut self.shown, rest);
                return String::from_utf8(shown).expect("UTF-8");
            }
            let mut ready = [PollFd::new(&self.person, PollFlags::IN)];
            let time = Timespec::try_from(DEADLINE).expect("a time");
            let found = poll(&mut ready, Some(&time)).expect("a terminal can be polled");
            assert_ne!(found, 0, "{text} did not come: {:?}", self.shown());
            let mut piece = [0; 4096];
            let read = self.person.read(&mut piece);
            let count = read.unwrap_or_else(|_| panic!("{text} did not come: {:?}", self.shown()));
            self.shown.extend_from_slice(&piece[..count]);
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// What the user types.
    pub fn types(&mut self, text: &[u8]) {
        self.person.write_all(text).expect("a terminal takes it");
    }

    /// Gives the terminal another size. The signal that tells of it is sent here: the system sends it only on the terminal of a
    /// session.
    pub fn resize(&self, columns: u16, rows: u16) {
        resize(&self.person, columns, rows);
        self.signal(Signal::WINCH);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end; returns its exit code, and what it has shown that was not waited for.
    pub fn end(mut self) -> (Option<i32>, String) {
        // Reading a terminal without open handles fails with EIO on Linux, and returns the end of file elsewhere. Linux may return
        // EIO before the last bytes, so it is read again after the exit. Elsewhere the exit waits until the output has been read, so
        // it must be read before as well.
        let _ = self.person.read_to_end(&mut self.shown);
        let exit = self.child.wait().expect("it ends").code();
        let _ = self.person.read_to_end(&mut self.shown);
        (exit, self.shown())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

/// The lines that a terminal shows, without colours. All of them fit into `columns`.
#[track_caller]
pub fn lines(shown: &str, columns: u16) -> Vec<String> {
    let plain = shown.replace("\x1b[31m", "").replace("\x1b[0m", "");
    let lines = plain.split("\r\n").map(str::to_owned);
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    for line in &lines {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(width(line) <= columns.into(), "{columns}: {line}");
    }
    lines
}

/// Runs `ic reset` on a terminal where the user types `answer`; returns its exit code and its output.
fn reset(home: &Home, answer: &[u8]) -> (Option<i32>, String) {
    let mut ic = OnTerminal::start(home.command(["reset"]), (80, 24));
    // A user answers after reading the question.
    let question = ic.until(" [y/N] ");
    ic.types(answer);
    let (exit, rest) = ic.end();
    (exit, question + &rest)
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
    let (exit, shown) = OnTerminal::start(home.command(["reset"]), (80, 24)).end();
    assert_eq!(exit, Some(2));
    assert!(!shown.contains("[y/N]"), "{shown}");
}

/// A home with projects whose names are wide, combined, long, equal, or act on a terminal, each with its interceptor, and with a
/// port that another program holds.
fn busy() -> (Home, Vec<Serving>, std::net::TcpListener, [u16; 7]) {
    let (held, port) = held_port();
    let ports = [(); 6].map(|()| free_port());
    let ports = [
        ports[0], ports[1], ports[2], ports[3], ports[4], ports[5], port,
    ];
    let home = Home::new();
    let names = [
        "日本語のプロジェクト",
        "e\u{301}moji 😀❤\u{fe0f}",
        "a\u{1b}[31m\nb\u{202e}",
        "a-project-with-a-name-that-is-longer-than-most-of-them",
        "shop/api",
        "blog/api",
        "held",
    ];
    // A name that a project of another test has too would be shown with the folder above.
    let tag = format!("{}-{}", std::process::id(), ports[0]);
    let folders = names.map(|name| home.folder(format!("{name}-{tag}")));
    let mappings: Vec<(&Path, u16)> = folders.iter().map(|it| &**it).zip(ports).collect();
    let home = home.with_mappings(&mappings, 8888);
    let serving = folders[..6].iter().map(|folder| {
        let mut command = home.command(["serve", "--mock", "--instance-id", "test"]);
        command.current_dir(folder);
        Serving::of(command)
    });
    let serving = serving.collect();
    (home, serving, held, ports)
}

#[test]
fn status_fits_the_width_of_the_terminal() {
    if !tells_who_listens() {
        return;
    }
    let (home, _serving, _held, ports) = busy();
    for columns in [20, 40, 80, 120, 200] {
        let status = OnTerminal::start(home.command(["status"]), (columns, 24));
        let (exit, shown) = status.end();
        assert_eq!(exit, Some(0), "{shown}");
        let lines = lines(&shown, columns);
        let line = |port: u16| {
            let port = format!("{port} ");
            let mut found = lines
                .iter()
                .filter(|line| line.trim_start().starts_with(&port));
            found.next().unwrap_or_else(|| panic!("{port}: {shown}"))
        };
        let of_width = |narrow: &'static str, wide: &'static str| match columns {
            ..60 => narrow,
            _ => wide,
        };
        assert!(
            line(ports[0]).contains(of_width("  ✓  日本語", "  ✓  日本語のプ")),
            "{shown}"
        );
        assert!(line(ports[1]).contains("  ✓  e\u{301}moji"), "{shown}");
        assert!(line(ports[2]).contains(r"  ✓  a\u{1"), "{shown}");
        assert!(line(ports[3]).contains("  ✓  a-"), "{shown}");
        assert!(line(ports[4]).contains("  ✓  shop/api"), "{shown}");
        assert!(line(ports[5]).contains("  ✓  blog/api"), "{shown}");
        assert!(line(ports[6]).contains("  ⚠  held"), "{shown}");
        if columns >= 40 {
            assert!(line(ports[6]).contains("  in use"), "{shown}");
        }
        if (40..=80).contains(&columns) {
            assert!(line(ports[4]).ends_with("  0"), "none has failed: {shown}");
        }
        if columns >= 120 {
            assert!(line(ports[4]).contains("  127.0.0.1:"), "{shown}");
            assert!(line(ports[4]).contains("  yes  "), "{shown}");
        }
        if columns == 200 {
            assert!(line(ports[4]).ends_with("  ic serve"), "{shown}");
        }
        assert!(shown.contains("\x1b[31m⚠\x1b[0m"), "red: {shown:?}");
    }
    let home = home.with("NO_COLOR", "1");
    let status = OnTerminal::start(home.command(["status"]), (80, 24));
    let (_, shown) = status.end();
    assert!(
        shown.contains("⚠  held") && !shown.contains('\x1b'),
        "{shown:?}"
    );
}

#[test]
fn watch_fits_the_screen_and_follows_its_size_until_a_signal() {
    if !tells_who_listens() {
        return;
    }
    let (home, _serving, _held, _) = busy();
    let mut watch = OnTerminal::start(home.command(["status", "--watch"]), (60, 6));
    let check = |frame: &str, start: &str, columns: u16, rows: usize| {
        let frame = frame
            .strip_prefix(start)
            .unwrap_or_else(|| panic!("{start:?}: {frame:?}"));
        let frame = frame.strip_suffix("\x1b[J").expect("its end");
        assert!(!frame.contains("\x1b[?"), "no other screen: {frame:?}");
        // The last column stays empty: some terminals erase it with the rest of the line.
        let shown = lines(&frame.replace("\x1b[K", ""), columns - 1);
        assert!(shown.len() < rows, "{shown:?}");
        let footer = shown.last().expect("a line");
        assert!(footer.contains("Z, every 2 s; Ctrl-C ends"), "{footer}");
        shown
    };
    let first = check(&watch.until("\x1b[J"), "", 60, 6);
    assert_eq!(first.len(), 5);
    assert!(
        first[3].starts_with("… ") && first[3].ends_with(" more lines"),
        "{first:?}"
    );
    let second = check(&watch.until("\x1b[J"), "\x1b[5A\r", 60, 6);
    assert_ne!(first.last(), second.last(), "it says when it looked");
    watch.resize(40, 40);
    let third = check(&watch.until("\x1b[J"), "\x1b[H", 40, 40);
    assert!(third.len() > 7, "{third:?}");
    watch.signal(Signal::INT);
    assert_eq!(watch.end().0, Some(0));
    // A terminal that understands no escape codes gets none.
    let dumb = home.with("TERM", "dumb");
    let mut watch = OnTerminal::start(dumb.command(["status", "--watch"]), (60, 6));
    let shown = watch.until("\r\n\r\n");
    assert!(lines(&shown, 60).len() > 6, "{shown}");
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().0, Some(0));
}

#[test]
fn tail_fits_the_width_of_the_terminal_and_shows_what_failed_in_red() {
    let (home, _serving, _held, ports) = busy();
    let list = home.ic(["list", "--json"]).json(0);
    let mut mappings = list["mappings"].as_array().expect("a list").iter();
    let folder = mappings
        .find(|mapping| mapping["port"] == ports[0])
        .expect("a port");
    let folder = folder["path"].as_str().expect("text").to_owned();
    for (columns, all) in [(40, true), (80, true), (120, false), (200, true)] {
        let words = match all {
            true => ["tail", "--all"],
            false => ["tail", "."],
        };
        let mut command = home.command(words);
        command.current_dir(&folder);
        let mut tail = OnTerminal::start(command, (columns, 24));
        let heading = tail.until("\r\n");
        let first = if columns < 80 { "CODE  " } else { "TIME  " };
        assert_eq!(
            heading.starts_with(first),
            columns != 80 || !all,
            "{heading}"
        );
        assert_eq!(heading.contains("PROJECT"), all, "{heading}");
        let asked = format!("GET /of-{columns}-columns");
        get(ports[0], &asked[4..]);
        let shown = tail.until("404") + &tail.until("\r\n");
        assert!(shown.contains("\x1b[31m404\x1b[0m"), "red: {shown:?}");
        let line = lines(shown.rsplit("\x1b[K").next().expect("text"), columns).remove(0);
        assert_eq!(line.contains("日本"), all, "{line}");
        // What was before is not shown.
        assert!(
            line.contains(if columns < 80 { "GET /of" } else { &asked }),
            "{line}"
        );
        if columns >= 120 {
            assert!(line.contains("kB  ") || line.contains(" B  "), "{line}");
        }
        tail.signal(Signal::INT);
        assert_eq!(tail.end().0, Some(0));
    }
}

#[test]
fn serve_says_where_to_go_next() {
    for columns in [50, 80, 200] {
        let home = Home::new();
        let words = ["serve", "--mock", "--header", "x-team: blue"];
        let mut serve = OnTerminal::start(home.command(words), (columns, 24));
        let shown = serve.until("Ctrl-C stops\r\n");
        let port = home.ic(["show", "-q"]).result(0);
        let port = port.trim();
        let all = lines(&shown, columns).join(" ");
        for part in [
            format!("Listening:  http://localhost:{port} ("),
            "Target:     mock, http://127.0.0.1:".to_owned(),
            format!("OpenAI:     http://localhost:{port}/v1 "),
            format!("Anthropic:  http://localhost:{port} "),
            "Adds:       x-memory-user-id, x-pycharm-instance, ".to_owned(),
            "x-team ".to_owned(),
            "Port from:  the registry, newly allocated ".to_owned(),
            "Next:       `ic snippet` ".to_owned(),
        ] {
            assert!(all.contains(&part), "{part}: {shown}");
        }
        serve.signal(Signal::INT);
        assert_eq!(serve.end().0, Some(0));
    }
}
