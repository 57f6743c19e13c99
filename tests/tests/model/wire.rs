//! Bytes of packets: fields, addresses, checksums. Plain, slow, and the tests' own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// Who sends a packet to whom, by which protocol. Without ports where those are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) src: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dst: IpAddr,
    pub(crate) dport: u16,
    pub(crate) protocol: u8,
}

impl Tuple {
    /// The packet in the other direction.
    pub(crate) fn reversed(self) -> Self {
        Self {
            src: self.dst,
            sport: self.dport,
            dst: self.src,
            dport: self.sport,
            protocol: self.protocol,
        }
    }
}

/// The big-endian number at `at`; the frame is long enough.
pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from(get16(bytes, at)) << 16 | u32::from(get16(bytes, at + 2))
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The IPv4 or IPv6 address at `at`.
pub(crate) fn get_ip(bytes: &[u8], at: usize, v6: bool) -> IpAddr {
    if v6 {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
        Ipv6Addr::from(octets).into()
    } else {
        Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]).into()
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(crate) fn put_ip(bytes: &mut [u8], at: usize, ip: IpAddr) {
    let octets = octets(ip);
    bytes[at..at + octets.len()].copy_from_slice(&octets);
}

/// Where source and destination stand in a network header.
pub(crate) fn address_offsets(v6: bool) -> (usize, usize) {
    if v6 { (8, 24) } else { (12, 16) }
}

// Sums are numbers modulo 65,535, which is what one's complement addition with
// end-around carry computes (RFC 1071); 0 stands for both zeros of that arithmetic.

const MODULUS: u32 = 0xffff;

/// The sum of 16-bit words; an odd byte at the end counts as if a 0 followed.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let mut total = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        total = (total + u32::from(pair[0]) * 256 + u32::from(low)) % MODULUS;
    }
    total
}

/// The sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u32 {
    let addresses = sum(&octets(src)) + sum(&octets(dst));
    (addresses + u32::from(protocol) + len as u32) % MODULUS
}

/// The checksum field of data that add up to `total` without it.
pub(crate) fn checksum(total: u32) -> u16 {
    // Data are never all zeros, so the true sum is not +0 and its complement not -0.
    ((MODULUS - total % MODULUS) % MODULUS) as u16
}

/// The field after data that added up to `before` add up to `after`.
///
/// A right one is computed from scratch. A wrong one stays wrong by as much: whoever
/// rewrites a packet must not make a broken one look whole.
pub(crate) fn renewed(field: u16, before: u32, after: u32) -> u16 {
    if field == checksum(before) {
        return checksum(after);
    }
    ((u32::from(field) + before + MODULUS - after) % MODULUS) as u16
}

/// The same for UDP, where 0 is no checksum and a sum of 0 is sent as all ones.
pub(crate) fn renewed_udp(field: u16, before: u32, after: u32) -> u16 {
    if field == 0 {
        return 0;
    }
    match renewed(field, before, after) {
        0 => 0xffff,
        sum => sum,
    }
}
