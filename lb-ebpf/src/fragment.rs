//! Fragments: only the first has ports, so it leaves a note for the others.
//!
//! A later one that comes before it finds none and is dropped: as with every balancer
//! that does not hold fragments back, order matters. Networks keep it nearly always.

use lb_common::{Port, flow::is_past};

use crate::{
    headers::{Fragment, Headers},
    maps::{FRAGMENTS, dry_run},
};

/// Ticks for which a first fragment is remembered (RFC 8200: a receiver waits 60 s for
/// all; Linux 30).
const LIFETIME: u32 = 30;

/// Gives a later fragment the ports of its first; false where that was not seen.
#[inline(always)]
pub fn find(headers: &mut Headers, now: u32) -> bool {
    if headers.fragment != Fragment::Later {
        return true;
    }
    let key = headers.fragment_key();
    // SAFETY: one word.
    let Some(&note) = (unsafe { FRAGMENTS.get(&key) }) else {
        return false;
    };
    headers.tuple.src_port = Port::from_word(note as u16);
    headers.tuple.dst_port = Port::from_word((note >> 16) as u16);
    // Another CPU may have noted it by a clock that is a tick ahead.
    !is_past((note >> 32) as u32, now)
}

/// Notes the ports of a first fragment that is forwarded.
#[inline(always)]
pub fn record(headers: &Headers, now: u32) {
    if headers.fragment != Fragment::First || dry_run() {
        return;
    }
    let key = headers.fragment_key();
    let ports =
        u64::from(headers.tuple.src_port.word()) | u64::from(headers.tuple.dst_port.word()) << 16;
    let note = ports | u64::from(now.wrapping_add(LIFETIME)) << 32;
    // Without room the others are dropped and counted.
    let _ = FRAGMENTS.insert(&key, &note, 0);
}
