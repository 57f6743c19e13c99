//! The short way of most packets: those for nobody here, and those of flows that their slot or their
//! record says all about. Whatever is not plain takes the long way, which comes to the same.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_jiffies64};
use lb_common::{
    Addr, Backend, BackendId, ClientHop, Entry, Flow, Frontend, Hook, Hop, Mode, Near, Verdict,
    device::{handing, is_handed, word},
    filter, hash, hop,
    near::{Found, Place},
};

use crate::{
    block, cells, count, direct, exceptions, flow,
    frame::{Context, Frame},
    headers::Headers,
    maps::{
        BACKENDS, CLIENT_HOPS, EPOCH, FAST, FILTER, FLOWS, FRONTENDS, HOPS, NEAR, NEAR_FRONTENDS,
        NEAR_SOURCES, SECRET,
    },
    packet::View,
    parse::ETH_LEN,
    plain::{Plain, network, transport},
    record,
    route::{self, Way},
    table,
    work::Work,
};

/// How a packet goes on.
struct Course {
    id: BackendId,
    backend: &'static Backend,
    mode: Mode,
}

/// What comes in at XDP: its action if this is all about it.
#[inline(always)]
pub fn run(ctx: Context<'_>) -> Option<u32> {
    let network = network(ctx)?;
    if is_others(Hook::Xdp, &network.dst) {
        count::verdict(Hook::Xdp, Verdict::NotOurs, network.end as u64);
        return Some(xdp_action::XDP_PASS);
    }
    let packet = transport(ctx.view, &network)?;
    let own = mac(ctx.view, 0)?;
    let near = block::entry(&NEAR, ctx.ifindex % Near::LEN as u32)?;
    if packet.ttl <= 1 || !near.takes(ctx.ifindex, own) {
        return None;
    }
    let tuple = &packet.tuple;
    let frontend = Frontend::new(tuple.dst, tuple.dst_port, tuple.protocol);
    let Some(entry) = entry(&frontend) else {
        return answer(ctx, &packet, own);
    };
    if !entry.is_plain() {
        return None;
    }
    let course = match by_slot(&packet, entry) {
        Some(course) => course,
        None => by_record(&packet, entry)?,
    };
    let Course { id, backend, mode } = course;
    let (action, verdict) = match mode {
        Mode::Dsr => (hand_over(ctx, &packet, id, own)?, Verdict::ForwardDsr),
        Mode::Local if packet.redirect(ctx.view, backend) => {
            (xdp_action::XDP_PASS, Verdict::ForwardLocal)
        }
        Mode::Nat => (send(ctx, &packet, id, own)?, Verdict::ForwardNat),
        Mode::Local => return None,
    };
    let bytes = packet.end as u64;
    count::verdict(Hook::Xdp, verdict, bytes);
    count::request(entry.service(), id, bytes);
    if packet.opens() {
        count::flow(entry.service(), id);
    }
    Some(action)
}

/// The way to the service of a frontend.
#[inline(always)]
fn entry(frontend: &Frontend) -> Option<Entry> {
    let place = Place::new(frontend);
    match block::entry(&NEAR_FRONTENDS, place.index)?.find(&place) {
        Found::Entry(entry) => Some(entry),
        // SAFETY: the value is one word.
        Found::Shared => unsafe { FRONTENDS.get(frontend) }.copied(),
        Found::Nothing => None,
    }
}

/// How a packet goes whose slot says all about it.
#[inline(always)]
fn by_slot(packet: &Plain, entry: Entry) -> Option<Course> {
    let place = table::fixed(&packet.tuple, table::table(entry.service()));
    if !place.slot.is_settled() {
        return None;
    }
    let id = place.slot.current();
    let backend = flow::backend(id)?;
    let mode = backend.mode();
    let unrecorded = match mode {
        Mode::Dsr => true,
        Mode::Local => {
            packet.is_tcp() && backend.restored != 0 && !entry.is_recorded() && !packet.opens()
        }
        Mode::Nat => false,
    };
    unrecorded.then_some(Course { id, backend, mode })
}

