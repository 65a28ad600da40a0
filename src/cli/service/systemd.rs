//! A unit of the user's systemd, through `systemctl --user`: the one interface of it that needs no library for D-Bus.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::manager::{Commands, Definition, MARK, Manager, State, change, output_of};
use crate::cli::outcome::Failure;
use crate::cli::settings::Environment;
use crate::cli::systemd_unit::word;

/// The systemd of this user.
pub struct Systemd {
    /// The folder of the user's configuration.
    folder: PathBuf,
    /// `XDG_RUNTIME_DIR`, where systemd listens, if the environment lacks it.
    runtime: Option<PathBuf>,
    /// The name of the user, if the service would end with the last login and there is no display to log in at.
    headless_user: Option<String>,
    environment: OnceCell<Result<Vec<(String, String)>, String>>,
}

impl Systemd {
    /// That of the user with this environment and this home folder.
    pub fn new(environment: &Environment<'_>, home: &Path) -> Systemd {
        let absolute = |name: &'static str| {
            let given = environment.variable(name)?;
            let path = given.path().ok().filter(|path| path.is_absolute());
            path.map(Path::to_owned)
        };
        let uid = rustix::process::geteuid().as_raw();
        // Missing behind `su`; systemctl needs it.
        let runtime = PathBuf::from(format!("/run/user/{uid}"));
        let is_ours = std::fs::metadata(&runtime).is_ok_and(|found| found.uid() == uid);
        let is_missing = environment.variable("XDG_RUNTIME_DIR").is_none();
        let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| environment.variable(name).is_some());
        let user = crate::cli::placeholders::user(environment);
        let lingers = Path::new("/var/lib/systemd/linger").join(&user).exists();
        Systemd {
            folder: absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            runtime: (is_missing && is_ours).then_some(runtime),
            headless_user: (!has_display && !lingers).then_some(user),
            environment: OnceCell::new(),
        }
    }

    fn systemctl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("systemctl");
        // Messages are shown, and never translated.
        command.arg("--user").args(arguments).env("LC_ALL", "C");
        if let Some(runtime) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command
    }

    /// The environment that it gives to services, or why it cannot be reached.
    fn environment(&self) -> &Result<Vec<(String, String)>, String> {
        self.environment.get_or_init(|| {
            let shown = output_of(&mut self.systemctl(["show-environment"]))?;
            let variables = shown.lines().filter_map(|line| line.split_once('='));
            let variables = variables.map(|(name, value)| (name.to_owned(), unquoted(value)));
            Ok(variables.collect())
        })
    }

    /// The last line that the last process of the service has written. It may arrive a little later than the process ends.
    fn last_words(&self) -> Option<String> {
        let process =
            output_of(&mut self.systemctl(["show", "--property=ExecMainPID", UNIT])).ok()?;
        let pid = process.trim().strip_prefix("ExecMainPID=")?;
        let uid = rustix::process::geteuid().as_raw();
        let read = || {
            // Not `--user`: that reads files which a journal in memory does not have.
            let mut journalctl = Command::new("journalctl");
            journalctl.args([
                "--boot",
                "--quiet",
                "--no-pager",
                "--output=cat",
                "--lines=1",
            ]);
            journalctl.args([format!("_PID={pid}"), format!("_UID={uid}")]);
            output_of(&mut journalctl)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let deadline = Instant::now() + LAST_WORDS_TIME_MAX;
        let mut said = read();
        while said.is_empty() && Instant::now() < deadline {
            thread::sleep(PAUSE);
            said = read();
        }
        let said = said.strip_prefix("ic: ").unwrap_or(&said);
        (!said.is_empty()).then(|| said.to_owned())
    }
}

