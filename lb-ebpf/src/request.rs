//! A client's packet → the backend that serves it.

use lb_common::{
    Addr, Algorithm, Backend, BackendId, Mode, Slot, SlotTable, SnatSource, Verdict,
    service::handover_table,
};

use crate::{
    client, count,
    flow::{self, Known},
    frame::Context,
    headers::{Fragment, Headers},
    lookup::{Plan, Step},
    maps::{BACKENDS, DEVICES, FORMERS},
    record,
    route::{self, Way},
    table::{self, Place},
    trace,
    work::{Counted, Recorded, Work},
};

/// The plan for a client's packet by [`Work::entry`]: its flow's, or to begin one.
#[inline(always)]
pub fn find(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    let (entry, now) = (work.entry, work.now);
    trace::service(entry.service());
    // At 1 the stack answers; before anything is recorded or advanced.
    if headers.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    work.handed = ctx.is_handover().into();
    let work = work.sealed();
    let place = table::fixed(&headers.tuple, table::table(entry.service()));
    let goes_on = headers.is_tcp() && !headers.opens();
    let backend = match unrecorded(ctx, headers, place, work)? {
        Some(backend) => backend,
        None => match flow::find(headers, now, work) {
            Known::Live(backend) if work.handed == 0 || work.mode == Mode::Local as u32 => {
                trace::flow(backend.id);
                backend
            }
            // A connection that lost its backend cannot go on elsewhere.
            Known::Orphan if goes_on => return Ok(refusal(headers)),
            known
                if goes_on
                    && began_there(&known, place.slot)
                    && may_give_back(ctx, headers, work) =>
            {
                let anew = place.slot.is_taken_over() && matches!(known, Known::Unknown);
                work.leaves = anew.into();
                return Ok(Step::GiveBack.with(Verdict::Returned));
            }
            _ => return Ok(Step::Begin.with(Verdict::NotOurs)),
        },
    };
    Ok(towards(backend, work.mode, work.sealed()))
}

/// Whether a connection that goes on began at the node that had the VIP before. Of a slot that
/// has changed it may as well have begun here, with the backend from before.
#[inline(always)]
fn began_there(known: &Known, slot: Slot) -> bool {
    matches!(known, Known::Former) || slot.knows_all() || slot.is_taken_over()
}

/// The plan for a packet that goes to `backend` in `mode`, a [`Mode`] as its number.
#[inline(always)]
fn towards(backend: &Backend, mode: u32, work: &mut Work) -> Plan {
    work.counts(Counted::Request, work.entry.service(), backend.id);
    if mode == Mode::Local as u32 {
        Step::Deliver.with(Verdict::ForwardLocal)
    } else if mode == Mode::Dsr as u32 {
        work.hop = backend.via;
        Step::HandOver.with(Verdict::ForwardDsr)
    } else {
        work.hop = backend.addr;
        Step::Send.with(Verdict::ForwardNat)
    }
}

/// The plan for a packet that nobody serves.
#[inline(always)]
fn refusal(headers: &Headers) -> Plan {
    Step::Refuse.with(if headers.is_tcp() {
        Verdict::RefusedReset
    } else {
        Verdict::RefusedUnreachable
    })
}

/// The backend of a packet whose flow needs no record and has none: its slot is settled.
#[inline(always)]
fn unrecorded(
    ctx: Context<'_>,
    headers: &Headers,
    place: Place,
    work: &mut Work,
) -> Result<Option<&'static Backend>, Verdict> {
    let entry = work.entry;
    if !place.slot.is_settled() {
        return Ok(None);
    }
    let Some(backend) = flow::backend(place.slot.current()) else {
        return Ok(None);
    };
    let mode = backend.mode();
    let alone = match mode {
        // Where a connection begins, what is left of an earlier one is to be cleared away.
        Mode::Local => backend.restored != 0 && !entry.is_recorded() && !headers.opens(),
        Mode::Dsr => work.handed == 0 && !comes_by(ctx, headers, backend, work)?,
        Mode::Nat => false,
    };
    if !alone {
        return Ok(None);
    }
    trace::slot(place.index, backend.id);
    count::begun(headers, entry.service(), backend.id);
    flow::redirect(&mut work.to, &headers.tuple, backend, mode);
    work.mode = mode as u32;
    Ok(Some(backend))
}

