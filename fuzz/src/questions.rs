//! What must hold of answers to who asks for a link address: ARP and neighbour discovery.

use etherparse::{
    Ethernet2Header, Icmpv6Slice, Icmpv6Type, Ipv6Header, NetSlice, SlicedPacket, TransportSlice,
};
use lb_common::Hook;

use crate::{
    announce,
    frame::Frame,
    headers::Headers,
    machine::{self, programs},
    parse,
    work::Work,
    xdp::XdpFrame,
};

/// The link address that is asked for.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x65];
/// Where the IPv6 header of an untagged frame begins, and what follows it.
const L3: usize = 14;
/// See [`L3`].
const L4: usize = L3 + 40;
/// Where the checksum of ICMPv6 is.
const SUM: usize = L4 + 2;

/// Answers a frame as both, with its checksum made right where `repair` says so.
pub(crate) fn check(bytes: &[u8], repair: bool) {
    arp(bytes);
    let mut bytes = bytes.to_vec();
    if repair && let Some(sum) = sum(&bytes) {
        bytes[SUM..SUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
    ndp(&bytes);
}

/// Only a request is answered (RFC 826), with a reply that turns it around.
fn arp(asked: &[u8]) {
    let mut host = machine::Frame::new(asked);
    let mut frame = XdpFrame::new(programs::XdpContext::new(&mut host));
    let Ok(work) = Work::of(Hook::Xdp) else {
        return;
    };
    if announce::asks_by_arp(frame.context().view, work).is_none() {
        return;
    }
    work.link[1] = MAC;
    assert_eq!(announce::reply(&mut frame, work), Ok(()));
    let mut expected = asked.to_vec();
    let (sender, sender_ip) = (&asked[22..28], &asked[28..32]);
    let target_ip = &asked[38..42];
    assert_eq!(asked[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    assert!(sender[0] & 1 == 0 && sender_ip != target_ip, "{asked:02x?}");
    expected[..6].copy_from_slice(sender);
    expected[6..12].copy_from_slice(&MAC);
    expected[21] = 2;
    expected[22..28].copy_from_slice(&MAC);
    expected[28..32].copy_from_slice(target_ip);
    expected[32..38].copy_from_slice(sender);
    expected[38..42].copy_from_slice(sender_ip);
    assert_eq!(host.bytes(), expected);
}

/// Only a valid solicitation is answered (RFC 4861 section 7.1.1), with a valid
/// advertisement (section 7.1.2) of its target.
fn ndp(asked: &[u8]) {
    let mut host = machine::Frame::new(asked);
    let mut frame = XdpFrame::new(programs::XdpContext::new(&mut host));
    let (Ok(headers), Ok(work)) = (Headers::of(Hook::Xdp), Work::of(Hook::Xdp)) else {
        return;
    };
    if parse::parse(frame.context(), headers).is_err()
        || !announce::solicits(frame.context().view, headers, work)
    {
        return;
    }
    work.link[1] = MAC;
    assert_eq!(announce::advertise(&mut frame, work), Ok(()));
    let answer = host.bytes();

    let question = ip(asked);
    assert_eq!(
        (question.hop_limit, &asked[L4..L4 + 2]),
        (255, &[135, 0][..])
    );
    assert_eq!(
        sum(asked),
        Some(u16::from_be_bytes([asked[SUM], asked[SUM + 1]]))
    );
    let target = &asked[L4 + 8..L4 + 24];
    assert_ne!(target[0], 0xff, "a group");
    let (link, reply) = (Ethernet2Header::from_slice(answer), ip(answer));
    let link = link.expect("an Ethernet header").0;
    assert_eq!((link.source, reply.hop_limit), (MAC, 255));
    assert_eq!(reply.source[..], *target);
    let probe = question.source == [0; 16];
    let flags = if probe { 0x20 } else { 0x40 };
    assert_eq!(answer[L4..L4 + 2], [136, 0]);
    assert_eq!(answer[L4 + 4..L4 + 8], [flags, 0, 0, 0]);
    assert_eq!(answer[L4 + 8..L4 + 24], *target);
    assert_eq!(answer[L4 + 24..], [&[2, 1], &MAC[..]].concat());
    assert_eq!(
        sum(answer),
        Some(u16::from_be_bytes([answer[SUM], answer[SUM + 1]]))
    );
    if probe {
        assert_eq!(link.destination, [0x33, 0x33, 0, 0, 0, 1]);
    } else {
        assert_eq!(reply.destination, question.source);
        assert_eq!(link.destination[0] & 1, 0);
    }
}

/// The IPv6 header of an untagged frame.
fn ip(frame: &[u8]) -> Ipv6Header {
    Ipv6Header::from_slice(&frame[L3..])
        .expect("an IPv6 header")
        .0
}

/// The right checksum of an untagged frame, where ICMPv6 follows its IPv6 header at once.
fn sum(frame: &[u8]) -> Option<u16> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
        (packet.net, packet.transport)
    else {
        return None;
    };
    let at = icmp.slice().as_ptr() as usize - frame.as_ptr() as usize;
    (at == L4).then(|| computed(&ip.header(), &icmp))
}

fn computed(ip: &etherparse::Ipv6HeaderSlice<'_>, icmp: &Icmpv6Slice<'_>) -> u16 {
    // Of any type, the checksum covers all: as of one that etherparse knows nothing of.
    let [type_u8, code_u8, _, _, a, b, c, d, body @ ..] = icmp.slice() else {
        return 0;
    };
    let kind = Icmpv6Type::Unknown {
        type_u8: *type_u8,
        code_u8: *code_u8,
        bytes5to8: [*a, *b, *c, *d],
    };
    kind.calc_checksum(ip.source(), ip.destination(), body)
        .expect("a short message")
}
