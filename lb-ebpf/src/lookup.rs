//! Headers → plan: what shall become of a packet. Nothing of the packet is changed here.

use lb_common::{
    Addr, AddressUse, Algorithm, Backend, Frontend, Mode, Port, Protocol, Slot, SlotTable,
    SnatSource, Tuple, Verdict, hash, service::handover_table,
};

use crate::{
    announce, client, count,
    flow::{self, Known},
    fragment,
    frame::Context,
    headers::{Fragment, Headers, Payload},
    icmp,
    maps::{ADDRESSES, DEVICES, FORMERS, FRONTENDS, SEED, SERVICES, SLOTS, TURNS, dry_run},
    refuse,
    route::{self, Way},
    trace,
    work::Work,
};

/// Backends tried for a new flow before [`Verdict::TupleClash`].
const BACKEND_TRIES: u32 = 4;

/// What shall become of a packet that concerns a service.
#[derive(Clone, Copy)]
pub struct Plan {
    /// What is done.
    pub step: Step,
    /// What it is called once it is done.
    pub verdict: Verdict,
}

/// What is done with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Rewrite it to [`Work::to`] and let the stack deliver it.
    Deliver,
    /// Rewrite it to [`Work::to`] and send it out by the way in [`Work::fib`].
    Send,
    /// Send it as it is to the peer whose link address is in [`Work::fib`].
    HandOver,
    /// The same, to the node that had the VIP before.
    GiveBack,
    /// Answer it: nobody serves it.
    Refuse,
    /// Answer it: it asks for the link address in [`Work::link`].
    Advertise,
    /// Answer it: it is a ping.
    Echo,
    /// Answer it: it is larger than the MTU in [`Work::fib`].
    TooBig,
}

