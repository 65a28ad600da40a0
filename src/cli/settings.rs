//! Values of options, variables and arguments: where each comes from and how it is parsed.
//!
//! An option wins over its variable, which is then not read; a variable that is set but empty counts as unset; both win over
//! what `ic set` keeps. An invalid value is reported with its option or variable. What a value is used for is decided by the commands.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::registry::Port;
use crate::registry::project::{expand_home, registry_file};
use crate::serve::{BadUrl, Target, check_length};

use crate::cli::outcome::Failure;
use crate::text::{raw, redact};

/// The variables of the process, or of a test.
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// A variable's value, if it is set and not empty.
    pub fn variable(&self, name: &'static str) -> Option<SourcedValue> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(|value| SourcedValue {
                source: Source::Variable(name),
                value,
            })
    }

    /// The value of the option if it is given, otherwise of the variable.
    pub fn flag_or_variable(
        &self,
        flag: &'static str,
        value: Option<&str>,
        variable: &'static str,
    ) -> Option<SourcedValue> {
        value
            .map(|value| SourcedValue::flag(flag, value))
            .or_else(|| self.variable(variable))
    }

    /// As [`flag_or_variable`](Self::flag_or_variable), otherwise what `ic set` keeps for the option.
    pub fn setting(
        &self,
        flag: &'static str,
        value: Option<&str>,
        variable: &'static str,
        kept: Option<&str>,
    ) -> Option<SourcedValue> {
        self.flag_or_variable(flag, value, variable)
            .or_else(|| Some(SourcedValue::kept(flag, kept?)))
    }
}

