//! `ic tail`: the live feed of an interceptor, in a terminal.
//!
//! Decided here: whose feed it is, and what of it is written for people. Programs get its lines as they are.

mod line;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread;

use argh::{ArgsInfo, FromArgs};

use self::line::{End, Start, Style};
use super::settings::PORT;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::machine::feeds::{self, Feed, Hello};
use crate::machine::holder::interceptor_at;
use crate::machine::survey::{is_for, running};
use crate::registry::Port;
use crate::registry::project::Project;
use crate::text::raw;
use crate::text::{escaped_path, io_message};

/// follow the requests of a running interceptor
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "tail",
    help_triggers("-h", "--help"),
    example = "ic tail\n\
               ic tail --all\n\
               ic tail --json | jq 'select(.event == \"end\").model'",
    note = "A line for each request that is over: when, status, time to first byte, duration, bytes up and\n\
            down, method and path, and what model and tokens are known. Times of day are UTC. Ends with the\n\
            interceptor. Without a PATH, INTERCEPTOR_PORT says whose requests, if it is set.",
    error_code(1, "no interceptor runs there")
)]
pub struct Tail {
    /// the project's folder; default: the current one
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// follow every interceptor that runs now
    #[argh(switch)]
    pub all: bool,
    /// print each event as a line of JSON
    #[argh(switch)]
    pub json: bool,
}

/// What happens to somebody who listens.
enum News {
    /// A line of the feed with this number.
    Line(usize, String),
    /// One of the feeds is over.
    Over,
    /// It is enough.
    Stop,
}

impl Tail {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let feeds = self.feeds(context)?;
        let (tell, told) = mpsc::channel();
        let failed = |error: &io::Error| {
            Failure::could_not(format!("cannot wait for it: {}", io_message(error)))
        };
        stop_by_signal(tell.clone()).map_err(|error| failed(&error))?;
        let is_one = feeds.len() == 1;
        let style = Style {
            is_screen: context.out.is_screen(&context.environment),
            names_project: !is_one,
        };
        let hellos: Vec<Hello> = feeds.iter().map(|feed| feed.hello.clone()).collect();
        if !self.json && style.is_screen {
            context.out.text(style.heading())?;
        }
        for (number, feed) in feeds.into_iter().enumerate() {
            if self.json {
                context.out.text(&feed.first_line)?;
            }
            listen(number, feed, tell.clone()).map_err(|error| failed(&error))?;
        }
        let mut left = hellos.len();
        let mut unfinished = Unfinished::default();
        loop {
            if !context.out.show()? {
                return Ok(Exit::Done);
            }
            let (number, line) = match told.recv() {
                Ok(News::Line(number, line)) => (number, line),
                Ok(News::Over) if left > 1 => {
                    left -= 1;
                    continue;
                }
                Ok(News::Over) => {
                    context.out.text(style.erase())?;
                    context.out.show()?;
                    eprint_line("the interceptor has stopped");
                    return Ok(Exit::Done);
                }
                Ok(News::Stop) | Err(mpsc::RecvError) => {
                    context.out.text(style.erase())?;
                    return Ok(Exit::Done);
                }
            };
            let hello = &hellos[number];
            if is_full(&line) {
                return Err(Failure::could_not(format!(
                    "as many as may listen to the interceptor with pid {} do; close one of them",
                    hello.pid
                )));
            }
            if self.json {
                context.out.text(if is_one {
                    line
                } else {
                    line.replacen('{', &format!("{{\"pid\":{},", hello.pid), 1)
                })?;
            } else if let Some((start, end)) = unfinished.take(number, &line) {
                context.out.text(style.erase())?;
                context.out.text(style.line(hello, start.as_ref(), &end))?;
                context.out.text(style.in_flight(unfinished.starts()))?;
            } else if style.is_screen {
                context.out.text(style.erase())?;
                context.out.text(style.in_flight(unfinished.starts()))?;
            }
        }
    }

    /// The feeds that are meant: at least one.
    fn feeds(&self, context: &Context<'_>) -> Result<Vec<Feed>, Failure> {
        if self.all && self.path.is_some() {
            return Err(Failure::usage(
                "`--all` is for every project; give `--all` or PATH",
            ));
        }
        let folder = context.feed_folder().ok_or_else(|| {
            Failure::no("there is no home folder in which interceptors could be found; set HOME")
        })?;
        let meant = self.meant(context)?;
        let mut feeds = feeds::running(&folder);
        feeds.retain(|feed| meant.includes(&feed.hello));
        if feeds.is_empty() {
            if let Some(pid) = meant.pid(context) {
                return Err(Failure::no(format!(
                    "the interceptor{meant} (pid {pid}) tells nothing in `{}`; run `ic tail` with its HOME and \
                     XDG_RUNTIME_DIR, or see at its start with RUST_LOG=debug why it has no feed",
                    escaped_path(&folder)
                )));
            }
            return Err(Failure::no(format!(
                "no interceptor runs{meant}; `ic serve` starts one, `ic status` shows those that run"
            )));
        }
        Ok(feeds)
    }

    fn meant(&self, context: &Context<'_>) -> Result<Meant, Failure> {
        if self.all {
            return Ok(Meant::All);
        }
        let variable = context.environment.variable(PORT);
        match variable.filter(|_| self.path.is_none()) {
            Some(given) => Ok(Meant::On(given.port()?)),
            None => Ok(Meant::For(context.project(self.path.as_deref())?)),
        }
    }
}

