//! Frame → packet, or why it is left alone (RFC 791, RFC 8200, RFC 792, RFC 4443).

use std::net::IpAddr;

use lb_common::Verdict;

use crate::wire::{ICMP, ICMPV6, SCTP, TCP, Tuple, UDP, get_ip, get16, get32};

/// A packet whose network header makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Offset of the network header; more than 14 where there are VLAN tags.
    pub(crate) l3: usize,
    /// Offset of what follows the network header and its extensions.
    pub(crate) l4: usize,
    /// Offset of the packet's end; padding may follow.
    pub(crate) end: usize,
    pub(crate) v6: bool,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// Whether routers must not cut it.
    pub(crate) whole: bool,
    pub(crate) fragment: Fragment,
    /// Identification of the packet that this is a fragment of.
    pub(crate) id: u32,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    None,
    First,
    Later,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A transport protocol that is balanced. In later fragments all is 0.
    Ports {
        sport: u16,
        dport: u16,
        flags: u8,
        /// Length of the transport header.
        len: usize,
    },
    Echo,
    /// An error about a packet that has ports.
    Error(Quote),
    /// Neighbour or router discovery (RFC 4861).
    Neighbour,
    BadTcp,
    BadUdp,
    Short,
    Other,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) tuple: Tuple,
    pub(crate) l3: usize,
    pub(crate) l4: usize,
}

impl Packet {
    /// Addresses and ports; ports are 0 where it has none.
    pub(crate) fn tuple(&self) -> Tuple {
        let (sport, dport) = match self.body {
            Body::Ports { sport, dport, .. } => (sport, dport),
            _ => (0, 0),
        };
        Tuple {
            src: self.src,
            sport,
            dst: self.dst,
            dport,
            protocol: self.protocol,
        }
    }

    /// TCP flags; 0 where there are none.
    pub(crate) fn flags(&self) -> u8 {
        match self.body {
            Body::Ports { flags, .. } => flags,
            _ => 0,
        }
    }

    /// SYN without ACK.
    pub(crate) fn opens(&self) -> bool {
        self.flags() & (crate::wire::SYN | crate::wire::ACK) == crate::wire::SYN
    }
}

/// Reads a frame.
pub(crate) fn parse(frame: &[u8]) -> Result<Packet, Verdict> {
    let mut l3 = 14;
    let mut ethertype = get16(frame, 12);
    let mut tags = 0;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        tags += 1;
        if tags > 2 {
            return Err(Verdict::Unparsed);
        }
        if frame.len() < l3 + 4 {
            return Err(Verdict::Truncated);
        }
        ethertype = get16(frame, l3 + 2);
        l3 += 4;
    }
    let mut packet = match ethertype {
        0x0800 => ipv4(frame, l3)?,
        0x86dd => ipv6(frame, l3)?,
        _ => return Err(Verdict::NotIp),
    };
    if packet.end > frame.len() {
        return Err(Verdict::BadLength);
    }
    packet.body = body(frame, &packet);
    Ok(packet)
}

fn ipv4(frame: &[u8], l3: usize) -> Result<Packet, Verdict> {
    if frame.len() < l3 + 20 {
        return Err(Verdict::Truncated);
    }
    let header = usize::from(frame[l3] & 0x0f) * 4;
    if frame[l3] >> 4 != 4 || header < 20 {
        return Err(Verdict::BadHeader);
    }
    let total = usize::from(get16(frame, l3 + 2));
    if total < header {
        return Err(Verdict::BadLength);
    }
    let bits = get16(frame, l3 + 6);
    Ok(Packet {
        l3,
        l4: l3 + header,
        end: l3 + total,
        v6: false,
        src: get_ip(frame, l3 + 12, false),
        dst: get_ip(frame, l3 + 16, false),
        protocol: frame[l3 + 9],
        ttl: frame[l3 + 8],
        whole: bits & 0x4000 != 0,
        fragment: fragment(bits & 0x1fff != 0, bits & 0x2000 != 0),
        id: get16(frame, l3 + 4).into(),
        body: Body::Other,
    })
}

