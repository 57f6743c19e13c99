//! Addresses, ports and 5-tuples as they stand on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The 32-bit word `::ffff` of an IPv4-mapped IPv6 address, in memory order.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// An IPv4 or IPv6 address in network byte order, 16 bytes.
///
/// IPv4 addresses are held as IPv4-mapped IPv6 addresses (`::ffff:a.b.c.d`, RFC
/// 4291 section 2.5.5.2), so both families share one key layout and one path.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr([u32; 4]);

/// Which protocol's header carries an [`Addr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, RFC 791.
    V4,
    /// IPv6, RFC 8200.
    V6,
}

impl Addr {
    /// The all-zero address: "none" wherever a map value may lack an address.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// From the four address bytes of an IPv4 header, read as one native word.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From the sixteen address bytes of an IPv6 header, read as native words.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The address as four native words in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The last four bytes in memory order: an IPv4 address as its header holds it.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether this is an IPv4 (mapped) or a genuine IPv6 address.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// A copy that is loaded and stored word by word: as a whole the compiler has a function of its
    /// own copy it, byte by byte, where it cannot see that both are apart.
    #[inline(always)]
    #[must_use]
    pub const fn by_words(&self) -> Self {
        let [a, b, c, d] = self.0;
        Self([a, b, c, d])
    }

    /// 0 where both are the same, without a branch: the kernel's verifier walks every side of every
    /// branch.
    #[inline(always)]
    pub const fn difference(&self, other: &Self) -> u32 {
        let ([a, b, c, d], [e, f, g, h]) = (self.words(), other.words());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)
    }

    /// Whether no address is set.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// The address as the standard library writes it; IPv4-mapped ones as IPv4.
    pub fn to_ip(&self) -> IpAddr {
        let [a, b, c, d] = self.0.map(u32::from_be);
        let v6 = Ipv6Addr::from(
            (u128::from(a) << 96) | (u128::from(b) << 64) | (u128::from(c) << 32) | u128::from(d),
        );
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(ip.octets()))
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        let octets = ip.octets();
        let word =
            |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl core::fmt::Display for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_ip(), f)
    }
}

/// A transport port in network byte order, 2 bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Port(u16);

impl Port {
    /// From a port number in host byte order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// From the two bytes of a header, read as one native word.
    #[inline(always)]
    pub const fn from_word(word: u16) -> Self {
        Self(word)
    }

    /// The two bytes of a header as one native word.
    #[inline(always)]
    pub const fn word(self) -> u16 {
        self.0
    }

    /// The port number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl PartialOrd for Port {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Port {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.get().cmp(&other.get())
    }
}

impl core::fmt::Debug for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.get(), f)
    }
}

impl core::fmt::Display for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.get(), f)
    }
}

/// A transport protocol that Naru balances; the value is IANA's protocol number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
    /// RFC 9260. Its checksum covers the ports, so those stay as they are.
    Sctp = 132,
}

impl Protocol {
    /// The protocol with this IANA number, if Naru balances it.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The lower-case name, as in `naru services`: `tcp`, `udp`, `sctp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Source, destination and protocol of a packet: the key of the flow tables, 40 bytes.
///
/// Always as the packet reads where the program sees it: a request carries the
/// client as source and the VIP as destination, a reply the backend as source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
    /// IANA protocol number, see [`Protocol`].
    pub protocol: u8,
    pad: u8,
    pad2: u16,
}

impl Tuple {
    /// A tuple with its padding zeroed, as a map key needs it.
    #[inline(always)]
    pub const fn new(src: Addr, src_port: Port, dst: Addr, dst_port: Port, protocol: u8) -> Self {
        Self {
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            pad: 0,
            pad2: 0,
        }
    }

    /// A tuple as it stands in memory, in words.
    pub fn from_words(words: [u64; 5]) -> Self {
        let half = |n: usize| {
            let [a, b, c, d, e, f, g, h] = words[n / 2].to_ne_bytes();
            u32::from_ne_bytes(if n.is_multiple_of(2) {
                [a, b, c, d]
            } else {
                [e, f, g, h]
            })
        };
        let addr = |n: usize| Addr::from_words([half(n), half(n + 1), half(n + 2), half(n + 3)]);
        let [a, b, c, d] = half(8).to_ne_bytes();
        let port = |a, b| Port::from_word(u16::from_ne_bytes([a, b]));
        let [protocol, ..] = half(9).to_ne_bytes();
        Self::new(addr(0), port(a, b), addr(4), port(c, d), protocol)
    }

    /// Whether both are the same, without a branch: the kernel's verifier walks every
    /// side of every branch.
    #[inline(always)]
    pub fn is_same(&self, other: &Self) -> bool {
        let ends = (&other.src, other.src_port, &other.dst, other.dst_port);
        self.is_between(ends, other.protocol)
    }

    /// Whether the other is that of a packet in the other direction, without a branch.
    #[inline(always)]
    pub fn is_reverse(&self, other: &Self) -> bool {
        let ends = (&other.dst, other.dst_port, &other.src, other.src_port);
        self.is_between(ends, other.protocol)
    }

    #[inline(always)]
    fn is_between(&self, ends: (&Addr, Port, &Addr, Port), protocol: u8) -> bool {
        let (src, src_port, dst, dst_port) = ends;
        let ports = |src: Port, dst: Port| u32::from(src.word()) | u32::from(dst.word()) << 16;
        let differs = self.src.difference(src)
            | self.dst.difference(dst)
            | (ports(self.src_port, self.dst_port) ^ ports(src_port, dst_port))
            | u32::from(self.protocol ^ protocol);
        differs == 0
    }

    /// The tuple of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self::new(
            self.dst,
            self.dst_port,
            self.src,
            self.src_port,
            self.protocol,
        )
    }

    /// Which family the packet's addresses are of.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        self.dst.family()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_wire_order_and_print_as_people_write_them() {
        let v4: IpAddr = "192.168.56.11".parse().expect("literal");
        let v6: IpAddr = "2001:db8::11".parse().expect("literal");
        assert_eq!(Addr::from(v4).to_string(), "192.168.56.11");
        assert_eq!(Addr::from(v4).v4_word().to_ne_bytes(), [192, 168, 56, 11]);
        assert_eq!(Addr::from(v4).family(), Family::V4);
        assert_eq!(Addr::from(v6).to_string(), "2001:db8::11");
        assert_eq!(Addr::from(v6).family(), Family::V6);
    }

    #[test]
    fn ports_hold_wire_order() {
        assert_eq!(Port::new(80).word().to_ne_bytes(), [0, 80]);
        assert_eq!(
            Port::from_word(u16::from_ne_bytes([0x1f, 0x90])).get(),
            8080
        );
    }

    #[test]
    fn a_tuple_has_no_hidden_bytes() {
        assert_eq!(size_of::<Tuple>(), 16 + 16 + 2 + 2 + 1 + 3);
    }
}
