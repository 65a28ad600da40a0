//! `ic export` and `ic import`: writing the mappings to a file, and reading mappings from one.
//!
//! Decided here: how the result is printed. What is readable, and what conflicts, is decided in `registry::import`.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use crate::registry::import::{
    Conflict, ConflictKind, ConflictPolicy, Import as Imported, Readable, readable,
};
use crate::registry::{Registry, documents};

use super::mapping::print_mapping;
use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, eprint_line, mappings};
use crate::text::raw;
use crate::text::{escaped_path, io_message};

/// export all mappings as JSON, for a backup or another machine
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "export",
    help_triggers("-h", "--help"),
    example = "ic export ports.json\n\
               ic export | jq -r '.mappings | to_entries[] | [.key, .value] | @csv'",
    note = "The export is JSON in the format of the registry file, with everything that is in it.",
    error_code(3, "the registry cannot be read, or the file cannot be written")
)]
pub struct Export {
    /// output file; default: `-` (standard output)
    #[argh(positional, arg_name = "FILE")]
    pub file: Option<String>,
}

impl Export {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let file = Stream::given(self.file.as_deref().unwrap_or("-"), TO_CSV)?;
        let handle = context.registry_handle()?;
        if let Stream::File(path) = &file
            && let (Ok(file), Ok(registry)) =
                (path.canonicalize(), handle.store.path().canonicalize())
            && file == registry
        {
            return Err(Failure::usage(format!(
                "`{}` is the registry itself; give another file to export to",
                escaped_path(path)
            )));
        }
        let registry = handle.read()?;
        let text = (registry.to_text() + "\n").into_bytes();
        match file {
            Stream::Standard => context.out.bytes(&text)?,
            Stream::File(path) => {
                replace(&path, &text).map_err(|error| {
                    Failure::could_not(format!(
                        "cannot write `{}`: {}; nothing was exported; give another FILE",
                        escaped_path(&path),
                        io_message(&error)
                    ))
                })?;
                context.out.text(format_args!(
                    "✓ Exported {}\n  File: {}\n",
                    mappings(registry.len()),
                    escaped_path(&path)
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// import mappings from an export, a registry file, or a backup of one
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(
    subcommand,
    name = "import",
    help_triggers("-h", "--help"),
    example = "ic import ports.json --dry-run\n\
               ic import ~/.config/litellm/port_registry.json.backup\n\
               ssh laptop ic export | ic import - --map /home/me=/Users/me",
    note = "A conflict is a port that belongs to another project here, or a project that has another\n\
            port here. With any conflict nothing is changed, unless --replace is given.",
    error_code(1, "there are conflicts; nothing is changed"),
    error_code(3, "the file cannot be read, or contains no mappings")
)]
pub struct Import {
    /// input file; `-` is standard input
    #[argh(positional, arg_name = "FILE")]
    pub file: String,
    /// resolve conflicts in favour of the file; other mappings stay
    #[argh(switch)]
    pub replace: bool,
    /// show what would change, and change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// replace folder FROM by TO in the paths of the file; may be repeated
    #[argh(option, arg_name = "FROM=TO")]
    pub map: Vec<String>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
}

impl Import {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let roots = self
            .map
            .iter()
            .map(|pair| roots(&SourcedValue::flag("--map", pair)))
            .collect::<Result<Vec<_>, _>>()?;
        let stream = Stream::given(&self.file, FROM_CSV)?;
        let handle = context.registry_handle()?;
        let theirs = stream.registry()?.remap_paths(&roots).map_err(|path| {
            Failure::could_not(format!(
                "{stream} has two projects that `--map` maps to one path, `{}`; nothing was changed; \
                 give another --map",
                escaped_path(&path)
            ))
        })?;
        let policy = if self.replace {
            ConflictPolicy::Overwrite
        } else {
            ConflictPolicy::Reject
        };
        let import = |registry: &mut Registry| registry.import(&theirs, policy);
        let imported = if self.dry_run {
            import(&mut handle.read()?)
        } else {
            handle.update(import)?
        };
        if self.json {
            context
                .out
                .json(&documents::imported(&imported, self.dry_run))?;
        } else {
            self.print(&imported, context.out)?;
        }
        match imported.conflicts.len() {
            0 => Ok(Exit::Done),
            _ if self.replace => Ok(Exit::Done),
            count => Err(Failure::no(format!(
                "{}; nothing was changed; `--replace` lets the file win",
                conflicts(count)
            ))),
        }
    }

    fn print(&self, imported: &Imported, out: &mut Output) -> Result<(), Failure> {
        let Imported {
            added,
            moved,
            removed,
            unchanged,
            conflicts: contradicted,
        } = imported;
        if !contradicted.is_empty() {
            let resolved = if self.replace { ", the file wins" } else { "" };
            out.text(format_args!(
                "{}{resolved}:\n",
                conflicts(contradicted.len())
            ))?;
            for Conflict { path, port, here } in contradicted {
                let why = match here {
                    ConflictKind::PortOf(owner) => {
                        format!("here it is the port of {}", escaped_path(owner))
                    }
                    ConflictKind::HasPort(port) => format!("here it has port {port}"),
                };
                print_mapping(out, path, *port, &why)?;
            }
            if !self.replace {
                return Ok(());
            }
        }
        let change = if self.dry_run {
            "Would import"
        } else {
            "✓ Imported"
        };
        let count = mappings(added.len() + moved.len());
        let already = match unchanged {
            0 => String::new(),
            1 => ", 1 is here already".to_owned(),
            many => format!(", {many} are here already"),
        };
        let colon = if added.len() + moved.len() > 0 {
            ":"
        } else {
            ""
        };
        out.text(format_args!("{change} {count}{already}{colon}\n"))?;
        for (list, why) in [
            (added, "new"),
            (moved, "another port"),
            (removed, "removed"),
        ] {
            for (path, port) in list {
                print_mapping(out, path, *port, why)?;
            }
        }
        Ok(())
    }
}

fn conflicts(count: usize) -> String {
    match count {
        1 => "1 conflict".to_owned(),
        _ => format!("{count} conflicts"),
    }
}

/// Parses `FROM=TO` of `--map`, split at the first `=`; both are absolute.
fn roots(given: &SourcedValue) -> Result<(PathBuf, PathBuf), Failure> {
    let text = raw::to_text(given.path()?.as_os_str());
    let pair = text.split_once('=').map(|(from, to)| {
        let path = |text: &str| PathBuf::from(raw::from_text(text));
        (path(from), path(to))
    });
    pair.filter(|(from, to)| from.is_absolute() && to.is_absolute())
        .ok_or_else(|| {
            given.refused("is not two absolute paths; give them as `--map /home/me=/Users/me`")
        })
}

/// A file, or a standard stream.
enum Stream {
    Standard,
    File(PathBuf),
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stream::Standard => f.write_str("standard input"),
            Stream::File(path) => write!(f, "`{}`", escaped_path(path)),
        }
    }
}

impl Stream {
    /// The stream that FILE names; `csv_hint` says how to convert a FILE that is named as CSV.
    fn given(word: &str, csv_hint: &str) -> Result<Stream, Failure> {
        let given = SourcedValue::argument(word);
        let path = given
            .path()
            .map_err(|_| Failure::usage("FILE is empty; give a file, or `-`"))?;
        if path == Path::new("-") {
            return Ok(Stream::Standard);
        }
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
        {
            return Err(Failure::usage(format!(
                "`{}` is a CSV file, and only JSON is supported; use `{csv_hint}`",
                escaped_path(path)
            )));
        }
        Ok(Stream::File(path.to_owned()))
    }

