//! Whether the options of `ic run` suit an interceptor that already runs.

use crate::cli::context::Context;
use crate::cli::outcome::Failure;
use crate::cli::output::eprint_line;
use crate::cli::settings::{HEADER, INSTANCE_ID, TARGET_URL};
use crate::machine::interceptor::Identity;
use crate::serve::{ServedBy, SiteOptions};
use crate::text::redact::REDACTED;

/// Refuses an option that would have an effect on an interceptor of `ic run`, and differs from what the running one does or cannot
/// be compared. `given` are the names of the options, `site` is what they ask for.
///
/// # Errors
///
/// Bad usage.
pub fn refuse_others(
    given: &[String],
    site: &SiteOptions,
    running: &Identity,
) -> Result<(), Failure> {
    let (target, instance_id) = (site.upstream.target.to_string(), &site.about.instance_id);
    for option in given {
        let why = match &**option {
            // They say which interceptor is meant.
            "--port" | "--project" => continue,
            "--insecure" if running.insecure => continue,
            // Two targets may differ in a key that is not shown.
            "--target" if target == running.target && !target.contains(REDACTED) => continue,
            "--target" => format!("differs from its target {}", running.target),
            "--instance-id" if *instance_id == running.instance_id => continue,
            "--instance-id" => format!("differs from its instance id `{}`", running.instance_id),
            _ => "may differ from what it does".to_owned(),
        };
        let way_out = match running.served_by {
            ServedBy::Serve => "stop it first with `ic stop`",
            ServedBy::Run => "give another --port",
            ServedBy::All if KEPT.contains(&&**option) => "keep it for the project with `ic set`",
            ServedBy::All => "run `ic serve` with it, which takes the port over",
        };
        return Err(Failure::usage(format!(
            "this project's interceptor is already running (`{}`, pid {}), and `{option}` {why}; leave `{option}` out, or {way_out}",
            running.served_by, running.pid,
        )));
    }
    Ok(())
}

/// Says which variables the running interceptor does not follow.
pub fn note_others(
    given: &[String],
    site: &SiteOptions,
    running: &Identity,
    context: &Context<'_>,
) {
    let target = site.upstream.target.to_string();
    let instance_id = &site.about.instance_id;
    let rows = [
        (
            "--target",
            TARGET_URL,
            target == running.target,
            &running.target,
        ),
        (
            "--instance-id",
            INSTANCE_ID,
            *instance_id == running.instance_id,
            &running.instance_id,
        ),
    ];
    for (option, variable, is_same, theirs) in rows {
        let value = context.environment.variable(variable);
        let is_used = given.iter().any(|given| given == option);
        if let Some(value) = value.filter(|_| !is_used && !is_same) {
            eprint_line(format_args!(
                "note: `{value}` is not used: this project's interceptor (`{}`, pid {}) was started with `{theirs}`",
                running.served_by, running.pid,
            ));
        }
    }
}

/// The options that `ic set` keeps.
const KEPT: [&str; 3] = ["--target", "--instance-id", HEADER];