/// A value and where it came from; displays as `--port 80`, `INTERCEPTOR_PORT=80`, `ic set --target URL`, or the value alone,
/// without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SourcedValue {
    source: Source,
    value: OsString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Flag(&'static str),
    Variable(&'static str),
    Kept(&'static str),
    Argument,
}

impl SourcedValue {
    /// The value of an option; bytes that are not UTF-8 are carried in `value` ([`raw`]).
    pub fn flag(name: &'static str, value: &str) -> SourcedValue {
        SourcedValue {
            source: Source::Flag(name),
            value: raw::from_text(value),
        }
    }

    /// A value that `ic set` keeps for this option.
    pub fn kept(name: &'static str, value: &str) -> SourcedValue {
        SourcedValue {
            source: Source::Kept(name),
            value: value.into(),
        }
    }

    /// A positional argument.
    pub fn argument(value: &str) -> SourcedValue {
        SourcedValue {
            source: Source::Argument,
            value: raw::from_text(value),
        }
    }

    /// A default; displays like an argument.
    pub fn default(value: &str) -> SourcedValue {
        SourcedValue::argument(value)
    }

    /// Whether it came from a variable.
    pub fn is_variable(&self) -> bool {
        matches!(self.source, Source::Variable(_))
    }

    /// A port, 1 to 65535.
    pub fn port(&self) -> Result<Port, Failure> {
        self.parsed(
            |text| text.parse().ok(),
            "is not a port; give a number from 1 to 65535",
        )
    }

    /// A whole number, at least `lowest`.
    pub fn count(&self, lowest: usize) -> Result<usize, Failure> {
        let count = |text: &str| number(text).filter(|&count| count >= lowest);
        let why = format!("is not a valid number; give a whole number of at least {lowest}");
        self.parsed(count, &why)
    }

    /// Whole milliseconds, at most an hour.
    pub fn milliseconds(&self) -> Result<Duration, Failure> {
        let milliseconds = self.count(0)?;
        if milliseconds > MILLISECONDS_MAX {
            return Err(self.refused(format_args!(
                "is too long; give at most {MILLISECONDS_MAX} milliseconds"
            )));
        }
        Ok(Duration::from_millis(milliseconds as u64))
    }

    /// Seconds, fractions allowed, at most a year.
    pub fn seconds(&self) -> Result<Duration, Failure> {
        let seconds = |text: &str| {
            let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            let plain = text.bytes().all(is_plain).then_some(text)?;
            let seconds = plain
                .parse()
                .ok()
                .filter(|&seconds| seconds <= SECONDS_MAX)?;
            Duration::try_from_secs_f64(seconds).ok()
        };
        self.parsed(
            seconds,
            "is not a duration in seconds; give a number such as `30` or `0.5`",
        )
    }

    /// A duration with a unit: `30d`.
    pub fn period(&self) -> Result<Duration, Failure> {
        let period = |text: &str| {
            let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let seconds: u64 = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                "w" => 7 * 86_400,
                _ => return None,
            };
            let seconds = number::<u64>(count)?.checked_mul(seconds)?;
            Some(Duration::from_secs(seconds))
        };
        self.parsed(
            period,
            "is not a valid duration; give a number and one of s, m, h, d, w, such as `30d`",
        )
    }

    fn parsed<T>(&self, parse: impl FnOnce(&str) -> Option<T>, why: &str) -> Result<T, Failure> {
        let text = self.value.to_str();
        text.and_then(parse).ok_or_else(|| self.refused(why))
    }

    /// Text without control characters, not empty.
    pub fn text(&self) -> Result<&str, Failure> {
        let text = self
            .value
            .to_str()
            .ok_or_else(|| self.refused("is not UTF-8; write it in UTF-8"))?;
        if text.is_empty() {
            return Err(self.refused("is empty; give a value"));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refused("contains a control character; leave it out"));
        }
        Ok(text)
    }

    /// A target URL.
    pub fn target(&self) -> Result<Target, Failure> {
        self.text()?
            .parse()
            .map_err(|error: BadUrl| self.refused(error))
    }

    /// The path of a file or a folder, with the home folder for a leading `~/`.
    pub fn file(&self) -> Result<PathBuf, Failure> {
        expand_home(self.path()?).map_err(|error| self.refused(error))
    }

    /// The path of the registry file, with the home folder as in [`file`](Self::file).
    pub fn registry_file(&self) -> Result<PathBuf, Failure> {
        registry_file(self.path()?).map_err(|error| self.refused(error))
    }

    /// Any bytes, not empty.
    pub fn path(&self) -> Result<&Path, Failure> {
        if self.value.is_empty() {
            return Err(self.refused("is empty; give a path"));
        }
        Ok(Path::new(&self.value))
    }

    /// A Unix domain socket, as `unix:/path.sock`.
    pub fn socket(&self) -> Result<PathBuf, Failure> {
        let path = self
            .text()?
            .strip_prefix("unix:")
            .ok_or_else(|| self.refused("is not a Unix socket; write it as unix:/path.sock"))?;
        // Many tools write unix:///path.
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if !path.is_absolute() {
            return Err(self.refused("has no absolute path; write it as unix:/path.sock"));
        }
        check_length(path).map_err(|longest| {
            self.refused(format_args!(
                "has a path of {} bytes, but the path of a socket has at most {longest}; give a shorter one",
                path.as_os_str().len(),
            ))
        })?;
        Ok(path.to_owned())
    }

    /// The value without secrets. Of a field only the name is shown: any value can be a secret.
    fn shown(&self) -> String {
        let value = raw::to_text(&self.value);
        let name_end = match self.source {
            Source::Flag(HEADER) | Source::Kept(HEADER) => value.find([':', '=', ' ', '\t']),
            _ => None,
        };
        match name_end {
            Some(end) => redact::text(&value[..=end], false) + redact::REDACTED,
            None => redact::setting(&value),
        }
    }

    /// The failure for an invalid value. It names the value and its source; `why` says what is accepted.
    pub fn refused(&self, why: impl fmt::Display) -> Failure {
        Failure::usage(format!("`{self}` {why}"))
    }
}

impl fmt::Debug for SourcedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SourcedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Flag(name) => write!(f, "{name} ")?,
            Source::Variable(name) => write!(f, "{name}=")?,
            Source::Kept(name) => write!(f, "ic set {name} ")?,
            Source::Argument => {}
        }
        let value = self.shown();
        match value.char_indices().nth(SHOWN_LENGTH_MAX) {
            Some((at, _)) => write!(f, "{}…", &value[..at]),
            None => f.write_str(&value),
        }
    }
}

/// A number of digits only: `"+5".parse::<usize>()` is 5.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// The time between the events of a stream of the mock: of `ic mock` and of `ic serve --mock`.
///
/// # Errors
///
/// Bad usage, naming the option.
pub fn mock_interval(name: &'static str, value: Option<&str>) -> Result<Duration, Failure> {
    let given = value.map(|value| SourcedValue::flag(name, value));
    given
        .unwrap_or_else(|| SourcedValue::default(MOCK_INTERVAL_MS))
        .milliseconds()
}

