//! An agent of launchd on macOS, through `launchctl`. Compiled and tested on every system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::manager::{Commands, Definition, MARK, Manager, State, change, output_of};
use crate::cli::outcome::Failure;
use crate::text::raw;

/// The launchd of this user's graphical session.
pub struct Launchd {
    home: PathBuf,
    /// The domain of the session: `gui/501`.
    domain: String,
}

impl Launchd {
    /// That of this user, with this home folder.
    pub fn new(home: &Path) -> Launchd {
        Launchd {
            home: home.to_owned(),
            domain: format!("gui/{}", rustix::process::getuid().as_raw()),
        }
    }

    fn service(&self) -> String {
        format!("{}/{LABEL}", self.domain)
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("Library/Logs/ic.log")
    }

    /// The service as launchd describes it; `None`: it is not loaded.
    fn description(&self) -> Option<String> {
        output_of(&mut launchctl(["print", &self.service()])).ok()
    }

    /// Stops the service, and waits until launchd has forgotten it: until then it cannot be loaded again.
    fn unload(&self) -> Result<(), Failure> {
        if self.description().is_none() {
            return Ok(());
        }
        let unloaded = change(&mut launchctl(["bootout", &self.service()]));
        let is_gone = || self.description().is_none();
        match until(UNLOAD_TIME_MAX, is_gone) {
            true => Ok(()),
            false => unloaded.and(Err(Failure::could_not(
                "launchd does not stop the service; try again",
            ))),
        }
    }

    fn is_disabled(&self) -> bool {
        let shown = output_of(&mut launchctl(["print-disabled", &self.domain])).unwrap_or_default();
        let mut lines = shown.lines().map(str::trim);
        let of_ours = lines.find(|line| line.starts_with(&format!("\"{LABEL}\"")));
        // `true` before macOS 13.
        of_ours.is_some_and(|line| line.ends_with("disabled") || line.ends_with("true"))
    }

    /// The last line of the log.
    fn last_words(&self) -> Option<String> {
        let log = std::fs::read(self.log_file()).ok()?;
        let log = String::from_utf8_lossy(&log);
        let said = log.lines().next_back()?;
        Some(said.strip_prefix("ic: ").unwrap_or(said).to_owned())
    }
}

impl Manager for Launchd {
    fn name(&self) -> &'static str {
        "launchd"
    }

    fn file(&self) -> PathBuf {
        let folder = self.home.join("Library/LaunchAgents");
        folder.join(format!("{LABEL}.plist"))
    }

    fn text(&self, definition: &Definition) -> String {
        let mut words = string(&raw::to_text(definition.program.as_os_str()));
        for argument in &definition.arguments {
            words += &string(&raw::to_text(argument));
        }
        let mut variables = String::new();
        for (name, value) in &definition.variables {
            variables += &format!("\t\t<key>{name}</key>\n{}", string(&raw::to_text(value)));
        }
        if !variables.is_empty() {
            variables =
                format!("\t<key>EnvironmentVariables</key>\n\t<dict>\n{variables}\t</dict>\n");
        }
        let log = string(&raw::to_text(self.log_file().as_os_str()));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <!-- {MARK}. -->\n\
             <plist version=\"1.0\">\n\
             <dict>\n\
             \t<key>Label</key>\n\
             \t<string>{LABEL}</string>\n\
             \t<key>ProgramArguments</key>\n\
             \t<array>\n\
             {words}\
             \t</array>\n\
             {variables}\
             \t<key>RunAtLoad</key>\n\
             \t<true/>\n\
             \t<key>KeepAlive</key>\n\
             \t<dict>\n\
             \t\t<key>SuccessfulExit</key>\n\
             \t\t<false/>\n\
             \t</dict>\n\
             \t<key>ExitTimeOut</key>\n\
             \t<integer>{stop_time}</integer>\n\
             \t<key>ProcessType</key>\n\
             \t<string>Interactive</string>\n\
             \t<key>StandardOutPath</key>\n\
             {log}\
             \t<key>StandardErrorPath</key>\n\
             {log}\
             </dict>\n\
             </plist>\n",
            log = log.replacen("\t\t", "\t", 1),
            stop_time = definition.stop_time.as_secs(),
        )
    }

    fn check(&self) -> Result<(), String> {
        let reached = output_of(&mut launchctl(["print", &self.domain]));
        let cannot = |why| format!("the launchd of this user's session cannot be used: {why}");
        reached.map(drop).map_err(cannot)
    }

    fn reload(&self) {}

    fn variable(&self, name: &str) -> Option<String> {
        let value = output_of(&mut launchctl(["getenv", name])).ok()?;
        let value = value.trim_end_matches('\n');
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn enable(&self) -> Result<(), Failure> {
        change(&mut launchctl(["enable", &self.service()]))
    }

    fn restart(&self) -> Result<(), Failure> {
        self.unload()?;
        let file = self.file();
        let mut bootstrap = launchctl(["bootstrap", &self.domain]);
        change(bootstrap.arg(file))?;
        let runs = || {
            let description = self.description();
            description.is_some_and(|description| parsed(&description).pid.is_some())
        };
        if until(START_TIME_MAX, runs) {
            return Ok(());
        }
        let why = self
            .last_words()
            .unwrap_or_else(|| "it ends at once".to_owned());
        let log = self.commands().log;
        Err(Failure::could_not(format!(
            "the service does not start: {why}; `{log}` shows more"
        )))
    }

    fn disable(&self) -> Result<(), Failure> {
        self.unload()
    }

    fn forget(&self) {}

    fn state(&self) -> Result<State, Failure> {
        let file = self.file();
        let is_installed = file.exists();
        let description = self.description();
        let mut state = description.as_deref().map(parsed).unwrap_or_default();
        state.file = is_installed.then_some(file);
        state.is_enabled = is_installed && !self.is_disabled();
        if let Some(why) = &mut state.last_failure
            && let Some(said) = self.last_words()
        {
            *why = said;
        }
        Ok(state)
    }

    fn commands(&self) -> Commands {
        let (service, domain) = (self.service(), &self.domain);
        let file = format!("~/Library/LaunchAgents/{LABEL}.plist");
        Commands {
            start: format!("launchctl bootstrap {domain} {file}"),
            enable: format!("launchctl enable {service}"),
            reload: format!("launchctl bootout {service}"),
            log: "tail ~/Library/Logs/ic.log".to_owned(),
            set_variable: "with `launchctl setenv NAME value`, after each login",
            without_login: None,
        }
    }
}

