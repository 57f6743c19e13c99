//! A client's packet → the backend that serves it.

use lb_common::{
    Addr, Algorithm, Backend, Entry, Mode, SlotTable, SnatSource, Verdict, service::handover_table,
};

use crate::{
    client, count,
    flow::{self, Known},
    fragment,
    frame::Context,
    headers::{Fragment, Headers},
    lookup::{Plan, Step},
    maps::{DEVICES, FORMERS},
    route::{self, Way},
    table::{self, Place},
    trace,
    work::Work,
};

/// Backends tried for a new flow before [`Verdict::TupleClash`].
const BACKEND_TRIES: u32 = 4;

/// The plan for a client's packet.
#[inline(always)]
pub fn request(
    ctx: Context<'_>,
    headers: &Headers,
    entry: Entry,
    now: u32,
    work: &mut Work,
) -> Result<Plan, Verdict> {
    let service = entry.service();
    trace::service(service);
    // At 1 the stack answers; before anything is recorded or advanced.
    if headers.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    work.handed = ctx.is_handover().into();
    let work = work.sealed();
    let table = table::table(service);
    let place = table::fixed(&headers.tuple, table);
    let goes_on = headers.is_tcp() && !headers.opens();
    let backend = match unrecorded(ctx, headers, entry, place, work)? {
        Some(backend) => Some(backend),
        None => match flow::find(headers, now, work) {
            Known::Live(backend) if work.handed == 0 || work.mode == Mode::Local as u32 => {
                trace::flow(backend.id);
                Some(backend)
            }
            // A connection that lost its backend cannot go on elsewhere.
            Known::Orphan if goes_on => None,
            _ => {
                if goes_on && let Some(plan) = give_back(ctx, headers, work)? {
                    fragment::record(headers, now);
                    return Ok(plan);
                }
                // A flow begins with its ports.
                if headers.fragment == Fragment::Later {
                    return Err(Verdict::VipFragment);
                }
                begin(ctx, headers, entry, (table, place), now, work)?
            }
        },
    };
    let Some(backend) = backend else {
        return Ok(refusal(headers));
    };
    let work = work.sealed();
    let plan = if work.mode == Mode::Local as u32 {
        Step::Deliver.with(Verdict::ForwardLocal)
    } else {
        let plan = if work.mode == Mode::Dsr as u32 {
            work.hop = backend.via;
            Step::HandOver.with(Verdict::ForwardDsr)
        } else {
            work.hop = backend.addr;
            Step::Send.with(Verdict::ForwardNat)
        };
        route::send(ctx, headers, work, plan)?
    };
    fragment::record(headers, now);
    count::request(service, backend.id, headers);
    Ok(plan)
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
    entry: Entry,
    place: Place,
    work: &mut Work,
) -> Result<Option<&'static Backend>, Verdict> {
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

/// The plan for a packet of a connection that is not known here, or an error about one, where
/// another node had the VIP before and can be reached: it knows those that began there.
#[inline(always)]
pub fn give_back(
    ctx: Context<'_>,
    headers: &Headers,
    work: &mut Work,
) -> Result<Option<Plan>, Verdict> {
    work.returns = ctx.returns();
    if ctx.is_handover() || work.returns > 1 {
        return Ok(None);
    }
    // SAFETY: an entry is replaced as a whole, and rarely: half of one is another node, which
    // refuses.
    let Some(former) = (unsafe { FORMERS.get(&headers.tuple.dst) }) else {
        return Ok(None);
    };
    work.hop = *former;
    work.to = headers.tuple;
    match route::send(ctx, headers, work, Step::GiveBack.with(Verdict::Returned)) {
        Ok(plan) => Ok(Some(plan)),
        // Else it is gone, and what it knew with it, or this node does not forward.
        Err(verdict @ (Verdict::LeftToTc | Verdict::TtlExpired | Verdict::Uncut)) => Err(verdict),
        Err(_) => Ok(None),
    }
}

/// Begins a flow, or goes on with one that nobody has recorded: picks a backend, one on this
/// node if a peer handed the packet over, and records it where that is needed. None where there
/// is none to pick.
#[inline(always)]
fn begin(
    ctx: Context<'_>,
    headers: &Headers,
    entry: Entry,
    (mut table, place): (SlotTable, Place),
    now: u32,
    work: &mut Work,
) -> Result<Option<&'static Backend>, Verdict> {
    let service = entry.service();
    let mut index = service;
    // Round robin cannot tell whose connection this was; Maglev computes it anew.
    let stray = headers.is_tcp() && !headers.opens();
    let turns = table.algorithm() == Algorithm::RoundRobin;
    let handed = work.handed;
    let here = |backend: &&Backend| handed == 0 || backend.mode() == Mode::Local;
    let mut candidate = None;
    if !(stray && turns) {
        // As the one that announced the VIP, this node may have sent it to another.
        candidate = client::last_backend(headers.tuple.src, service, table, now).filter(here);
    }
    if candidate.is_none() {
        candidate = table::home(headers, service, place.slot).filter(here);
    }
    let mut records = place.slot.records() || turns;
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
        return Ok(None);
    }
    let mut slot = match candidate {
        // No turn is taken.
        Some(_) => 0,
        None if turns => table::turn(index, table),
        None => table::fixed(&headers.tuple, table).index,
    };
    let mut elsewhere = None;
    for _ in 0..BACKEND_TRIES {
        // None: the backend was taken away after the slot was read.
        let tried = candidate.take().or_else(|| {
            let backend = flow::backend(table::slot(table, slot)?.current())?;
            trace::slot(slot, backend.id);
            slot += 1;
            if slot >= table.len() {
                slot = 0;
            }
            Some(backend)
        });
        if let Some(backend) = tried {
            trace::chosen(backend.id);
            if backend.mode() != Mode::Local {
                elsewhere = Some(backend);
                break;
            }
            if flow::create_local(headers, entry, backend, records, now, work)? {
                client::remember(headers.tuple.src, service, table, backend, now);
                work.mode = Mode::Local as u32;
                return Ok(Some(backend));
            }
            if !records {
                // What follows goes where the slot says.
                return Err(Verdict::TupleClash);
            }
        }
    }
    // After the loop, so that the verifier walks the search for a port once.
    let backend = elsewhere.ok_or(Verdict::TupleClash)?;
    if work.handed != 0 {
        return Err(Verdict::NotHere);
    }
    if backend.mode() == Mode::Dsr && !comes_by(ctx, headers, backend, work)? {
        flow::create_dsr(headers, service, backend, records, now, work)?;
        work.mode = Mode::Dsr as u32;
    } else {
        let source = snat_source(ctx, headers, backend, work)?;
        flow::create_nat(headers, service, backend, source, now, work)?;
        work.mode = Mode::Nat as u32;
    }
    client::remember(headers.tuple.src, service, table, backend, now);
    Ok(Some(backend))
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
