//! The faults.

mod agent;
mod program;

use super::Fault;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Fault> {
    program::FAULTS.iter().chain(agent::FAULTS)
}
