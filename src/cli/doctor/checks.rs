//! The checks of the registry, the port, and the target. Those of variables are in `variables`, that of the stream in `stream`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::cli::context::{Context, RegistryHandle};
use crate::cli::mapping::{command_for, commands_for_another_port, port_above};
use crate::cli::outcome::Failure;
use crate::cli::port_state::{PortState, port_state};
use crate::cli::settings::{self, SourcedValue};
use crate::machine::client::Response;
use crate::machine::connect::reach;
use crate::machine::interceptor::{Identity, interceptor_at};
use crate::machine::survey::is_for;
use crate::registry::project::Project;
use crate::registry::store::{REPLACED_MOUNT, lock_beside};
use crate::registry::{Port, Registry};
use crate::serve::Target;
use crate::text::{escaped_path, io_message};

use super::finding::Finding;
use super::variables::{CONNECT_TIME_MAX, ENDPOINTS};

/// Checks the registry file; returns its content too.
pub fn registry(handle: &RegistryHandle, project: &Project) -> (Finding, Registry) {
    const CHECK: &str = "Registry";
    let file = handle.store.path();
    let snapshot = match handle.store.read() {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let finding = Finding::wrong(CHECK, error.to_string());
            return (finding, Registry::default());
        }
    };
    let registry = snapshot.registry;
    let finding = match (snapshot.warning, writable(file)) {
        (Some(warning), _) => Finding::wrong(CHECK, warning.to_string()),
        (None, Err((path, error))) => {
            let has_port = registry.port_of(project).is_some();
            Finding::wrong(CHECK, not_writable(&path, &error, has_port))
        }
        (None, Ok(())) => {
            let count = registry.len();
            let s = if count == 1 { "" } else { "s" };
            let file = escaped_path(file);
            Finding::good(CHECK, format!("{file}, {count} project{s}"))
        }
    };
    (finding, registry)
}

/// Checks whether the file can be written, and so can its folder, or the nearest one above that exists: for the new file, or the
/// copy of one that is written in place. The lock beside it may belong to another user.
fn writable(file: &Path) -> Result<(), (PathBuf, io::Error)> {
    // Links lead to another folder.
    let file = Project::resolve(file).map_err(|error| (file.to_owned(), error))?;
    let file = file.path();
    let can_write = |path: &Path, access_wanted| match access(path, access_wanted) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err((path.to_owned(), io::Error::from(error))),
    };
    can_write(file, Access::READ_OK | Access::WRITE_OK)?;
    if file.metadata().is_ok_and(|found| found.nlink() == 0) {
        return Err((file.to_owned(), io::Error::other(REPLACED_MOUNT)));
    }
    can_write(&lock_beside(file), Access::READ_OK)?;
    for folder in file.ancestors().skip(1) {
        if can_write(folder, Access::WRITE_OK | Access::EXEC_OK)? {
            break;
        }
    }
    Ok(())
}

fn not_writable(path: &Path, error: &io::Error, has_port: bool) -> String {
    let consequence = if has_port {
        "new projects get no port"
    } else {
        "this project can get no port"
    };
    format!(
        "`{}` cannot be written ({}): {consequence}; change its permissions, or give another file with --registry or \
         PORT_REGISTRY_PATH",
        escaped_path(path),
        io_message(error)
    )
}

/// Checks the project's port and what listens on it; returns the port and the project's interceptor too, if there are such.
pub fn port(
    context: &Context<'_>,
    path: Option<&str>,
    registry: &Registry,
    project: &Project,
) -> Result<(Finding, Option<Port>, Option<Identity>), Failure> {
    let variable = context.environment.variable(settings::PORT);
    let variable = variable.filter(|_| path.is_none());
    let given = variable.map(|given| given.port()).transpose()?;
    let Some(port) = given.or_else(|| registry.port_of(project)) else {
        let path = escaped_path(project.path());
        let serve = command_for("serve", project);
        let above = port_above(registry, project).map(|above| format!("; {above}"));
        let message = format!(
            "none is assigned to `{path}`; {serve} assigns one and listens on it{}",
            above.unwrap_or_default()
        );
        return Ok((Finding::note(PORT, message), None, None));
    };
    if let Some(identity) = interceptor_at(port.get()) {
        let (finding, ours) = interceptor(identity, port, given.is_some(), project);
        return Ok((finding, Some(port), ours));
    }
    let finding = match port_state(port) {
        PortState::Free => {
            let serve = command_for("serve", project);
            let message =
                format!("nothing listens on {port}; {serve} starts this project's interceptor");
            Finding::note(PORT, message)
        }
        PortState::NotPermitted => Finding::wrong(
            PORT,
            format!("{port} takes privileges to listen on; choose one of 1024 or above"),
        ),
        PortState::Unknown(refusal) => Finding::wrong(
            PORT,
            format!("{port} cannot be tried ({refusal}); a sandbox may forbid sockets"),
        ),
        PortState::InUse(holder) => {
            let message = held(port, &holder.to_string(), given.is_some(), project);
            Finding::wrong(PORT, message)
        }
    };
    Ok((finding, Some(port), None))
}

