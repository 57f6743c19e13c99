//! Answers to those who ask for the link address of a claimed address: ARP requests
//! (RFC 826) and neighbour solicitations (RFC 4861), at XDP, for as long as the agent
//! vouches for what it has claimed.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use lb_common::{Addr, Claim, Family, Hook, Verdict, checksum};

use crate::{
    count,
    frame::{Context, Frame},
    headers::Headers,
    lookup::{Plan, Step},
    maps::{CLAIMS, DEVICES, LEASE},
    packet::View,
    parse::{ETH_LEN, IPV6_LEN},
    refuse,
    transport::ICMPV6,
    work::Work,
};

const BROADCAST: [u8; 6] = [0xff; 6];
/// How an ARP packet for IPv4 over Ethernet begins, and the EtherType before it.
const ARP: [u16; 4] = [
    0x0806_u16.to_be(),
    1_u16.to_be(),
    0x0800_u16.to_be(),
    0x0604_u16.to_be(),
];
const REQUEST: u16 = 1_u16.to_be();
const REPLY: u16 = 2_u16.to_be();
/// Offsets in the frame, that of the operation being the first.
const OPERATION: usize = 20;
const SENDER: usize = 22;
const SENDER_IP: usize = 28;
const TARGET_IP: usize = 38;

/// Where ICMPv6 begins: a solicitation has neither tags nor extension headers.
const ICMP: usize = ETH_LEN + IPV6_LEN;
/// Length of a solicitation, and of an advertisement, without options.
const MESSAGE: usize = 24;
/// Where the options begin.
const OPTIONS: usize = ICMP + MESSAGE;
/// Length of the shortest option; all are multiples of it.
const UNIT: usize = 8;
/// Most units of options that are read. Usual are one, and a nonce of one (RFC 7527).
const MAX_UNITS: usize = 4;
/// Type of a solicitation, and its code.
const SOLICITATION: [u8; 2] = [135, 0];
/// Type of an advertisement.
const ADVERTISEMENT: u8 = 136;
/// Options: the link address of who asks, and of what was asked for.
const SOURCE_LINK: u8 = 1;
/// See [`SOURCE_LINK`].
const TARGET_LINK: u8 = 2;
/// Flag of an advertisement: somebody asked for it.
const SOLICITED: u8 = 0x40;
/// Flag of an advertisement: it replaces what the neighbours know.
const OVERRIDE: u8 = 0x20;
/// All nodes on the link, and where frames to them go.
const ALL_NODES: [u32; 4] = [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()];
/// See [`ALL_NODES`].
const ALL_NODES_LINK: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Answers a frame that is no IP packet, where it is an ARP request for a claimed address.
/// An error is the verdict on one that is not answered.
#[inline(always)]
pub fn arp<F: Frame>(frame: &mut F) -> Result<(), Verdict> {
    let ctx = frame.context();
    let work = Work::of(F::HOOK)?;
    asks_by_arp(ctx.view, work).ok_or(Verdict::NotIp)?;
    admit(ctx, work, BROADCAST, Verdict::NotIp)?;
    reply(frame, work)?;
    count::answered(&work.claim);
    Ok(())
}

/// Whether the frame is an ARP request that may be answered; what it asks for is then in
/// [`Work::claim`], and who asks in [`Work::link`].
///
/// Who announces an address as its own asks nobody, and nobody can be answered as a group.
/// One without an address yet probes whether it is free, and is told that it is not.
#[inline(always)]
pub fn asks_by_arp(view: View<'_>, work: &mut Work) -> Option<()> {
    let [kind, hardware, protocol, lengths, operation]: [u16; 5] = view.load(12)?;
    if [kind, hardware, protocol, lengths] != ARP || operation != REQUEST {
        return None;
    }
    let sender: [u8; 6] = view.load(SENDER)?;
    if !is_station(sender) {
        return None;
    }
    let from: u32 = view.load(SENDER_IP)?;
    let target: u32 = view.load(TARGET_IP)?;
    work.link[0] = sender;
    work.claim.addr = Addr::from_v4_word(target);
    (from != target).then_some(())
}