fn ipv6(frame: &[u8], l3: usize) -> Result<Packet, Verdict> {
    if frame.len() < l3 + 40 {
        return Err(Verdict::Truncated);
    }
    if frame[l3] >> 4 != 6 {
        return Err(Verdict::BadHeader);
    }
    let (src, dst) = (get_ip(frame, l3 + 8, true), get_ip(frame, l3 + 24, true));
    if is_mapped(src) || is_mapped(dst) {
        return Err(Verdict::Unparsed);
    }
    let mut packet = Packet {
        l3,
        l4: l3 + 40,
        end: l3 + 40 + usize::from(get16(frame, l3 + 4)),
        v6: true,
        src,
        dst,
        protocol: frame[l3 + 6],
        ttl: frame[l3 + 7],
        whole: true,
        fragment: Fragment::None,
        id: 0,
        body: Body::Other,
    };
    let mut extensions = 0;
    // Hop-by-hop options, routing, fragment, destination options; what follows the header
    // of a later fragment is no header.
    while packet.fragment != Fragment::Later && matches!(packet.protocol, 0 | 43 | 44 | 60) {
        extensions += 1;
        if extensions > 4 {
            return Err(Verdict::Unparsed);
        }
        let at = packet.l4;
        if frame.len() < at + 8 {
            return Err(Verdict::Truncated);
        }
        if packet.protocol == 44 {
            let bits = get16(frame, at + 2);
            packet.fragment = fragment(bits & 0xfff8 != 0, bits & 1 != 0);
            packet.id = get32(frame, at + 4);
            packet.l4 += 8;
        } else {
            packet.l4 += (usize::from(frame[at + 1]) + 1) * 8;
        }
        if packet.l4 > l3 + 40 + 256 {
            return Err(Verdict::Unparsed);
        }
        packet.protocol = frame[at];
    }
    if packet.l4 > packet.end {
        return Err(Verdict::BadLength);
    }
    Ok(packet)
}

fn fragment(has_offset: bool, more: bool) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::None,
    }
}

/// An IPv4 address that pretends to be an IPv6 one.
fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn body(frame: &[u8], packet: &Packet) -> Body {
    let later = packet.fragment == Fragment::Later;
    match packet.protocol {
        TCP | UDP | SCTP if later => Body::Ports {
            sport: 0,
            dport: 0,
            flags: 0,
            len: 0,
        },
        TCP | UDP | SCTP => transport(frame, packet),
        ICMP if !packet.v6 && packet.fragment == Fragment::None => icmp(frame, packet),
        ICMPV6 if packet.v6 && packet.fragment == Fragment::None => icmp(frame, packet),
        _ => Body::Other,
    }
}

fn transport(frame: &[u8], packet: &Packet) -> Body {
    let l4 = packet.l4;
    let room = packet.end - l4;
    let least = match packet.protocol {
        TCP => 20,
        UDP => 8,
        _ => 12,
    };
    if room < least {
        return Body::Short;
    }
    let mut flags = 0;
    let mut len = least;
    if packet.protocol == TCP {
        flags = frame[l4 + 13];
        len = usize::from(frame[l4 + 12] >> 4) * 4;
        if len < 20 || len > room {
            return Body::BadTcp;
        }
    }
    if packet.protocol == UDP {
        let claimed = usize::from(get16(frame, l4 + 4));
        // The length of a fragmented datagram is the whole one's.
        if claimed < 8 || claimed > room && packet.fragment == Fragment::None {
            return Body::BadUdp;
        }
    }
    Body::Ports {
        sport: get16(frame, l4),
        dport: get16(frame, l4 + 2),
        flags,
        len,
    }
}

fn icmp(frame: &[u8], packet: &Packet) -> Body {
    if packet.end < packet.l4 + 8 {
        return Body::Short;
    }
    match (packet.v6, frame[packet.l4]) {
        (false, 8) | (true, 128) => Body::Echo,
        (true, 133..=137) => Body::Neighbour,
        (false, 3 | 11 | 12) | (true, 1..=4) => {
            quote(&frame[..packet.end], packet.l4 + 8, packet.v6).map_or(Body::Other, Body::Error)
        }
        _ => Body::Other,
    }
}

/// The quoted packet, where it is one with ports and the first eight bytes of its
/// transport header are there. `bytes` end where the message does.
fn quote(bytes: &[u8], l3: usize, v6: bool) -> Option<Quote> {
    let header = if v6 { 40 } else { 20 };
    if bytes.len() < l3 + header {
        return None;
    }
    let (mut l4, mut protocol) = (l3 + header, bytes[l3 + if v6 { 6 } else { 9 }]);
    let (src, dst);
    if v6 {
        (src, dst) = (get_ip(bytes, l3 + 8, true), get_ip(bytes, l3 + 24, true));
        if is_mapped(src) || is_mapped(dst) {
            return None;
        }
        if protocol == 44 {
            if bytes.len() < l4 + 8 || get16(bytes, l4 + 2) & 0xfff8 != 0 {
                return None;
            }
            protocol = bytes[l4];
            l4 += 8;
        }
    } else {
        (src, dst) = (get_ip(bytes, l3 + 12, false), get_ip(bytes, l3 + 16, false));
        let length = usize::from(bytes[l3] & 0x0f) * 4;
        if bytes[l3] >> 4 != 4 || length < 20 || get16(bytes, l3 + 6) & 0x1fff != 0 {
            return None;
        }
        l4 = l3 + length;
    }
    if !matches!(protocol, TCP | UDP | SCTP) || bytes.len() < l4 + 8 {
        return None;
    }
    let tuple = Tuple {
        src,
        sport: get16(bytes, l4),
        dst,
        dport: get16(bytes, l4 + 2),
        protocol,
    };
    Some(Quote { tuple, l3, l4 })
}
