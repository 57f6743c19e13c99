//! Counters: plain additions to this CPU's copies.

use lb_common::{BackendId, Claim, ClaimCount, Hook, Stats, Verdict, config::REFUSALS_PER_SECOND};

use crate::{
    headers::Headers,
    maps::{BACKEND_STATS, CLAIMS, REFUSALS, SERVICE_STATS, VERDICTS, dry_run},
    trace,
};

/// Adds to a word that all CPUs share and gives its value from before.
#[inline(always)]
pub fn fetch_add(word: *mut u64, n: u64) -> u64 {
    // `core::sync::atomic` has no `fetch_add` for this target; the instruction exists
    // from kernel 5.12 on.
    // SAFETY: an aligned word of a map value.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(
            word, n,
        )
    }
}

/// Counts a packet's way out; the dry run reports it instead.
#[inline(always)]
pub fn verdict(hook: Hook, verdict: Verdict, bytes: u64) {
    if dry_run() {
        trace::verdict(verdict);
        return;
    }
    if let Some(count) = VERDICTS.get_ptr_mut(verdict.counter(hook)) {
        // SAFETY: this CPU's copy; the programs of one hook do not nest.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    }
}

/// Counts a packet from a client.
#[inline(always)]
pub fn request(service: u32, backend: BackendId, bytes: u64) {
    add(service, backend, |stats| {
        stats.packets_in += 1;
        stats.bytes_in += bytes;
    });
}

/// Counts a packet to a client.
#[inline(always)]
pub fn reply(service: u32, backend: BackendId, bytes: u64) {
    add(service, backend, |stats| {
        stats.packets_out += 1;
        stats.bytes_out += bytes;
    });
}

/// Counts a new flow.
#[inline(always)]
pub fn flow(service: u32, backend: BackendId) {
    add(service, backend, |stats| stats.flows += 1);
}

/// Counts a new flow that is not recorded: only connections show that they begin.
#[inline(always)]
pub fn begun(headers: &Headers, service: u32, backend: BackendId) {
    if headers.opens() {
        flow(service, backend);
    }
}

/// Counts a question for a claimed address, in its entry of map `CLAIMS`.
#[inline(always)]
pub fn asked(count: *mut ClaimCount) {
    if !dry_run() {
        // SAFETY: a word of a map value.
        fetch_add(unsafe { &raw mut (*count).requests }, 1);
    }
}

/// Counts the answer to that.
#[inline(always)]
pub fn answered(claim: &Claim) {
    if dry_run() {
        return;
    }
    // None: it was released meanwhile.
    if let Some(count) = CLAIMS.get_ptr_mut(claim) {
        // SAFETY: a word of a map value.
        fetch_add(unsafe { &raw mut (*count).responses }, 1);
    }
}

#[inline(always)]
fn add(service: u32, backend: BackendId, change: impl Fn(&mut Stats)) {
    if dry_run() {
        return;
    }
    if let Some(stats) = SERVICE_STATS.get_ptr_mut(service) {
        // SAFETY: this CPU's copy; the programs of one hook do not nest.
        change(unsafe { &mut *stats });
    }
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend.index()) {
        // SAFETY: as above.
        change(unsafe { &mut *stats });
    }
}

/// What is answered in a backend's place, each kind as often as it may be by itself: who floods a
/// port keeps nobody from learning the path's MTU.
#[derive(Clone, Copy)]
pub enum Answer {
    /// That nobody is there.
    Refusal = 0,
    /// That the packet is too big.
    TooBig = 1,
}

/// Whether this CPU may send another such answer in the tick `now`; takes one if so.
#[inline(always)]
pub fn may_answer(what: Answer, now: u32) -> bool {
    if dry_run() {
        return true;
    }
    let Some(refusals) = REFUSALS.get_ptr_mut(what as u32) else {
        return false;
    };
    // SAFETY: this CPU's copy.
    let refusals = unsafe { &mut *refusals };
    if (*refusals >> 32) as u32 != now {
        *refusals = u64::from(now) << 32;
    }
    *refusals += 1;
    *refusals as u32 <= REFUSALS_PER_SECOND
}
