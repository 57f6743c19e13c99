//! What the dry run reports. Compiled away by the verifier in the real program.

use lb_common::{BackendId, Trace, Tuple, Verdict};

use crate::maps::{TRACE, dry_run};

#[inline(always)]
fn with(change: impl Fn(&mut Trace)) {
    if !dry_run() {
        return;
    }
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: the agent runs the twin for one packet at a time.
        change(unsafe { &mut *trace });
    }
}

/// The packet as it came.
#[inline(always)]
pub fn begin(tuple: &Tuple) {
    with(|trace| {
        *trace = Trace::default();
        trace.from = *tuple;
    });
}

/// The frontend matched this service.
#[inline(always)]
pub fn service(index: u32) {
    with(|trace| trace.service = index + 1);
}

/// An existing flow named the backend.
#[inline(always)]
pub fn flow(backend: BackendId) {
    with(|trace| {
        trace.backend = backend;
        trace.from_flow = 1;
    });
}

/// A slot named the backend.
#[inline(always)]
pub fn slot(index: u32, backend: BackendId) {
    with(|trace| {
        trace.slot = index + 1;
        trace.backend = backend;
    });
}

/// The backend that the flow would go to.
#[inline(always)]
pub fn chosen(backend: BackendId) {
    with(|trace| trace.backend = backend);
}

/// The interface the packet would leave by.
#[inline(always)]
pub fn egress(ifindex: u32) {
    with(|trace| trace.egress = ifindex);
}

/// The packet as it would leave.
#[inline(always)]
pub fn rewritten(to: &Tuple) {
    with(|trace| trace.to = *to);
}

/// What becomes of it.
#[inline(always)]
pub fn verdict(verdict: Verdict) {
    with(|trace| trace.verdict = verdict as u32);
}
