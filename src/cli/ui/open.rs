//! Opens the page in the user's browser.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::thread;

use crate::cli::output::eprint_line;
use crate::cli::settings::Environment;
use crate::text::io_message;
use crate::ui::Auth;

/// Opens the page, with a code that is valid once. Failing to open it is not an error: its address was printed.
pub fn in_browser(url: &str, auth: &Auth, environment: &Environment<'_>) {
    let Some(opener) = opener(environment.0) else {
        return;
    };
    let Ok(code) = auth.issue_code() else {
        return;
    };
    let started = Command::new(opener)
        .arg(format!("{url}#code={code}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            // Some openers are the browser itself and keep running; waiting prevents a zombie process.
            let wait = move || drop(child.wait());
            // If no thread can be started, the zombie remains until this process ends.
            let _ = thread::Builder::new()
                .name("browser".to_owned())
                .spawn(wait);
        }
        Err(error) => eprint_line(format_args!(
            "cannot start `{opener}` ({}); open the address yourself",
            io_message(&error)
        )),
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
