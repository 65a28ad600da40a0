//! `ic status`: the interceptors that run, their counters, and what else listens on the ports of projects.
//!
//! How they are found is decided in [`survey`](crate::machine::survey); here, how they are shown.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argh::{ArgsInfo, FromArgs};

use super::signals::Pauses;
use super::table::{Cell, Column, Step, Table};
use super::terminal::{Terminal, fitted};
use crate::cli::context::{Context, RegistryHandle};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{clock, eprint_line, rounded};
use crate::machine::listeners::UNAVAILABLE;
use crate::machine::survey::{Held, Running, Survey, survey};
use crate::text::{Escaped, io_message, raw};

/// show running interceptors, and other programs on ports of projects
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    example = "ic status\n\
               ic status --watch\n\
               ic status --json | jq .interceptors",
    note = "Shows every interceptor of this user on this machine, including those started with --port or\n\
            INTERCEPTOR_PORT. A program of another user is never shown as one, whatever it answers.\n\
            ✓ is an interceptor whose target accepts connections; ⚠ is one whose target does not, one with\n\
            --insecure, or another program. FAILED counts responses with a status of 400 or above, and those\n\
            that broke off. A narrow terminal shows fewer columns. With --watch --json each refresh prints\n\
            one document on one line."
)]
pub struct Status {
    /// refresh every two seconds
    #[argh(switch)]
    pub watch: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Status {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let handle = context.registry_handle()?;
        if !self.watch {
            let survey = look(&handle, &mut false)?;
            let terminal = Terminal::of_output(&context.environment);
            if self.json {
                context.out.json(&survey)?;
            } else {
                context.out.text(text(&survey, terminal))?;
            }
            return Ok(Exit::Done);
        }
        let mut pauses = Pauses::new()?;
        let mut has_warned = false;
        let mut screen = Screen::default();
        loop {
            let survey = look(&handle, &mut has_warned)?;
            let terminal = Terminal::of_output(&context.environment);
            match terminal.filter(|terminal| terminal.moves_cursor) {
                _ if self.json => context.out.json(&survey)?,
                Some(terminal) => {
                    // What erases the rest of a line erases the last column of a full one on some terminals.
                    let columns = terminal.columns.saturating_sub(1).max(1);
                    let terminal = Terminal {
                        columns,
                        ..terminal
                    };
                    let text = text(&survey, Some(terminal));
                    context.out.text(screen.frame(&text, terminal))?;
                }
                None => context.out.text(text(&survey, terminal) + "\n")?,
            }
            if !context.out.show()? {
                return Ok(Exit::Done);
            }
            pauses.wait(PAUSE);
        }
    }
}

/// Looks at the machine. Says once, which `has_warned` notes, that not all of it can be seen.
fn look(handle: &RegistryHandle, has_warned: &mut bool) -> Result<Survey, Failure> {
    let registry = handle.read()?;
    let projects = registry.mappings().map(|(path, port)| (path, port.get()));
    let survey = survey(projects).map_err(|error| {
        Failure::could_not(format!(
            "cannot ask interceptors who they are: {}",
            io_message(&error)
        ))
    })?;
    if survey.is_partial && !*has_warned {
        *has_warned = true;
        eprint_line(format_args!(
            "warning: {UNAVAILABLE}; only the ports of projects are looked at"
        ));
    }
    Ok(survey)
}

/// What `--watch` has drawn on a terminal: the next frame overwrites it, and what was there before stays.
#[derive(Debug, Default)]
struct Screen {
    drawn: Option<(Terminal, usize)>,
}

impl Screen {
    /// Returns what draws `text`, as many of its lines as fit, and below it the time and the way out.
    fn frame(&mut self, text: &str, terminal: Terminal) -> String {
        // The cursor is below the last line.
        let room = terminal.rows.saturating_sub(2).max(1);
        let mut lines: Vec<&str> = text.lines().collect();
        let more;
        if lines.len() > room {
            more = format!("… {} more lines", lines.len() - room + 1);
            lines.truncate(room - 1);
            lines.push(&more);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = clock(now.unwrap_or_default().as_secs_f64());
        let footer = format!("{now}, every {} s; Ctrl-C ends", PAUSE.as_secs());
        let footer = fitted(&footer, terminal.columns);
        lines.push(&footer);
        let mut frame = match self.drawn {
            None => String::new(),
            Some((same, count)) if same == terminal => format!("\x1b[{count}A\r"),
            // The terminal may have broken the lines anew: from its upper left.
            Some(_) => "\x1b[H".to_owned(),
        };
        for line in &lines {
            // Only the rest of the line is erased, so that nothing flickers.
            frame.extend([line, "\x1b[K\n"]);
        }
        frame.push_str("\x1b[J");
        self.drawn = Some((terminal, lines.len()));
        frame
    }
}

/// One line for each interceptor and for each port that something else holds; below them, what is not in order.
fn text(survey: &Survey, terminal: Option<Terminal>) -> String {
    let Survey {
        interceptors, held, ..
    } = survey;
    let mut text = String::new();
    if interceptors.is_empty() {
        text.push_str("No interceptor is running.\n");
    }
    let paths = interceptors.iter().filter_map(|one| one.path.as_deref());
    let names = Names::of(paths.chain(held.iter().map(|held| &*held.path)));
    let interceptor_rows = interceptors.iter().map(|one| {
        let target = &one.identity.target;
        // A terminal has more room for the rest of the line; `https://` stays.
        let short = target
            .strip_prefix("http://")
            .filter(|_| terminal.is_some());
        (one.port, row(one, &names, short.unwrap_or(target)))
    });
    let held_rows = held.iter().map(|held| (held.port, held_row(held, &names)));
    let mut rows: Vec<(u16, Vec<Cell>)> = interceptor_rows.chain(held_rows).collect();
    rows.sort_by_key(|(port, _)| *port);
    let rows: Vec<Vec<Cell>> = rows.into_iter().map(|(_, row)| row).collect();
    if !rows.is_empty() {
        let table = Table::of_rows(columns(), &rows, terminal, STEPS);
        text.push_str(&table.heading());
        text.extend(rows.iter().map(|row| table.line(row)));
    }
    let notes: Vec<Vec<Cell>> = interceptors.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        let columns = vec![Column::right("", 4), Column::left("", 0)];
        let table = Table::of_rows(columns, &notes, terminal, &[]);
        text.push('\n');
        text.extend(notes.iter().map(|note| table.line(note)));
    }
    text
}

