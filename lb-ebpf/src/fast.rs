//! The short way of most packets: those for nobody here, and those of flows that their slot says
//! all about. Whatever is not plain takes the long way, which comes to the same.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_jiffies64};
use lb_common::{
    Addr, Backend, Entry, Family, Frontend, Hook, Hop, Mode, Near, Port, Protocol, Tuple, Verdict,
    checksum::Delta,
    device::{handing, is_handed, word},
    filter,
    flow::tcp_flag,
    hop,
};

use crate::{
    count, direct, exceptions, flow,
    frame::{Context, Frame, IPV4_CHECKSUM, address_offsets, transport_checksum},
    headers::Headers,
    maps::{EPOCH, FAST, FILTER, FRONTENDS, HOPS, NEAR},
    packet::View,
    parse::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, MORE_V4, OFFSET_V4},
    table,
    transport::{TCP_LEN, UDP_LEN},
    work::Work,
};

/// What a plain network header says: no options, no fragment, in a frame without tags.
struct Network {
    src: Addr,
    dst: Addr,
    protocol: u8,
    ttl: u8,
    /// Offset of the transport header.
    l4: usize,
    /// Offset of the packet's end.
    end: usize,
}

/// What follows it, if that is TCP or UDP.
struct Plain {
    tuple: Tuple,
    l4: usize,
    end: usize,
    /// TCP flags; 0 for UDP.
    flags: u8,
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
    let tuple = &packet.tuple;
    let frontend = Frontend::new(tuple.dst, tuple.dst_port, tuple.protocol);
    // SAFETY: the value is one word.
    let entry = *unsafe { FRONTENDS.get(frontend) }?;
    let place = table::fixed(tuple, table::table(entry.service()));
    if !entry.is_plain() || !place.slot.is_settled() || network.ttl <= 1 {
        return None;
    }
    let backend = flow::backend(place.slot.current())?;
    let own = mac(ctx.view, 0)?;
    let near = NEAR.get(ctx.ifindex % Near::LEN as u32)?;
    if !near.takes(ctx.ifindex, own) {
        return None;
    }
    let (action, verdict) = match backend.mode() {
        Mode::Dsr => hand_over(ctx, &packet, backend, own)?,
        Mode::Local => deliver(ctx.view, &packet, entry, backend)?,
        Mode::Nat => return None,
    };
    let bytes = packet.end as u64;
    count::verdict(Hook::Xdp, verdict, bytes);
    count::request(entry.service(), backend.id, bytes);
    if packet.opens() {
        count::flow(entry.service(), backend.id);
    }
    Some(action)
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
    if network.protocol != Protocol::Tcp as u8 || packet.opens() {
        return None;
    }
    let primary = direct::primary(&packet.tuple)?;
    if !direct::restores(primary) || exceptions::may_be(&packet.tuple) {
        return None;
    }
    let mut to = packet.tuple;
    to.src = primary.addr;
    to.src_port = primary.port;
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
    frame.rewrite(headers, &to, false).ok()?;
    count::reply(primary.service, primary.backend, bytes);
    count::verdict(Hook::TcEgress, Verdict::ReplyLocal, bytes);
    Some(())
}

/// Whether an address is surely nothing to a hook.
#[inline(always)]
fn is_others(hook: Hook, addr: &Addr) -> bool {
    let (word, bit) = filter::place(hook, addr);
    FILTER.get(word).is_some_and(|word| word & bit == 0)
}

