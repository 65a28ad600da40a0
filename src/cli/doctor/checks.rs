//! The checks: pure functions from what the probes returned to a [`Finding`]. Those of variables are in `variables`, that of the
//! stream in `stream`.

use crate::machine::connect::Unreachable;
use crate::machine::interceptor::Identity;
use crate::machine::process::Process;
use crate::registry::{Port, Refusal};
use crate::serve::Target;

use super::finding::Finding;
use super::variables::ENDPOINTS;
use crate::machine::client::Response;

/// The registry file.
pub struct RegistryState {
    pub file: String,
    /// The number of mappings, or what is wrong.
    pub reading: Result<usize, String>,
    /// The path that cannot be written and the error, if there is one.
    pub writing: Result<(), (String, String)>,
    /// Whether the project has a port.
    pub is_recorded: bool,
}

pub fn registry(state: &RegistryState) -> Finding {
    const CHECK: &str = "Registry";
    let RegistryState {
        file,
        reading,
        writing,
        is_recorded,
    } = state;
    match (reading, writing) {
        (Err(why), _) => Finding::wrong(CHECK, why.clone()),
        (Ok(_), Err((path, why))) => {
            let consequence = if *is_recorded {
                "new projects get no port"
            } else {
                "this project can get no port"
            };
            Finding::wrong(
                CHECK,
                format!(
                    "`{path}` cannot be written ({why}): {consequence}; change its permissions, or give another file \
                     with --registry or PORT_REGISTRY_PATH"
                ),
            )
        }
        (Ok(mappings), Ok(())) => {
            let s = if *mappings == 1 { "" } else { "s" };
            Finding::good(CHECK, format!("{file}, {mappings} project{s}"))
        }
    }
}

/// The port of the project, and what listens on it.
pub enum ProjectPort {
    /// The project at this path, shown, has none.
    None(String),
    Free(Port),
    NotPermitted(Port),
    Unknown(Port, Refusal),
    OwnInterceptor(Port, Identity),
    OtherInterceptor(Port, Identity),
    OtherProgram(Port, Option<Process>),
}

impl ProjectPort {
    /// Returns this project's interceptor, if it runs.
    pub fn interceptor(&self) -> Option<&Identity> {
        match self {
            ProjectPort::OwnInterceptor(_, identity) => Some(identity),
            _ => None,
        }
    }

    /// Returns the port, if the project has one.
    pub fn number(&self) -> Option<Port> {
        match self {
            ProjectPort::None(_) => None,
            ProjectPort::Free(port)
            | ProjectPort::NotPermitted(port)
            | ProjectPort::Unknown(port, _)
            | ProjectPort::OwnInterceptor(port, _)
            | ProjectPort::OtherInterceptor(port, _)
            | ProjectPort::OtherProgram(port, _) => Some(*port),
        }
    }
}

/// `is_given`: the port is that of `INTERCEPTOR_PORT`, not of the registry.
pub fn port(state: &ProjectPort, is_given: bool) -> Finding {
    const CHECK: &str = "Port";
    let way_out = if is_given {
        "stop that, or give another port with INTERCEPTOR_PORT"
    } else {
        "stop that, or `ic remove` and `ic serve` for another port"
    };
    match state {
        ProjectPort::None(project) => Finding::note(
            CHECK,
            format!("none is assigned to `{project}`; `ic serve` assigns one and listens on it"),
        ),
        ProjectPort::Free(port) => Finding::note(
            CHECK,
            format!("nothing listens on {port}; `ic serve` starts this project's interceptor"),
        ),
        ProjectPort::NotPermitted(port) => Finding::wrong(
            CHECK,
            format!("{port} takes privileges to listen on; choose one of 1024 or above"),
        ),
        ProjectPort::Unknown(port, refusal) => Finding::wrong(
            CHECK,
            format!("{port} cannot be tried ({refusal}); a sandbox may forbid sockets"),
        ),
        ProjectPort::OwnInterceptor(port, identity) => Finding::good(
            CHECK,
            format!(
                "{port}, this project's interceptor `{}` (pid {})",
                identity.instance_id, identity.pid
            ),
        ),
        ProjectPort::OtherInterceptor(port, identity) => {
            let whose = match &identity.project {
                Some(project) => format!("the interceptor of another project, `{project}`"),
                None => format!("another interceptor, `{}`", identity.instance_id),
            };
            let pid = identity.pid;
            Finding::wrong(
                CHECK,
                format!("{port} is held by {whose} (pid {pid}); {way_out}"),
            )
        }
        ProjectPort::OtherProgram(port, holder) => {
            let holder = match holder {
                Some(holder) => holder.to_string(),
                None => "a program that this user may not see".to_owned(),
            };
            Finding::wrong(CHECK, format!("{port} is held by {holder}; {way_out}"))
        }
    }
}