fn columns() -> Vec<Column> {
    vec![
        Column::right("PORT", 0),
        Column::left("", 1),
        Column::left("PROJECT", 0),
        Column::left("TARGET", 0),
        Column::left("ANSWERS", 0),
        Column::right("UP", 0),
        Column::right("REQUESTS", 0),
        Column::right("FAILED", 0),
        Column::right("IN FLIGHT", 0),
        Column::right("PID", 0),
        Column::left("COMMAND", 0),
    ]
}

/// The port, its mark, the project and what has failed stay longest.
const STEPS: &[Step] = &[
    Step::Drop(10),
    Step::Drop(9),
    Step::Drop(8),
    Step::Shrink(3, 24),
    Step::Shrink(2, 20),
    Step::Drop(5),
    Step::Drop(4),
    Step::Shrink(3, 15),
    Step::Shrink(2, 12),
    Step::Drop(6),
    Step::Shrink(3, 10),
    Step::Shrink(2, 8),
    Step::Drop(3),
    Step::Drop(7),
];

fn row(running: &Running, names: &Names<'_>, target: &str) -> Vec<Cell> {
    let identity = &running.identity;
    let reaches = running.target_reachable;
    let is_in_order = reaches && !identity.insecure;
    let name = running.path.as_deref().map(|path| names.name(path));
    let (requests, failed) = (identity.requests, identity.errors);
    vec![
        running.port.to_string().into(),
        Cell::failed_if(!reaches, if is_in_order { "✓" } else { "⚠" }),
        Escaped(&name.unwrap_or_else(|| identity.instance_id.clone()))
            .to_string()
            .into(),
        Escaped(target).to_string().into(),
        Cell::failed_if(!reaches, if reaches { "yes" } else { "no" }),
        short(identity.uptime_seconds).into(),
        requests.to_string().into(),
        Cell::failed_if(failed > 0, with_share(failed, requests)),
        identity.in_flight.to_string().into(),
        identity.pid.to_string().into(),
        identity.served_by.to_string().into(),
    ]
}

fn held_row(held: &Held, names: &Names<'_>) -> Vec<Cell> {
    let by = match (held.pid, &held.instance_id, &held.program) {
        (Some(pid), Some(instance_id), _) => format!("the interceptor {instance_id}, pid {pid}"),
        (Some(pid), None, Some(program)) => format!("{program}, pid {pid}"),
        _ if held.other_user.is_some() => "a program".to_owned(),
        _ => "a program that this user may not see".to_owned(),
    };
    let of = held
        .other_user
        .map(|uid| format!(" of another user (uid {uid})"));
    let by = format!("in use by {by}{}", of.unwrap_or_default());
    vec![
        held.port.to_string().into(),
        Cell::failed_if(true, "⚠"),
        Escaped(&names.name(&held.path)).to_string().into(),
        Cell::failed_if(true, Escaped(&by).to_string()),
    ]
}

/// What is not in order with an interceptor beyond its line.
fn notes(running: &Running) -> impl Iterator<Item = Vec<Cell>> {
    let error = running.identity.last_error.as_ref().map(|error| {
        let ago = rounded(Duration::from_secs(error.seconds_ago));
        format!("last error, {ago} ago: {}", Escaped(&error.message))
    });
    let insecure = "the target's certificate is not verified: --insecure".to_owned();
    let insecure = running.identity.insecure.then_some(insecure);
    let port = running.port.to_string();
    let notes = [error, insecure].into_iter().flatten();
    notes.map(move |note| vec![port.as_str().into(), note.into()])
}

/// The names of projects. One that several have comes with the folder above.
struct Names<'a>(HashMap<String, Option<&'a str>>);

impl<'a> Names<'a> {
    fn of(paths: impl Iterator<Item = &'a str>) -> Names<'a> {
        let mut names = HashMap::new();
        for path in paths {
            let first = names.entry(name(path)).or_insert(Some(path));
            *first = first.filter(|first| *first == path);
        }
        Names(names)
    }

    fn name(&self, path: &str) -> String {
        let name = name(path);
        let above = Path::new(path).parent().and_then(Path::file_name);
        match above {
            Some(above) if self.0.get(&name) == Some(&None) => {
                format!("{}/{name}", above.display())
            }
            _ => name,
        }
    }
}

/// The name of the project at `path`, both as text that carries its bytes.
fn name(path: &str) -> String {
    crate::text::name(Path::new(&raw::from_text(path)))
}

/// A number of requests and its share of all of them, rounded down: `12 (3%)`.
fn with_share(count: u64, all: u64) -> String {
    match u128::from(count) * 100 / u128::from(all.max(1)) {
        _ if count == 0 => "0".to_owned(),
        0 => format!("{count} (<1%)"),
        share => format!("{count} ({share}%)"),
    }
}

/// A duration in its largest whole unit, as `ic prune --unused-for` reads it: `41d`.
fn short(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Between two surveys: short enough to follow what happens, long enough to cost little.
const PAUSE: Duration = Duration::from_secs(2);
