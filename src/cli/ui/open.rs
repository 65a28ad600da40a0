//! Opens the page in the user's browser.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use crate::cli::output::eprint_line;
use crate::cli::settings::Environment;
use crate::text::io_message;
use crate::ui::{AppState, CODE_LIFE, Feeds};

/// Opens the page, with a code that is valid once. Failing to open it is not an error: its address was printed.
pub fn in_browser(address: SocketAddr, app: &Arc<AppState>, environment: &Environment<'_>) {
    let Some(opener) = opener(environment.0) else {
        return;
    };
    let folder = app
        .feeds
        .as_deref()
        .map(Feeds::folder)
        .ok_or_else(|| "no home folder".to_owned());
    let issue = |folder| app.auth.issue_code(address, folder);
    let file = match folder.and_then(|folder| issue(folder).map_err(|error| io_message(&error))) {
        Ok(file) => file,
        Err(why) => {
            return eprint_line(format_args!(
                "cannot write the file that opens the page ({why}); open the address yourself"
            ));
        }
    };
    let started = Command::new(opener)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            let app = Arc::clone(app);
            let attend = move || {
                thread::sleep(CODE_LIFE);
                app.auth.revoke_code();
                // Some openers are the browser itself and keep running; waiting prevents a zombie process.
                drop(child.wait());
            };
            // If no thread can be started, file and zombie remain until this process ends.
            let _ = thread::Builder::new()
                .name("browser".to_owned())
                .spawn(attend);
        }
        Err(error) => {
            app.auth.revoke_code();
            eprint_line(format_args!(
                "cannot start `{opener}` ({}); open the address yourself",
                io_message(&error)
            ));
        }
    }
}

/// The program that opens addresses; `None` if there is no display.
fn opener(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<&'static str> {
    if cfg!(target_vendor = "apple") {
        return Some("open");
    }
    let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
    (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")).then_some("xdg-open")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_opened_without_a_display() {
        if cfg!(target_vendor = "apple") {
            return;
        }
        let with = |set: &'static str| {
            opener(&move |name: &str| (name == set).then(|| OsString::from(":0")))
        };
        assert_eq!(with("DISPLAY"), Some("xdg-open"));
        assert_eq!(with("WAYLAND_DISPLAY"), Some("xdg-open"));
        assert_eq!(with("HOME"), None);
        assert_eq!(opener(&|_| Some(OsString::new())), None);
    }
}