impl Step {
    #[inline(always)]
    pub const fn with(self, verdict: Verdict) -> Plan {
        Plan {
            step: self,
            verdict,
        }
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

/// Decides over a packet that came in.
#[inline(always)]
pub fn ingress(ctx: Context<'_>, headers: &mut Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if headers.payload == Payload::Neighbour {
        return announce::solicited(ctx, headers, work);
    }
    // SAFETY: `AddressUse` is one word.
    let usage = match unsafe { ADDRESSES.get(&headers.tuple.dst) } {
        Some(usage) => *usage,
        None => return Err(Verdict::NotOurs),
    };
    let rewrites = ctx.rewrites().ok_or(Verdict::OtherHost)?;
    let now = flow::now();
    let vip = usage.contains(AddressUse::VIP);
    match headers.payload {
        Payload::Ports => {
            if !fragment::find(headers, now) {
                return Err(unserved(usage, Verdict::VipFragment));
            }
            if usage.contains(AddressUse::SNAT)
                && rewrites
                && !ctx.is_handover()
                && let Some(reply) = flow::find_reply(headers, now)
            {
                work.to = reply.flow.reversed();
                work.hop = reply.flow.src;
                let plan = send(ctx, headers, work, Step::Send.with(Verdict::ReplyNat))?;
                count::reply(reply, headers);
                fragment::record(headers, now);
                return Ok(plan);
            }
            if vip {
                let frontend = Frontend::new(
                    headers.tuple.dst,
                    headers.tuple.dst_port,
                    headers.tuple.protocol,
                );
                // SAFETY: the value is one word.
                if let Some(entry) = unsafe { FRONTENDS.get(frontend) } {
                    let service = entry.service();
                    if entry.is_guarded() && !client::is_admitted(headers.tuple.src, service) {
                        trace::service(service);
                        return Err(Verdict::SourceDenied);
                    }
                    if !rewrites {
                        return Err(Verdict::LeftToTc);
                    }
                    return request(ctx, headers, service, now, work);
                }
            }
        }
        Payload::Error if !rewrites => return Err(Verdict::LeftToTc),
        Payload::Error => {
            if let Some(plan) = icmp::inbound(ctx, headers, work)? {
                return Ok(plan);
            }
            if vip
                && headers.quoted.protocol == Protocol::Tcp as u8
                && let Some(plan) = give_back(ctx, headers, work)?
            {
                return Ok(plan);
            }
        }
        Payload::Echo if usage.contains(AddressUse::PINGED) => {
            if !rewrites {
                return Err(Verdict::LeftToTc);
            }
            if !refuse::is_unicast(&headers.tuple.src) {
                return Err(Verdict::RefusalSuppressed);
            }
            return Ok(Step::Echo.with(Verdict::EchoReply));
        }
        _ => {}
    }
    Err(unserved(usage, headers.payload.dropped()))
}

/// What is said of a packet to an address of ours that is for no service.
#[inline(always)]
fn unserved(usage: AddressUse, dropped: Verdict) -> Verdict {
    if !usage.contains(AddressUse::VIP) {
        Verdict::NotOurs
    } else if usage.contains(AddressUse::HOST) {
        Verdict::HostPort
    } else {
        dropped
    }
}

/// Decides over a packet that leaves: the reply of a local backend becomes the VIP's.
#[inline(always)]
pub fn egress(headers: &mut Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if headers.payload == Payload::Error {
        return icmp::outbound(headers, work);
    }
    // SAFETY: `AddressUse` is one word.
    let local = unsafe { ADDRESSES.get(&headers.tuple.src) }
        .is_some_and(|usage| usage.contains(AddressUse::LOCAL_BACKEND));
    let now = flow::now();
    if !local || headers.payload != Payload::Ports || !fragment::find(headers, now) {
        return Err(Verdict::NotOurs);
    }
    let reply = flow::find_reply(headers, now).ok_or(Verdict::NotOurs)?;
    count::reply(reply, headers);
    work.to = reply.flow.reversed();
    fragment::record(headers, now);
    Ok(Step::Deliver.with(Verdict::ReplyLocal))
}

#[inline(always)]
fn request(
    ctx: Context<'_>,
    headers: &Headers,
    service: u32,
    now: u32,
    work: &mut Work,
) -> Result<Plan, Verdict> {
    trace::service(service);
    // At 1 the stack answers; before anything is recorded or advanced.
    if headers.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    work.handed = ctx.is_handover().into();
    let work = work.sealed();
    let goes_on = headers.is_tcp() && !headers.opens();
    let backend = match flow::find(headers, now, work) {
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
            begin(ctx, headers, service, now, work)?
        }
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
        send(ctx, headers, work, plan)?
    };
    fragment::record(headers, now);
    count::request(service, backend.id, headers);
    Ok(plan)
}

/// The plan for a packet of a connection that is not known here, or an error about one, where
/// another node had the VIP before and can be reached: it knows those that began there.
#[inline(always)]
fn give_back(
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
    match send(ctx, headers, work, Step::GiveBack.with(Verdict::Returned)) {
        Ok(plan) => Ok(Some(plan)),
        // Else it is gone, and what it knew with it, or this node does not forward.
        Err(verdict @ (Verdict::LeftToTc | Verdict::TtlExpired | Verdict::Uncut)) => Err(verdict),
        Err(_) => Ok(None),
    }
}

