//! The values of placeholders: the branch of the project, the user, the machine.
//!
//! They are read once, at the start. The branch is read from the repository's files; git is not needed.

use std::path::Path;

use crate::cli::settings::Environment;
use crate::registry::project::{git_folder, read_small};
use crate::text::raw;

/// The branch that is checked out at `project`, or the start of the commit's id if there is none. `None` outside of a git
/// repository. Bytes that are not UTF-8 are carried in the text ([`raw`]).
pub fn branch(project: &Path) -> Option<String> {
    project.ancestors().find_map(|folder| {
        let head = read_small(&git_folder(folder)?.join("HEAD"))?;
        branch_in(&head)
    })
}

/// The branch or commit in the content of `HEAD`.
fn branch_in(head: &[u8]) -> Option<String> {
    let head = head.trim_ascii_end();
    if let Some(reference) = head.strip_prefix(b"ref: ") {
        let reference = raw::bytes_to_text(reference.trim_ascii_start());
        let branch = reference.strip_prefix("refs/heads/").unwrap_or(&reference);
        // Written for old versions of git where references are stored as a reftable.
        return (branch != ".invalid").then(|| branch.to_owned());
    }
    let is_commit = head.len() >= COMMIT_LENGTH && head.iter().all(u8::is_ascii_hexdigit);
    is_commit.then(|| raw::bytes_to_text(&head[..COMMIT_LENGTH]))
}

/// The user's name, or the user id if the variables have no name.
pub fn user(environment: &Environment<'_>) -> String {
    ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| environment.variable(name))
        .and_then(|given| Some(raw::to_text(given.path().ok()?.as_os_str())))
        .unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
}

/// This machine's name.
pub fn host() -> String {
    raw::bytes_to_text(rustix::system::uname().nodename().to_bytes())
}

/// Long enough to be unique in any repository, short enough to read.
const COMMIT_LENGTH: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_names_a_branch_or_a_commit() {
        #[track_caller]
        fn check(head: &[u8], expected: Option<&str>) {
            assert_eq!(branch_in(head).as_deref(), expected);
        }
        check(b"ref: refs/heads/main\n", Some("main"));
        check(b"ref: refs/heads/feature/a b\n", Some("feature/a b"));
        check(b"ref: refs/heads/main", Some("main"));
        check(b"ref: refs/remotes/o/main\n", Some("refs/remotes/o/main"));
        check(b"ref: refs/heads/caf\xe9\n", Some("caf\0e9"));
        check(b"ref: refs/heads/.invalid\n", None);
        check(
            b"0123456789abcdef0123456789abcdef01234567\n",
            Some("0123456789ab"),
        );
        check(&[b'a'; 64], Some("aaaaaaaaaaaa")); // SHA-256
        check(b"", None);
        check(b"0123", None);
        check(b"no such thing, and long enough to be one\n", None);
    }
}
