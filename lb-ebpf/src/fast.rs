//! The short way of most packets: those for nobody here, and those of flows that their slot says
//! all about. Whatever is not plain takes the long way, which comes to the same.

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    Addr, Backend, Entry, Family, Frontend, Hook, Hop, Mode, Near, Port, Protocol, Tuple, Verdict,
    checksum::Delta,
    device::{handing, is_handed, word},
    filter,
    flow::tcp_flag,
    hop,
};

use crate::{
    count, flow,
    frame::{Context, IPV4_CHECKSUM, address_offsets, transport_checksum},
    maps::{EPOCH, FAST, FILTER, FRONTENDS, HOPS, NEAR},
    packet::View,
    parse::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, MORE_V4, OFFSET_V4},
    table,
    transport::{TCP_LEN, UDP_LEN},
    work::Work,
};

/// What a plain packet's headers say: TCP or UDP right after a network header without options,
/// unfragmented, in a frame without tags.
struct Plain {
    tuple: Tuple,
    /// Offset of the transport header.
    l4: usize,
    /// Offset of the packet's end.
    end: usize,
    ttl: u8,
    /// TCP flags; 0 for UDP.
    flags: u8,
}

/// What comes in at XDP: its action if this is all about it.
#[inline(always)]
pub fn run(ctx: Context<'_>) -> Option<u32> {
    let packet = plain(ctx)?;
    if is_others(Hook::Xdp, &packet.tuple.dst) {
        count::verdict(Hook::Xdp, Verdict::NotOurs, packet.end as u64);
        return Some(xdp_action::XDP_PASS);
    }
    let tuple = &packet.tuple;
    let frontend = Frontend::new(tuple.dst, tuple.dst_port, tuple.protocol);
    // SAFETY: the value is one word.
    let entry = *unsafe { FRONTENDS.get(frontend) }?;
    let place = table::fixed(tuple, table::table(entry.service()));
    if !entry.is_plain() || !place.slot.is_settled() || packet.ttl <= 1 {
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

/// Whether a packet at a classifier is for nobody here; it is counted then.
#[inline(always)]
pub fn passes(ctx: Context<'_>) -> bool {
    if FAST.load() == 0 {
        return false;
    }
    let Some(packet) = plain(ctx) else {
        return false;
    };
    let addr = match ctx.hook {
        Hook::TcEgress => &packet.tuple.src,
        Hook::Xdp | Hook::TcIngress => &packet.tuple.dst,
    };
    let others = is_others(ctx.hook, addr);
    if others {
        count::verdict(ctx.hook, Verdict::NotOurs, packet.end as u64);
    }
    others
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
    let tag = hop::tag(flow::now(), *EPOCH.get(0)?);
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

#[inline(always)]
fn plain(ctx: Context<'_>) -> Option<Plain> {
    let view = ctx.view;
    let (src, dst, protocol, ttl, l4, end);
    match view.load::<u16>(12)? {
        ETHERTYPE_IPV4 => {
            let words: [u32; 5] = view.load(ETH_LEN)?;
            let [version, _, high, low] = words[0].to_ne_bytes();
            let [_, _, fragment_high, fragment_low] = words[1].to_ne_bytes();
            let part = u16::from_ne_bytes([fragment_high, fragment_low]) & (MORE_V4 | OFFSET_V4);
            if version != 0x45 || part != 0 {
                return None;
            }
            [ttl, protocol, ..] = words[2].to_ne_bytes();
            src = Addr::from_v4_word(words[3]);
            dst = Addr::from_v4_word(words[4]);
            l4 = ETH_LEN + IPV4_LEN;
            end = ETH_LEN + usize::from(u16::from_be_bytes([high, low]));
        }
        ETHERTYPE_IPV6 => {
            let words: [u32; 10] = view.load(ETH_LEN)?;
            let [version, ..] = words[0].to_ne_bytes();
            let [high, low, next, hops] = words[1].to_ne_bytes();
            src = Addr::from_words([words[2], words[3], words[4], words[5]]);
            dst = Addr::from_words([words[6], words[7], words[8], words[9]]);
            if version >> 4 != 6 || src.family() == Family::V4 || dst.family() == Family::V4 {
                return None;
            }
            (protocol, ttl) = (next, hops);
            l4 = ETH_LEN + IPV6_LEN;
            end = l4 + usize::from(u16::from_be_bytes([high, low]));
        }
        _ => return None,
    }
    let (ports, flags): (u32, u8);
    if protocol == Protocol::Tcp as u8 {
        let words: [u32; 5] = view.load(l4)?;
        let [offset, bits, ..] = words[3].to_ne_bytes();
        let len = usize::from(offset >> 4) * 4;
        if len < TCP_LEN || l4 + len > end {
            return None;
        }
        (ports, flags) = (words[0], bits);
    } else if protocol == Protocol::Udp as u8 {
        let words: [u32; 2] = view.load(l4)?;
        let [high, low, ..] = words[1].to_ne_bytes();
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len < UDP_LEN || l4 + len > end {
            return None;
        }
        (ports, flags) = (words[0], 0);
    } else {
        return None;
    }
    if view.len() < end && ctx.frame_len() < end {
        return None;
    }
    let [a, b, c, d] = ports.to_ne_bytes();
    let src_port = Port::from_word(u16::from_ne_bytes([a, b]));
    let dst_port = Port::from_word(u16::from_ne_bytes([c, d]));
    Some(Plain {
        tuple: Tuple::new(src, src_port, dst, dst_port, protocol),
        l4,
        end,
        ttl,
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