/// Which interceptors are meant; displays as what follows `runs`.
enum Meant {
    All,
    On(Port),
    For(Project),
}

impl Meant {
    fn includes(&self, hello: &Hello) -> bool {
        match self {
            Meant::All => true,
            Meant::On(port) => hello.port == Some(port.get()),
            Meant::For(project) => {
                hello.path.as_ref() == Some(&raw::to_text(project.path().as_os_str()))
            }
        }
    }

    /// The process id of the one that is meant, if it answers on its port.
    fn pid(&self, context: &Context<'_>) -> Option<u32> {
        let found = match self {
            Meant::All => None,
            Meant::On(port) => interceptor_at(*port),
            Meant::For(project) => {
                let (_, registry) = context.ports().ok()?;
                running(&registry).find(|found| is_for(found, project.path()))
            }
        };
        found.map(|found| found.pid)
    }
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meant::All => Ok(()),
            Meant::On(port) => write!(f, " on port {port}"),
            Meant::For(project) => write!(f, " for `{}`", escaped_path(project.path())),
        }
    }
}

/// Requests that have begun, by the feed and their number there.
#[derive(Debug, Default)]
struct Unfinished(HashMap<(usize, u64), Start>);

impl Unfinished {
    /// Takes note of a line. An end comes with its beginning, unless that got lost.
    fn take(&mut self, feed: usize, line: &str) -> Option<(Option<Start>, End)> {
        if let Ok(start) = serde_json::from_str::<Start>(line) {
            // Ends get lost, too.
            if self.0.len() >= STARTS_MAX {
                self.0.clear();
            }
            self.0.insert((feed, start.id), start);
            return None;
        }
        let end: End = serde_json::from_str(line).ok()?;
        Some((self.0.remove(&(feed, end.id)), end))
    }

    fn starts(&self) -> impl ExactSizeIterator<Item = &Start> {
        self.0.values()
    }
}

fn is_full(line: &str) -> bool {
    line.starts_with("{\"event\":\"full\"")
}

/// Passes on what a feed tells, in a thread that ends with it or with the program.
fn listen(number: usize, mut feed: Feed, tell: Sender<News>) -> io::Result<()> {
    let listens = move || {
        while let Ok(Some(line)) = feed.next_line() {
            if tell.send(News::Line(number, line)).is_err() {
                return;
            }
        }
        let _ = tell.send(News::Over);
    };
    thread::Builder::new().spawn(listens).map(drop)
}

/// Ctrl-C, and whoever supervises it, end it as it is meant to end.
fn stop_by_signal(tell: Sender<News>) -> io::Result<()> {
    let (mut read, write) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    let waits = move || {
        // Kept, so that there is no end before a signal.
        let _write = write;
        if read.read(&mut [0]).is_ok() {
            let _ = tell.send(News::Stop);
        }
    };
    thread::Builder::new().spawn(waits).map(drop)
}

/// More requests than are ever in flight.
const STARTS_MAX: usize = 16 * 1024;
