//! What to do where there is no service manager.

use std::path::Path;

use super::manager::Definition;
use crate::cli::env::shell;
use crate::cli::settings::Environment;
use crate::text::raw;

/// What starts `ic serve --all` instead, with the line and its place.
pub fn instead(environment: &Environment<'_>, definition: Option<&Definition>) -> String {
    let command = command_line(definition);
    let is_container = environment.variable("container").is_some()
        || ["/run/.containerenv", "/.dockerenv"]
            .iter()
            .any(|it| Path::new(it).exists());
    if is_container {
        return format!("in a container, let its entrypoint run `{command}`");
    }
    let profile = format!("put `{command} 2>/dev/null &` into `~/.profile`");
    if environment.variable("WSL_DISTRO_NAME").is_some() {
        return format!(
            "in WSL, put `systemd=true` below `[boot]` into `/etc/wsl.conf`, run `wsl --shutdown`, and try again; or {profile}"
        );
    }
    if Path::new("/run/systemd/system").exists() {
        return format!(
            "log in as this user itself, not through `su` or `sudo`, and try again; or {profile}"
        );
    }
    profile
}

/// What the service would run, as a line for `sh`.
fn command_line(definition: Option<&Definition>) -> String {
    let Some(definition) = definition else {
        return "ic serve --all".to_owned();
    };
    let mut words: Vec<String> = Vec::new();
    for (name, value) in &definition.variables {
        words.push(format!("{name}={}", shell::word(&raw::to_text(value))));
    }
    words.push(shell::word(&raw::to_text(definition.program.as_os_str())));
    let arguments = definition.arguments.iter();
    words.extend(arguments.map(|word| shell::word(&raw::to_text(word))));
    words.join(" ")
}
