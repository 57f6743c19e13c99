//! The flow tables: which backend serves a flow, and which flow a reply belongs to.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::{
    Addr, Backend, BackendId, Entry, Flow, FlowState, Mode, Port, Protocol, Reply, SnatSource,
    Tuple, Verdict,
    flow::{tcp_flag, tick},
    hash,
};

use crate::{
    count, direct, exceptions,
    headers::Headers,
    maps::{BACKENDS, FLOWS, LEAVE_GONE, REPLIES, SEED, dry_run},
    work::Work,
};

/// `BPF_NOEXIST`: insert only.
const NOEXIST: u64 = 1;
/// Ports tried for a new `nat` flow before it is refused. The tries are spread over
/// the range, so with 80 % of all ports taken one flow in two hundred is refused.
const PORT_TRIES: u32 = 24;
/// Tries that leave ports of closed flows alone: the backend's socket may be in
/// TIME_WAIT and would not take the new connection. Then those are better than none.
const PATIENT_TRIES: u32 = 18;

/// The current tick of the flows' clock.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: a helper without arguments.
    tick(unsafe { bpf_ktime_get_coarse_ns() })
}

/// What the flow table says of a packet from a client.
pub enum Known {
    /// A live flow's backend; how it is reached is in [`Work::mode`], the packet as it sees
    /// it in [`Work::to`].
    Live(&'static Backend),
    /// A flow whose backend is gone.
    Orphan,
    /// One that began at the node that had the VIP before.
    Former,
    /// Nothing, or nothing that still counts.
    Unknown,
}

/// A backend entry that serves flows of exactly this id.
#[inline(always)]
pub fn backend(id: BackendId) -> Option<&'static Backend> {
    BACKENDS
        .get(id.index())
        .filter(|backend| backend.serves(id))
}

/// The same, of those that answer as far as is known.
#[inline(always)]
pub fn answering_backend(id: BackendId) -> Option<&'static Backend> {
    BACKENDS
        .get(id.index())
        .filter(|backend| backend.answers(id))
}

/// The backend that a known flow goes on with, which may be gone where connections are
/// left to such: it is the one that they began with, and answers them as long as it can.
#[inline(always)]
pub fn kept_backend(id: BackendId, protocol: u8) -> Option<&'static Backend> {
    let left = LEAVE_GONE.load() != 0 && protocol == Protocol::Tcp as u8;
    BACKENDS
        .get(id.index())
        .filter(|backend| backend.serves(id) || left && backend.is(id) && !id.is_none())
}

/// Looks the client's packet up and keeps the flow it belongs to fresh.
#[inline(always)]
pub fn find(headers: &Headers, now: u32, work: &mut Work) -> Known {
    let Some(flow) = FLOWS.get_ptr_mut(&headers.tuple) else {
        return Known::Unknown;
    };
    // SAFETY: a map value outlives the program run. Other CPUs may write it at the
    // same time; every field is one aligned word or byte, and no decision needs two
    // of them to be of the same moment, but for the backend id, which is one word.
    let flow = unsafe { &mut *flow };
    if flow.is_expired(now) {
        return Known::Unknown;
    }
    if headers.opens() && flow.state.is_closing() {
        return Known::Unknown;
    }
    if flow.backend == BackendId::FORMER && !headers.opens() {
        if !dry_run() {
            flow.refresh(now, seen(flow.state, headers, true), headers.is_tcp());
        }
        return Known::Former;
    }
    // A client that tries to connect once more, or that has no connection, is better off
    // elsewhere than with a backend that does not answer.
    let kept = if headers.opens() || headers.tuple.protocol == Protocol::Udp as u8 {
        answering_backend(flow.backend)
    } else {
        kept_backend(flow.backend, headers.tuple.protocol)
    };
    let Some(backend) = kept else {
        return Known::Orphan;
    };
    let mode = mode(backend, flow);
    translate(&mut work.to, &headers.tuple, backend, flow, mode);
    let restored = mode == Mode::Local && is_restored(backend, work.entry);
    let state = seen(flow.state, headers, mode == Mode::Dsr || restored);
    if !dry_run() && flow.refresh(now, state, headers.is_tcp()) && mode != Mode::Dsr {
        // A lookup refreshes the reply's place in its LRU list: a client that only
        // sends must not lose it.
        work.reply_key = work.to.reversed();
        let _ = REPLIES.get_ptr(&work.reply_key);
    }
    work.mode = mode as u32;
    Known::Live(backend)
}

/// Whether there is a record of such a flow, be it one that is over.
#[inline(always)]
pub fn has_record(client: &Tuple) -> bool {
    FLOWS.get_ptr(client).is_some()
}