/// How one goes that changes nothing in what its record says, but for how long that counts. By
/// `nat` it is in [`Work::to`] as the backend shall see it.
#[inline(always)]
fn by_record(packet: &Plain, entry: Entry) -> Option<Course> {
    if packet.turns() {
        return None;
    }
    let now = flow::now();
    let found = cells::find(&FLOWS, &cells::key(&packet.tuple))?;
    let flow = Flow::read(found.cell);
    if flow.is_expired(now) || flow.state.is_closing() {
        return None;
    }
    let backend = match packet.is_tcp() {
        true => flow::backend(flow.backend)?,
        false => flow::answering_backend(flow.backend)?,
    };
    let mode = flow::mode(backend, flow.state);
    if mode == Mode::Nat {
        // A flow to a peer may go by another way than what is handed over to it.
        if backend.mode() != Mode::Nat || flow.source == 0 {
            return None;
        }
        let to = &mut Work::of(Hook::Xdp).ok()?.to;
        flow::redirect(to, &packet.tuple, backend, Mode::Nat);
        let source = block::entry(&NEAR_SOURCES, flow.source.into())?;
        to.src = source.by_words();
        to.src_port = flow.port;
    }
    let restored = mode == Mode::Local && flow::is_restored(backend, entry);
    let state = flow::seen(flow.state, packet.flags, mode == Mode::Dsr || restored);
    if state != flow.state {
        return None;
    }
    flow::refresh(found, state, packet.is_tcp(), now);
    Some(Course {
        id: flow.backend,
        backend,
        mode,
    })
}

/// A packet that is for no frontend: the reply of a backend elsewhere becomes its frontend's.
#[inline(always)]
fn answer(ctx: Context<'_>, packet: &Plain, own: u64) -> Option<u32> {
    if packet.turns() || is_handed(mac(ctx.view, 6)?) {
        return None;
    }
    let answer = record::answer(&packet.tuple)?;
    let now = flow::now();
    if !answer.is_fresh(now) {
        let (found, _) = record::find_reply(&packet.tuple)?;
        let flow = Flow::read(found.cell);
        let state = flow.state.after_backend(packet.flags);
        if flow.is_expired(now) || flow.state.is_closing() || state != flow.state {
            return None;
        }
        if flow::refresh(found, state, packet.is_tcp(), now) {
            answer.note(now, state, packet.is_tcp());
        }
    }
    let work = Work::of(Hook::Xdp).ok()?;
    let reply = answer.reply;
    work.to = reply.from.reversed();
    work.hop = work.to.dst;
    let (service, backend) = (reply.service, reply.backend);
    // Not by nat: its destination is its client as it is.
    if !answer.is_still() || work.to.dst.difference(&packet.tuple.dst) == 0 {
        return None;
    }
    let hop = client_hop(ctx, packet, work)?;
    if !packet.send(ctx.view, &work.to) || !link(ctx.view, hop, own) {
        return None;
    }
    let bytes = packet.end as u64;
    count::verdict(Hook::Xdp, Verdict::ReplyNat, bytes);
    count::reply(service, backend, bytes);
    Some(xdp_action::XDP_TX)
}

/// Whether a packet at TC ingress is for nobody here; it is counted then.
#[inline(always)]
pub fn passes(ctx: Context<'_>) -> bool {
    let Some(network) = network(ctx).filter(|it| is_others(Hook::TcIngress, &it.dst)) else {
        return false;
    };
    count::verdict(Hook::TcIngress, Verdict::NotOurs, network.end as u64);
    true
}

/// Something if this is all about a packet at TC egress: it is from nobody here, or a local
/// backend's reply that has become its frontend's.
#[inline(always)]
pub fn reply<F: Frame>(frame: &mut F) -> Option<()> {
    let network = network(frame.context())?;
    let bytes = network.end as u64;
    if is_others(Hook::TcEgress, &network.src) {
        count::verdict(Hook::TcEgress, Verdict::NotOurs, bytes);
        return Some(());
    }
    let packet = transport(frame.context().view, &network)?;
    // By a connection that it opens itself the backend is a client.
    if packet.opens() {
        return None;
    }
    let primary = direct::primary(&packet.tuple)?;
    let headers = Headers::of(F::HOOK).ok()?;
    headers.begin(
        network.src,
        network.dst,
        network.protocol,
        ETH_LEN,
        packet.l4,
    );
    headers.tuple = packet.tuple;
    headers.ttl = network.ttl;
    headers.tcp_flags = packet.flags;
    let (mut service, mut backend) = (primary.service, primary.backend);
    let mut to = packet.tuple;
    if exceptions::may_be(&packet.tuple) {
        (service, backend) = flow::find_reply(headers, flow::now(), &mut to)?;
    } else if packet.is_tcp() && direct::restores(primary) {
        to.src = primary.addr;
        to.src_port = primary.port;
    } else {
        return None;
    }
    frame.rewrite(headers, &to, false).ok()?;
    count::reply(service, backend, bytes);
    count::verdict(Hook::TcEgress, Verdict::ReplyLocal, bytes);
    Some(())
}

/// Whether an address is surely nothing to a hook.
#[inline(always)]
fn is_others(hook: Hook, addr: &Addr) -> bool {
    let (word, bit) = filter::place(hook, addr);
    block::entry(&FILTER, word).is_some_and(|word| word & bit == 0)
}

