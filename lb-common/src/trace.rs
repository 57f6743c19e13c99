//! What the dry run of `naru explain` reports.

use crate::{BackendId, Tuple};

/// Value of map `TRACE` (one entry), written by the dry-run twin alone, 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The packet as it came.
    pub from: Tuple,
    /// The packet as it would leave; all zero where it is not rewritten.
    pub to: Tuple,
    /// The [`crate::Verdict`] as its number.
    pub verdict: u32,
    /// Service index plus one; 0 where no frontend matched.
    pub service: u32,
    /// Slot within the service's table plus one; 0 where none was consulted.
    pub slot: u32,
    /// The backend, if one was chosen.
    pub backend: BackendId,
    /// 1 where an existing flow named the backend.
    pub from_flow: u32,
    /// Interface index that the packet would leave by; 0 where the stack delivers.
    pub egress: u32,
}
