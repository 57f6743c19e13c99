//! A second opinion on packets: etherparse's.

use std::net::IpAddr;

use etherparse::{
    IpNumber, LinkExtSlice, NetSlice, SlicedPacket, TransportSlice, checksum::Sum16BitWords,
};

use crate::headers::Headers;

/// A frame as etherparse reads it.
pub(crate) struct Packet<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Length of network header and payload.
    pub(crate) len: usize,
    pub(crate) ttl: u8,
    pub(crate) transport: Option<TransportSlice<'a>>,
    /// The checksum of the network header is right; IPv6 has none.
    header: bool,
    /// TCP or UDP follows at once, behind no more tags than the kernel part reads.
    plain: bool,
}

impl<'a> Packet<'a> {
    /// None where etherparse cannot read it, or it is no IP packet.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(bytes).ok()?;
        let transport = packet.transport;
        let tag = |ext: &LinkExtSlice<'_>| matches!(ext, LinkExtSlice::Vlan(_));
        let tagged = packet.link_exts.len() <= 2 && packet.link_exts.iter().all(tag);
        // Not a tag that the kernel part knows.
        let old = [12, 16]
            .iter()
            .any(|&at| bytes.get(at..at + 2) == Some(&[0x91, 0x00]));
        let plain = |protocol| tagged && !old && [IpNumber::TCP, IpNumber::UDP].contains(&protocol);
        match packet.net? {
            NetSlice::Ipv4(ip) => Some(Self {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                len: ip.header().total_len().into(),
                ttl: ip.header().ttl(),
                plain: plain(ip.header().protocol()),
                transport,
                header: sum_is_right(Sum16BitWords::new().add_slice(ip.header().slice())),
            }),
            NetSlice::Ipv6(ip) => Some(Self {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                len: 40 + usize::from(ip.header().payload_length()),
                ttl: ip.header().hop_limit(),
                // Without a length, etherparse takes all that there is (RFC 2675).
                plain: ip.header().payload_length() != 0 && plain(ip.header().next_header()),
                transport,
                header: true,
            }),
            NetSlice::Arp(_) => None,
        }
    }

    /// Whether the kernel part must read it: TCP or UDP without anything beside it, and no
    /// IPv4 address in an IPv6 header.
    pub(crate) fn must_be_read(&self) -> bool {
        let mapped = |ip| matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        let transport = matches!(
            self.transport,
            Some(TransportSlice::Tcp(_) | TransportSlice::Udp(_))
        );
        self.plain && transport && !mapped(self.src) && !mapped(self.dst)
    }

    /// Whether addresses and ports are those that the kernel part reads; also where
    /// etherparse reads no ports.
    pub(crate) fn agrees(&self, headers: &Headers) -> bool {
        let tuple = &headers.tuple;
        let expected = (tuple.src_port.get(), tuple.dst_port.get());
        let ports = match &self.transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
            Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
            _ => expected,
        };
        (self.src, self.dst) == (tuple.src.to_ip(), tuple.dst.to_ip()) && ports == expected
    }

    /// Whether its checksums are right.
    pub(crate) fn is_valid(&self) -> bool {
        let transport = match &self.transport {
            Some(TransportSlice::Tcp(tcp)) => sum_is_right(self.pseudo(6, tcp.slice())),
            Some(TransportSlice::Udp(udp)) => {
                udp.checksum() == 0 || sum_is_right(self.pseudo(17, udp.slice()))
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                sum_is_right(Sum16BitWords::new().add_slice(icmp.slice()))
            }
            Some(TransportSlice::Icmpv6(icmp)) => sum_is_right(self.pseudo(58, icmp.slice())),
            _ => true,
        };
        transport && self.header
    }

    /// The sum of data and a pseudo-header.
    fn pseudo(&self, protocol: u8, data: &[u8]) -> Sum16BitWords {
        let mut sum = Sum16BitWords::new().add_slice(data);
        for ip in [self.src, self.dst] {
            sum = match ip {
                IpAddr::V4(ip) => sum.add_4bytes(ip.octets()),
                IpAddr::V6(ip) => sum.add_16bytes(ip.octets()),
            };
        }
        sum.add_2bytes([0, protocol])
            .add_4bytes((data.len() as u32).to_be_bytes())
    }
}

/// Of data that hold their checksum.
fn sum_is_right(sum: Sum16BitWords) -> bool {
    sum.ones_complement() == 0
}
