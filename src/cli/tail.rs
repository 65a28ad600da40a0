//! `ic tail`: the live feed of an interceptor, in a terminal.
//!
//! Decided here: which feeds are followed, and when a line is printed. `--json` prints the lines of the feed unchanged.

mod line;

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::sync::mpsc::{self, Sender};
use std::thread;

use argh::{ArgsInfo, FromArgs};

use self::line::{Event, Start, Style};
use super::mapping::command_for;
use super::settings::PORT;
use super::signals;
use super::terminal::Terminal;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::eprint_line;
use crate::machine::feeds::{self, Feed, Hello};
use crate::machine::interceptor::interceptor_at;
use crate::machine::survey::interceptors_for;
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
    note = "Prints a line for each finished request: time of day (UTC), status, time to first byte, duration,\n\
            bytes up and down, method and path, and the model, tokens of the prompt and of the response,\n\
            those from a cache, and the rate of tokens, as far as they are known; for a request that failed,\n\
            why. A narrow terminal shows fewer columns. Ends when the interceptor stops. Without PATH,\n\
            INTERCEPTOR_PORT selects the interceptor, if it is set.",
    error_code(1, "no matching interceptor is running")
)]
pub struct Tail {
    /// the project's folder; default: the current folder
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
    /// follow all interceptors that are running now
    #[argh(switch)]
    pub all: bool,
    /// print each event as one line of JSON
    #[argh(switch)]
    pub json: bool,
}

/// What the threads of the command report.
enum Message {
    /// A line of the feed with this index.
    Line(usize, String),
    /// The feed with this index has ended.
    FeedEnded(usize),
    /// A signal to stop.
    Signal,
}

impl Tail {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let feeds = self.feeds(context)?;
        let (sender, receiver) = mpsc::channel();
        forward_signals(sender.clone())?;
        let mut sources: Vec<Source> = feeds.iter().map(|feed| Source::of(&feed.hello)).collect();
        for (index, feed) in feeds.into_iter().enumerate() {
            if self.json {
                context.out.text(&feed.first_line)?;
            }
            forward_lines(index, feed, sender.clone())?;
        }
        let mut open_feeds = sources.len();
        let mut view = View::default();
        loop {
            if !self.json {
                let terminal = Terminal::of_output(&context.environment);
                let names = sources.iter().flat_map(Source::names);
                let style = Style::new(terminal, self.all.then_some(names));
                context.out.text(view.set(style))?;
            }
            if !context.out.show()? {
                return Ok(Exit::Done);
            }
            match receiver.recv() {
                Ok(Message::Line(index, line)) => {
                    let count = sources.len();
                    let source = &mut sources[index];
                    if is_full(&line) {
                        return Err(Failure::could_not(format!(
                            "the interceptor with pid {} has the maximum number of listeners; close one of them",
                            source.pid
                        )));
                    }
                    let event = source.read(&line);
                    context.out.text(if !self.json {
                        view.show(index, event, source)
                    } else if !source.is_live {
                        String::new()
                    } else if count > 1 {
                        line.replacen('{', &format!("{{\"pid\":{},", source.pid), 1)
                    } else {
                        line
                    })?;
                }
                Ok(Message::FeedEnded(index)) if open_feeds > 1 => {
                    open_feeds -= 1;
                    context.out.text(view.end(index))?;
                }
                last => {
                    context.out.text(view.style.erase())?;
                    context.out.show()?;
                    if let Ok(Message::FeedEnded(_)) = last {
                        eprint_line("the interceptor has stopped");
                    }
                    return Ok(Exit::Done);
                }
            }
        }
    }

    /// Returns the selected feeds, at least one.
    fn feeds(&self, context: &Context<'_>) -> Result<Vec<Feed>, Failure> {
        if self.all && self.path.is_some() {
            return Err(Failure::usage(
                "`--all` is for every project; give `--all` or PATH",
            ));
        }
        let folder = context.feed_folder().ok_or_else(|| {
            Failure::no("there is no home folder to look for interceptors in; set HOME")
        })?;
        let selection = self.selection(context)?;
        let feeds = feeds::running(&folder).into_iter();
        let feeds: Vec<Feed> = feeds.filter_map(|feed| selection.of(feed)).collect();
        if !feeds.is_empty() {
            return Ok(feeds);
        }
        Err(Failure::no(match selection.running_pid(context) {
            Some(pid) => format!(
                "the interceptor{selection} (pid {pid}) has no feed in `{}`; run `ic tail` with its HOME and \
                 XDG_RUNTIME_DIR, or start it with RUST_LOG=debug to see why",
                escaped_path(&folder)
            ),
            None => {
                let project = match &selection {
                    Selection::Project(project) => Some(project),
                    _ => None,
                };
                let serve = command_for("serve", project);
                format!(
                    "no interceptor runs{selection}; {serve} starts one, `ic status` shows those that run"
                )
            }
        }))
    }

    fn selection(&self, context: &Context<'_>) -> Result<Selection, Failure> {
        if self.all {
            return Ok(Selection::All);
        }
        let variable = context.environment.variable(PORT);
        match variable.filter(|_| self.path.is_none()) {
            Some(value) => Ok(Selection::Port(value.port()?)),
            None => Ok(Selection::Project(context.project(self.path.as_deref())?)),
        }
    }
}

/// Which interceptors are followed; displays as what follows `runs`.
enum Selection {
    All,
    Port(Port),
    Project(Project),
}

