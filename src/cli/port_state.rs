//! Whether a port can be listened on, and if not, why: for the commands that show it.

use std::fmt;

use crate::machine::listeners::process_on;
use crate::machine::process::Process;
use crate::registry::Port;
use crate::registry::probe::{Availability, Refusal, availability};
use crate::text::Escaped;

/// The state of a port; displays as a predicate: `in use by node, pid 812`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// It can be bound.
    Free,
    /// A process listens on it, which this user may not always see.
    InUse(Option<Process>),
    /// Binding it takes privileges that this process does not have.
    NotPermitted,
    /// The system does not let it be tried.
    Unknown(Refusal),
}

/// Tries `port`. Its process is looked up only if it is in use: that reads the descriptors of all processes.
pub fn port_state(port: Port) -> PortState {
    match availability(port) {
        Availability::Free => PortState::Free,
        Availability::InUse => PortState::InUse(process_on(port.get())),
        Availability::NotPermitted => PortState::NotPermitted,
        Availability::Untried(refusal) => PortState::Unknown(refusal),
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortState::Free => f.write_str("free"),
            PortState::InUse(Some(Process { pid, program })) => {
                write!(f, "in use by {}, pid {pid}", Escaped(program))
            }
            PortState::InUse(None) => f.write_str("in use"),
            PortState::NotPermitted => f.write_str("needs privileges to bind"),
            PortState::Unknown(refusal) => write!(f, "cannot be tried: {refusal}"),
        }
    }
}