/// Whether a packet of a connection that is not known here, or an error about one, may go back
/// to another node, which had the VIP before: it knows those that began there. Where to is then
/// in [`Work::hop`].
#[inline(always)]
pub fn may_give_back(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> bool {
    work.returns = ctx.returns();
    if ctx.is_handover() || work.returns > 1 {
        return false;
    }
    // SAFETY: an entry is replaced as a whole, and rarely: half of one is another node, which
    // refuses.
    let Some(former) = (unsafe { FORMERS.get(&headers.tuple.dst) }) else {
        return false;
    };
    work.hop = *former;
    work.to = headers.tuple;
    work.counted = Counted::Not as u32;
    work.leaves = 0;
    true
}

/// The first of three stages in which a flow begins, or one goes on that nobody has recorded: where
/// to look for a backend, which is to be one on this node if a peer handed the packet over.
///
/// It is left in [`Work::candidate`] where something says which one, [`Work::table`] and
/// [`Work::slot`] where the search begins, and [`Work::records`] whether the flow is recorded.
#[inline(always)]
pub fn begin(headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    // A flow begins with its ports.
    if headers.fragment == Fragment::Later {
        return Err(Verdict::VipFragment);
    }
    let (entry, now) = (work.entry, work.now);
    work.recorded = Recorded::Not as u32;
    let service = entry.service();
    let mut table = table::table(service);
    let place = table::fixed(&headers.tuple, table);
    let mut index = service;
    // Round robin cannot tell whose connection this was; Maglev computes it anew.
    let stray = headers.is_tcp() && !headers.opens();
    let turns = table.algorithm() == Algorithm::RoundRobin;
    let handed = work.handed;
    let here = |backend: &&Backend| handed == 0 || backend.mode() == Mode::Local;
    let home = table::home(headers, service, place.slot).filter(here);
    // Where a connection began goes before where its client has been since.
    let last = if stray && (turns || home.is_some()) {
        None
    } else {
        // As the one that announced the VIP, this node may have sent it to another.
        client::last_backend(headers.tuple.src, service, table, now).filter(here)
    };
    let mut candidate = last.or(home);
    // What goes on with a former table, where there is none now, outlasts it by its record.
    let mut records = place.slot.records() || turns || table.is_empty();
    // Nor may an earlier one's record outlive it that names another backend.
    records |= place.slot.is_looked_up() && record::find(&headers.tuple).is_some();
    if handed != 0 && candidate.is_none() {
        // The slot's own where both nodes see the same endpoints, else any on this node.
        candidate = flow::backend(place.slot.current()).filter(here);
        if candidate.is_none() {
            index = handover_table(service);
            table = table::table(index);
            records = true;
            if table.is_empty() {
                // The peer will know before the client tries again.
                return Err(Verdict::NotHere);
            }
        }
    }
    if candidate.is_none() && (table.is_empty() || stray && turns) {
        return Ok(refusal(headers));
    }
    work.slot = match candidate {
        // No turn is taken.
        Some(_) => 0,
        None if turns => table::turn(index, table),
        None => table::fixed(&headers.tuple, table).index,
    };
    work.candidate = candidate.map_or(BackendId::NONE, |backend| backend.id);
    work.table = index;
    work.records = records.into();
    Ok(Step::Take.with(Verdict::NotOurs))
}

/// The second stage, which is gone through again while it says [`Step::Take`]: the flow is given
/// to a backend on this node that would not take it for another one, or to one elsewhere, which
/// is left in [`Work::candidate`].
#[inline(always)]
pub fn take(headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    let (entry, now) = (work.entry, work.now);
    let service = entry.service();
    let table = table::table(work.table);
    let records = work.records != 0;
    let Some(backend) = tried(table, work.sealed()) else {
        // It was taken away after the slot was read.
        return Ok(Step::Take.with(Verdict::TupleClash));
    };
    trace::chosen(backend.id);
    if backend.mode() != Mode::Local {
        work.candidate = backend.id;
        return Ok(Step::Elsewhere.with(Verdict::NotOurs));
    }
    if flow::create_local(headers, entry, backend, records, now, work) {
        client::remember(headers.tuple.src, service, table, backend, now);
        return Ok(towards(backend, Mode::Local as u32, work));
    }
    if !records || table.is_empty() {
        // What follows goes where the slot says; without slots there is no other.
        return Err(Verdict::TupleClash);
    }
    Ok(Step::Take.with(Verdict::TupleClash))
}

/// The candidate, once, and then those of one slot after the other.
#[inline(always)]
fn tried(table: SlotTable, work: &mut Work) -> Option<&'static Backend> {
    let candidate = work.candidate;
    if !candidate.is_none() {
        work.candidate = BackendId::NONE;
        // It may be one that is gone, where connections are left to such.
        return BACKENDS
            .get(candidate.index())
            .filter(|backend| backend.is(candidate));
    }
    let slot = work.slot;
    work.slot = if slot + 1 >= table.len() { 0 } else { slot + 1 };
    let backend = flow::backend(table::slot(table, slot)?.current())?;
    trace::slot(slot, backend.id);
    Some(backend)
}

