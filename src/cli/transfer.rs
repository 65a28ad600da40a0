//! `ic export` and `ic import`: writing the mappings to a file, and reading mappings from one.
//!
//! Decided here: how the result is printed. What is readable, and what conflicts, is decided in `registry::import`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use crate::registry::import::{
    Conflict, ConflictKind, ConflictPolicy, Import as Imported, Readable, readable,
};
use crate::registry::store::replace_file;
use crate::registry::{Registry, documents};

use super::mapping::{print_mapping, warn_of_running};
use super::settings::SourcedValue;
use crate::cli::context::Context;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Output, counted, eprint_line, mappings};
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
    note = "The export is JSON in the format of the registry file, with everything in it, also keys\n\
            that were given to `ic set` literally.",
    error_code(3, "the registry cannot be read, or the file cannot be written")
)]
pub struct Export {
    /// output file; default: `-` (standard output)
    #[argh(positional, arg_name = "FILE")]
    pub file: Option<String>,
}

impl Export {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Exit, Failure> {
        let file = file_argument(self.file.as_deref().unwrap_or("-"), TO_CSV)?;
        let handle = context.registry_handle()?;
        if let Some(path) = &file
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
        let text = registry.to_text() + "\n";
        let Some(path) = file else {
            context.out.text(text)?;
            return Ok(Exit::Done);
        };
        replace_file(&path, text.as_bytes()).map_err(|error| {
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
            port or other settings here. With any conflict nothing is changed, unless --replace is given.",
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
        let folders: Result<Vec<_>, _> = self.map.iter().map(|pair| folders(pair)).collect();
        let folders = folders?;
        let file = file_argument(&self.file, FROM_CSV)?;
        let handle = context.registry_handle()?;
        let source = match &file {
            Some(path) => format!("`{}`", escaped_path(path)),
            None => "standard input".to_owned(),
        };
        let text = read(file.as_deref()).map_err(|error| {
            Failure::could_not(format!(
                "cannot read {source}: {}; give another FILE",
                io_message(&error)
            ))
        })?;
        let Readable { registry, warning } =
            readable(&text, &source).map_err(Failure::could_not)?;
        if let Some(warning) = warning {
            eprint_line(format_args!("warning: {warning}"));
        }
        let theirs = registry.remap_paths(&folders).map_err(|path| {
            Failure::could_not(format!(
                "{source} has two projects that `--map` maps to one path, `{}`; nothing was changed; \
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
        if self.replace || imported.conflicts.is_empty() {
            if !self.dry_run {
                warn_of_running(imported.lost());
            }
            return Ok(Exit::Done);
        }
        Err(Failure::no(format!(
            "{}; nothing was changed; `--replace` lets the file win",
            counted(imported.conflicts.len(), "conflict")
        )))
    }

    fn print(&self, imported: &Imported, out: &mut Output) -> Result<(), Failure> {
        let conflicts = &imported.conflicts;
        if !conflicts.is_empty() {
            let resolved = if self.replace { ", the file wins" } else { "" };
            let count = counted(conflicts.len(), "conflict");
            out.text(format_args!("{count}{resolved}:\n"))?;
            for Conflict { path, port, here } in conflicts {
                let why = match here {
                    ConflictKind::PortOf(owner) => {
                        format!("here it is the port of {}", escaped_path(owner))
                    }
                    ConflictKind::HasPort(port) => format!("here it has port {port}"),
                    ConflictKind::HasSettings => "here it has other settings".to_owned(),
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
        let changed = imported.added.len() + imported.moved.len();
        let unchanged = match imported.unchanged {
            0 => String::new(),
            count => format!(", {count} unchanged"),
        };
        let end = if changed > 0 { ":" } else { "" };
        let count = mappings(changed);
        out.text(format_args!("{change} {count}{unchanged}{end}\n"))?;
        for (list, why) in [
            (&imported.added, "new"),
            (&imported.moved, "another port"),
            (&imported.removed, "removed"),
        ] {
            for (path, port) in list {
                print_mapping(out, path, *port, why)?;
            }
        }
        Ok(())
    }
}

/// Parses `FROM=TO` of `--map`, split at the first `=`; both are absolute.
fn folders(pair: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let path = |text: &str| PathBuf::from(raw::from_text(text));
    pair.split_once('=')
        .map(|(from, to)| (path(from), path(to)))
        .filter(|(from, to)| from.is_absolute() && to.is_absolute())
        .ok_or_else(|| {
            SourcedValue::flag("--map", pair)
                .refused("is not two absolute paths; give them as `--map /home/me=/Users/me`")
        })
}

/// The path that FILE names; `None` is the standard stream. A CSV file is refused; `csv_hint` converts it.
fn file_argument(file: &str, csv_hint: &str) -> Result<Option<PathBuf>, Failure> {
    match PathBuf::from(raw::from_text(file)) {
        path if path == Path::new("") => Err(Failure::usage("FILE is empty; give a file, or `-`")),
        path if path == Path::new("-") => Ok(None),
        path if path
            .extension()
            .is_some_and(|it| it.eq_ignore_ascii_case("csv")) =>
        {
            Err(Failure::usage(format!(
                "`{}` is a CSV file, and only JSON is supported; use `{csv_hint}`",
                escaped_path(&path)
            )))
        }
        path => Ok(Some(path)),
    }
}

const TO_CSV: &str = "ic export | jq -r '.mappings | to_entries[] | [.key, .value] | @csv'";
const FROM_CSV: &str =
    "jq -Rn '{mappings: [inputs / \",\" | {(.[0]): (.[1] | tonumber?)}] | add}' FILE | ic import -";

/// Reads a file, or standard input, of a bounded size.
pub(super) fn read(file: Option<&Path>) -> io::Result<Vec<u8>> {
    let source: &mut dyn Read = match file {
        Some(path) => &mut File::open(path)?,
        None => &mut io::stdin(),
    };
    let mut text = Vec::new();
    source.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        let limit = SIZE_MAX >> 20;
        return Err(io::Error::other(format!("it is larger than {limit} MiB")));
    }
    Ok(text)
}

/// In bytes; the limit of a registry file.
const SIZE_MAX: u64 = 16 << 20;
