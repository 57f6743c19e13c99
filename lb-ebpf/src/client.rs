//! What a service knows of its clients: who may use it, and where they were last.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{Affinity, Backend, Client, SlotTable};

use crate::{
    flow,
    headers::Headers,
    maps::{AFFINITY, AFFINITY_TICKS, SOURCES, dry_run},
};

#[inline(always)]
fn client(headers: &Headers, service: u32) -> Client {
    Client {
        service,
        addr: headers.tuple.src,
    }
}

/// Whether the packet's sender is in a network that may use the service.
#[inline(always)]
pub fn is_admitted(headers: &Headers, service: u32) -> bool {
    let key = Key::new(Client::BITS, client(headers, service));
    SOURCES.get(&key).is_some()
}

/// The backend that the client's last flow went to, if it shall go there again: it must
/// still take new flows.
#[inline(always)]
pub fn last_backend(
    headers: &Headers,
    service: u32,
    table: SlotTable,
    now: u32,
) -> Option<&'static Backend> {
    if !table.is_affine() {
        return None;
    }
    // SAFETY: one word.
    let last = unsafe { AFFINITY.get(&client(headers, service)) }.copied()?;
    if last.is_expired(now) {
        return None;
    }
    flow::backend(last.backend()).filter(|backend| backend.open != 0)
}

/// Remembers where a new flow of the client went.
#[inline(always)]
pub fn remember(headers: &Headers, service: u32, table: SlotTable, backend: &Backend, now: u32) {
    if !table.is_affine() || dry_run() {
        return;
    }
    let ticks = AFFINITY_TICKS.get(service).copied().unwrap_or(0);
    let next = Affinity::new(backend.id, now.wrapping_add(ticks));
    // Without room the client's next flow is one like any other.
    let _ = AFFINITY.insert(&client(headers, service), &next, 0);
}
