//! What must hold of the command line for any list of arguments.

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

/// Any list of arguments is understood, answered with a help, or refused in one line that says what to do, with the right
/// exit code. `input` is a list of words, each ended by a NUL; those in front that look like `NAME=value` are variables.
pub fn command_line(input: &[u8]) {
    let words: Vec<&OsStr> = input
        .split(|&byte| byte == 0)
        .map(OsStr::from_bytes)
        .collect();
    for word in &words {
        assert_eq!(
            raw::from_text(&raw::to_text(word)),
            *word,
            "bytes are carried"
        );
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
        Ok(Parsed::Help(text)) => {
            let asks = |word: &&OsStr| *word == "--help" || *word == "-h";
            assert!(words.iter().any(asks), "nobody has asked for help");
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
                assert!(!settings.instance_id.contains(char::is_control));
                assert!(!settings.host.contains(char::is_whitespace));
                for (name, value) in &settings.headers {
                    assert!(
                        !name.is_empty()
                            && name
                                .bytes()
                                .all(|byte| byte.is_ascii_graphic() && byte != b':')
                    );
                    let (filled, _) = value.fill(|_| "a\r\nb\0é".to_owned());
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
    if let Err(failure) = globals.place(&environment) {
        is_refused(&failure);
    }
}

/// A value that cannot be used is bad usage; a folder that cannot be looked at, or no home, is "could not".
fn is_refused(failure: &Failure) {
    assert!(matches!(failure.exit, Exit::BadUsage | Exit::CouldNot));
    says_what_to_do(&failure.to_string());
}

/// One line, once shown, with what to do next.
fn says_what_to_do(line: &str) {
    let shown = Escaped(line).to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
    let says = line.contains("; ") || line.contains("` stands before the command: `ic ");
    assert!(says, "{line}");
}
