//! ARP for IPv4 over Ethernet: RFC 826, and RFC 5227 for probes and announcements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType, Ethernet2Header};
use socket2::SockFilter;

use super::{
    SkipReason,
    discovery::{Discovery, Heard},
};
use crate::net::{Link, Mac};

/// ARP on an interface with this address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    mac: Mac,
}

impl Discovery for Arp {
    const NAME: &'static str = "ARP";
    const ETHER_TYPE: u16 = EtherType::ARP.0;
    const FILTER: &'static [SockFilter] = &[];
    type Addr = Ipv4Addr;

    fn new(mac: Mac) -> Self {
        Self { mac }
    }

    fn own_family(vip: IpAddr) -> Option<Ipv4Addr> {
        match vip {
            IpAddr::V4(vip) => Some(vip),
            IpAddr::V6(_) => None,
        }
    }

    fn refuses(link: &Link) -> Option<SkipReason> {
        if link.noarp {
            Some(SkipReason::NoArp)
        } else if !link.broadcast {
            Some(SkipReason::NoBroadcast)
        } else {
            None
        }
    }

    fn group(_: Ipv4Addr) -> Option<Ipv6Addr> {
        None
    }

    fn hear(&self, frame: &[u8]) -> Option<Heard<Ipv4Addr>> {
        let (ethernet, payload) = Ethernet2Header::from_slice(frame).ok()?;
        if ethernet.ether_type != EtherType::ARP {
            return None;
        }
        // A promiscuous interface also gets what is meant for others.
        let to = Mac(ethernet.destination);
        if to != Mac::BROADCAST && to != self.mac {
            return None;
        }
        let arp = ArpPacket::from_slice(payload).ok()?.try_eth_ipv4().ok()?;
        let sender = Mac(arp.sender_mac);
        // Nobody but a forger sends as a group.
        if !sender.is_station() {
            return None;
        }
        let sender_addr = arp.sender_ipv4_addr();
        // Who only probes for an address has none yet.
        (!sender_addr.is_unspecified()).then_some(Heard {
            sender,
            sender_addr,
        })
    }

    /// As a request (RFC 5227, section 3: what everybody understands) and as a reply
    /// (for those that learn from replies only; the target is then the station
    /// itself, RFC 5944, section 4.6), both to all stations.
    fn announcement(&self, vip: Ipv4Addr) -> Vec<Vec<u8>> {
        let all = Mac::BROADCAST;
        vec![
            self.frame(all, ArpOperation::REQUEST, vip, Mac::ZERO, vip),
            self.frame(all, ArpOperation::REPLY, vip, self.mac, vip),
        ]
    }
}

impl Arp {
    /// 42 bytes; the driver pads them to the Ethernet minimum.
    fn frame(
        &self,
        to: Mac,
        operation: ArpOperation,
        vip: Ipv4Addr,
        target: Mac,
        target_addr: Ipv4Addr,
    ) -> Vec<u8> {
        let ethernet = Ethernet2Header {
            source: self.mac.0,
            destination: to.0,
            ether_type: EtherType::ARP,
        };
        let arp = ArpEthIpv4Packet {
            operation,
            sender_mac: self.mac.0,
            sender_ipv4: vip.octets(),
            target_mac: target.0,
            target_ipv4: target_addr.octets(),
        };
        [&ethernet.to_bytes()[..], &arp.to_bytes()[..]].concat()
    }
}

#[cfg(test)]
mod tests;
