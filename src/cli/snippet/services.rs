//! Files that start an interceptor, and probe it with `ic health`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::facts::{Container, Facts, File, Unit, string};
use crate::cli::address::BaseUrls;
use crate::cli::serve::is_this_machine;
use crate::cli::systemd_unit::word;
use crate::serve::{Endpoint, Target};

/// A unit of the user's own systemd.
pub fn systemd(facts: &Facts, unit: &Unit) -> File {
    let program = std::env::current_exe().map_or_else(|_| "ic".into(), PathBuf::into_os_string);
    let mut environment = String::new();
    for (name, value) in &unit.variables {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        environment += &format!("Environment={}\n", word(&assignment, ""));
    }
    let id = label(&facts.project);
    let mut hint = format!(
        "this goes into `~/.config/systemd/user/ic-{id}.service`; start it with `systemctl --user enable --now ic-{id}`, \
         and without a login with `loginctl enable-linger`"
    );
    if !unit.unknown.is_empty() {
        // Not required: `ic` says which variable is missing, and they can come from elsewhere.
        environment += &format!("EnvironmentFile=-%h/.config/systemd/user/ic-{id}.env\n");
        hint += &format!(
            "; the fields of `ic set` need `{}=…` in `ic-{id}.env` beside it, which only you should be able to read",
            unit.unknown.join("=…` and `")
        );
    }
    File {
        content: format!(
            "[Unit]\n\
             Description=Interceptor of {name}, port {port}\n\
             \n\
             [Service]\n\
             Type=notify\n\
             # With a socket of systemd's (`ic snippet systemd-socket`), ` --idle-exit 600` behind it lets it sleep.\n\
             ExecStart={program} serve --project {path}\n\
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
        ),
        hint,
    }
}

