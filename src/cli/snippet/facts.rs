//! The input and the result of each snippet.

use std::ffi::OsString;

use crate::cli::address::BaseUrls;
use crate::registry::{Port, Project};
use crate::serve::Target;
use crate::text::{Escaped, name};

/// What every snippet can contain.
pub struct Facts {
    /// The project's name, escaped.
    pub project: String,
    /// The project.
    pub folder: Project,
    /// For clients.
    pub urls: BaseUrls,
    /// The interceptor's port.
    pub port: u16,
    /// The model for the client to use, if it is given.
    pub model: Option<String>,
}

impl Facts {
    /// Those of the project in `folder`, whose clients use `urls`.
    pub fn new(folder: Project, port: Port, urls: BaseUrls, model: Option<String>) -> Facts {
        Facts {
            project: Escaped(&name(folder.path())).to_string(),
            folder,
            urls,
            port: port.get(),
            model,
        }
    }

    /// The model for a client that has no default, or a placeholder for the user to replace.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or("YOUR-MODEL")
    }
}

/// What starts an interceptor that reads the registry, and so what `ic set` keeps.
pub struct Unit {
    /// The variables that are set here and differ from what is kept.
    pub variables: Vec<(&'static str, OsString)>,
    /// The variables that the kept fields need, whose values are not known here.
    pub unknown: Vec<String>,
}

/// What starts an interceptor that has neither the registry nor the project's folder.
pub struct Container {
    /// Where it sends requests, as it is written and as it is read.
    pub target: (String, Target),
    /// The instance identifier, as a value of its variable.
    pub instance: String,
    /// The fields of `--header`.
    pub fields: Vec<String>,
    /// The variables that they need, whose values are not known here.
    pub unknown: Vec<String>,
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
