//! The property of the command line for any list of arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use interceptor::cli::CommandLine;
use interceptor::cli::arguments::{self, Parsed};
use interceptor::cli::context::Globals;
use interceptor::cli::mock::Mock;
use interceptor::cli::outcome::{Exit, Failure};
use interceptor::cli::serve::Serve;
use interceptor::cli::settings::Environment;
use interceptor::text::{Escaped, raw};

/// Any list of arguments is accepted, or prints a help text, or is refused with one line that says what to do and with the
/// correct exit code. `input` is a list of words that end with NUL; words of the form `NAME=value` at the start are variables.
pub fn command_line(input: &[u8]) {
    let words: Vec<&OsStr> = input
        .split(|&byte| byte == 0)
        .map(OsStr::from_bytes)
        .collect();
    for word in &words {
        assert_eq!(raw::from_text(&raw::to_text(word)), *word, "bytes are kept");
    }
    let is_variable = |word: &&OsStr| {
        let name = word
            .as_bytes()
            .split(|&byte| byte == b'=')
            .next()
            .unwrap_or_default();
        word.as_bytes().contains(&b'=')
            && name
                .iter()
                .all(|&byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let set = words.iter().take_while(|word| is_variable(word)).count();
    let (set, words) = words.split_at(set);
    let variable = |name: &str| -> Option<OsString> {
        set.iter().find_map(|word| {
            let value = word
                .as_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value).to_owned())
        })
    };
    let owned = || words.iter().map(|&word| word.to_owned());

    match arguments::parse::<CommandLine>(owned()) {
        Ok(Parsed::Command(_)) => {}
        Ok(Parsed::Help(command)) => {
            let text = arguments::help::<CommandLine>(command, 100);
            let asks = |word: &&OsStr| ["--help", "-h", "help"].iter().any(|help| *word == *help);
            assert!(words.iter().any(asks), "help without a request for it");
            assert!(text.contains("\nUsage: ic"), "{text}");
            assert!(text.ends_with('\n') && !text.contains('\x1b'), "{text}");
        }
        Err(line) => says_what_to_do(&line),
    }

    let environment = Environment(&variable);
    let globals = Globals::default();
    if let Ok(Parsed::Command(serve)) = arguments::parse::<Serve>(owned()) {
        match serve.resolve(None, &globals, &environment) {
            Ok(settings) => {
                let instance_id = settings.instance.fill(|_| "a".to_owned());
                assert!(!instance_id.contains(char::is_control));
                assert!(
                    !settings
                        .hosts
                        .iter()
                        .any(|host| host.contains(char::is_whitespace))
                );
                for (name, value) in &settings.headers {
                    assert!(
                        !name.is_empty()
                            && name
                                .bytes()
                                .all(|byte| byte.is_ascii_graphic() && byte != b':')
                    );
                    let (filled, _) = value.fill_field(|_| "a\r\nb\0é".to_owned());
                    assert!(!filled.contains(['\r', '\n', '\0']), "{filled:?}");
                }
                assert!(settings.connections_max >= 1);
            }
            Err(failure) => is_refused(&failure),
        }
    }
    if let Ok(Parsed::Command(mock)) = arguments::parse::<Mock>(owned())
        && let Err(failure) = mock.resolve()
    {
        is_refused(&failure);
    }
    if let Err(failure) = globals.registry_handle(&environment) {
        is_refused(&failure);
    }
}

/// An invalid value is bad usage; an unreadable folder or a missing home is a failure.
fn is_refused(failure: &Failure) {
    assert!(matches!(failure.exit, Exit::BadUsage | Exit::CouldNot));
    says_what_to_do(&failure.to_string());
}

/// One line, after escaping, that says what to do.
fn says_what_to_do(line: &str) {
    let shown = Escaped(line).to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(line.contains("; "), "{line}");
}