/// Turns the request into the reply: from the link address in the second place of
/// [`Work::link`] to the one in the first.
#[inline(always)]
pub fn reply<F: Frame>(frame: &mut F, work: &Work) -> Result<(), Verdict> {
    let from: [u16; 2] = frame
        .context()
        .view
        .load(SENDER_IP)
        .ok_or(Verdict::EmitFailed)?;
    let [asker, own] = work.link;
    frame.store(0, work.link)?;
    frame.store(OPERATION, REPLY)?;
    frame.store(SENDER, own)?;
    frame.store(SENDER_IP, work.claim.addr.v4_word())?;
    frame.store(SENDER_IP + 4, asker)?;
    frame.store(TARGET_IP, from)
}

/// The plan for a packet of neighbour discovery.
#[inline(always)]
pub fn solicited(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if ctx.hook != Hook::Xdp || !solicits(ctx.view, headers, work) {
        return Err(Verdict::NotOurs);
    }
    let [_, a, b, c] = work.claim.addr.words()[3].to_ne_bytes();
    let group = [0x33, 0x33, 0xff, a, b, c];
    admit(ctx, work, group, Verdict::NotOurs)?;
    Ok(Step::Advertise.with(Verdict::NdpAnswered))
}

/// Whether the packet is a solicitation that may be answered (RFC 4861 section 7.1.1); what
/// it asks for is then in [`Work::claim`], the link address to answer to in [`Work::link`],
/// and the addresses of the answer in [`Work::to`].
///
/// With extension headers it is none: fragments are forbidden (RFC 6980), others unheard of.
#[inline(always)]
pub fn solicits(view: View<'_>, headers: &Headers, work: &mut Work) -> bool {
    let len = (headers.ip_len as usize).wrapping_sub(IPV6_LEN);
    let units = len.wrapping_sub(MESSAGE) / UNIT;
    if headers.l3() != ETH_LEN
        || headers.l4() != ICMP
        || headers.ttl != 255
        || len < MESSAGE
        || !len.is_multiple_of(UNIT)
        || units > MAX_UNITS
    {
        return false;
    }
    let Some([first, _, a, b, c, d]) = view.load::<[u32; 6]>(ICMP) else {
        return false;
    };
    let [kind, code, ..] = first.to_ne_bytes();
    let target = Addr::from_words([a, b, c, d]);
    let (src, dst) = (&headers.tuple.src, &headers.tuple.dst);
    // An IPv4 address in there would be taken for one.
    if [kind, code] != SOLICITATION || !refuse::is_unicast(&target) || target.family() == Family::V4
    {
        return false;
    }
    let group = is_group_of(dst, &target);
    if !group && *dst != target {
        return false;
    }
    if !is_intact(view, headers, len) {
        return false;
    }
    let Some(link) = source_link(view, units, work) else {
        return false;
    };
    work.claim.addr = target;
    work.to.src = target;
    work.to.dst = *src;
    if src.is_unspecified() {
        // Somebody is about to take the address: all are told that it is taken.
        work.to.dst = Addr::from_words(ALL_NODES);
        work.link[0] = ALL_NODES_LINK;
        return group && !link;
    }
    link && refuse::is_unicast(src) && *src != target && is_station(work.link[0])
}

/// Whether `dst` is the group that solicitations for `target` go to (RFC 4291 section 2.7.1).
#[inline(always)]
fn is_group_of(dst: &Addr, target: &Addr) -> bool {
    let [a, b, c, d] = dst.words();
    let [_, x, y, z] = target.words()[3].to_ne_bytes();
    let last = u32::from_ne_bytes([0xff, x, y, z]);
    [a, b, c, d] == [ALL_NODES[0], 0, 1_u32.to_be(), last]
}

/// Whether the checksum over `len` bytes is right.
#[inline(always)]
fn is_intact(view: View<'_>, headers: &Headers, len: usize) -> bool {
    let mut total = refuse::pseudo(&headers.tuple, ICMPV6, len);
    for word in 0..(MESSAGE + MAX_UNITS * UNIT) / 4 {
        if word * 4 >= len {
            break;
        }
        let Some(bytes) = view.load::<u32>(ICMP + word * 4) else {
            return false;
        };
        total += u64::from(bytes);
    }
    checksum::finish(total) == 0
}