/// The frame goes to the node of a `dsr` backend, by a way that was looked up a moment ago.
#[inline(always)]
fn hand_over(ctx: Context<'_>, packet: &Plain, id: BackendId, own: u64) -> Option<u32> {
    let hop = known_hop(ctx, packet, id)?;
    let from = mac(ctx.view, 6)?;
    // To where it comes from it takes another way, and what a peer handed over stays here.
    if from == hop || is_handed(from) {
        return None;
    }
    link(ctx.view, hop, handing(own)).then_some(xdp_action::XDP_TX)
}

/// The packet goes to a backend elsewhere as one of this node's.
#[inline(always)]
fn send(ctx: Context<'_>, packet: &Plain, id: BackendId, own: u64) -> Option<u32> {
    let hop = known_hop(ctx, packet, id)?;
    if is_handed(mac(ctx.view, 6)?) {
        return None;
    }
    let sent = packet.send(ctx.view, &Work::of(Hook::Xdp).ok()?.to) && link(ctx.view, hop, own);
    sent.then_some(xdp_action::XDP_TX)
}

/// The link address of the way to a backend that was looked up a moment ago.
#[inline(always)]
fn known_hop(ctx: Context<'_>, packet: &Plain, id: BackendId) -> Option<u64> {
    let len = (packet.end - ETH_LEN) as u32;
    block::entry(&HOPS, id.index())?.leads(tag(), ctx.ifindex, len)
}

/// The link address of the way that [`Work::to`] takes to a client, by the interface that it came by.
#[inline(always)]
fn client_hop(ctx: Context<'_>, packet: &Plain, work: &mut Work) -> Option<u64> {
    let key = hop::client_key(&work.to, packet.tos, SECRET.get(0).copied()?);
    let place = block::place(&CLIENT_HOPS, hash::reduce(key, hop::CLIENT_HOPS as u32))?;
    let (tag, len) = (tag(), packet.end - ETH_LEN);
    // SAFETY: words of a map value; what they say tells whether they are of one moment.
    let known = unsafe { place.read_volatile() }.leads(key, tag, ctx.ifindex, len as u32);
    if known.is_some() {
        return known;
    }
    let headers = Headers::of(Hook::Xdp).ok()?;
    headers.tos = packet.tos;
    let way = route::lookup(ctx, headers, work, len as u16).ok()?;
    if way != Way::Resolved || work.fib.ifindex != ctx.ifindex {
        return None;
    }
    // SAFETY: any number is valid.
    let mtu = u32::from(unsafe { work.fib.__bindgen_anon_1.mtu_result });
    let to = word(work.fib.dmac);
    let hop = Hop::new(to, ctx.ifindex, mtu, tag)?;
    // SAFETY: as above.
    unsafe { place.write_volatile(ClientHop::new(key, hop)) };
    Some(to)
}

/// Writes the link addresses of a frame, each as a [`word`].
#[inline(always)]
#[must_use]
fn link(view: View<'_>, to: u64, from: u64) -> bool {
    let ([a, b, c], [d, e, f]) = (halves(to), halves(from));
    view.store(0, [a, b, c, d, e, f])
}

/// The hardware address at an offset, as a [`word`].
#[inline(always)]
fn mac(view: View<'_>, offset: usize) -> Option<u64> {
    let [a, b, c] = view.load::<[u16; 3]>(offset)?.map(u16::from_le);
    Some(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32)
}

/// A hardware address as it stands in frames.
#[inline(always)]
const fn halves(word: u64) -> [u16; 3] {
    [
        (word as u16).to_le(),
        ((word >> 16) as u16).to_le(),
        ((word >> 32) as u16).to_le(),
    ]
}

/// What a [`Hop`] must have been found under to count now. The kernel's coarsest clock needs no
/// call; its ticks take 1 to 10 ms, so that one of these lasts for 0.26 to 2.6 s.
#[inline(always)]
pub fn tag() -> u32 {
    // SAFETY: a helper without arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    let epoch = EPOCH.get(0).copied().unwrap_or_default();
    hop::tag((jiffies >> 8) as u32, epoch)
}

/// Notes how a frame has left that went to the backend in [`Work::backend`], if that has this
/// `mode`: by another one it may be reached another way.
#[inline(always)]
pub fn learn(ifindex: u32, mode: Mode, work: &Work) {
    let of = BACKENDS.get(work.backend.index()).map(|it| it.mode());
    if FAST.load() == 0 || work.fib.ifindex != ifindex || of != Some(mode) {
        return;
    }
    // SAFETY: any number is valid.
    let mtu = u32::from(unsafe { work.fib.__bindgen_anon_1.mtu_result });
    let (Some(new), Some(hop)) = (
        Hop::new(word(work.fib.dmac), ifindex, mtu, work.tag),
        block::place(&HOPS, work.backend.index()),
    ) else {
        return;
    };
    // SAFETY: two aligned words, each stored as a whole; half of a change does not count.
    unsafe { hop.write_volatile(new) };
}
