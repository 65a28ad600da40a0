//! The settings files of Claude Code, whose `env` wins over the variables of the shell. They are only read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use serde_json::Value;

use super::finding::{Finding, Verdict};
use super::variables::{Destination, MESSAGES, base_url};
use crate::registry::{Port, Registry};
use crate::text::{escaped_path, io_message, name, redact};

/// Checks the base URL in the first of Claude Code's settings files that has one; the user's folder is `home`.
pub fn claude(
    project: &Path,
    home: Option<&Path>,
    to: Destination<'_>,
    registry: &Registry,
) -> Vec<Finding> {
    const CHECK: &str = "Claude Code";
    let owner = |port: Port| registry.path_of(port).map(name);
    let mut findings = Vec::new();
    let files = [
        Some(project.join(".claude/settings.local.json")),
        Some(project.join(".claude/settings.json")),
        home.map(|home| home.join(".claude/settings.json")),
    ];
    for file in files.into_iter().flatten() {
        let shown = escaped_path(&file);
        let document = match read(&file) {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("could not read `{shown}`: {}", io_message(&error));
                findings.push(Finding::note(CHECK, message));
                continue;
            }
        };
        if let Some(value) = document["env"]["ANTHROPIC_BASE_URL"].as_str() {
            let way_out = "`ic snippet claude` prints the right settings";
            let (verdict, why) = base_url(MESSAGES, value, to, way_out, owner);
            let value = match verdict {
                Verdict::Good => String::new(),
                Verdict::Note | Verdict::Wrong => format!("={}", redact::setting(value)),
            };
            let message = format!("ANTHROPIC_BASE_URL{value} in `{shown}` {why}");
            findings.push(Finding::new(CHECK, verdict, message));
            break;
        }
    }
    findings
}

/// The JSON document in a regular file of at most [`FILE_BYTES_MAX`].
fn read(path: &Path) -> io::Result<Value> {
    // NONBLOCK: it may be a FIFO.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    serde_json::from_slice(&text).map_err(|_| io::Error::other("it is not JSON"))
}

/// Settings are some KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
