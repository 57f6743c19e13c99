//! What follows the network header: ports, or an ICMP message.

use lb_common::{Addr, Family, Port, Protocol, Tuple};

use crate::{
    headers::{Fragment, Headers, Payload},
    packet::View,
    parse::{IPV4_LEN, IPV6_LEN},
};

/// Length of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;
/// Length of an ICMP header.
pub const ICMP_LEN: usize = 8;
/// Length of SCTP's common header.
const SCTP_LEN: usize = 12;
/// Length of IPv6's fragment header.
const FRAGMENT_LEN: usize = 8;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6 next header: fragment.
const FRAGMENT: u8 = 44;

/// Reads what follows the network header of a packet.
#[inline(always)]
pub fn parse(view: View<'_>, headers: &mut Headers, family: Family) {
    let protocol = headers.tuple.protocol;
    let balanced = Protocol::from_number(protocol);
    headers.payload = match (headers.fragment, balanced) {
        // Its ports are those of the first.
        (Fragment::Later, Some(_)) => Payload::Ports,
        (_, Some(protocol)) => ports(view, headers, protocol),
        (Fragment::No, None) if protocol == icmp_of(family) => {
            return icmp(view, headers, family);
        }
        _ => Payload::Other,
    };
}

/// The family's control protocol.
#[inline(always)]
pub const fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    }
}

/// Reads ports and flags. The whole header must be there, since it will be rewritten.
#[inline(always)]
fn ports(view: View<'_>, headers: &mut Headers, protocol: Protocol) -> Payload {
    let l4 = headers.l4();
    let room = headers.end() - l4;
    let (first, len) = match protocol {
        Protocol::Tcp => {
            let Some(words) = view.load::<[u32; 5]>(l4) else {
                return Payload::Short;
            };
            let [offset, flags, ..] = words[3].to_ne_bytes();
            let len = usize::from(offset >> 4) * 4;
            if room < TCP_LEN {
                return Payload::Short;
            }
            if len < TCP_LEN || len > room {
                return Payload::BadTcp;
            }
            headers.tcp_flags = flags;
            (words[0], len)
        }
        Protocol::Udp => {
            let Some(words) = view.load::<[u32; 2]>(l4) else {
                return Payload::Short;
            };
            let [high, low, ..] = words[1].to_ne_bytes();
            let len = usize::from(u16::from_be_bytes([high, low]));
            if room < UDP_LEN {
                return Payload::Short;
            }
            // A first fragment's length is the whole datagram's.
            if len < UDP_LEN || len > room && headers.fragment == Fragment::No {
                return Payload::BadUdp;
            }
            (words[0], UDP_LEN)
        }
        Protocol::Sctp => {
            let Some(words) = view.load::<[u32; 3]>(l4) else {
                return Payload::Short;
            };
            if room < SCTP_LEN {
                return Payload::Short;
            }
            (words[0], SCTP_LEN)
        }
    };
    headers.transport_len = len as u8;
    let (src, dst) = split(first);
    headers.tuple.src_port = src;
    headers.tuple.dst_port = dst;
    Payload::Ports
}

/// Source and destination port out of the word that has both.
#[inline(always)]
fn split(word: u32) -> (Port, Port) {
    let [a, b, c, d] = word.to_ne_bytes();
    (
        Port::from_word(u16::from_ne_bytes([a, b])),
        Port::from_word(u16::from_ne_bytes([c, d])),
    )
}

/// Reads an ICMP message, and of an error the packet that it quotes.
#[inline(always)]
fn icmp(view: View<'_>, headers: &mut Headers, family: Family) {
    let l4 = headers.l4();
    if headers.end() - l4 < ICMP_LEN {
        headers.payload = Payload::Short;
        return;
    }
    let Some([kind, ..]) = view.load::<[u8; ICMP_LEN]>(l4) else {
        headers.payload = Payload::Short;
        return;
    };
    headers.payload = match (family, kind) {
        (Family::V4, 8) | (Family::V6, 128) => Payload::Echo,
        (Family::V6, 133..=137) => Payload::Neighbour,
        // Unreachable, time exceeded, bad parameter.
        (Family::V4, 3 | 11 | 12) => return quoted_ipv4(view, headers, l4 + ICMP_LEN),
        // Unreachable, too big, time exceeded, bad parameter.
        (Family::V6, 1..=4) => return quoted_ipv6(view, headers, l4 + ICMP_LEN),
        _ => Payload::Other,
    };
}

#[inline(always)]
fn quoted_ipv4(view: View<'_>, headers: &mut Headers, l3: usize) {
    headers.payload = Payload::Other;
    let Some(words) = view.load::<[u32; 5]>(l3) else {
        return;
    };
    let [version, ..] = words[0].to_ne_bytes();
    let [_, _, high, low] = words[1].to_ne_bytes();
    let [_, protocol, ..] = words[2].to_ne_bytes();
    let header_len = usize::from(version & 0x0f) * 4;
    let later = u16::from_be_bytes([high, low]) & 0x1fff != 0;
    if version >> 4 != 4 || header_len < IPV4_LEN || later {
        return;
    }
    let (src, dst) = (Addr::from_v4_word(words[3]), Addr::from_v4_word(words[4]));
    quoted_ports(view, headers, src, dst, protocol, l3, l3 + header_len);
}

#[inline(always)]
fn quoted_ipv6(view: View<'_>, headers: &mut Headers, l3: usize) {
    headers.payload = Payload::Other;
    let Some(words) = view.load::<[u32; 10]>(l3) else {
        return;
    };
    let [_, _, mut protocol, _] = words[1].to_ne_bytes();
    let mut l4 = l3 + IPV6_LEN;
    if protocol == FRAGMENT {
        let Some([kind, _, high, low]) = view.load::<[u8; 4]>(l4) else {
            return;
        };
        if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
            return;
        }
        protocol = kind;
        l4 += FRAGMENT_LEN;
    }
    let src = Addr::from_words([words[2], words[3], words[4], words[5]]);
    let dst = Addr::from_words([words[6], words[7], words[8], words[9]]);
    // IPv4 addresses in there would be taken for an IPv4 flow's.
    if src.family() == Family::V4 || dst.family() == Family::V4 {
        return;
    }
    quoted_ports(view, headers, src, dst, protocol, l3, l4);
}

#[inline(always)]
fn quoted_ports(
    view: View<'_>,
    headers: &mut Headers,
    src: Addr,
    dst: Addr,
    protocol: u8,
    l3: usize,
    l4: usize,
) {
    // RFC 792: eight bytes of it at least.
    let Some(words) = view.load::<[u32; 2]>(l4) else {
        return;
    };
    if Protocol::from_number(protocol).is_none() || l4 + 8 > headers.end() {
        return;
    }
    let (src_port, dst_port) = split(words[0]);
    headers.quote(Tuple::new(src, src_port, dst, dst_port, protocol), l3, l4);
}
