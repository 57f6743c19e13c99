//! Neighbour discovery for IPv6 over Ethernet: RFC 4861.
//!
//! Unlike MetalLB's, it needs no link-local address on the interface: what it sends
//! comes from the claimed address itself.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{EtherType, Ethernet2Header, Icmpv6Type, IpNumber, Ipv6Header};
use socket2::SockFilter;

use super::{
    SkipReason,
    discovery::{Discovery, Heard},
};
use crate::net::{Link, Mac};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Option: the link address of who sends a solicitation.
const SOURCE_LINK: u8 = 1;
/// Option: the link address of the target of an advertisement.
const TARGET_LINK: u8 = 2;
/// Flag of an advertisement: it replaces what the neighbours know.
const OVERRIDE: u8 = 0x20;
/// Hop limit that no router has touched: the sender is on this link.
const ON_LINK: u8 = 255;
/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Octets of a message before its options: a word of flags or none, and the target.
const FIXED: usize = 4 + 4 + 16;

/// Neighbour discovery on an interface with this address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ndp {
    mac: Mac,
}

impl Discovery for Ndp {
    const NAME: &'static str = "NDP";
    const ETHER_TYPE: u16 = EtherType::IPV6.0;
    /// ICMPv6 behind the Ethernet and IPv6 header, of the two types: a tap on all of IPv6
    /// would cost every packet a copy.
    const FILTER: &'static [SockFilter] = &[
        // ldb [20]; jeq #58, else reject
        SockFilter::new(0x30, 0, 0, 20),
        SockFilter::new(0x15, 0, 3, IpNumber::IPV6_ICMP.0 as u32),
        // ldb [54]; jeq #136 or #135
        SockFilter::new(0x30, 0, 0, 54),
        SockFilter::new(0x15, 2, 0, ADVERTISEMENT as u32),
        SockFilter::new(0x15, 1, 0, SOLICITATION as u32),
        // reject, accept
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    type Addr = Ipv6Addr;

    fn new(mac: Mac) -> Self {
        Self { mac }
    }

    fn own_family(vip: IpAddr) -> Option<Ipv6Addr> {
        match vip {
            IpAddr::V4(_) => None,
            IpAddr::V6(vip) => Some(vip),
        }
    }

    fn refuses(link: &Link) -> Option<SkipReason> {
        if link.noarp {
            Some(SkipReason::NoArp)
        } else if !link.multicast {
            Some(SkipReason::NoMulticast)
        } else {
            None
        }
    }

    /// The solicited-node group (RFC 4291, section 2.7.1).
    fn group(vip: Ipv6Addr) -> Option<Ipv6Addr> {
        let [.., a, b, c] = vip.octets();
        let [low, high] = [u16::from_be_bytes([b, c]), 0xff00 | u16::from(a)];
        Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low))
    }

    /// Who advertises an address says that it is his, and so does who solicits from it. Who
    /// only probes for one has none yet.
    fn hear(&self, frame: &[u8]) -> Option<Heard<Ipv6Addr>> {
        let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
        let to = Mac(ethernet.destination);
        if ethernet.ether_type != EtherType::IPV6 || to.is_station() && to != self.mac {
            return None;
        }
        let (ip, rest) = Ipv6Header::from_slice(rest).ok()?;
        let message = rest.get(..usize::from(ip.payload_length))?;
        if ip.next_header != IpNumber::IPV6_ICMP || ip.hop_limit != ON_LINK {
            return None;
        }
        let (fixed, options) = message.split_at_checked(FIXED)?;
        let [kind, 0, _, _, _, _, _, _, target @ ..] = fixed else {
            return None;
        };
        let (sender_addr, link) = match *kind {
            SOLICITATION => (ip.source_addr(), SOURCE_LINK),
            ADVERTISEMENT => (
                Ipv6Addr::from(<[u8; 16]>::try_from(target).ok()?),
                TARGET_LINK,
            ),
            _ => return None,
        };
        let sender = link_address(options, link)?.unwrap_or(Mac(ethernet.source));
        (!sender_addr.is_unspecified() && sender.is_station()).then_some(Heard {
            sender,
            sender_addr,
        })
    }

    /// An unsolicited advertisement (RFC 4861, section 7.2.6) to all nodes.
    fn announcement(&self, vip: Ipv6Addr) -> Vec<Vec<u8>> {
        let ethernet = Ethernet2Header {
            source: self.mac.0,
            destination: [0x33, 0x33, 0, 0, 0, 1],
            ether_type: EtherType::IPV6,
        };
        let body = [&vip.octets()[..], &[TARGET_LINK, 1], &self.mac.0].concat();
        let kind = Icmpv6Type::Unknown {
            type_u8: ADVERTISEMENT,
            code_u8: 0,
            bytes5to8: [OVERRIDE, 0, 0, 0],
        };
        // 24 octets never overflow the length in the checksum.
        let Ok(icmp) =
            etherparse::Icmpv6Header::with_checksum(kind, vip.octets(), ALL_NODES.octets(), &body)
        else {
            return Vec::new();
        };
        let ip = Ipv6Header {
            payload_length: (icmp.header_len() + body.len()) as u16,
            next_header: IpNumber::IPV6_ICMP,
            hop_limit: ON_LINK,
            source: vip.octets(),
            destination: ALL_NODES.octets(),
            ..Ipv6Header::default()
        };
        vec![
            [
                &ethernet.to_bytes()[..],
                &ip.to_bytes(),
                &icmp.to_bytes(),
                &body,
            ]
            .concat(),
        ]
    }
}

/// The link address in an option of that type, where there is one. `None` where the
/// options are not what options are.
fn link_address(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        // A length of zero would go on for ever.
        let (_, body) = option.split_at_checked(2)?;
        if kind == wanted {
            found = Some(Mac(*body.first_chunk::<6>()?));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

#[cfg(test)]
mod tests;
