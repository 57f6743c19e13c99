//! Flows: which backend serves one, and which flow a reply belongs to.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use lb_common::{
    Addr, Backend, BackendId, Ends, Entry, Flow, FlowState, Mode, Port, Protocol, SnatSource,
    Tuple, Verdict,
    flow::{self, tcp_flag, tick},
    hash,
};

use crate::{
    block,
    cells::{self, Found},
    count, direct,
    headers::Headers,
    maps::{BACKENDS, CLOCK, FLOWS, LEAVE_GONE, NEAR_SOURCES, SEED, dry_run},
    packet::opaque,
    record::{self, Yields},
    work::{Recorded, Work},
};

/// Ports tried for a new `nat` flow before it is refused. The tries are spread over
/// the range, so with 80 % of all ports taken one flow in two hundred is refused.
const PORT_TRIES: u32 = 24;
/// Tries that leave all ports alone that may be in use. Then those of closed flows are better than
/// none, though the backend's socket may be in TIME_WAIT and would not take the new connection; and
/// so are those of flows of which both sides do not know, as all are in a flood.
const PATIENT_TRIES: u32 = 18;
/// Tries that leave alone which of those may be about to go on.
const CAREFUL_TRIES: u32 = 21;

/// The current tick of the flows' clock, as this CPU has read it in this jiffy, or in the one
/// before where the clock was about to move: jiffies need no call.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: a helper without arguments.
    let jiffies = unsafe { bpf_jiffies64() } << 32;
    // SAFETY: as above.
    let ask = || tick(unsafe { bpf_ktime_get_coarse_ns() });
    let Some(read) = CLOCK.get_ptr_mut(0) else {
        return ask();
    };
    // SAFETY: this CPU's copy. A process that connects may be interrupted here: one word is read
    // and stored as a whole.
    let word = unsafe { read.read_volatile() };
    if word >> 32 << 32 == jiffies {
        return word as u32;
    }
    let now = ask();
    // SAFETY: as above.
    unsafe { read.write_volatile(jiffies | u64::from(now)) };
    now
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
    let Some((found, ends)) = record::find(&headers.tuple) else {
        return Known::Unknown;
    };
    let flow = Flow::read(found.cell);
    if flow.is_expired(now) {
        return Known::Unknown;
    }
    if headers.opens() && flow.state.is_closing() {
        return Known::Unknown;
    }
    if flow.backend == BackendId::FORMER && !headers.opens() {
        refresh(
            found,
            seen(flow.state, headers.tcp_flags, true),
            headers.is_tcp(),
            now,
        );
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
    let mode = mode(backend, flow.state);
    if mode == Mode::Nat {
        work.to = ends.to;
        if !cells::is_still(&FLOWS, found) {
            return Known::Unknown;
        }
    } else {
        redirect(&mut work.to, &headers.tuple, backend, mode);
    }
    let restored = mode == Mode::Local && is_restored(backend, work.entry);
    let state = seen(flow.state, headers.tcp_flags, mode == Mode::Dsr || restored);
    refresh(found, state, headers.is_tcp(), now);
    work.mode = mode as u32;
    Known::Live(backend)
}

/// Notes that a packet in tick `now` has brought a flow to `state`; tells whether that is known now.
#[inline(always)]
pub fn refresh(found: Found, state: FlowState, tcp: bool, now: u32) -> bool {
    let flow = Flow::read(found.cell).refreshed(now, state, tcp);
    !dry_run() && cells::change(&FLOWS, found, flow.cell(found.cell.0[0]))
}

/// How the packets of a flow in `state` reach its backend: `nat` where the flow was begun so,
/// though the backend is on a peer.
#[inline(always)]
pub fn mode(backend: &Backend, state: FlowState) -> Mode {
    if state.has(FlowState::NAT) {
        Mode::Nat
    } else {
        backend.mode()
    }
}

/// Whether replies of a local backend to what comes by `entry` are restored without a record.
#[inline(always)]
pub fn is_restored(backend: &Backend, entry: Entry) -> bool {
    backend.restored != 0 && !entry.is_recorded()
}

/// The state of a flow after a packet from its client, who is `alone` where nobody sees which
/// flow the replies are of.
#[inline(always)]
pub fn seen(state: FlowState, tcp_flags: u8, alone: bool) -> FlowState {
    if alone {
        state.after_client_alone(tcp_flags)
    } else {
        state.after_client(tcp_flags)
    }
}

