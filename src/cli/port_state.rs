//! Whether a port can be listened on, and if not, why: for the commands that show it.

use std::fmt;

use crate::machine::listeners::holder_of;
use crate::machine::process::{Holder, Process};
use crate::registry::Port;
use crate::registry::probe::{Availability, Refusal, availability};
use crate::text::Escaped;

/// The state of a port; displays as a predicate: `in use by node, pid 812`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// It can be bound.
    Free,
    /// It is in use.
    InUse(Holder),
    /// Binding it takes privileges that this process does not have.
    NotPermitted,
    /// The system does not let it be tried.
    Unknown(Refusal),
}

/// Tries `port`. Its process is looked up only if it is in use: that reads the descriptors of all processes.
pub fn port_state(port: Port) -> PortState {
    match availability(port) {
        Availability::Free => PortState::Free,
        Availability::InUse => PortState::InUse(holder_of(port.get())),
        Availability::NotPermitted => PortState::NotPermitted,
        Availability::Untried(refusal) => PortState::Unknown(refusal),
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortState::Free => f.write_str("free"),
            PortState::InUse(Holder {
                process,
                other_user,
            }) => {
                f.write_str("in use")?;
                if let Some(Process { pid, program }) = process {
                    write!(f, " by {}, pid {pid}", Escaped(program))?;
                }
                match (process, other_user) {
                    (Some(_), Some(uid)) => write!(f, ", of another user (uid {uid})"),
                    (None, Some(uid)) => write!(f, " by another user (uid {uid})"),
                    (_, None) => Ok(()),
                }
            }
            PortState::NotPermitted => f.write_str("needs privileges to bind"),
            PortState::Unknown(refusal) => write!(f, "cannot be tried: {refusal}"),
        }
    }
}
