//! The JSON documents that describe mappings and what a change of the registry did, for the commands and for the page.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::import::{Conflict, ConflictKind, Import};
use super::notes::{Note, Timestamp};
use super::port::Port;
use super::probe::{Availability, availability};
use super::prune::{Pruned, Reason};
use crate::text::{name, raw};

/// Describes removed mappings.
pub fn pruned(pruned: &[Pruned], dry_run: bool) -> Value {
    let removed = |pruned: &Pruned| {
        let mut removed = mapping(&pruned.path, pruned.port);
        removed["reason"] = match pruned.reason {
            Reason::Deleted => "deleted".into(),
            Reason::Unused(_) => "unused".into(),
        };
        removed
    };
    let removed: Vec<Value> = pruned.iter().map(removed).collect();
    json!({ "removed": removed, "dry_run": dry_run })
}

/// Describes the result of an import, or of a dry run of one.
pub fn imported(imported: &Import, dry_run: bool) -> Value {
    let all = |list: &[(PathBuf, Port)]| -> Vec<Value> {
        let mappings = list.iter();
        mappings.map(|(path, port)| mapping(path, *port)).collect()
    };
    let conflict = |Conflict { path, port, here }: &Conflict| {
        let (port_of, has_port) = match here {
            ConflictKind::PortOf(owner) => (Some(raw::to_text(owner.as_os_str())), None),
            ConflictKind::HasPort(port) => (None, Some(*port)),
            ConflictKind::HasSettings => (None, None),
        };
        let mut conflict = mapping(path, *port);
        conflict["port_of"] = json!(port_of);
        conflict["has_port"] = json!(has_port);
        if *here == ConflictKind::HasSettings {
            conflict["has_settings"] = json!(true);
        }
        conflict
    };
    let conflicts: Vec<Value> = imported.conflicts.iter().map(conflict).collect();
    json!({
        "added": all(&imported.added),
        "moved": all(&imported.moved),
        "removed": all(&imported.removed),
        "unchanged": imported.unchanged,
        "conflicts": conflicts,
        "dry_run": dry_run,
    })
}

/// Describes a project, its port, the state of that, and what is noted of it.
pub fn noted(path: &Path, port: Option<Port>, note: Note) -> Value {
    let availability = port.map(availability);
    let mut noted = mapping(path, port);
    noted["available"] = json!(availability.map(|now| now == Availability::Free));
    noted["state"] = json!(availability.map(Availability::state));
    noted["pinned"] = json!(note.is_pinned);
    noted["last_used"] = json!(note.last_used.map(Timestamp::seconds));
    noted
}

/// Describes a project and its port; a command adds members of its own.
pub fn mapping(path: &Path, port: impl Serialize) -> Value {
    json!({ "project": name(path), "path": raw::to_text(path.as_os_str()), "port": port })
}