/// The socket of such a unit: systemd listens, and starts the service when a client comes.
pub fn systemd_socket(facts: &Facts, _: &Unit) -> File {
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
pub fn compose(facts: &Facts, container: &Container) -> File {
    let port = facts.port;
    let (target, way, hint) = compose_target(container);
    let mut unknown = String::new();
    for name in &container.unknown {
        unknown += &format!(
            "      {name}: \"${{{name}:?set it for compose, in the shell or in .env}}\"\n"
        );
    }
    File {
        content: format!(
            "services:\n\
             \x20 ic:\n\
             \x20   image: ic\n\
             \x20   # Other services reach it as `ic`, this machine as `localhost`.\n\
             \x20   command: {command}\n\
             \x20   environment:\n\
             \x20     INTERCEPTOR_PORT: \"{port}\"\n\
             \x20     TARGET_LLM_URL: {target}\n\
             \x20     SUPERMEMORY_USERNAME: {instance}\n\
             {unknown}\
             {way}\
             \x20   # Reachable from this machine only.\n\
             \x20   ports: [\"127.0.0.1:{port}:{port}\"]\n\
             \x20   healthcheck:\n\
             \x20     test: [\"CMD\", \"/ic\", \"health\", \"--ready\"]\n\
             \x20     interval: 10s\n\
             \x20     timeout: 5s\n\
             \x20     start_period: 60s\n",
            command = command(
                &["--host", "0.0.0.0", "--allow-host", "ic"],
                container,
                compose_string
            ),
            target = compose_string(&target),
            instance = compose_string(&container.instance),
        ),
        hint: format!(
            "this goes into `compose.yaml`; `ic` is an image that holds the program as `/ic`{hint}"
        ),
    }
}

/// The target as the container reaches it, the lines that it needs for that, and what is to be known about it.
fn compose_target(container: &Container) -> (String, String, String) {
    let (text, target) = &container.target;
    match target.endpoint() {
        Endpoint::Tcp(host, port) if is_this_machine(host) => (
            with_host(target, HOST),
            format!(
                "    # This machine, as the container reaches it.\n    extra_hosts: [\"{HOST}:host-gateway\"]\n"
            ),
            format!(
                ", and TARGET_LLM_URL is port {port} of this machine: there the proxy has to accept connections of \
                 containers, which on Linux do not come from 127.0.0.1; of a proxy that is a service of this file, write \
                 `http://NAME:PORT`"
            ),
        ),
        Endpoint::Tcp(..) => (
            text.clone(),
            String::new(),
            ", and TARGET_LLM_URL names the proxy as the container reaches it".to_owned(),
        ),
        Endpoint::Unix(path) => {
            // The folder, so that a new socket in the place of the old one is seen.
            let folder = path.parent().unwrap_or(path).to_string_lossy();
            let folder = compose_string(&folder);
            let mount =
                format!("    volumes: [{{type: bind, source: {folder}, target: {folder}}}]\n");
            (text.clone(), mount, String::new())
        }
    }
}

/// A string of a compose file, in which variables are filled in everywhere.
fn compose_string(text: &str) -> String {
    string(text).replace('$', "$$")
}

/// A pod with the interceptor as a sidecar: an init container that goes on, which is started first and stopped last.
pub fn kubernetes(facts: &Facts, container: &Container) -> File {
    let port = facts.port;
    let label = label(&facts.project);
    let (target, hint) = pod_target(container);
    let (unknown, secret) = pod_secret(&label, &container.unknown);
    let urls = BaseUrls::new(facts.urls.authority.clone(), Some(&container.target.1));
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
             \x20     command: {command}\n\
             \x20     env:\n\
             \x20       - {{name: INTERCEPTOR_PORT, value: \"{port}\"}}\n\
             \x20       - {{name: TARGET_LLM_URL, value: {target}}}\n\
             \x20       - {{name: SUPERMEMORY_USERNAME, value: {instance}}}\n\
             {unknown}\
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
            command = command(&[], container, pod_string),
            target = pod_string(&target),
            instance = pod_string(&container.instance),
            openai = urls.openai(),
            anthropic = urls.bare(),
        ),
        hint: format!(
            "this is a pod of Kubernetes 1.29 or newer; `ic` is an image that holds the program as `/ic`{hint}{secret}"
        ),
    }
}

/// The target as the pod reaches it, and what is to be known about it.
fn pod_target(container: &Container) -> (String, String) {
    let (text, target) = &container.target;
    match target.endpoint() {
        // In the pod it is the pod itself.
        Endpoint::Tcp(host, _) if is_this_machine(host) => (
            with_host(target, PROXY),
            format!(", and {PROXY} stands for the name of the proxy as the pod reaches it"),
        ),
        _ => (
            text.clone(),
            ", and TARGET_LLM_URL names the proxy as the pod reaches it".to_owned(),
        ),
    }
}

/// The lines for variables from a secret, and the command that makes it.
fn pod_secret(label: &str, names: &[String]) -> (String, String) {
    if names.is_empty() {
        return Default::default();
    }
    let mut lines = String::new();
    for name in names {
        lines += &format!(
            "        - {{name: {name}, valueFrom: {{secretKeyRef: {{name: ic-{label}, key: {name}}}}}}}\n"
        );
    }
    let hint = format!(
        "; `kubectl create secret generic ic-{label} --from-literal={}=…` makes the secret that its fields need",
        names.join("=… --from-literal=")
    );
    (lines, hint)
}

/// A string of a pod, of which Kubernetes does not take a part for a variable.
fn pod_string(text: &str) -> String {
    string(&kubernetes_text(text))
}

/// The command line of `ic serve` as a list of strings; its path and these options need no quoting.
fn command(options: &[&str], container: &Container, string: impl Fn(&str) -> String) -> String {
    let mut words: Vec<String> = ["/ic", "serve"]
        .iter()
        .chain(options)
        .map(|word| string(word))
        .collect();
    for field in &container.fields {
        words.extend([string("--header"), string(field)]);
    }
    format!("[{}]", words.join(", "))
}

/// The URL of a target on another host.
fn with_host(target: &Target, host: &str) -> String {
    let scheme = if target.is_https() { "https" } else { "http" };
    let port = match target.endpoint() {
        Endpoint::Tcp(_, port) => format!(":{port}"),
        Endpoint::Unix(_) => String::new(),
    };
    format!("{scheme}://{host}{port}{}", target.base_path())
}

/// A text in which Kubernetes finds no `$(NAME)` of its own; it reads `$$` as `$`.
fn kubernetes_text(text: &str) -> String {
    let mut doubled = String::new();
    let mut ahead = text.chars().peekable();
    while let Some(character) = ahead.next() {
        doubled.push(character);
        if character == '$' && matches!(ahead.peek(), Some('$' | '(')) {
            doubled.push('$');
        }
    }
    doubled
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

/// This machine, as Docker and Compose call it in containers.
const HOST: &str = "host.docker.internal";

/// A placeholder for the user to replace.
const PROXY: &str = "YOUR-PROXY";

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

    #[test]
    fn kubernetes_reads_a_text_as_it_is() {
        // Its rule: `$$` is `$`, `$(NAME)` a variable, and every other `$` itself.
        #[track_caller]
        fn check(text: &str, written: &str) {
            assert_eq!(kubernetes_text(text), written);
        }
        check("a $5 {port} $", "a $5 {port} $");
        check("$(A)", "$$(A)");
        check("$$", "$$$");
        check("$$(A)", "$$$$(A)");
        check("$$5", "$$$5");
    }

    #[test]
    fn a_target_on_another_host_keeps_the_rest() {
        #[track_caller]
        fn check(target: &str, expected: &str) {
            let target: Target = target.parse().expect("a target");
            assert_eq!(with_host(&target, "llm"), expected);
        }
        check("http://localhost:8764", "http://llm:8764");
        check("http://127.0.0.1/base/", "http://llm:80/base");
        check("http://[::1]:1", "http://llm:1");
        #[cfg(feature = "tls")]
        check("https://localhost", "https://llm:443");
    }
}