/// Writes the client's packet to `to` as a backend shall see it, in a mode that leaves its source
/// as it is.
#[inline(always)]
pub fn redirect(to: &mut Tuple, client: &Tuple, backend: &Backend, mode: Mode) {
    *to = *client;
    if mode != Mode::Dsr {
        to.dst = backend.addr.by_words();
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
) -> bool {
    let restored = is_restored(backend, entry);
    begin(headers, backend, restored, now, work);
    redirect(&mut work.to, &headers.tuple, backend, Mode::Local);
    if !record::is_free(headers, now, Yields::Closed as u32, work) {
        return false;
    }
    if restored {
        direct::forget(&work.reply_key);
    }
    if records || !restored {
        let ways = if restored {
            Recorded::OneWay
        } else {
            Recorded::BothWays
        };
        work.records(ways, entry.service());
    } else {
        record::forget_held(work);
        count::begun(headers, entry.service(), backend.id);
    }
    true
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
) {
    if !records {
        count::begun(headers, service, backend.id);
        return;
    }
    begin(headers, backend, true, now, work);
    work.held = Ends::NONE;
    work.records(Recorded::OneWay, service);
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
    begin(headers, backend, false, now, work);
    work.flow.state.0 |= FlowState::NAT.0;
    redirect(&mut work.to, &headers.tuple, backend, Mode::Nat);
    work.to.src = source.addr;
    work.flow.source = near_source(&source.addr);
    let hash = hash::tuple_hash(&headers.tuple, SEED.load());
    // In scratch memory, of which the verifier knows nothing: so the paths through one
    // try lead to one state, and not each to its own.
    work.port_first = source.first_port.into();
    work.port_count = source.ports.into();
    work.port_offset = hash::reduce(hash, work.port_count);
    // Steps of up to half the range: the tries of two flows part after a collision.
    work.port_step = hash::reduce(hash << 32, work.port_count >> 1) | 1;
    // SCTP's checksum covers the ports: there is one to try.
    let sctp = headers.tuple.protocol == Protocol::Sctp as u8;
    for attempt in 0..PORT_TRIES {
        work.to.src_port = if sctp {
            headers.tuple.src_port
        } else {
            Port::new((work.port_first + work.port_offset) as u16)
        };
        let yields = if attempt < PATIENT_TRIES || sctp {
            Yields::Nothing
        } else if attempt < CAREFUL_TRIES {
            Yields::Quiet
        } else {
            Yields::Unassured
        };
        if record::is_free(headers, now, yields as u32, work) {
            work.flow.port = work.to.src_port;
            work.records(Recorded::BothWays, service);
            return Ok(());
        }
        work.port_offset += work.port_step;
        if work.port_offset >= work.port_count {
            work.port_offset -= work.port_count;
        }
    }
    Err(Verdict::PortsExhausted)
}

/// Where the address stands that a `nat` flow comes from; 0 where another one does.
#[inline(always)]
fn near_source(addr: &Addr) -> u8 {
    let place = flow::source(addr);
    let stands = block::entry(&NEAR_SOURCES, place.into()).unwrap_or_default();
    let differs = addr.difference(&stands);
    // 0 alone is less than 1; a branch would be one in all that follows.
    let same = opaque(u64::from(differs)).wrapping_sub(1) >> 63;
    place * same as u8
}

/// Records of a connection that it began at the node that had the VIP before.
#[inline(always)]
pub fn leave(headers: &Headers, now: u32, work: &mut Work) {
    work.flow = Flow::new(
        BackendId::FORMER,
        now,
        seen(FlowState::default(), headers.tcp_flags, true),
        headers.is_tcp(),
    );
    work.held = Ends::NONE;
    work.records(Recorded::OneWay, 0);
}

/// Fills [`Work::flow`] for one that begins, of whose replies nobody is told where it is `alone`.
#[inline(always)]
fn begin(headers: &Headers, backend: &Backend, alone: bool, now: u32, work: &mut Work) {
    let state = seen(FlowState::default(), headers.tcp_flags, alone);
    work.flow = Flow::new(backend.id, now, state, headers.is_tcp());
}

/// Finds the flow that a backend's packet belongs to and keeps it fresh. The packet as its client
/// shall see it is in `to` then; service and backend are for the counters.
#[inline(always)]
pub fn find_reply(headers: &Headers, now: u32, to: &mut Tuple) -> Option<(u32, BackendId)> {
    let answer = record::answer(&headers.tuple)?;
    let flags = headers.tcp_flags;
    if !answer.is_fresh(now) || tcp_flag::turns(flags) {
        let (found, ends) = record::find_reply(&headers.tuple)?;
        let flow = Flow::read(found.cell);
        // A backend that opens a connection anew answers a client that reached it directly, by a
        // port that the flow had before: so is all that follows.
        let opens = flags & tcp_flag::SYN != 0;
        let over = flow.is_expired(now) && !flow.state.has(FlowState::NAT);
        if !dry_run() && opens && (flow.state.is_left() || over) {
            record::forget_reply(ends.reply, found.place);
            return None;
        }
        let state = flow.state.after_backend(flags);
        if refresh(found, state, headers.is_tcp(), now) {
            answer.note(now, state, headers.is_tcp());
        }
    }
    let reply = answer.reply;
    *to = reply.from.reversed();
    let (service, backend) = (reply.service, reply.backend);
    answer.is_still().then_some((service, backend))
}