/// Whether there is a link address of who asks among options of so many units, which is then
/// in [`Work::link`]; none where the options are not what options are.
#[inline(always)]
fn source_link(view: View<'_>, units: usize, work: &mut Work) -> Option<bool> {
    let mut found = false;
    let mut next = 0;
    for unit in 0..MAX_UNITS {
        // Only where an option begins.
        if unit >= units || unit != next {
            continue;
        }
        let [kind, size, a, b, c, d, e, f]: [u8; UNIT] = view.load(OPTIONS + unit * UNIT)?;
        if size == 0 {
            return None;
        }
        if kind == SOURCE_LINK {
            found = true;
            work.link[0] = [a, b, c, d, e, f];
        }
        next += usize::from(size);
    }
    (next == units).then_some(found)
}

/// Turns a solicitation into the advertisement that answers it: from the link address in
/// the second place of [`Work::link`] to the one in the first.
#[inline(always)]
pub fn advertise<F: Frame>(frame: &mut F, work: &Work) -> Result<(), Verdict> {
    if F::HOOK != Hook::Xdp {
        return Err(Verdict::EmitFailed);
    }
    const LEN: usize = MESSAGE + UNIT;
    let [a, b, c, d] = work.claim.addr.words();
    let [_, [m, n, o, p, q, r]] = work.link;
    let asked = work.to.dst.words() != ALL_NODES;
    let flags = if asked { SOLICITED } else { OVERRIDE };
    let mut message = [
        u32::from_ne_bytes([ADVERTISEMENT, 0, 0, 0]),
        u32::from_ne_bytes([flags, 0, 0, 0]),
        a,
        b,
        c,
        d,
        u32::from_ne_bytes([TARGET_LINK, 1, m, n]),
        u32::from_ne_bytes([o, p, q, r]),
    ];
    let mut total = refuse::pseudo(&work.to, ICMPV6, LEN);
    for word in message {
        total += u64::from(word);
    }
    let [high, low] = checksum::finish(total).to_ne_bytes();
    message[0] = u32::from_ne_bytes([ADVERTISEMENT, 0, high, low]);
    frame.reshape(0, ICMP + LEN)?;
    frame.store(0, work.link)?;
    let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
    let second = u32::from_ne_bytes([0, LEN as u8, ICMPV6, 255]);
    frame.store(ETH_LEN, [first, second])?;
    frame.store(ETH_LEN + 8, work.to.src.words())?;
    frame.store(ETH_LEN + 24, work.to.dst.words())?;
    frame.store(ICMP, message)?;
    count::answered(&work.claim);
    Ok(())
}

/// Whether one station can own the link address: it is not zero, and no group.
#[inline(always)]
fn is_station(link: [u8; 6]) -> bool {
    link != [0; 6] && link[0] & 1 == 0
}

/// Lets a question through that is for a claimed address, came to this interface or the
/// `group` of those who are asked, and is not this interface's own. What is none is the
/// stack's, with the verdict `other`.
#[inline(always)]
fn admit(ctx: Context<'_>, work: &mut Work, group: [u8; 6], other: Verdict) -> Result<(), Verdict> {
    let Claim { ifindex, .. } = &mut work.claim;
    *ifindex = ctx.ifindex;
    let count = CLAIMS.get_ptr_mut(&work.claim).ok_or(other)?;
    // SAFETY: the hardware address of an entry changes with the interface's own.
    let device = unsafe { DEVICES.get(ctx.ifindex) }.ok_or(other)?;
    let to: [u8; 6] = ctx.view.load(0).ok_or(other)?;
    if to != device.mac && to != group || work.link[0] == device.mac {
        return Err(other);
    }
    work.link[1] = device.mac;
    count::asked(count);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if LEASE.get(0).is_none_or(|until| *until <= now) {
        return Err(Verdict::ClaimExpired);
    }
    Ok(())
}
