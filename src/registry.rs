//! Which project has which port.
//!
//! The file is shared with a Python tool. So a registry keeps what it does not know, in its place and to the letter,
//! and writes what it does know as that tool would (`json.dump(…, indent=2)`).
//!
//! | file | decides |
//! |---|---|
//! | `port`, `project`, `json` | what a port, a project and JSON text are |
//! | `model`, `notes` | what a registry holds, and its text; pure |
//! | `allocate`, `prune`, `import` | how mappings are added, removed and merged |
//! | `damage`, `recover` | what is wrong with a text, and which mappings can still be read |
//! | `probe` | whether a port can be bound on this machine |
//! | `documents` | how the result of a change is written as JSON |
//! | `store` | how the text is read and replaced while other programs use the file |
//! | `facade` | the same operations for programs that use this crate |

pub mod allocate;
mod damage;
pub mod documents;
pub mod facade;
pub mod import;
mod json;
mod model;
pub mod notes;
mod port;
pub mod probe;
pub mod project;
pub mod prune;
pub mod recover;
pub mod store;

pub use allocate::{Allocated, Exhausted};
pub use damage::{Damage, Issue};
pub use model::Registry;
pub use notes::{BadSettings, Header, Note, Settings, Timestamp};
pub use port::{EmptyRange, NotAPort, Port, PortRange};
pub use probe::{Availability, Refusal, availability};
pub use project::Project;
pub use store::{DamageReport, Loaded, Store, StoreError, Updated, Wait, WaitReason};