/// A running interceptor whose target is not the one that `TARGET_LLM_URL` has: `configured`.
pub fn other_target(
    checked: &str,
    configured: Option<&str>,
    running: Option<&str>,
) -> Option<Finding> {
    let (configured, running) = (configured?, running?);
    (configured != running && checked == running).then(|| {
        Finding::note(
            "Target",
            format!("the running interceptor leads to {running}, though TARGET_LLM_URL={configured}; restart it to change that"),
        )
    })
}

/// A target, and whether it accepts connections; where it is reached through a proxy, whether that does.
pub fn target(
    target: &Target,
    proxy: Option<&Target>,
    reached: &Result<(), Unreachable>,
) -> Finding {
    const CHECK: &str = "Target";
    let base = target.base_path();
    let wrong = |why: String| {
        Finding::wrong(
            CHECK,
            format!("{target} {why}; give its address with --target or TARGET_LLM_URL"),
        )
    };
    if let Some(end) = ENDPOINTS.iter().find(|end| base.ends_with(**end)) {
        return wrong(format!(
            "is an endpoint: requests bring {end} along themselves"
        ));
    }
    if format!("{base}/").contains("/v1/v1/") {
        return wrong("has /v1 twice".to_owned());
    }
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
        (Err(why), None) => Finding::wrong(
            CHECK,
            format!(
                "{target} {why}; start it, or give its address with --target or TARGET_LLM_URL"
            ),
        ),
    }
}

/// The certificate of a target in TLS, as the interceptor reports it.
pub fn tls(
    target: &Target,
    is_insecure: bool,
    models: &Result<Response, Unreachable>,
) -> Option<Finding> {
    const CHECK: &str = "TLS";
    let response = models.as_ref().ok().filter(|_| target.is_https())?;
    let code = response.ic_error.as_deref();
    Some(match code {
        Some("target_certificate" | "client_certificate" | "target_tls") => {
            let message = response.error_message();
            Finding::wrong(
                CHECK,
                message.unwrap_or_else(|| format!("{target} cannot be reached in TLS")),
            )
        }
        // There was no handshake.
        Some(_) => return None,
        None if is_insecure => Finding::note(
            CHECK,
            format!(
                "the certificate of {target} is not verified, since ic runs with --insecure; give its CA with --ca-file instead"
            ),
        ),
        None => Finding::good(CHECK, format!("{target} has a certificate that is trusted")),
    })
}

