//! The input and the result of each snippet.

use std::ffi::OsString;

use crate::registry::Project;

/// What a snippet contains.
pub struct Facts {
    /// The project's name, escaped.
    pub project: String,
    /// The project.
    pub folder: Project,
    /// Host and port for clients.
    pub authority: String,
    /// The interceptor's port.
    pub port: u16,
    /// The model for the client to use.
    pub model: String,
    /// Where the interceptor sends requests.
    pub target: String,
    /// The instance identifier, as a value of its variable; empty for a client.
    pub instance: String,
    /// Further variables for the interceptor; empty for a client.
    pub settings: Vec<(&'static str, OsString)>,
}

/// A file and where it goes.
pub struct File {
    pub content: String,
    pub hint: String,
}

/// A JSON string, which YAML and TOML read as the same string.
pub fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
