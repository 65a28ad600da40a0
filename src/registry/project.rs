//! What a path means: a project is a folder, and a folder has one spelling.
//!
//! Whether the folder exists is not decided here: a deleted project still has its port, and must be
//! found to be shown or removed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

/// A project, known by the canonical form of its folder's path: absolute, without symbolic links, `.`,
/// `..` or a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project {
    path: PathBuf,
}

impl Project {
    /// The project that `path` means, seen from the current folder.
    ///
    /// Where a part of the path does not exist, the part before it is resolved and the rest is cleaned lexically,
    /// as `realpath -m` and Python's `Path.resolve` do.
    ///
    /// # Errors
    ///
    /// An empty path (most often a shell variable that is not set), a loop of symbolic links, a name that is too
    /// long for the system, or a relative path while the current folder is gone.
    pub fn resolve(path: &Path) -> io::Result<Project> {
        if path.as_os_str().is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is empty",
            ));
        }
        match fs::canonicalize(path) {
            Ok(path) => Ok(Project { path }),
            Err(error) if cleans_lexically(&error) => Ok(Project {
                path: resolve_missing(path)?,
            }),
            Err(error) => Err(error),
        }
    }

    /// The project of the Git repository or worktree that `folder` lies in, the nearest one; outside of any, the folder's own.
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

    /// The project recorded under `path`, taken as it stands; `None` where that is not absolute.
    ///
    /// For paths that come out of a registry: they were resolved when they went in, and resolving them again
    /// could find another folder (a project replaced by a symbolic link).
    pub fn recorded(path: &Path) -> Option<Project> {
        path.is_absolute().then(|| Project {
            path: path.to_owned(),
        })
    }

    /// The projects that `path` may have been recorded as and no longer leads to, because a link has come or gone on it
    /// since, or because the registry was written by hand: the path made absolute and cleaned without looking at the
    /// disk, then the path to the letter.
    pub fn spellings(path: &Path) -> Vec<Project> {
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
        spelled.into_iter().flatten().collect()
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's full name, `/` for the root. What is not UTF-8 is shown as `�`.
    pub fn name(&self) -> String {
        name_of(&self.path)
    }
}

/// Whether the project recorded under `path` was deleted: there is nothing under that name, and the folder above it is
/// there. A disk that is not mounted, or a folder that may not be looked into, is no deletion.
pub fn is_deleted(path: &Path) -> bool {
    let is_gone =
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let above = path.parent();
    is_gone && above.is_some_and(Path::is_dir)
}

/// What a project recorded under `path` is called: its folder's full name, `/` for the root.
pub fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Whether Git would take the folder for the top of a working tree: a repository, or the file that a worktree or a
/// submodule has in its place. An empty `.git` is neither.
fn has_repository(folder: &Path) -> bool {
    let git = folder.join(".git");
    git.join("HEAD").is_file() || fs::read(git).is_ok_and(|text| text.starts_with(b"gitdir:"))
}

/// The path with every symbolic link on it followed, those that lead nowhere included; from the first
/// missing folder on there are none, so that `..` can be taken literally.
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

/// Whether the path goes on where nothing can be looked up. A folder that may not be entered counts: its
/// projects keep their ports.
fn cleans_lexically(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// Linux's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: u32 = 40;
