//! Projects: each is a folder, known by the canonical form of its path.
//!
//! The folder need not exist: the mapping of a deleted project can still be shown and removed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

use rustix::fs::{Mode, OFlags};

/// A project, known by the canonical form of its folder's path: absolute, without symbolic links, `.`,
/// `..` or a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project {
    path: PathBuf,
}

impl Project {
    /// Returns the project at `path`, relative to the current folder.
    ///
    /// Where a part of the path does not exist, the part before it is resolved and the rest is cleaned lexically,
    /// as `realpath -m` and Python's `Path.resolve` do.
    ///
    /// # Errors
    ///
    /// An empty path (most often a shell variable that is not set), a loop of symbolic links, a name that is too
    /// long for the system, or a relative path while the current folder is gone.
    pub fn resolve(path: &Path) -> io::Result<Project> {
        resolve(path).map(|path| Project { path })
    }

    /// Returns the project of the nearest Git repository or worktree around `folder`; outside of any, that of `folder`.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn of_repository(folder: &Path) -> io::Result<Project> {
        let project = Project::resolve(folder)?;
        let root = project.path.ancestors().find(|path| has_repository(path));
        Ok(Project {
            path: root.unwrap_or(&project.path).to_owned(),
        })
    }

    /// Returns the project recorded under `path`, without resolving it; `None` if it is not absolute.
    ///
    /// Paths in a registry were resolved when they were recorded; resolving them again could return another folder (a
    /// project replaced by a symbolic link).
    pub fn recorded(path: &Path) -> Option<Project> {
        path.is_absolute().then(|| Project {
            path: path.to_owned(),
        })
    }

    /// Returns other names under which the project that `path` resolves to may be recorded, because a symbolic link was added
    /// or removed since, or because the registry was written by hand: the path made absolute and cleaned lexically, then the
    /// path unchanged, if they resolve to the same (behind a link, `..` need not); `None` where it cannot be resolved.
    pub fn spellings(path: &Path, resolved: Option<&Project>) -> Vec<Project> {
        let mut cleaned = PathBuf::new();
        for step in std::path::absolute(path)
            .iter()
            .flat_map(|path| steps(path))
        {
            match step {
                Step::Root => cleaned = PathBuf::from("/"),
                Step::Up => drop(cleaned.pop()),
                Step::Down(name) => cleaned.push(name),
            }
        }
        let spelled = [Project::recorded(&cleaned), Project::recorded(path)];
        let is_other_name = |spelled: &Project| {
            Some(spelled) != resolved && Project::resolve(&spelled.path).ok().as_ref() == resolved
        };
        spelled
            .into_iter()
            .flatten()
            .filter(is_other_name)
            .collect()
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the canonical form of `path`; see [`Project::resolve`].
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is empty",
        ));
    }
    match fs::canonicalize(path) {
        Err(error) if cleans_lexically(&error) => resolve_missing(path),
        resolved => resolved,
    }
}

/// Returns `path` with the home folder for a leading `~`, `$HOME` or `${HOME}`. A shell expands these; in files of variables,
/// in service files and behind `--option=` they arrive as they are written, and would name a folder below the current one.
///
/// # Errors
///
/// The path begins with another variable, or the name of a user, which only a shell expands; or there is no home folder.
/// The error's text continues a sentence that names the path.
pub fn expand_home(path: &Path) -> io::Result<PathBuf> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else {
        return Ok(path.to_owned());
    };
    let rest = parts.as_path();
    match first.as_encoded_bytes() {
        b"~" | b"$HOME" | b"${HOME}" => {
            let home = home_folder().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "is in the home folder, which this user does not have; give an absolute path",
                )
            })?;
            let mut expanded = home.join(rest);
            // A trailing slash says that it is a folder.
            if path.as_os_str().as_bytes().ends_with(b"/") {
                expanded.push("");
            }
            Ok(expanded)
        }
        [b'~' | b'$', ..] if !rest.as_os_str().is_empty() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "begins with what only a shell expands; give an absolute path, or one that begins with `~/` or `./`",
        )),
        _ => Ok(path.to_owned()),
    }
}

/// Returns the path of a registry file that an option or a variable names, with [the home folder](expand_home).
///
/// # Errors
///
/// As [`expand_home`]; or the path begins with a quote or white space, or ends with white space. A shell removes these; in a file of
/// variables (`docker run --env-file`) or behind a line end CRLF they are part of the value, and would name another file, in a
/// folder below the current one.
pub fn registry_file(path: &Path) -> io::Result<PathBuf> {
    let text = path.to_string_lossy();
    let stray = if text.starts_with(QUOTES) {
        "begins with a quote; leave out the quotes, which only a shell removes"
    } else if text.starts_with(char::is_whitespace) {
        "begins with white space; leave it out"
    } else if text.ends_with(char::is_whitespace) {
        "ends with white space or a line end; leave it out"
    } else {
        return expand_home(path);
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, stray))
}