/// The finding for an interceptor on the port, which is returned too if it is the project's.
fn interceptor(
    identity: Identity,
    port: Port,
    is_given: bool,
    project: &Project,
) -> (Finding, Option<Identity>) {
    let Identity {
        instance_id, pid, ..
    } = &identity;
    let is_ours = match identity.project {
        Some(_) => is_for(&identity, project.path()),
        // Started with a port and an instance id, it needs no project.
        None => is_given,
    };
    if is_ours {
        let message = format!("{port}, this project's interceptor `{instance_id}` (pid {pid})");
        return (Finding::good(PORT, message), Some(identity));
    }
    let holder = match &identity.project {
        Some(project) => format!("the interceptor of another project, `{project}` (pid {pid})"),
        None => format!("another interceptor, `{instance_id}` (pid {pid})"),
    };
    let message = held(port, &holder, is_given, project);
    (Finding::wrong(PORT, message), None)
}

/// Checks whether clients connect to the port: one that was assigned by another program, or given, may be a bad one.
pub fn bad_port(port: Port, project: &Project) -> Option<Finding> {
    port.is_bad_for_fetch().then(|| {
        let message = format!(
            "browsers and node's fetch refuse to connect to {port}; {} for another one",
            commands_for_another_port(project)
        );
        Finding::wrong("Port", message)
    })
}

fn held(port: Port, holder: &str, is_given: bool, project: &Project) -> String {
    let way_out = if is_given {
        "give another port with INTERCEPTOR_PORT".to_owned()
    } else {
        let (remove, serve) = (
            command_for("remove", project),
            command_for("serve", project),
        );
        format!("{remove} and {serve} for another port")
    };
    format!("{port} is held by {holder}; stop that, or {way_out}")
}

/// Compares the target of the running interceptor with `TARGET_LLM_URL`.
pub fn other_target(running: &str, configured: Option<SourcedValue>) -> Option<Finding> {
    let configured = configured?;
    (configured.text().ok()? != running).then(|| {
        Finding::note(
            "Target",
            format!("the running interceptor leads to {running}, though {configured}; restart it to change that"),
        )
    })
}

/// Checks the target's address, and whether it accepts connections, or the proxy that it is reached through.
pub fn target(target: &Target, proxy: Option<&Target>) -> Finding {
    const CHECK: &str = "Target";
    let base = target.base_path();
    let wrong = |why: String| {
        let way_out = "give its address with --target or TARGET_LLM_URL";
        Finding::wrong(CHECK, format!("{target} {why}{way_out}"))
    };
    if let Some(end) = ENDPOINTS.iter().find(|end| base.ends_with(**end)) {
        return wrong(format!(
            "is an endpoint: requests bring {end} along themselves; "
        ));
    }
    if format!("{base}/").contains("/v1/v1/") {
        return wrong("has /v1 twice; ".to_owned());
    }
    let reached = reach(proxy.unwrap_or(target).endpoint(), CONNECT_TIME_MAX);
    match (reached, proxy) {
        (Ok(()), None) => Finding::good(CHECK, format!("{target} accepts connections")),
        (Ok(()), Some(proxy)) => Finding::good(
            CHECK,
            format!("{target} is reached through the proxy {proxy}, which accepts connections"),
        ),
        (Err(why), Some(proxy)) => Finding::wrong(
            CHECK,
            format!(
                "{target} is reached through the proxy {proxy}, which {why}; correct the variable that names it, or \
                 restart ic without --use-proxy-env"
            ),
        ),
        (Err(why), None) => wrong(format!("{why}; start it, or ")),
    }
}

/// The error of an interceptor that could not get a response from its target: its certificate, or anything else.
pub fn own_error(response: &Response) -> Option<Finding> {
    let code = response.ic_error.as_ref()?;
    let check = match code.as_str() {
        "target_certificate" | "client_certificate" | "target_tls" => "TLS",
        _ => "API",
    };
    let message = response.error_message();
    Some(Finding::wrong(
        check,
        message.unwrap_or_else(|| format!("ic answers {code}")),
    ))
}

/// The certificate of a target in TLS that has answered.
pub fn certificate(target: &Target, is_insecure: bool) -> Finding {
    const CHECK: &str = "TLS";
    if is_insecure {
        Finding::note(
            CHECK,
            format!(
                "the certificate of {target} is not verified, since ic runs with --insecure; give its CA with --ca-file instead"
            ),
        )
    } else {
        Finding::good(CHECK, format!("{target} has a certificate that is trusted"))
    }
}