impl Manager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn file(&self) -> PathBuf {
        self.folder.join("systemd/user").join(UNIT)
    }

    fn text(&self, definition: &Definition) -> String {
        let mut command = word(definition.program.as_os_str(), "");
        for argument in &definition.arguments {
            // Variables are filled in in arguments, and not in the program.
            command += " ";
            command += &word(argument, "$");
        }
        let mut variables = String::new();
        for (name, value) in &definition.variables {
            let mut assignment = OsString::from(format!("{name}="));
            assignment.push(value);
            variables += &format!("Environment={}\n", word(&assignment, ""));
        }
        format!(
            "# {MARK}; `systemctl --user edit ic` adds to it.\n\
             [Unit]\n\
             Description=ic serve --all: the interceptors of all projects\n\
             # It is tried for ever: the home folder may be mounted late, and another `ic serve --all` may run.\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             ExecStart={command}\n\
             {variables}\
             UnsetEnvironment=INTERCEPTOR_PORT\n\
             Restart=on-failure\n\
             RestartSec=2\n\
             # A value that cannot be used is no better the next time.\n\
             RestartPreventExitStatus=2\n\
             TimeoutStopSec={stop_time}\n\
             {SANDBOX}\
             \n\
             [Install]\n\
             WantedBy=default.target\n",
            stop_time = definition.stop_time.as_secs(),
        )
    }

    fn check(&self) -> Result<(), String> {
        let reached = self.environment().as_ref();
        let cannot = |why: &String| format!("the systemd of this user cannot be used: {why}");
        reached.map(drop).map_err(cannot)
    }

    fn reload(&self) {
        // If it fails, so does what comes next.
        let _ = output_of(&mut self.systemctl(["daemon-reload"]));
    }

    fn variable(&self, name: &str) -> Option<String> {
        let mut variables = self.environment().as_ref().ok()?.iter();
        let (_, value) = variables.find(|(found, _)| found == name)?;
        Some(value.clone())
    }

    fn enable(&self) -> Result<(), Failure> {
        change(&mut self.systemctl(["daemon-reload"]))?;
        change(&mut self.systemctl(["--quiet", "enable", UNIT]))
    }

    fn restart(&self) -> Result<(), Failure> {
        // Ends the pause before the next attempt.
        let _ = output_of(&mut self.systemctl(["reset-failed", UNIT]));
        change(&mut self.systemctl(["restart", UNIT])).map_err(|failure| {
            let why = self.last_words().unwrap_or(failure.message);
            let log = self.commands().log;
            Failure::could_not(format!(
                "the service does not start: {why}; `{log}` shows more"
            ))
        })
    }

    fn disable(&self) -> Result<(), Failure> {
        change(&mut self.systemctl(["--quiet", "--now", "disable", UNIT]))
    }

    fn forget(&self) {
        self.reload();
        // Fails where there is nothing to forget.
        let _ = output_of(&mut self.systemctl(["reset-failed", UNIT]));
    }

    fn state(&self) -> Result<State, Failure> {
        let shown = output_of(&mut self.systemctl([
            "show",
            "--property=LoadState,FragmentPath,UnitFileState,ActiveState,MainPID,Result,NeedDaemonReload",
            UNIT,
        ]))
        .map_err(|why| Failure::could_not(format!("systemd does not show the service: {why}")))?;
        // Separately: it fails where a word is not UTF-8.
        let command = output_of(&mut self.systemctl(["show", "--property=ExecStart", UNIT]));
        let mut state = parsed(&shown);
        state.program = command.ok().as_deref().and_then(program_in);
        if let Some(result) = &mut state.last_failure
            && let Some(said) = self.last_words()
        {
            *result = said;
        }
        Ok(state)
    }

    fn commands(&self) -> Commands {
        let without_login = self.headless_user.as_deref().map(|user| {
            format!(
                "it ends when `{user}` has logged out everywhere; `loginctl enable-linger` lets it run from the start of \
                 this machine on"
            )
        });
        Commands {
            start: format!("systemctl --user start {UNIT}"),
            enable: format!("systemctl --user enable {UNIT}"),
            reload: "systemctl --user daemon-reload".to_owned(),
            log: format!("journalctl -e --user-unit {UNIT}"),
            set_variable: "in a line `NAME=value` of a file `~/.config/environment.d/ic.conf` with mode 600",
            without_login,
        }
    }
}

