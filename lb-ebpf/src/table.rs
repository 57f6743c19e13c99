//! Which slot of which table a flow falls on, and whose it is.

use lb_common::{
    Addr, Algorithm, Backend, Entry, Frontend, Mode, Port, Protocol, Slot, SlotTable, Tuple, hash,
    service::former_table,
};

use crate::{
    block, count, flow,
    headers::Headers,
    maps::{FRONTENDS, SEED, SERVICES, SLOTS, TURNS, dry_run},
};

/// A slot, and where in its table it stands.
#[derive(Clone, Copy)]
pub struct Place {
    /// Index within the table.
    pub index: u32,
    /// What stands there; no backend where there is no such slot.
    pub slot: Slot,
}

/// The table at `index` in map `SERVICES`; empty where there is none.
#[inline(always)]
pub fn table(index: u32) -> SlotTable {
    block::entry(&SERVICES, index).unwrap_or_default()
}

/// The slot of a Maglev table that a client's packet falls on; one without a backend where the
/// table is empty, or leaves the choice to turns.
#[inline(always)]
pub fn fixed(tuple: &Tuple, table: SlotTable) -> Place {
    if table.algorithm() == Algorithm::RoundRobin || table.is_empty() {
        return Place {
            index: 0,
            slot: Slot::default(),
        };
    }
    let index = hash::reduce(flow_hash(tuple, table), table.len());
    Place {
        index,
        slot: slot(table, index).unwrap_or_default(),
    }
}

#[inline(always)]
fn flow_hash(tuple: &Tuple, table: SlotTable) -> u64 {
    if !table.is_affine() {
        return hash::tuple_hash(tuple, SEED.load());
    }
    // By the client's address alone: nodes that do not remember it agree.
    let none = Port::default();
    let key = Tuple::new(tuple.src, none, Addr::UNSPECIFIED, none, 0);
    hash::tuple_hash(&key, SEED.load())
}

/// The slot whose turn it is in the `table` at `index` in map `SERVICES`.
#[inline(always)]
pub fn turn(index: u32, table: SlotTable) -> u32 {
    let Some(turns) = TURNS.get_ptr_mut(index) else {
        return 0;
    };
    let turn = if dry_run() {
        // SAFETY: one word of a map value.
        unsafe { *turns }
    } else {
        count::fetch_add(turns, 1)
    };
    turn.checked_rem(table.len().into()).unwrap_or(0) as u32
}

/// A slot of a service's table.
#[inline(always)]
pub fn slot(table: SlotTable, index: u32) -> Option<Slot> {
    if index >= table.len() {
        return None;
    }
    block::entry(&SLOTS, table.offset() + index)
}

/// Where a flow without a record began, if that may be another backend than the one that flows
/// of its `slot` begin with now: the slot has changed within the drain window, or the service
/// had another table.
///
/// A connection stays there as long as it may. Datagrams do not tell whether they begin
/// anything: they stay while that backend takes new flows of some slot.
#[inline(always)]
pub fn home(headers: &Headers, service: u32, slot: Slot) -> Option<&'static Backend> {
    if headers.opens() {
        return None;
    }
    let mut former = slot;
    if slot.previous().is_none() {
        former = fixed(&headers.tuple, table(former_table(service))).slot;
    } else if !slot.is_changing() {
        return None;
    }
    if headers.is_tcp() {
        flow::kept_backend(former.previous(), headers.tuple.protocol)
    } else {
        flow::answering_backend(former.previous()).filter(|backend| backend.open != 0)
    }
}

/// The backend of a flow that has no record, by its client's packets.
#[inline(always)]
pub fn unrecorded(tuple: &Tuple) -> Option<&'static Backend> {
    let frontend = Frontend::new(tuple.dst, tuple.dst_port, tuple.protocol);
    // SAFETY: the value is one word.
    let entry: Entry = *(unsafe { FRONTENDS.get(frontend) }?);
    let slot = fixed(tuple, table(entry.service())).slot;
    let backend = flow::kept_backend(slot.previous(), tuple.protocol)?;
    let tcp = tuple.protocol == Protocol::Tcp as u8;
    let restored = tcp && backend.restored != 0 && !entry.is_recorded();
    (backend.mode() == Mode::Dsr || restored).then_some(backend)
}