    /// Reads a registry, as far as it can be read; warns on standard error of the rest.
    fn registry(&self) -> Result<Registry, Failure> {
        let text = self.read().map_err(|error| {
            Failure::could_not(format!(
                "cannot read {self}: {}; give another FILE",
                io_message(&error)
            ))
        })?;
        let Readable { registry, warning } = readable(&text, self).map_err(Failure::could_not)?;
        if let Some(warning) = warning {
            eprint_line(format_args!("warning: {warning}"));
        }
        Ok(registry)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match self {
            Stream::Standard => io::stdin()
                .lock()
                .take(SIZE_MAX + 1)
                .read_to_end(&mut text)?,
            Stream::File(path) => File::open(path)?
                .take(SIZE_MAX + 1)
                .read_to_end(&mut text)?,
        };
        if text.len() as u64 > SIZE_MAX {
            let limit = SIZE_MAX >> 20;
            return Err(io::Error::other(format!("it is larger than {limit} MiB")));
        }
        Ok(text)
    }
}

/// Replaces a file atomically; writes to a pipe or a device directly.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let target = match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            return File::options().write(true).open(path)?.write_all(text);
        }
        // A symbolic link stays.
        Ok(_) => path.canonicalize()?,
        Err(_) => path.to_owned(),
    };
    let mut new = target.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let written = File::create_new(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, &target)
    });
    if written.is_err() {
        // A failure leaves an incomplete file behind, which does no harm.
        let _ = fs::remove_file(&new);
    }
    written
}

/// How to get CSV out of an export.
const TO_CSV: &str = "ic export | jq -r '.mappings | to_entries[] | [.key, .value] | @csv'";

/// How to import CSV of paths and ports; a header line is skipped, because its second value is not a number.
const FROM_CSV: &str =
    "jq -Rn '{mappings: [inputs / \",\" | {(.[0]): (.[1] | tonumber?)}] | add}' FILE | ic import -";

/// In bytes; the limit of a registry file.
const SIZE_MAX: u64 = 16 << 20;
