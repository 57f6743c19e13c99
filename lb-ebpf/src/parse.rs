//! Packet → headers: where they are and what the later stages need of them.

use lb_common::{Addr, Port, Protocol, Tuple, Verdict, flow::tcp_flag};

use crate::{frame::Context, packet::View};

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;
/// Length of an ICMP header.
pub const ICMP_LEN: usize = 8;
/// EtherType of IPv4 as a native word.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();
/// Mask of the fragment offset and the more-fragments bit (RFC 791), native word.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// What precedes the payload.
#[derive(Clone, Copy)]
pub struct Headers {
    /// Addresses, ports and protocol; the ports are 0 where `payload` is not [`Payload::Ports`].
    pub tuple: Tuple,
    /// Offset of the network header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Length of network header and payload, host order.
    pub ip_len: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// TCP flags, see [`lb_common::flow::tcp_flag`]; 0 for UDP.
    pub tcp_flags: u8,
    /// Whether there are ports to balance by.
    pub payload: Payload,
}

/// What follows the network header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// TCP or UDP, with ports.
    Ports,
    /// Part of a fragmented packet.
    Fragment,
    /// A protocol that is not balanced.
    Other,
}

impl Headers {
    /// Whether the packet is TCP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.tuple.protocol == Protocol::Tcp as u8
    }

    /// Whether the packet opens a connection (SYN without ACK).
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// Bytes of the frame as the counters count them, without padding.
    #[inline(always)]
    pub const fn frame_len(&self) -> u64 {
        self.l3 as u64 + self.ip_len as u64
    }
}

/// Reads the headers of a frame, or tells why it does not.
#[inline(always)]
pub fn parse(ctx: Context<'_>) -> Result<Headers, Verdict> {
    if ctx.vlan {
        return Err(Verdict::Unparsed);
    }
    let view = ctx.view;
    match view.load::<u16>(12) {
        Some(ETHERTYPE_IPV4) => parse_ipv4(view, ETH_LEN),
        Some(ETHERTYPE_IPV6 | ETHERTYPE_VLAN | ETHERTYPE_QINQ) => Err(Verdict::Unparsed),
        Some(_) => Err(Verdict::NotIp),
        None => Err(Verdict::Truncated),
    }
}

#[inline(always)]
fn parse_ipv4(view: View<'_>, l3: usize) -> Result<Headers, Verdict> {
    let words: [u32; 5] = view.load(l3).ok_or(Verdict::Truncated)?;
    let [version, tos, len_high, len_low] = words[0].to_ne_bytes();
    let [ttl, protocol, ..] = words[2].to_ne_bytes();
    let [_, _, fragment_high, fragment_low] = words[1].to_ne_bytes();
    if version >> 4 != 4 {
        return Err(Verdict::Truncated);
    }
    let header_len = usize::from(version & 0x0f) * 4;
    if header_len < IPV4_LEN {
        return Err(Verdict::Truncated);
    }
    let ip_len = u16::from_be_bytes([len_high, len_low]);
    let fragment = u16::from_ne_bytes([fragment_high, fragment_low]);
    let mut headers = Headers {
        tuple: Tuple::new(
            Addr::from_v4_word(words[3]),
            Port::default(),
            Addr::from_v4_word(words[4]),
            Port::default(),
            protocol,
        ),
        l3,
        l4: l3 + header_len,
        ip_len,
        ttl,
        tos,
        tcp_flags: 0,
        payload: Payload::Fragment,
    };
    if fragment & FRAGMENT == 0 {
        parse_ports(view, &mut headers, usize::from(ip_len), header_len)?;
    }
    Ok(headers)
}

/// Reads ports and flags behind a network header of `header_len` in a packet of `ip_len`.
#[inline(always)]
fn parse_ports(
    view: View<'_>,
    headers: &mut Headers,
    ip_len: usize,
    header_len: usize,
) -> Result<(), Verdict> {
    let transport_len = match Protocol::from_number(headers.tuple.protocol) {
        Some(Protocol::Tcp) => TCP_LEN,
        Some(Protocol::Udp) => UDP_LEN,
        None => {
            headers.payload = Payload::Other;
            return Ok(());
        }
    };
    if ip_len < header_len + transport_len {
        return Err(Verdict::Truncated);
    }
    // The whole header must be there, since its checksum will be rewritten.
    let ports = if headers.is_tcp() {
        let words: [u32; 5] = view.load(headers.l4).ok_or(Verdict::Truncated)?;
        headers.tcp_flags = words[3].to_ne_bytes()[1];
        words[0]
    } else {
        let words: [u32; 2] = view.load(headers.l4).ok_or(Verdict::Truncated)?;
        words[0]
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    headers.tuple.src_port = Port::from_word(u16::from_ne_bytes([a, b]));
    headers.tuple.dst_port = Port::from_word(u16::from_ne_bytes([c, d]));
    headers.payload = Payload::Ports;
    Ok(())
}