/// Also those that word processors make of them.
const QUOTES: [char; 7] = ['"', '\'', '“', '”', '„', '‘', '’'];

/// The home folder, from `HOME` or the user database; `None` also if it is relative, which would be another one in each
/// folder.
pub fn home_folder() -> Option<PathBuf> {
    dirs::home_dir().filter(|home| home.is_absolute())
}

/// Whether the project recorded under `path` was deleted: the path does not exist, but its parent folder does. If that is gone as
/// well, the nearest folder that exists must be one in which this user removes folders (`is_of_user`). A disk that is not
/// mounted, or a folder without read permission, is not a deletion.
pub fn is_deleted(path: &Path) -> bool {
    if !is_missing(path) {
        return false;
    }
    match path
        .ancestors()
        .skip(1)
        .position(|above| !is_missing(above))
    {
        Some(0) => path.parent().is_some_and(Path::is_dir),
        Some(missing) => path.ancestors().nth(missing + 1).is_some_and(is_of_user),
        None => false,
    }
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether a folder belongs to this user, and is not one that disks are mounted in: an empty one, or for root one outside of its
/// home folder, such as `/mnt`.
fn is_of_user(folder: &Path) -> bool {
    let user = rustix::process::geteuid();
    let is_own =
        fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == user.as_raw());
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut found| found.next().is_none());
    let home = || fs::canonicalize(home_folder()?).ok();
    let is_at_home = || home().is_some_and(|home| folder.starts_with(home));
    is_own && !is_empty() && (!user.is_root() || is_at_home())
}

/// Whether the folder is the top of a Git working tree: `.git` is a repository, or the file that a worktree or a submodule
/// has instead. An empty `.git` is neither.
fn has_repository(folder: &Path) -> bool {
    let git = folder.join(".git");
    git.join("HEAD").is_file() || read_gitdir(&git).is_some()
}

/// Returns the Git folder of the working tree whose top is `folder`, if it is one: `.git`, or what the file of that name says in a
/// worktree or a submodule (gitrepository-layout(5)).
pub fn git_folder(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    // It may be relative to the folder of the file.
    Some(folder.join(read_gitdir(&git)?))
}

fn read_gitdir(file: &Path) -> Option<OsString> {
    let text = read_small(file)?;
    let named = text.strip_prefix(b"gitdir:")?.trim_ascii();
    Some(OsString::from_vec(named.to_owned()))
}

/// Reads a file of a repository. `None`: it is missing, longer than 64 KiB, or no regular file. The author of a repository chooses
/// what it holds.
pub fn read_small(path: &Path) -> Option<Vec<u8>> {
    read_regular(path, 64 * 1024).ok()
}

/// Reads a regular file of at most `bytes_max`. Opening a FIFO would block, and a device may have no end.
///
/// # Errors
///
/// It cannot be read, is longer, or is no regular file.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let irregular = || io::Error::other("it is not a regular file");
    // Checked before it is opened: opening a device can have effects. Checked again: it may have been replaced.
    fs::metadata(path)?
        .is_file()
        .then_some(())
        .ok_or_else(irregular)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    file.metadata()?
        .is_file()
        .then_some(())
        .ok_or_else(irregular)?;
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    match content.len() as u64 <= bytes_max {
        true => Ok(content),
        false => Err(io::Error::other(format!(
            "it is larger than {} KiB",
            bytes_max / 1024
        ))),
    }
}

/// Follows every symbolic link on the path, dangling ones included. From the first missing folder on there are none, so `..`
/// is resolved lexically.
fn resolve_missing(path: &Path) -> io::Result<PathBuf> {
    let mut resolved = if path.is_absolute() {
        PathBuf::new()
    } else {
        env::current_dir()?
    };
    let mut ahead: VecDeque<Step> = steps(path).collect();
    let mut links_followed = 0;
    while let Some(step) = ahead.pop_front() {
        match step {
            Step::Root => resolved = PathBuf::from("/"),
            Step::Up => drop(resolved.pop()),
            Step::Down(name) => {
                resolved.push(name);
                match fs::read_link(&resolved) {
                    Ok(target) => {
                        links_followed += 1;
                        if links_followed > LINKS_MAX {
                            return Err(rustix::io::Errno::LOOP.into());
                        }
                        resolved.pop();
                        for step in steps(&target).rev() {
                            ahead.push_front(step);
                        }
                    }
                    // No link, but an existing file or folder.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    Err(error) if cleans_lexically(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(resolved)
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = Step> + '_ {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Whether the rest of the path is cleaned lexically after this error. A folder without permission counts: its projects keep
/// their ports.
fn cleans_lexically(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// Linux's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: u32 = 40;