/// Checks the target's response to a request for its models at `path`, which had the user's key if `has_key`; returns the first of
/// them too.
pub fn api(response: &Response, path: &str, has_key: bool) -> (Finding, Option<String>) {
    const CHECK: &str = "API";
    let status = response.status;
    let document = response.json().unwrap_or_default();
    if let (200, Some(models)) = (status, document["data"].as_array()) {
        let count = models.len();
        let s = if count == 1 { "" } else { "s" };
        let finding = Finding::good(CHECK, format!("{path} lists {count} model{s}"));
        let first = document["data"][0]["id"].as_str();
        return (finding, first.map(str::to_owned));
    }
    let by = response.server.as_ref();
    let by = by.map_or(String::new(), |server| format!(" by `{server}`"));
    let answered = format!("{path} is answered with {status}{by}");
    let finding = match status {
        401 if has_key => Finding::wrong(
            CHECK,
            format!("{answered}: the key in OPENAI_API_KEY was refused; set a valid one"),
        ),
        403 if has_key => Finding::note(
            CHECK,
            format!(
                "{answered}: the key in OPENAI_API_KEY may not list models; name one with --model"
            ),
        ),
        401 | 403 => Finding::note(
            CHECK,
            format!("{answered}: it wants a key; set OPENAI_API_KEY to look further"),
        ),
        200 if response.content_encoding.is_some() => Finding::note(
            CHECK,
            format!(
                "{answered} and a compressed body, which was not asked for; name a model with --model"
            ),
        ),
        // An API without such a list answers in JSON; another server on the port does not.
        404 | 405 | 501 if document.is_object() => Finding::note(
            CHECK,
            format!("{answered}: the target lists no models; name one with --model"),
        ),
        _ => Finding::wrong(
            CHECK,
            format!(
                "{answered}, not with a list of models; is this the LLM proxy's port and path?"
            ),
        ),
    };
    (finding, None)
}

/// The name of the check of the port.
const PORT: &str = "Port";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            body: body.as_bytes().to_vec(),
            ..Response::default()
        }
    }

    #[test]
    fn a_target_is_judged_by_its_address_and_by_whether_it_answers() {
        #[track_caller]
        fn check(address: &str, verdict: Verdict, says: &str) {
            let address: Target = address.parse().expect("a target");
            let finding = target(&address, None);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        check(&url, Verdict::Good, "accepts");
        // Not doubled by ic.
        check(&format!("{url}/v1"), Verdict::Good, "accepts");
        check("http://a:1/v1/v1", Verdict::Wrong, "/v1 twice");
        let endpoint = "http://a:1/v1/chat/completions";
        check(endpoint, Verdict::Wrong, "is an endpoint");
        drop(listener);
        check(&url, Verdict::Wrong, "refuses connections; start it");
        let unknown = "http://no-such-host.invalid";
        check(unknown, Verdict::Wrong, "has no address (");
    }

    #[test]
    fn an_api_is_one_that_lists_its_models() {
        #[track_caller]
        fn check(response: Response, verdict: Verdict, says: &str) {
            let finding =
                own_error(&response).unwrap_or_else(|| api(&response, "/v1/models", false).0);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        }
        let models = r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#;
        check(response(200, models), Verdict::Good, "lists 2 models");
        check(response(401, "{}"), Verdict::Note, "OPENAI_API_KEY");
        check(
            response(404, "<html>"),
            Verdict::Wrong,
            "the LLM proxy's port",
        );
        check(
            response(200, "<html>"),
            Verdict::Wrong,
            "the LLM proxy's port",
        );
        let compressed = Response {
            content_encoding: Some("gzip".to_owned()),
            ..response(200, "\x1f")
        };
        check(compressed, Verdict::Note, "200 and a compressed body");
        // An error of ic itself, such as a bad certificate, is shown as it is.
        let own = Response {
            ic_error: Some("tls".to_owned()),
            ..response(
                502,
                r#"{"error":{"message":"the certificate has expired"}}"#,
            )
        };
        check(own, Verdict::Wrong, "the certificate has expired");
    }

    #[test]
    fn a_registry_that_cannot_be_written_matters_for_who_has_no_port() {
        let message = |has_port| {
            let error = io::ErrorKind::PermissionDenied.into();
            not_writable(Path::new("/r.json"), &error, has_port)
        };
        let start = "`/r.json` cannot be written (permission denied): this project";
        assert!(message(false).starts_with(start), "{}", message(false));
        assert!(message(true).contains("new projects get no port"));
    }
}