/// The target's response to a request for its models.
pub fn api(models: &Result<Response, Unreachable>) -> Finding {
    const CHECK: &str = "API";
    let response = match models {
        Ok(response) => response,
        Err(why) => return Finding::wrong(CHECK, format!("the interceptor {why}")),
    };
    let by = response
        .server
        .as_ref()
        .map_or(String::new(), |server| format!(" by `{server}`"));
    let status = response.status;
    match (&response.ic_error, response.json()) {
        (Some(code), _) => {
            let message = response.error_message();
            Finding::wrong(
                CHECK,
                message.unwrap_or_else(|| format!("ic answers {code}")),
            )
        }
        (None, Some(document)) if status == 200 && document["data"].is_array() => {
            let models = document["data"].as_array().map_or(0, Vec::len);
            let s = if models == 1 { "" } else { "s" };
            Finding::good(CHECK, format!("/v1/models lists {models} model{s}"))
        }
        (None, _) if matches!(status, 401 | 403) => Finding::note(
            CHECK,
            format!(
                "/v1/models is answered with {status}{by}: it wants a key; set OPENAI_API_KEY to look further"
            ),
        ),
        _ => Finding::wrong(
            CHECK,
            format!(
                "/v1/models is answered with {status}{by}, not with a list of models; is this the LLM proxy's port and path?"
            ),
        ),
    }
}

/// Whether a stream can be requested: the target has answered, and not the interceptor in its place.
pub fn may_stream(models: &Result<Response, Unreachable>) -> bool {
    models
        .as_ref()
        .is_ok_and(|response| response.ic_error.is_none())
}

/// Returns the id of the first model that the target lists.
pub fn first_model(models: &Result<Response, Unreachable>) -> Option<String> {
    let document = models.as_ref().ok()?.json()?;
    Some(document["data"][0]["id"].as_str()?.to_owned())
}

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
        fn check(address: &str, reached: Result<(), Unreachable>, verdict: Verdict, says: &str) {
            let address: Target = address.parse().expect("a target");
            let finding = target(&address, None, &reached);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        }
        check("http://a:1", Ok(()), Verdict::Good, "accepts");
        check("http://a:1/v1", Ok(()), Verdict::Good, "accepts"); // not doubled by ic
        check("http://a:1/v1/v1", Ok(()), Verdict::Wrong, "/v1 twice");
        check(
            "http://a:1/v1/chat/completions",
            Ok(()),
            Verdict::Wrong,
            "is an endpoint",
        );
        check(
            "http://a:1",
            Err(Unreachable::Refused),
            Verdict::Wrong,
            "refuses connections; start it",
        );
        let unknown = Unreachable::NoAddress("unknown".to_owned());
        check(
            "http://a:1",
            Err(unknown),
            Verdict::Wrong,
            "has no address (unknown)",
        );
    }

    #[test]
    fn an_api_is_one_that_lists_its_models() {
        #[track_caller]
        fn check(response: Result<Response, Unreachable>, verdict: Verdict, says: &str) {
            let finding = api(&response);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(says), "{finding:?}");
        }
        let models = r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#;
        check(Ok(response(200, models)), Verdict::Good, "lists 2 models");
        check(Ok(response(401, "{}")), Verdict::Note, "OPENAI_API_KEY");
        check(
            Ok(response(404, "<html>")),
            Verdict::Wrong,
            "the LLM proxy's port",
        );
        check(
            Ok(response(200, "<html>")),
            Verdict::Wrong,
            "the LLM proxy's port",
        );
        check(
            Err(Unreachable::Failed("connection reset".to_owned())),
            Verdict::Wrong,
            "connection reset",
        );
        // An error of ic itself, such as a bad certificate, is shown as it is.
        let own = Response {
            ic_error: Some("tls".to_owned()),
            ..response(
                502,
                r#"{"error":{"message":"the certificate has expired"}}"#,
            )
        };
        check(Ok(own), Verdict::Wrong, "the certificate has expired");
    }

    #[test]
    fn a_registry_that_cannot_be_written_matters_for_who_has_no_port() {
        let state = |is_recorded| RegistryState {
            file: "/r.json".to_owned(),
            reading: Ok(1),
            writing: Err(("/r.json".to_owned(), "permission denied".to_owned())),
            is_recorded,
        };
        let message = registry(&state(false)).message;
        assert!(
            message.starts_with("`/r.json` cannot be written (permission denied): this project")
        );
        let message = registry(&state(true)).message;
        assert!(message.contains("new projects get no port"), "{message}");
    }
}