impl Selection {
    /// Returns what is selected of a feed, if anything.
    fn of(&self, mut feed: Feed) -> Option<Feed> {
        if self.includes(feed.hello.port, feed.hello.path.as_deref()) {
            return Some(feed);
        }
        let mut sites = feed.hello.sites.iter();
        let site = sites.find(|site| self.includes(Some(site.port), site.path.as_deref()))?;
        let port = site.port;
        feed.select(port).ok()?;
        Some(feed)
    }

    fn includes(&self, port: Option<u16>, path: Option<&str>) -> bool {
        match self {
            Selection::All => true,
            Selection::Port(selected) => port == Some(selected.get()),
            Selection::Project(project) => path == Some(&*raw::to_text(project.path().as_os_str())),
        }
    }

    /// Returns the process id of a selected interceptor that answers on its port.
    fn running_pid(&self, context: &Context<'_>) -> Option<u32> {
        let found = match self {
            Selection::All => None,
            Selection::Port(port) => interceptor_at(port.get()),
            Selection::Project(project) => {
                let (_, registry) = context.ports().ok()?;
                let ports = registry.mappings().map(|(_, port)| port.get());
                let mut found = interceptors_for(project.path(), ports).into_iter();
                found.next().map(|(_, identity)| identity)
            }
        };
        found.map(|found| found.pid)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::All => Ok(()),
            Selection::Port(port) => write!(f, " on port {port}"),
            Selection::Project(project) => write!(f, " for `{}`", escaped_path(project.path())),
        }
    }
}

/// A feed that is followed: what its process is called, and each of its ports if it serves many.
struct Source {
    pid: u32,
    own: String,
    of_ports: HashMap<u16, String>,
    /// Whether what it sends is new: at first it sends what was before.
    is_live: bool,
}

impl Source {
    fn of(hello: &Hello) -> Source {
        let sites = hello.sites.iter();
        Source {
            pid: hello.pid,
            own: hello.name().to_owned(),
            of_ports: sites
                .map(|site| (site.port, site.name().to_owned()))
                .collect(),
            is_live: false,
        }
    }

    /// Parses a line, and notes what it says of the feed itself.
    fn read(&mut self, line: &str) -> Event {
        let event = serde_json::from_str(line).unwrap_or(Event::Other);
        match &event {
            Event::Site(site) => {
                self.of_ports.insert(site.port, site.name().to_owned());
            }
            Event::Live => self.is_live = true,
            _ => {}
        }
        event
    }

    fn of_port(&self, port: Option<u16>) -> &str {
        let name = port.and_then(|port| self.of_ports.get(&port));
        name.unwrap_or(&self.own)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.of_ports.is_empty().then_some(&self.own);
        own.into_iter()
            .chain(self.of_ports.values())
            .map(|name| &**name)
    }
}

/// What is shown as text.
#[derive(Debug, Default)]
struct View {
    style: Style,
    /// The requests in flight, by the index of their feed and their id in it.
    in_flight: HashMap<(usize, u64), Start>,
}

impl View {
    /// Returns what a new style adds to the output: the headings of a terminal.
    fn set(&mut self, style: Style) -> String {
        if style == self.style {
            return String::new();
        }
        let erased = std::mem::replace(&mut self.style, style).erase();
        let in_flight = style.in_flight(self.in_flight.values());
        format!("{erased}{}{in_flight}", style.heading())
    }

    /// Returns what an event adds to the output: the finished request, and on a terminal the state of the others.
    fn show(&mut self, feed: usize, event: Event, source: &Source) -> String {
        let mut shown = self.style.erase().to_owned();
        match event {
            Event::Start(start) => {
                // Lost ends leave starts behind.
                if self.in_flight.len() >= STARTS_MAX {
                    self.in_flight.clear();
                }
                self.in_flight.insert((feed, start.id), start);
            }
            Event::End(end) => {
                // The subscriber may have lost the start.
                let start = self.in_flight.remove(&(feed, end.id));
                if source.is_live {
                    let name = source.of_port(end.port);
                    shown.push_str(&self.style.line(name, start.as_ref(), &end));
                }
            }
            Event::Site(_) | Event::Live | Event::Other => {}
        }
        if source.is_live {
            shown.push_str(&self.style.in_flight(self.in_flight.values()));
        }
        shown
    }

    /// Returns what the end of a feed adds to the output: on a terminal the state of the requests of the others.
    fn end(&mut self, feed: usize) -> String {
        // An interceptor that was killed has not ended its own.
        self.in_flight.retain(|(of, _), _| *of != feed);
        let in_flight = self.style.in_flight(self.in_flight.values());
        format!("{}{in_flight}", self.style.erase())
    }
}

fn is_full(line: &str) -> bool {
    line.starts_with("{\"event\":\"full\"")
}

/// Forwards the lines of a feed, in a thread that ends with the feed or the process.
fn forward_lines(index: usize, mut feed: Feed, sender: Sender<Message>) -> Result<(), Failure> {
    spawn(move || {
        while let Ok(Some(line)) = feed.next_line() {
            if sender.send(Message::Line(index, line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Message::FeedEnded(index));
    })
}

/// Forwards the first signal to stop: the command then ends with success.
fn forward_signals(sender: Sender<Message>) -> Result<(), Failure> {
    let mut signals = signals::signals()?;
    spawn(move || {
        if signals.read(&mut [0]).is_ok() {
            let _ = sender.send(Message::Signal);
        }
    })
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().spawn(run);
    thread.map(drop).map_err(|error| {
        Failure::could_not(format!("cannot start a thread: {}", io_message(&error)))
    })
}

/// More requests than can be in flight.
const STARTS_MAX: usize = 16 * 1024;