fn launchctl<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("launchctl");
    command.args(arguments);
    command
}

/// Waits until `is_so`, at most for `time`; returns whether it was.
fn until(time: Duration, is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// The state in what `launchctl print` prints of the service.
fn parsed(description: &str) -> State {
    let value = |name: &str| {
        let mut lines = description
            .lines()
            .filter_map(|line| line.split_once(" = "));
        lines.find_map(|(found, value)| (found.trim() == name).then_some(value.trim()))
    };
    let pid = value("pid").and_then(|pid| pid.parse().ok());
    let failed = value("last exit code").filter(|code| !matches!(*code, "0" | "(never exited)"));
    State {
        pid,
        program: value("program").map(PathBuf::from),
        last_failure: failed.map(|code| format!("it has exited with {code}")),
        ..State::default()
    }
}

/// A line of an array with this text in XML 1.0, which has no control characters but these.
fn string(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '\r' => escaped += "&#13;",
            _ => escaped.push(character),
        }
    }
    format!("\t\t<string>{escaped}</string>\n")
}

/// The name of the agent.
const LABEL: &str = "interceptor.ic";

/// Longer than launchd waits before it kills the process, with the default `--grace`.
const UNLOAD_TIME_MAX: Duration = Duration::from_secs(30);

/// The process runs as soon as the agent is loaded, unless it ends at once.
const START_TIME_MAX: Duration = Duration::from_secs(2);

/// Between two looks at what launchd has done.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_a_property_list() {
        let definition = Definition {
            program: "/Users/me/a & b/ic".into(),
            arguments: vec!["serve".into(), "--all".into(), "x: <\"1\">".into()],
            variables: vec![("PORT_REGISTRY_PATH", "/a&b".into())],
            stop_time: Duration::from_secs(15),
        };
        let launchd = Launchd {
            home: "/Users/me".into(),
            domain: "gui/501".to_owned(),
        };
        assert_eq!(
            launchd.file(),
            Path::new("/Users/me/Library/LaunchAgents/interceptor.ic.plist")
        );
        let text = launchd.text(&definition);
        for part in [
            "<string>/Users/me/a &amp; b/ic</string>\n\t\t<string>serve</string>\n\t\t<string>--all</string>\n",
            "\t\t<string>x: &lt;\"1\"&gt;</string>\n",
            "\t\t<key>PORT_REGISTRY_PATH</key>\n\t\t<string>/a&amp;b</string>\n",
            "\t<key>RunAtLoad</key>\n\t<true/>\n",
            "\t<key>KeepAlive</key>\n\t<dict>\n\t\t<key>SuccessfulExit</key>\n\t\t<false/>\n\t</dict>\n",
            "\t<key>ExitTimeOut</key>\n\t<integer>15</integer>\n",
            "\t<key>StandardErrorPath</key>\n\t<string>/Users/me/Library/Logs/ic.log</string>\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let without = Definition {
            variables: Vec::new(),
            ..definition
        };
        assert!(!launchd.text(&without).contains("EnvironmentVariables"));
    }

    #[test]
    fn the_state_is_read_from_the_description() {
        let description = "gui/501/interceptor.ic = {\n\tactive count = 1\n\tstate = running\n\n\tprogram = /usr/local/bin/ic\n\t\
                           runs = 1\n\tpid = 812\n\tlast exit code = (never exited)\n}\n";
        let state = parsed(description);
        assert_eq!((state.pid, state.last_failure), (Some(812), None));
        assert_eq!(state.program, Some("/usr/local/bin/ic".into()));
        let state = parsed("x = {\n\tstate = spawn scheduled\n\tlast exit code = 2\n}\n");
        assert_eq!(state.pid, None);
        assert_eq!(state.last_failure.as_deref(), Some("it has exited with 2"));
        assert_eq!(parsed(""), State::default());
    }
}