/// The option for a field that is set on each request.
pub const HEADER: &str = "--header";
/// The port to listen on; the registry is then not used.
pub const PORT: &str = "INTERCEPTOR_PORT";
/// The lowest port of the allocation range.
pub const PORT_MIN: &str = "INTERCEPTOR_PORT_MIN";
/// The highest port of the allocation range.
pub const PORT_MAX: &str = "INTERCEPTOR_PORT_MAX";
/// The project if no PATH is given: `folder` or `git`.
pub const PROJECT_ROOT: &str = "INTERCEPTOR_PROJECT_ROOT";
/// The registry file.
pub const REGISTRY_PATH: &str = "PORT_REGISTRY_PATH";
/// Where requests go.
pub const TARGET_URL: &str = "TARGET_LLM_URL";
/// The instance identifier.
pub const INSTANCE_ID: &str = "SUPERMEMORY_USERNAME";
/// The file of trusted certificates that replaces the system's.
pub const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
/// The folders of trusted certificates that replace the system's.
pub const SSL_CERT_DIR: &str = "SSL_CERT_DIR";

/// A year. A longer duration is a mistaken unit, and some clocks overflow.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// The number of characters of an invalid value that are shown.
const SHOWN_LENGTH_MAX: usize = 80;

/// Slow enough to see a stream as a stream, fast enough for a test.
const MOCK_INTERVAL_MS: &str = "20";