/// The state in the properties that `systemctl show` prints.
fn parsed(shown: &str) -> State {
    let property = |name: &str| {
        let mut lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.find_map(|(found, value)| (found == name).then_some(value))
    };
    let property = |name| property(name).unwrap_or_default();
    let is_known = !matches!(property("LoadState"), "" | "not-found");
    let is_active = matches!(property("ActiveState"), "active" | "reloading");
    let pid = property("MainPID").parse().ok().filter(|&pid| pid != 0);
    let result = property("Result");
    State {
        file: is_known.then(|| PathBuf::from(property("FragmentPath"))),
        is_enabled: matches!(property("UnitFileState"), "enabled" | "enabled-runtime"),
        pid: pid.filter(|_| is_active),
        program: None,
        last_failure: (!matches!(result, "" | "success"))
            .then(|| format!("systemd says `{result}`")),
        is_outdated: property("NeedDaemonReload") == "yes",
    }
}

/// The program in a property `ExecStart`: `{ path=/usr/bin/ic ; argv[]=…`.
fn program_in(shown: &str) -> Option<PathBuf> {
    let (_, rest) = shown.split_once("{ path=")?;
    let (program, _) = rest.split_once(" ; argv[]=")?;
    Some(program.into())
}

/// A value as `systemctl show-environment` prints it: plain, or as `$'…'` of a shell.
fn unquoted(value: &str) -> String {
    let inside = value
        .strip_prefix("$'")
        .and_then(|value| value.strip_suffix('\''));
    let Some(inside) = inside else {
        return value.to_owned();
    };
    let mut plain = String::new();
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

/// The journal has them within milliseconds, if this user may read it at all.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(500);

/// Between two looks into the journal.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of the unit.
const UNIT: &str = "ic.service";

/// What an interceptor never does. Not restricted is what it may: registries, certificates and repositories lie anywhere.
/// Nothing here needs a mount or a user namespace, which some systems refuse to users.
const SANDBOX: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_from_the_properties() {
        #[track_caller]
        fn check(shown: &str, expected: State) {
            assert_eq!(parsed(shown), expected);
        }
        check("", State::default());
        check(
            "LoadState=not-found\nMainPID=0\nFragmentPath=\n",
            State::default(),
        );
        let installed = State {
            file: Some("/u/ic.service".into()),
            ..State::default()
        };
        let loaded = "LoadState=loaded\nFragmentPath=/u/ic.service\n";
        check(loaded, installed.clone());
        check(
            &format!(
                "{loaded}ActiveState=active\nMainPID=12\nUnitFileState=enabled\nResult=success\n"
            ),
            State {
                pid: Some(12),
                is_enabled: true,
                ..installed.clone()
            },
        );
        // It is being started: it does not serve yet.
        check(
            &format!("{loaded}ActiveState=activating\nMainPID=12\nNeedDaemonReload=yes\n"),
            State {
                is_outdated: true,
                ..installed.clone()
            },
        );
        check(
            &format!("{loaded}ActiveState=failed\nMainPID=0\nResult=exit-code\n"),
            State {
                last_failure: Some("systemd says `exit-code`".to_owned()),
                ..installed
            },
        );
    }

    #[test]
    fn the_program_is_read_from_its_property() {
        let shown =
            "ExecStart={ path=/home/a b/ic ; argv[]=/home/a b/ic serve --all ; ignore_errors=no }";
        assert_eq!(program_in(shown), Some("/home/a b/ic".into()));
        assert_eq!(program_in("ExecStart="), None);
        assert_eq!(program_in(""), None);
    }

    #[test]
    fn a_variable_is_read_as_systemctl_prints_it() {
        for (shown, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("$'a b$c'", "a b$c"),
            ("$'it\\'s \\\\'", "it's \\"),
            ("$x", "$x"),
        ] {
            assert_eq!(unquoted(shown), expected);
        }
    }
}