/// How the packets of a flow reach its backend: `nat` where the flow was begun so, though
/// the backend is on a peer.
#[inline(always)]
pub fn mode(backend: &Backend, flow: &Flow) -> Mode {
    if flow.snat_addr.is_unspecified() {
        backend.mode()
    } else {
        Mode::Nat
    }
}

/// Whether replies of a local backend to what comes by `entry` are restored without a record.
#[inline(always)]
fn is_restored(backend: &Backend, entry: Entry) -> bool {
    backend.restored != 0 && !entry.is_recorded()
}

/// The state of a flow after a packet from its client, who is `alone` where nobody sees which
/// flow the replies are of.
#[inline(always)]
fn seen(state: FlowState, headers: &Headers, alone: bool) -> FlowState {
    if alone {
        state.after_client_alone(headers.tcp_flags)
    } else {
        state.after_client(headers.tcp_flags)
    }
}

/// Writes the client's packet as the backend of a flow in `mode` shall see it to `to`.
#[inline(always)]
pub fn translate(to: &mut Tuple, client: &Tuple, backend: &Backend, flow: &Flow, mode: Mode) {
    redirect(to, client, backend, mode);
    if mode == Mode::Nat {
        to.src = flow.snat_addr;
        to.src_port = flow.snat_port;
    }
}

/// The same of a mode that leaves the source as it is.
#[inline(always)]
pub fn redirect(to: &mut Tuple, client: &Tuple, backend: &Backend, mode: Mode) {
    *to = *client;
    if mode != Mode::Dsr {
        to.dst = backend.addr;
        to.dst_port = backend.port;
    }
}

/// Begins a flow to a `local` backend, or goes on with one that has no record; the packet as it
/// shall see it is in [`Work::to`]. It is recorded where `records` says so, or where its replies
/// need that. False where the backend would see two flows as one: the client uses one port
/// towards two frontends of it.
#[inline(always)]
pub fn create_local(
    headers: &Headers,
    entry: Entry,
    backend: &Backend,
    records: bool,
    now: u32,
    work: &mut Work,
) -> Result<bool, Verdict> {
    prepare(
        headers,
        entry.service(),
        backend,
        &SnatSource::NONE,
        now,
        work,
    );
    redirect(&mut work.to, &headers.tuple, backend, Mode::Local);
    let restored = is_restored(backend, entry);
    if !claim(now, work, true, !restored) {
        return Ok(false);
    }
    if restored {
        direct::forget(&work.reply_key);
    }
    if records || !restored {
        if restored {
            let state = seen(work.flow.state, headers, true);
            work.flow.refresh(now, state, headers.is_tcp());
        }
        record(headers, work)?;
    } else {
        count::begun(headers, entry.service(), backend.id);
    }
    Ok(true)
}

/// Begins a flow to a `dsr` backend, and records it where `records` says so. Its replies do not
/// come by.
#[inline(always)]
pub fn create_dsr(
    headers: &Headers,
    service: u32,
    backend: &Backend,
    records: bool,
    now: u32,
    work: &mut Work,
) -> Result<(), Verdict> {
    prepare(headers, service, backend, &SnatSource::NONE, now, work);
    if !records {
        count::begun(headers, service, backend.id);
        return Ok(());
    }
    work.flow
        .refresh(now, seen(work.flow.state, headers, true), headers.is_tcp());
    record(headers, work)
}

/// Records a new flow to a backend elsewhere from a free port of `source`; the packet as
/// it shall see it is in [`Work::to`].
#[inline(always)]
pub fn create_nat(
    headers: &Headers,
    service: u32,
    backend: &Backend,
    source: &SnatSource,
    now: u32,
    work: &mut Work,
) -> Result<(), Verdict> {
    prepare(headers, service, backend, source, now, work);
    let hash = hash::tuple_hash(&headers.tuple, SEED.load());
    // In scratch memory, of which the verifier knows nothing: so the paths through one
    // try lead to one state, and not each to its own.
    work.port_first = source.first_port.into();
    work.port_count = source.ports.into();
    work.port_offset = hash::reduce(hash, work.port_count);
    // Steps of up to half the range: the tries of two flows part after a collision.
    work.port_step = hash::reduce(hash << 32, work.port_count >> 1) | 1;
    translate(&mut work.to, &headers.tuple, backend, &work.flow, Mode::Nat);
    for attempt in 0..PORT_TRIES {
        // SCTP's checksum covers the ports: there is one to try.
        work.flow.snat_port = if headers.tuple.protocol == Protocol::Sctp as u8 {
            headers.tuple.src_port
        } else {
            Port::new((work.port_first + work.port_offset) as u16)
        };
        work.to.src_port = work.flow.snat_port;
        if claim(now, work, attempt >= PATIENT_TRIES, true) {
            return record(headers, work);
        }
        work.port_offset += work.port_step;
        if work.port_offset >= work.port_count {
            work.port_offset -= work.port_count;
        }
    }
    Err(Verdict::PortsExhausted)
}