/// The frame goes to the node of a `dsr` backend, by a way that was looked up a moment ago.
#[inline(always)]
fn hand_over(
    ctx: Context<'_>,
    packet: &Plain,
    backend: &Backend,
    own: u64,
) -> Option<(u32, Verdict)> {
    let tag = tag();
    let len = (packet.end - ETH_LEN) as u32;
    let hop = HOPS.get(backend.id.index())?.leads(tag, ctx.ifindex, len)?;
    let from = mac(ctx.view, 6)?;
    // To where it comes from it takes another way, and what a peer handed over stays here.
    if from == hop || is_handed(from) {
        return None;
    }
    let [a, b, c] = halves(hop);
    let [d, e, f] = halves(handing(own));
    ctx.view
        .store(0, [a, b, c, d, e, f])
        .then_some((xdp_action::XDP_TX, Verdict::ForwardDsr))
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

/// The packet becomes one to a local backend whose replies need no record.
#[inline(always)]
fn deliver(
    view: View<'_>,
    packet: &Plain,
    entry: Entry,
    backend: &Backend,
) -> Option<(u32, Verdict)> {
    let tuple = &packet.tuple;
    let tcp = tuple.protocol == Protocol::Tcp as u8;
    if !tcp || backend.restored == 0 || entry.is_recorded() || packet.opens() {
        return None;
    }
    let addresses = Delta::NONE.addr(&tuple.dst, &backend.addr);
    let (_, dst) = address_offsets(tuple.family());
    let checksum = packet.l4 + transport_checksum(tuple.protocol)?;
    let sum: u16 = view.load(checksum)?;
    let delta = addresses.port(tuple.dst_port, backend.port);
    let mut written = view.store(checksum, delta.apply(sum));
    match tuple.family() {
        Family::V4 => {
            let header: u16 = view.load(ETH_LEN + IPV4_CHECKSUM)?;
            written &= view.store(ETH_LEN + IPV4_CHECKSUM, addresses.apply(header));
            written &= view.store(ETH_LEN + dst, backend.addr.v4_word());
        }
        Family::V6 => written &= view.store(ETH_LEN + dst, backend.addr.words()),
    }
    written &= view.store(packet.l4 + 2, backend.port.word());
    written.then_some((xdp_action::XDP_PASS, Verdict::ForwardLocal))
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

/// Notes how a frame has left that was handed over to the backend in [`Work::backend`].
#[inline(always)]
pub fn learn(ifindex: u32, work: &Work) {
    if FAST.load() == 0 || work.fib.ifindex != ifindex {
        return;
    }
    // SAFETY: any number is valid.
    let mtu = u32::from(unsafe { work.fib.__bindgen_anon_1.mtu_result });
    let (Some(new), Some(hop)) = (
        Hop::new(word(work.fib.dmac), ifindex, mtu, work.tag),
        HOPS.get_ptr_mut(work.backend.index()),
    ) else {
        return;
    };
    // SAFETY: two aligned words, each stored as a whole; half of a change does not count.
    unsafe { hop.write_volatile(new) };
}

/// Reads a plain network header. Of ICMP nothing is plain: errors are about other packets.
#[inline(always)]
fn network(ctx: Context<'_>) -> Option<Network> {
    let view = ctx.view;
    let network = match view.load::<u16>(12)? {
        ETHERTYPE_IPV4 => {
            let words: [u32; 5] = view.load(ETH_LEN)?;
            let [version, _, high, low] = words[0].to_ne_bytes();
            let [_, _, fragment_high, fragment_low] = words[1].to_ne_bytes();
            let [ttl, protocol, ..] = words[2].to_ne_bytes();
            let part = u16::from_ne_bytes([fragment_high, fragment_low]) & (MORE_V4 | OFFSET_V4);
            if version != 0x45 || part != 0 {
                return None;
            }
            Network {
                src: Addr::from_v4_word(words[3]),
                dst: Addr::from_v4_word(words[4]),
                protocol,
                ttl,
                l4: ETH_LEN + IPV4_LEN,
                end: ETH_LEN + usize::from(u16::from_be_bytes([high, low])),
            }
        }
        ETHERTYPE_IPV6 => {
            let words: [u32; 10] = view.load(ETH_LEN)?;
            let [version, ..] = words[0].to_ne_bytes();
            let [high, low, protocol, ttl] = words[1].to_ne_bytes();
            let src = Addr::from_words([words[2], words[3], words[4], words[5]]);
            let dst = Addr::from_words([words[6], words[7], words[8], words[9]]);
            if version >> 4 != 6 || src.family() == Family::V4 || dst.family() == Family::V4 {
                return None;
            }
            let l4 = ETH_LEN + IPV6_LEN;
            let end = l4 + usize::from(u16::from_be_bytes([high, low]));
            Network {
                src,
                dst,
                protocol,
                ttl,
                l4,
                end,
            }
        }
        _ => return None,
    };
    let plain = network.protocol == Protocol::Tcp as u8 || network.protocol == Protocol::Udp as u8;
    let whole = view.len() >= network.end || ctx.frame_len() >= network.end;
    (plain && whole && network.l4 <= network.end).then_some(network)
}

/// Reads the ports and flags of a whole TCP or UDP header.
#[inline(always)]
fn transport(view: View<'_>, network: &Network) -> Option<Plain> {
    let Network { l4, end, .. } = *network;
    let (ports, flags, len): (u32, u8, usize);
    if network.protocol == Protocol::Tcp as u8 {
        let words: [u32; 5] = view.load(l4)?;
        let [offset, bits, ..] = words[3].to_ne_bytes();
        (ports, flags, len) = (words[0], bits, usize::from(offset >> 4) * 4);
        if len < TCP_LEN {
            return None;
        }
    } else {
        let words: [u32; 2] = view.load(l4)?;
        let [high, low, ..] = words[1].to_ne_bytes();
        (ports, flags, len) = (words[0], 0, usize::from(u16::from_be_bytes([high, low])));
        if len < UDP_LEN {
            return None;
        }
    }
    if l4 + len > end {
        return None;
    }
    let [a, b, c, d] = ports.to_ne_bytes();
    let src_port = Port::from_word(u16::from_ne_bytes([a, b]));
    let dst_port = Port::from_word(u16::from_ne_bytes([c, d]));
    Some(Plain {
        tuple: Tuple::new(
            network.src,
            src_port,
            network.dst,
            dst_port,
            network.protocol,
        ),
        l4,
        end,
        flags,
    })
}

impl Plain {
    /// Whether it opens a connection (SYN without ACK).
    #[inline(always)]
    const fn opens(&self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}