/// The third stage: the flow begins with the candidate, which is elsewhere.
#[inline(always)]
pub fn elsewhere(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if work.handed != 0 {
        return Err(Verdict::NotHere);
    }
    let (service, now, id) = (work.entry.service(), work.now, work.candidate);
    let records = work.records != 0;
    let backend = BACKENDS.get(id.index()).filter(|backend| backend.is(id));
    let backend = backend.ok_or(Verdict::TupleClash)?;
    let mode = if backend.mode() == Mode::Dsr && !comes_by(ctx, headers, backend, work)? {
        flow::create_dsr(headers, service, backend, records, now, work);
        Mode::Dsr
    } else {
        let source = snat_source(ctx, headers, backend, work)?;
        flow::create_nat(headers, service, backend, source, now, work)?;
        Mode::Nat
    };
    let table = table::table(work.table);
    client::remember(headers.tuple.src, service, table, backend, now);
    Ok(towards(backend, mode as u32, work))
}

/// Whether the packet comes from the very node that the backend is on: its reply would not
/// leave that node, and nobody would put the VIP back into it.
#[inline(always)]
fn comes_by(
    ctx: Context<'_>,
    headers: &Headers,
    backend: &Backend,
    work: &mut Work,
) -> Result<bool, Verdict> {
    work.to = headers.tuple;
    work.hop = backend.via;
    // Else the link address is an earlier packet's. One that is too big to go is no worse.
    let known = route::lookup(ctx, headers, work, 0)? != Way::NotByXdp;
    Ok(known && ctx.view.load::<[u8; 6]>(6) == Some(work.fib.dmac))
}

/// The SNAT source of a new flow: an address of the interface it leaves by.
#[inline(always)]
fn snat_source(
    ctx: Context<'_>,
    headers: &Headers,
    backend: &Backend,
    work: &mut Work,
) -> Result<&'static SnatSource, Verdict> {
    work.to = headers.tuple;
    work.to.src = Addr::UNSPECIFIED;
    work.to.dst_port = backend.port;
    work.hop = backend.addr;
    route::lookup(ctx, headers, work, 0)?;
    // SAFETY: the agent replaces the value as a whole and rarely; a flow that reads
    // half of a change would be refused by the backend's network, not misdirected.
    let source = unsafe { DEVICES.get(work.fib.ifindex) }
        .ok_or(Verdict::NoDevice)?
        .snat_source(&backend.addr);
    if source.addr.is_unspecified() {
        return Err(Verdict::NoDevice);
    }
    Ok(source)
}
