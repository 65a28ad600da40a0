//! What the service runs: `ic serve --all` with the options and variables of now.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FlagInfoKind};

use super::manager::Definition;
use super::program;
use crate::cli::context::Globals;
use crate::cli::outcome::Failure;
use crate::cli::serve::Serve;
use crate::cli::settings::{
    Environment, INSTANCE_ID, SSL_CERT_DIR, SSL_CERT_FILE, SourcedValue, TARGET_URL,
};
use crate::cli::template::{Placeholder, Purpose, Template};
use crate::text::raw;

/// The service with these OPTIONS, which were found to be good. `globals` are those before them, `grace` is the time that requests
/// get at the end.
///
/// # Errors
///
/// Bad usage for a variable; "could not" if the path of this program is unknown.
pub fn definition(
    options: &[String],
    globals: &Globals,
    environment: &Environment<'_>,
    grace: Duration,
) -> Result<Definition, Failure> {
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--all".into()];
    arguments.extend(with_absolute_files(options)?);
    Ok(Definition {
        program: program::path()?,
        arguments,
        variables: variables(globals, environment)?,
        stop_time: grace + STOP_MARGIN,
    })
}

/// The variables and global options of now, as variables that have the same meaning in any folder.
fn variables(
    globals: &Globals,
    environment: &Environment<'_>,
) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let mut variables = globals.as_variables(environment)?;
    if let Some(target) = environment.variable(TARGET_URL) {
        variables.push((TARGET_URL, target.text()?.into()));
    }
    if let Some(template) = environment.variable(INSTANCE_ID)
        && is_for_all(template.text()?)
    {
        variables.push((INSTANCE_ID, template.text()?.into()));
    }
    if let Some(file) = environment.variable(SSL_CERT_FILE) {
        variables.push((SSL_CERT_FILE, absolute(file.path()?.into()).into()));
    }
    if let Some(folders) = environment.variable(SSL_CERT_DIR) {
        let folders = std::env::split_paths(folders.path()?).map(absolute);
        if let Ok(folders) = std::env::join_paths(folders) {
            variables.push((SSL_CERT_DIR, folders));
        }
    }
    Ok(variables)
}

/// Whether an identifier of the environment differs between projects: `ic serve --all` does not use another one.
fn is_for_all(template: &str) -> bool {
    Template::parse(template, Purpose::InstanceId).is_ok_and(|template| {
        [Placeholder::Project, Placeholder::Port]
            .iter()
            .any(|placeholder| template.contains(*placeholder))
    })
}

/// The options, with absolute paths of files: the service runs in another folder.
fn with_absolute_files(options: &[String]) -> Result<Vec<OsString>, Failure> {
    let flags = Serve::get_args_info().flags;
    let takes_value = |name: &str| {
        let known = flags
            .iter()
            .any(|flag| flag.long == name && matches!(flag.kind, FlagInfoKind::Option { .. }));
        known || GLOBAL_OPTIONS.contains(&name)
    };
    let mut words = Vec::new();
    let mut options = options.iter();
    while let Some(word) = options.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None if takes_value(word) => (word.as_str(), options.next().map(String::as_str)),
            None => (word.as_str(), None),
        };
        let file = FILE_OPTIONS.iter().find(|file| **file == name);
        match (file, value) {
            (Some(name), Some(value)) => {
                words.push((*name).into());
                words.push(absolute(SourcedValue::flag(name, value).file()?).into());
            }
            (None, Some(value)) if !word.contains('=') => {
                words.extend([raw::from_text(name), raw::from_text(value)]);
            }
            _ => words.push(raw::from_text(word)),
        }
    }
    Ok(words)
}

fn absolute(path: PathBuf) -> PathBuf {
    // Fails only without a current folder.
    std::path::absolute(&path).unwrap_or(path)
}

/// The options whose value is a file.
const FILE_OPTIONS: [&str; 4] = ["--ca-file", "--client-cert", "--client-key", "--registry"];

/// The global options, each of which takes a value.
const GLOBAL_OPTIONS: [&str; 4] = ["--registry", "--port-min", "--port-max", "--project-root"];

/// From the end of the last request to that of the process.
const STOP_MARGIN: Duration = Duration::from_secs(5);
