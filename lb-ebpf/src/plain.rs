//! Plain packets: TCP and UDP in whole, behind headers without options, in frames without tags.
//! Where everything stands in them is known beforehand.

use lb_common::{Addr, Backend, Family, Port, Protocol, Tuple, checksum::Delta, flow::tcp_flag};

use crate::{
    frame::{Context, IPV4_CHECKSUM, IPV4_TTL, IPV6_HOPS, address_offsets, transport_checksum},
    packet::View,
    parse::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, MORE_V4, OFFSET_V4},
    transport::{TCP_LEN, UDP_LEN},
};

/// What a plain network header says: no options, no fragment, in a frame without tags.
pub struct Network {
    pub src: Addr,
    pub dst: Addr,
    pub protocol: u8,
    pub ttl: u8,
    /// Type of service; 0 for IPv6, whose traffic class no route asks for.
    pub tos: u8,
    /// Offset of the transport header.
    pub l4: usize,
    /// Offset of the packet's end.
    pub end: usize,
}

/// What follows it, if that is TCP or UDP.
pub struct Plain {
    pub tuple: Tuple,
    pub ttl: u8,
    pub tos: u8,
    /// Offset of the transport header.
    pub l4: usize,
    /// Offset of the packet's end.
    pub end: usize,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
}

/// Reads a plain network header. Of ICMP nothing is plain: errors are about other packets.
#[inline(always)]
pub fn network(ctx: Context<'_>) -> Option<Network> {
    let view = ctx.view;
    let network = match view.load::<u16>(12)? {
        ETHERTYPE_IPV4 => {
            let words: [u32; 5] = view.load(ETH_LEN)?;
            let [version, tos, high, low] = words[0].to_ne_bytes();
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
                tos,
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
                tos: 0,
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
pub fn transport(view: View<'_>, network: &Network) -> Option<Plain> {
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
        ttl: network.ttl,
        tos: network.tos,
        l4,
        end,
        flags,
    })
}

impl Plain {
    /// Whether it opens a connection (SYN without ACK).
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// Whether it may change what its flow is.
    #[inline(always)]
    pub const fn turns(&self) -> bool {
        tcp_flag::turns(self.flags)
    }

    /// Whether it is TCP, as opposed to UDP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.tuple.protocol == Protocol::Tcp as u8
    }

    /// Rewrites it to a backend, its source left as it is.
    #[inline(always)]
    #[must_use]
    pub fn redirect(&self, view: View<'_>, backend: &Backend) -> bool {
        let tuple = &self.tuple;
        let addresses = Delta::NONE.addr(&tuple.dst, &backend.addr);
        let (_, dst) = address_offsets(tuple.family());
        let mut written = self.sums(view, addresses.port(tuple.dst_port, backend.port));
        match tuple.family() {
            Family::V4 => {
                written &= self.header(view, addresses);
                written &= view.store(ETH_LEN + dst, backend.addr.v4_word());
            }
            Family::V6 => written &= view.store(ETH_LEN + dst, backend.addr.words()),
        }
        written & view.store(self.l4 + 2, backend.port.word())
    }

    /// Rewrites it to `to`, on its next hop.
    #[inline(always)]
    #[must_use]
    pub fn send(&self, view: View<'_>, to: &Tuple) -> bool {
        let from = &self.tuple;
        let addresses = Delta::NONE
            .addr(&from.src, &to.src)
            .addr(&from.dst, &to.dst);
        let ports = addresses
            .port(from.src_port, to.src_port)
            .port(from.dst_port, to.dst_port);
        let (src, _) = address_offsets(from.family());
        let mut written = self.sums(view, ports);
        match from.family() {
            Family::V4 => {
                let old = u16::from_ne_bytes([self.ttl, from.protocol]);
                let new = u16::from_ne_bytes([self.ttl.wrapping_sub(1), from.protocol]);
                written &= self.header(view, addresses.word16(old, new));
                written &= view.store(ETH_LEN + IPV4_TTL, new);
                let words = [to.src.v4_word(), to.dst.v4_word()];
                written &= view.store(ETH_LEN + src, words);
            }
            Family::V6 => {
                written &= view.store(ETH_LEN + IPV6_HOPS, self.ttl.wrapping_sub(1));
                let ([a, b, c, d], [e, f, g, h]) = (to.src.words(), to.dst.words());
                written &= view.store(ETH_LEN + src, [a, b, c, d, e, f, g, h]);
            }
        }
        written & view.store(self.l4, [to.src_port.word(), to.dst_port.word()])
    }

    /// Brings the checksum of an IPv4 header in line with a change.
    #[inline(always)]
    fn header(&self, view: View<'_>, change: Delta) -> bool {
        let at = ETH_LEN + IPV4_CHECKSUM;
        let sum = view.load(at).map(|sum| change.apply(sum));
        sum.is_some_and(|sum| view.store(at, sum))
    }

    /// The same of the transport header's.
    #[inline(always)]
    fn sums(&self, view: View<'_>, change: Delta) -> bool {
        let Some(offset) = transport_checksum(self.tuple.protocol) else {
            return true;
        };
        let at = self.l4 + offset;
        let sum = view.load(at).map(|sum| match self.is_tcp() {
            true => change.apply(sum),
            false => change.apply_udp(sum),
        });
        sum.is_some_and(|sum| view.store(at, sum))
    }
}