/// Begins a flow: picks a backend, one on this node if a peer handed the packet over, and
/// records it. None where there is none to pick.
#[inline(always)]
fn begin(
    ctx: Context<'_>,
    headers: &Headers,
    service: u32,
    now: u32,
    work: &mut Work,
) -> Result<Option<&'static Backend>, Verdict> {
    let index = service + work.handed * handover_table(0);
    let table = match SERVICES.get(index) {
        Some(table) if !table.is_empty() => *table,
        // The peer will know before the client tries again.
        _ if work.handed != 0 => return Err(Verdict::NotHere),
        _ => return Ok(None),
    };
    // Round robin cannot tell whose connection this was; Maglev computes it anew.
    let stray = headers.is_tcp() && !headers.opens();
    if stray && table.algorithm() == Algorithm::RoundRobin {
        return Ok(None);
    }
    let mut candidate = client::last_backend(headers.tuple.src, service, table, now);
    // As the one that announced the VIP, this node may have sent it to another.
    if work.handed != 0 && candidate.is_some_and(|backend| backend.mode() != Mode::Local) {
        candidate = None;
    }
    let mut slot = match candidate {
        // No turn is taken.
        Some(_) => 0,
        None => pick(headers, index, table),
    };
    let mut elsewhere = None;
    for _ in 0..BACKEND_TRIES {
        // None: the backend was taken away after the slot was read.
        let tried = candidate.take().or_else(|| {
            let backend = flow::backend(self::slot(table, slot)?.current())?;
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
            if flow::create_local(headers, service, backend, now, work)? {
                client::remember(headers.tuple.src, service, table, backend, now);
                work.mode = Mode::Local as u32;
                return Ok(Some(backend));
            }
        }
    }
    // After the loop, so that the verifier walks the search for a port once.
    let backend = elsewhere.ok_or(Verdict::TupleClash)?;
    if work.handed != 0 {
        return Err(Verdict::NotHere);
    }
    if backend.mode() == Mode::Dsr && !comes_by(ctx, headers, backend, work)? {
        flow::create_dsr(headers, service, backend, now, work)?;
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

/// Index into the `table` at `index` in map `SERVICES` for a new flow.
#[inline(always)]
fn pick(headers: &Headers, index: u32, table: SlotTable) -> u32 {
    match table.algorithm() {
        Algorithm::Maglev => {
            let mut key = headers.tuple;
            if table.is_affine() {
                // By the client's address alone: nodes that do not remember it agree.
                key = Tuple::new(
                    key.src,
                    Port::default(),
                    Addr::UNSPECIFIED,
                    Port::default(),
                    0,
                );
            }
            hash::reduce(hash::tuple_hash(&key, SEED.load()), table.len())
        }
        Algorithm::RoundRobin => turn(index, table),
    }
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
    SLOTS.get(table.offset() + index).copied()
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

/// The plan for [`Work::to`] to leave towards [`Work::hop`], or what to do instead.
#[inline(always)]
pub fn send(
    ctx: Context<'_>,
    headers: &Headers,
    work: &mut Work,
    plan: Plan,
) -> Result<Plan, Verdict> {
    if headers.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let len = ctx.packet_len(headers) as u16;
    let way = route::lookup(ctx, headers, work, len)?;
    trace::rewritten(&work.to);
    if way == Way::TooBig {
        if headers.whole {
            return Ok(Step::TooBig.with(Verdict::TooBig));
        }
        // Who lets routers cut it does not listen to the answer. The kernel cuts what a
        // tunnel makes of it.
        route::lookup(ctx, headers, work, 0)?;
        if !route::by_tunnel(work.fib.ifindex) {
            return Err(Verdict::Uncut);
        }
    }
    if !ctx.can_send(headers, work.fib.ifindex, way == Way::Resolved) {
        return Err(Verdict::LeftToTc);
    }
    if matches!(plan.step, Step::HandOver | Step::GiveBack) {
        if way != Way::Resolved {
            return Err(Verdict::NoPeer);
        }
        // SAFETY: the hardware address of an entry changes with the interface's own.
        let device = unsafe { DEVICES.get(work.fib.ifindex) }.ok_or(Verdict::NoDevice)?;
        work.fib.smac = device.handover_mac();
        if plan.step == Step::GiveBack {
            // It came from there: that node does not run Naru any more, or knows no such VIP.
            if ctx.view.load::<[u8; 6]>(6) == Some(work.fib.dmac) {
                return Err(Verdict::NoPeer);
            }
            work.fib.smac = device.return_mac(work.returns);
        }
    }
    Ok(plan)
}

/// Finds the way for an answer to a packet that another node has sent on: its sender is then in
/// [`Work::hop`], its way in [`Work::fib`], whose MTU stays what it was.
#[inline(always)]
pub fn way_back(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<(), Verdict> {
    // SAFETY: any number is valid.
    let mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result };
    work.to = headers.tuple.reversed();
    work.hop = headers.tuple.src;
    let way = route::lookup(ctx, headers, work, 0)?;
    if !ctx.can_send(headers, work.fib.ifindex, way == Way::Resolved) {
        return Err(Verdict::LeftToTc);
    }
    work.fib.__bindgen_anon_1.mtu_result = mtu;
    Ok(())
}
