//! What `ic set` keeps of a project: read with a warning, and shown without secrets.

use serde_json::{Value, json};

use super::field::field;
use super::mapping::command_for;
use super::outcome::Failure;
use super::output::{Output, eprint_line};
use super::settings::{HEADER, SourcedValue};
use super::template::{Purpose, Template};
use crate::registry::{BadSettings, Header, Project, Registry, Settings};
use crate::text::{Escaped, escaped_path, redact};

/// How the project is served. Prints a warning and returns the defaults for settings that were edited by hand and do not parse.
pub fn settings_of(registry: &Registry, project: &Project) -> Settings {
    let kept = registry.notes().settings(project.path());
    usable(kept, project).unwrap_or_else(|warning| {
        eprint_line(warning);
        Settings::default()
    })
}

/// The settings of the project if they parse.
///
/// # Errors
///
/// They were edited by hand and do not parse: a warning that says so.
pub fn usable(kept: Result<Settings, BadSettings>, project: &Project) -> Result<Settings, String> {
    let kept = kept
        .map_err(|BadSettings| "they do not have the form that `ic set` writes".to_owned())
        .and_then(|kept| checked(kept).map_err(|failure| failure.to_string()));
    kept.map_err(|why| {
        let unset = "set --unset target --unset instance-id --unset header";
        format!(
            "warning: the settings of `{}` in the registry are not used: {why}; {} removes them",
            escaped_path(project.path()),
            command_for(unset, project),
        )
    })
}

/// Checks the settings as `ic set` does.
fn checked(kept: Settings) -> Result<Settings, Failure> {
    if let Some(target) = &kept.target {
        SourcedValue::kept("--target", target).target()?;
    }
    if let Some(instance_id) = &kept.instance_id {
        let kept = SourcedValue::kept("--instance-id", instance_id);
        Template::parse(kept.text()?, Purpose::InstanceId)
            .map_err(|unknown| kept.refused(unknown))?;
    }
    for Header { name, value } in &kept.headers {
        field(&SourcedValue::kept(HEADER, &format!("{name}: {value}")))?;
    }
    Ok(kept)
}

/// Describes the settings, without secrets.
pub fn document(kept: &Settings) -> Value {
    let headers = kept.headers.iter();
    let headers: Vec<Value> = headers
        .map(|header| json!({ "name": header.name, "value": shown(header) }))
        .collect();
    json!({
        "target": kept.target.as_deref().map(redact::setting),
        "instance_id": kept.instance_id,
        "headers": headers,
    })
}

/// Prints the settings, without secrets.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print(out: &mut Output, kept: &Settings) -> Result<(), Failure> {
    if let Some(target) = &kept.target {
        let target = redact::setting(target);
        out.text(format_args!("Target:  {}\n", Escaped(&target)))?;
    }
    if let Some(instance_id) = &kept.instance_id {
        out.text(format_args!("Id:      {}\n", Escaped(instance_id)))?;
    }
    for header in &kept.headers {
        let field = format!("{}: {}", header.name, shown(header));
        out.text(format_args!("Header:  {}\n", Escaped(&field)))?;
    }
    Ok(())
}

/// The names of the fields that hold a secret, and not the variable that holds it.
pub fn literal_secrets(kept: &Settings) -> impl Iterator<Item = &str> {
    let headers = kept.headers.iter();
    let secret = headers.filter(|header| shown(header) != header.value);
    secret.map(|header| header.name.as_str())
}

/// The fields with a variable in place of each value that holds a literal secret, for a file that others may read.
pub fn with_variables_for_secrets(kept: &[Header]) -> Vec<Header> {
    let headers = kept.iter().map(|header| {
        let mut header = header.clone();
        if shown(&header) != header.value {
            let letter = |c: char| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            };
            let variable: String = header.name.chars().map(letter).collect();
            header.value = format!("{{env:FIELD_{variable}}}");
        }
        header
    });
    headers.collect()
}

/// The value without secrets. Placeholders are none, nor is the name of a scheme or of a cookie before one.
fn shown(header: &Header) -> String {
    let Header { name, value } = header;
    let template = Template::parse(value, Purpose::Field).ok();
    let texts = template.as_ref().and_then(Template::around_placeholders);
    let is_plain = |word: &str| {
        let is_scheme =
            word.len() <= SCHEME_LENGTH_MAX && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_scheme || word.ends_with('=')
    };
    match texts {
        Some(texts) if texts.split([' ', ';', ',']).all(is_plain) => value.clone(),
        _ => redact::field(name, value.as_bytes()),
    }
}

/// In bytes: enough for `Negotiate`, and too short for a key.
const SCHEME_LENGTH_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_but_their_variables_are() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: &str) {
            let header = Header {
                name: name.to_owned(),
                value: value.to_owned(),
            };
            assert_eq!(shown(&header), expected, "{name}");
        }
        check("x-team", "blue", "blue");
        check("x-team", "{project} of {user}", "{project} of {user}");
        check("Authorization", "Bearer sk-1234", "…");
        check("Authorization", "Bearer {env:KEY}", "Bearer {env:KEY}");
        check("Authorization", "Bearer sk-1234{env:KEY}", "…");
        check("Authorization", "Bearer sk-1234 {port}", "…");
        check("Authorization", "{{env:KEY}}", "…");
        check("Authorization", "Basic dXNlcjpwYXNz {env:A}", "…");
        check("x-api-key", "{env:KEY}", "{env:KEY}");
        check("x-api-key", "1234", "…");
        check("x-api-key", "abc{port}", "abc{port}");
        check(
            "Cookie",
            "session={env:S}; b={env:B}",
            "session={env:S}; b={env:B}",
        );
        check("Cookie", "session=1234", "…");
        check("x-auth-token", "{brnach}", "…");
        check("x-note", "Bearer sk-1234567890abcdef", "Bearer …");
    }
}