/// Records of a connection that it began at the node that had the VIP before.
#[inline(always)]
pub fn leave(headers: &Headers, now: u32, work: &mut Work) {
    work.flow = Flow::new(
        BackendId::FORMER,
        now,
        Addr::UNSPECIFIED,
        Port::default(),
        seen(FlowState::default(), headers, true),
        headers.is_tcp(),
    );
    if !dry_run() {
        // Without a record it goes back all the same, for a window.
        let _ = FLOWS.insert(&headers.tuple, &work.flow, 0);
    }
}

/// Fills [`Work::flow`] and [`Work::reply`] for a new flow.
#[inline(always)]
fn prepare(
    headers: &Headers,
    service: u32,
    backend: &Backend,
    source: &SnatSource,
    now: u32,
    work: &mut Work,
) {
    work.reply.flow = headers.tuple;
    work.reply.backend = backend.id;
    work.reply.service = service;
    work.reply.seen = 0;
    work.flow = Flow::new(
        backend.id,
        now,
        source.addr,
        Port::default(),
        FlowState::default().after_client(headers.tcp_flags),
        headers.is_tcp(),
    );
}

/// Stores [`Work::flow`]; its reply tuple is claimed already.
#[inline(always)]
fn record(headers: &Headers, work: &Work) -> Result<(), Verdict> {
    if dry_run() {
        return Ok(());
    }
    FLOWS
        .insert(&headers.tuple, &work.flow, 0)
        .map_err(|_| Verdict::TableFull)?;
    count::flow(work.reply.service, work.reply.backend);
    Ok(())
}

/// Takes the reply tuple of [`Work::to`] for the flow of [`Work::reply`], unless another
/// live flow has it; one that is closed by FIN only counts as over where `closed_too`. It is
/// recorded if `stores`, else merely free then.
#[inline(always)]
fn claim(now: u32, work: &mut Work, closed_too: bool, stores: bool) -> bool {
    work.reply_key = work.to.reversed();
    if let Some(held) = REPLIES.get_ptr(&work.reply_key) {
        // SAFETY: as in `find`.
        let held = unsafe { &*held };
        if !held.flow.is_same(&work.reply.flow)
            && is_live(held, work.reply_key.dst_port, now, closed_too)
        {
            return false;
        }
        if !dry_run() {
            let _ = REPLIES.remove(&work.reply_key);
        }
    }
    if stores {
        exceptions::note(&work.reply_key);
    }
    // NOEXIST: of two CPUs that want the same tuple one fails here.
    dry_run()
        || !stores
        || REPLIES
            .insert(&work.reply_key, &work.reply, NOEXIST)
            .is_ok()
}

/// Whether the flow of a reply record, which comes to `port`, still needs it.
#[inline(always)]
fn is_live(held: &Reply, port: Port, now: u32, closed_too: bool) -> bool {
    let Some(flow) = FLOWS.get_ptr(&held.flow) else {
        return false;
    };
    // SAFETY: as in `find`.
    let flow = unsafe { &*flow };
    let tcp = held.flow.protocol == Protocol::Tcp as u8;
    // The flow may have moved to another backend or port since.
    let moved = (flow.backend != held.backend)
        | ((flow.snat_port != Port::default()) & (flow.snat_port != port));
    let over = flow.state.is_reset() | (closed_too & flow.state.is_closed());
    // No short circuits: every branch here doubles what the verifier walks.
    !(moved | flow.is_expired(now) | (tcp & over))
}

/// Finds the flow that a backend's packet belongs to and keeps it fresh.
#[inline(always)]
pub fn find_reply(headers: &Headers, now: u32) -> Option<&'static Reply> {
    let reply = REPLIES.get_ptr_mut(&headers.tuple)?;
    // SAFETY: as in `find`.
    let reply = unsafe { &mut *reply };
    let turning = headers.tcp_flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) != 0;
    if !dry_run() && (reply.seen != now || turning) {
        if let Some(flow) = FLOWS.get_ptr_mut(&reply.flow) {
            // SAFETY: as in `find`.
            let flow = unsafe { &mut *flow };
            // A backend that opens a connection anew answers a client that reached it
            // directly, by a port that the flow had before: so is all that follows.
            let opens = headers.tcp_flags & tcp_flag::SYN != 0;
            if opens && (flow.state.is_closing() || flow.is_expired(now)) {
                let _ = REPLIES.remove(&headers.tuple);
                return None;
            }
            if flow.backend == reply.backend {
                let state = flow.state.after_backend(headers.tcp_flags);
                flow.refresh(now, state, headers.is_tcp());
            }
        }
        reply.seen = now;
    }
    Some(reply)
}
