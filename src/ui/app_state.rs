//! What all connections of the page share.

use std::path::PathBuf;

use super::auth::Auth;
use super::registry_editor::RegistryEditor;

/// What all connections of the page share.
pub struct AppState {
    /// Checks who may ask.
    pub auth: Auth,
    /// The registry.
    pub registry: RegistryEditor,
    /// The folder of the interceptors' feed sockets; `None` if no folder can be used for them.
    pub feeds: Option<PathBuf>,
}
