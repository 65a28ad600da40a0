//! Files that start an interceptor, and probe it with `ic health`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::facts::{Facts, File, string};
use crate::cli::address::{anthropic_url, openai_url};
use crate::cli::systemd_unit::word;

/// A unit of the user's own systemd.
pub fn systemd(facts: &Facts) -> File {
    let program = std::env::current_exe().map_or_else(|_| "ic".into(), PathBuf::into_os_string);
    let mut environment = String::new();
    for (name, value) in &facts.settings {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        environment += &format!("Environment={}\n", word(&assignment, ""));
    }
    let id = label(&facts.project);
    File {
        content: format!(
            "[Unit]\n\
             Description=Interceptor of {name}, port {port}\n\
             \n\
             [Service]\n\
             Type=notify\n\
             # With a socket of systemd's (`ic snippet systemd-socket`), ` --idle-exit 600` behind it lets it sleep.\n\
             ExecStart={program} serve --project {path}\n\
             Environment={target}\n\
             {environment}\
             Restart=on-failure\n\
             # A value that cannot be used is no better the next time.\n\
             RestartPreventExitStatus=2\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n",
            // A backslash at the end of a line would take the next one along.
            name = facts.project.replace('%', "%%"),
            port = facts.port,
            program = word(&program, ""),
            // Variables are filled in in arguments, and nowhere else (systemd.service, Command lines).
            path = word(facts.folder.path().as_os_str(), "$"),
            target = word(OsStr::new(&format!("TARGET_LLM_URL={}", facts.target)), ""),
        ),
        hint: format!(
            "this goes into `~/.config/systemd/user/ic-{id}.service`; start it with `systemctl --user enable --now \
             ic-{id}`, and without a login with `loginctl enable-linger`"
        ),
    }
}

/// The socket of such a unit: systemd listens, and starts the service when a client comes.
pub fn systemd_socket(facts: &Facts) -> File {
    let id = label(&facts.project);
    File {
        content: format!(
            "[Unit]\n\
             Description=Port {port} of the interceptor of {name}.\n\
             \n\
             [Socket]\n\
             ListenStream=127.0.0.1:{port}\n\
             ListenStream=[::1]:{port}\n\
             \n\
             [Install]\n\
             WantedBy=sockets.target\n",
            name = facts.project.replace('%', "%%"),
            port = facts.port,
        ),
        hint: format!(
            "this goes into `~/.config/systemd/user/ic-{id}.socket`, beside the service of `ic snippet systemd`; start it \
             in the service's place with `systemctl --user enable --now ic-{id}.socket`"
        ),
    }
}

/// A service of a compose file.
pub fn compose(facts: &Facts) -> File {
    let port = facts.port;
    File {
        content: format!(
            "services:\n\
             \x20 ic:\n\
             \x20   image: ic\n\
             \x20   # Other services reach it as `ic`, this machine as `localhost`.\n\
             \x20   command: [\"/ic\", \"serve\", \"--host\", \"0.0.0.0\", \"--allow-host\", \"ic\"]\n\
             \x20   environment:\n\
             \x20     INTERCEPTOR_PORT: \"{port}\"\n\
             \x20     TARGET_LLM_URL: {target}\n\
             \x20     SUPERMEMORY_USERNAME: {instance}\n\
             \x20   # Reachable from this machine only.\n\
             \x20   ports: [\"127.0.0.1:{port}:{port}\"]\n\
             \x20   healthcheck:\n\
             \x20     test: [\"CMD\", \"/ic\", \"health\", \"--ready\"]\n\
             \x20     interval: 10s\n\
             \x20     timeout: 5s\n\
             \x20     start_period: 60s\n",
            // Variables are filled in everywhere.
            target = string(&facts.target).replace('$', "$$"),
            instance = string(&facts.instance).replace('$', "$$"),
        ),
        hint: "this goes into `compose.yaml`; `ic` is an image that holds the program as `/ic`, and TARGET_LLM_URL \
               names the proxy as the container reaches it"
            .to_owned(),
    }
}

/// A pod with the interceptor as a sidecar: an init container that goes on, which is started first and stopped last.
pub fn kubernetes(facts: &Facts) -> File {
    let port = facts.port;
    File {
        content: format!(
            "apiVersion: v1\n\
             kind: Pod\n\
             metadata:\n\
             \x20 name: {label}\n\
             spec:\n\
             \x20 initContainers:\n\
             \x20   - name: ic\n\
             \x20     image: ic\n\
             \x20     restartPolicy: Always\n\
             \x20     command: [\"/ic\", \"serve\"]\n\
             \x20     env:\n\
             \x20       - {{name: INTERCEPTOR_PORT, value: \"{port}\"}}\n\
             \x20       - {{name: TARGET_LLM_URL, value: {target}}}\n\
             \x20       - {{name: SUPERMEMORY_USERNAME, value: {instance}}}\n\
             \x20     startupProbe:\n\
             \x20       exec: {{command: [\"/ic\", \"health\"]}}\n\
             \x20       periodSeconds: 1\n\
             \x20     readinessProbe:\n\
             \x20       exec: {{command: [\"/ic\", \"health\", \"--ready\"]}}\n\
             \x20       timeoutSeconds: 5\n\
             \x20     livenessProbe:\n\
             \x20       exec: {{command: [\"/ic\", \"health\"]}}\n\
             \x20       timeoutSeconds: 5\n\
             \x20 containers:\n\
             \x20   - name: app\n\
             \x20     image: YOUR-IMAGE\n\
             \x20     env:\n\
             \x20       - {{name: OPENAI_BASE_URL, value: \"{openai}\"}}\n\
             \x20       - {{name: ANTHROPIC_BASE_URL, value: \"{anthropic}\"}}\n",
            label = label(&facts.project),
            target = string(&facts.target),
            instance = string(&facts.instance),
            openai = openai_url(&facts.authority),
            anthropic = anthropic_url(&facts.authority),
        ),
        hint: "this is a pod of Kubernetes 1.29 or newer; `ic` is an image that holds the program as `/ic`, and \
               TARGET_LLM_URL names the proxy as the pod reaches it"
            .to_owned(),
    }
}

/// A name as units and pods may have it (RFC 1123): lower-case letters, digits and single dashes.
fn label(name: &str) -> String {
    let mut label = String::new();
    for character in name.to_lowercase().chars() {
        if character.is_ascii_alphanumeric() {
            label.push(character);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(LABEL_LENGTH_MAX);
    match label.trim_end_matches('-') {
        "" => "project".to_owned(),
        label => label.to_owned(),
    }
}

/// 63 less what may be put in front.
const LABEL_LENGTH_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_that_every_place_takes() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            assert_eq!(label(name), expected);
        }
        check("shop", "shop");
        check("My Shop_2.0", "my-shop-2-0");
        check("--a--", "a");
        check("日本", "project");
        check("", "project");
        check(&"x".repeat(100), &"x".repeat(60));
    }
}
