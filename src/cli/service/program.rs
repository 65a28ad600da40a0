//! The path of this program, as a service is to start it.

use std::env;
use std::path::{Path, PathBuf};

use crate::cli::outcome::Failure;
use crate::text::{escaped_path, io_message};

/// The path of this program: the one that it was started by if that leads to it, so that a link which the next version replaces
/// stays in use; otherwise that of the file.
///
/// # Errors
///
/// "Could not": the system does not tell, or the file was removed since the start.
pub fn path() -> Result<PathBuf, Failure> {
    let file = env::current_exe().map_err(|error| {
        Failure::could_not(format!(
            "cannot determine where `ic` is: {}; start it by its full path",
            io_message(&error)
        ))
    })?;
    if !file.exists() {
        return Err(Failure::could_not(
            "this `ic` was replaced since it started; run the command again",
        ));
    }
    let named = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let leads_here = |path: &PathBuf| path.is_absolute() && is_same(path, &file);
    let by_name = match named.components().count() {
        0 => None,
        1 => {
            let folders = env::var_os("PATH").unwrap_or_default();
            let mut paths = env::split_paths(&folders).map(|folder| folder.join(&named));
            paths.find(leads_here)
        }
        _ => std::path::absolute(&named).ok().filter(leads_here),
    };
    Ok(by_name.unwrap_or(file))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.canonicalize().ok(), other.canonicalize().ok());
    one.is_some() && one == other
}

/// A warning if the program is likely to be removed from where it is.
pub fn warning(program: &Path) -> Option<String> {
    let mut folders = program.ancestors().skip(1);
    let is_build = folders
        .next()
        .is_some_and(|folder| folder.join(CARGO_LOCK).exists())
        || folders.any(|folder| folder.join(CACHE_TAG).is_file());
    let temporary = [env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    let place = if is_build {
        "a build folder"
    } else if temporary.iter().any(|folder| program.starts_with(folder)) {
        "a temporary folder"
    } else {
        return None;
    };
    Some(format!(
        "warning: the service starts `{}`, which is in {place}; put `ic` where it stays, such as `~/.cargo/bin` (`cargo \
         install --path .`), and run this again from there",
        escaped_path(program)
    ))
}

/// Is beside the programs that cargo builds.
const CARGO_LOCK: &str = ".cargo-lock";

/// Marks folders with content that can be made again (bford.info/cachedir).
const CACHE_TAG: &str = "CACHEDIR.TAG";
