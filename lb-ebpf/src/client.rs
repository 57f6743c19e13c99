//! What a service knows of its clients: who may use it, and where they were last.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{Addr, Affinity, Backend, Client, SlotTable};

use crate::{
    flow,
    maps::{AFFINITY, AFFINITY_TICKS, SOURCES, dry_run},
};

/// Whether the packet's sender is in a network that may use the service.
#[inline(always)]
pub fn is_admitted(addr: Addr, service: u32) -> bool {
    let key = Key::new(Client::BITS, Client { service, addr });
    SOURCES.get(&key).is_some()
}

/// The backend that the client's last flow went to, if it shall go there again: it must
/// still take new flows.
#[inline(always)]
pub fn last_backend(
    addr: Addr,
    service: u32,
    table: SlotTable,
    now: u32,
) -> Option<&'static Backend> {
    if !table.is_affine() {
        return None;
    }
    // SAFETY: one word.
    let last = unsafe { AFFINITY.get(&Client { service, addr }) }.copied()?;
    if last.is_expired(now) {
        return None;
    }
    flow::backend(last.backend()).filter(|backend| backend.open != 0)
}

/// Remembers where a new flow of the client went.
#[inline(always)]
pub fn remember(addr: Addr, service: u32, table: SlotTable, backend: &Backend, now: u32) {
    if !table.is_affine() || dry_run() {
        return;
    }
    let ticks = AFFINITY_TICKS.get(service).copied().unwrap_or(0);
    let next = Affinity::new(backend.id, now.wrapping_add(ticks));
    // Without room the client's next flow is one like any other.
    let _ = AFFINITY.insert(&Client { service, addr }, &next, 0);
}