/// An hour. A longer time is a mistaken unit.
const MILLISECONDS_MAX: usize = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outcome::Exit;

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_is_unset() {
        #[track_caller]
        fn check(flag: Option<&str>, variable: Option<&str>, expected: Option<&str>) {
            let read = |name: &str| {
                assert_eq!(name, "INTERCEPTOR_PORT");
                assert!(
                    flag.is_none(),
                    "the variable is not read if the flag is given"
                );
                variable.map(OsString::from)
            };
            let given = Environment(&read).flag_or_variable("--port", flag, PORT);
            assert_eq!(given.map(|given| given.to_string()).as_deref(), expected);
        }
        check(None, None, None);
        check(None, Some(""), None);
        check(None, Some("1"), Some("INTERCEPTOR_PORT=1"));
        check(Some("2"), None, Some("--port 2"));
        check(Some("2"), Some("abc"), Some("--port 2"));
        check(Some(""), Some("1"), Some("--port "));
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, start: &str) {
        let failure = result.expect_err(start);
        assert_eq!(failure.exit, Exit::BadUsage);
        assert!(failure.to_string().starts_with(start), "{failure}");
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        let port = |text| SourcedValue::flag("--port", text).port();
        for (text, expected) in [("1", 1), ("8888", 8888), ("08888", 8888), ("65535", 65535)] {
            assert_eq!(port(text).expect(text).get(), expected);
        }
        for bad in [
            "",
            "0",
            "65536",
            "99999999999999999999",
            "-1",
            "+5",
            "8888 ",
            "0x50",
            "80.5",
            "８",
            "\0ff",
        ] {
            refused(port(bad), &format!("`--port {bad}` is not a port"));
        }
    }

    #[test]
    fn a_socket_is_an_absolute_path_that_fits() {
        let socket = |text: &str| SourcedValue::flag("--listen", text).socket();
        for (text, expected) in [
            ("unix:/run/ic.sock", "/run/ic.sock"),
            ("unix:///run/ic.sock", "/run/ic.sock"),
            ("unix:/with a space", "/with a space"),
        ] {
            assert_eq!(socket(text).expect(text), Path::new(expected));
        }
        let refusal = "`--listen 127.0.0.1:80` is not a Unix socket";
        refused(socket("127.0.0.1:80"), refusal);
        refused(socket("/run/ic.sock"), "`--listen /run/ic.sock` is not a");
        refused(socket("unix:"), "`--listen unix:` has no absolute path");
        refused(socket("unix:ic.sock"), "`--listen unix:ic.sock` has no abs");
        refused(socket("unix:@ic"), "`--listen unix:@ic` has no absolute");
        let failure = socket(&format!("unix:/{}", "a".repeat(149))).expect_err("too long");
        let longest = if cfg!(target_os = "linux") { 107 } else { 103 };
        let why =
            format!("… has a path of 150 bytes, but the path of a socket has at most {longest};");
        let message = failure.to_string().replace('`', "");
        assert!(message.contains(&why), "{message}");
    }

    #[test]
    fn a_count_is_a_whole_number_from_its_lowest() {
        let count = |text, lowest| SourcedValue::flag("-n", text).count(lowest);
        assert_eq!(count("1", 1).expect("one"), 1);
        assert_eq!(count("0", 0).expect("none"), 0);
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "1.5",
            "many",
            "99999999999999999999999",
        ] {
            refused(count(bad, 1), &format!("`-n {bad}` is not a valid number"));
        }
    }

    #[test]
    fn a_time_is_a_plain_number_of_seconds() {
        let seconds = |text| SourcedValue::flag("--hold", text).seconds();
        for (text, milliseconds) in [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("0.001", 1),
        ] {
            assert_eq!(
                seconds(text).expect(text),
                Duration::from_millis(milliseconds)
            );
        }
        for bad in [
            "", ".", "-1", "+1", "1e3", "inf", "nan", "5s", "1,5", "1.2.3", "31622401", " 1",
        ] {
            refused(seconds(bad), &format!("`--hold {bad}` is not a duration"));
        }
    }

    #[test]
    fn a_duration_is_a_number_and_its_unit() {
        let period = |text| SourcedValue::flag("--unused-for", text).period();
        for (text, seconds) in [
            ("0s", 0),
            ("1s", 1),
            ("2m", 120),
            ("3h", 10_800),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("007d", 604_800),
        ] {
            assert_eq!(period(text).expect(text), Duration::from_secs(seconds));
        }
        for bad in [
            "",
            "d",
            "30",
            "30D",
            "30 d",
            "-1d",
            "+1d",
            "1.5h",
            "1h30m",
            "30é",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            refused(
                period(bad),
                &format!("`--unused-for {bad}` is not a valid duration"),
            );
        }
    }

    #[test]
    fn a_text_is_not_empty_and_has_no_control_characters() {
        let text = |text| {
            SourcedValue::flag("--instance-id", text)
                .text()
                .map(str::to_owned)
        };
        assert_eq!(text("Übung 1").expect("fine"), "Übung 1");
        refused(text(""), "`--instance-id ` is empty");
        refused(
            text("a\r\nb"),
            "`--instance-id a\r\nb` contains a control character",
        );
        refused(
            text("a\u{85}"),
            "`--instance-id a\u{85}` contains a control character",
        );
        refused(text("caf\0e9"), "`--instance-id caf\0e9` is not UTF-8");
    }

    #[test]
    fn a_value_is_shown_without_its_secrets() {
        #[track_caller]
        fn check(flag: &'static str, value: &str, expected: &str) {
            let failure = SourcedValue::flag(flag, value).refused("is wrong");
            assert_eq!(failure.to_string(), format!("`{flag} {expected}` is wrong"));
        }
        check(
            HEADER,
            "Authorization Bearer sk-0123456789",
            "Authorization …",
        );
        check(HEADER, "Authorization: Bearer a", "Authorization:…");
        check(HEADER, "X-Team=blue", "X-Team=…");
        check(HEADER, "sk-0123456789abcdef a", "… …");
        check(HEADER, "sk-0123456789abcdef", "…");
        check(HEADER, "x-team", "x-team");
        check("--target", "http://me:pw@a:1/b", "http://…@a:1/b");
        check("--target", "me:pw@a:1", "…@a:1");
        check("--target", "http://a/v1?key=b", "http://a/v1?key=…");
        // Cut before it is looked at, it would show the start of the password.
        let long = "p".repeat(100);
        check("--target", &format!("http://me:{long}@a"), "http://…@a");
    }

    #[test]
    fn a_long_value_is_shortened() {
        let failure = SourcedValue::argument(&"é".repeat(5000))
            .port()
            .expect_err("no port");
        assert_eq!(
            failure.to_string(),
            format!(
                "`{}…` is not a port; give a number from 1 to 65535",
                "é".repeat(80)
            )
        );
    }
}
