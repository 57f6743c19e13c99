//! The frames that are made: plans for the generator.

use std::net::{IpAddr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use lb_common::{Family, bench::Plan};

use crate::net::{BACKENDS, CLIENTS, MAC, Net, OTHER, PORT, tail, vip};

/// Bytes of the Ethernet header, and of an address's part that is alike in all of a network.
const LINK: usize = 14;
/// Bytes of a frame's check sequence, which a card adds.
const CHECK: usize = 4;

/// Frames of one kind, and how long they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    pub(crate) plan: Plan,
    /// Bytes in memory.
    pub(crate) len: usize,
}

/// Where clients' packets go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// Each of so many services in turn.
    Services(u32),
    /// A service at this address, behind this link address.
    At(SocketAddrV4, [u8; 6]),
    /// Each of some hosts in turn, at this port.
    Hosts(Net, u16),
}

impl Frames {
    /// What clients send: their first packets, with `syn`, or those that follow. `size` is
    /// that on the wire, in bytes; no frame is shorter than its headers.
    pub(crate) fn forward(family: Family, size: usize, to: To, syn: bool) -> Result<Self> {
        let (first, port, destinations) = match to {
            To::Services(count) => (vip(family), PORT, count),
            To::At(vip, _) => (IpAddr::V4(*vip.ip()), vip.port(), 1),
            To::Hosts(net, port) => (net.first(family), port, BACKENDS),
        };
        let client = CLIENTS.host(family, 0);
        let mut frames = Self::new(family, size, (client, 0), (first, port), syn)?;
        frames.plan.port = transport(family) as u32;
        frames.plan.first_source = tail(client);
        frames.plan.first_port = 1024;
        frames.plan.first_destination = tail(first);
        frames.plan.destinations = destinations;
        if let To::At(_, [a, b, c, d, e, f]) = to {
            let [first, second, ..] = &mut frames.plan.template;
            let [_, _, g, h] = second.to_ne_bytes();
            *first = u32::from_ne_bytes([a, b, c, d]);
            *second = u32::from_ne_bytes([e, f, g, h]);
        }
        Ok(frames)
    }

    /// What comes back, from a network and port, to what the sink took for clients.
    pub(crate) fn replies(
        family: Family,
        size: usize,
        from: (IpAddr, u16),
        to: IpAddr,
    ) -> Result<Self> {
        let mut frames = Self::new(family, size, from, (to, 0), false)?;
        frames.plan.port = transport(family) as u32 + 2;
        frames.plan.order = Plan::REPLIES;
        Ok(frames)
    }

    /// The same for this many flows, in turn from flow `made` on.
    pub(crate) fn in_turn(mut self, flows: u32, made: u32) -> Self {
        self.plan.mask = flows - 1;
        self.plan.made = made;
        if self.plan.order == Plan::RANDOM {
            self.plan.order = Plan::IN_TURN;
        }
        self
    }

    /// The same for this many flows; clients' at random.
    pub(crate) fn shuffled(mut self, flows: u32) -> Self {
        self.plan.mask = flows - 1;
        self
    }

    fn new(
        family: Family,
        size: usize,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        syn: bool,
    ) -> Result<Self> {
        let headers = transport(family) + 20;
        let len = (size - CHECK).max(headers.next_multiple_of(4));
        let link = PacketBuilder::ethernet2(OTHER, MAC);
        let ip = match (from.0, to.0) {
            (IpAddr::V4(_), IpAddr::V4(_)) => link.ipv4([0; 4], [0; 4], 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let prefix = |mut bytes: [u8; 16]| {
                    bytes[12..].fill(0);
                    bytes
                };
                link.ipv6(prefix(from.octets()), prefix(to.octets()), 64)
            }
            (from, to) => anyhow::bail!("{from} and {to} are of two families"),
        };
        let tcp = ip.tcp(from.1, to.1, 1, 65_535);
        let tcp = if syn { tcp.syn() } else { tcp.ack(1) };
        let mut bytes = Vec::with_capacity(len);
        tcp.write(&mut bytes, &vec![0; len - headers])?;
        ensure!(
            bytes.len() == len,
            "a frame of {} bytes, not {len}",
            bytes.len()
        );
        // The generator adds what is not there yet, and takes the complement.
        let sum = |at: usize| -> Result<u32> {
            let field = bytes.get(at..at + 2).context("no checksum")?;
            Ok((!u16::from_ne_bytes(field.try_into()?)).into())
        };
        let (source, destination, ip_checksum) = match family {
            Family::V4 => (LINK + 12, LINK + 16, LINK + 10),
            Family::V6 => (LINK + 20, LINK + 36, 0),
        };
        let tcp_checksum = transport(family) + 16;
        let mut template = [0; Plan::WORDS];
        for (word, bytes) in template.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into()?);
        }
        let plan = Plan {
            mask: 0,
            order: Plan::RANDOM,
            made: 0,
            len: headers.next_multiple_of(4) as u32,
            source: source as u32,
            destination: destination as u32,
            port: 0,
            ip_checksum: ip_checksum as u32,
            ip_sum: if ip_checksum == 0 {
                0
            } else {
                sum(ip_checksum)?
            },
            tcp_checksum: tcp_checksum as u32,
            tcp_sum: sum(tcp_checksum)?,
            first_source: 0,
            first_port: 0,
            first_destination: 0,
            destinations: 1,
            template,
        };
        Ok(Self { plan, len })
    }
}

/// Offset of the TCP header in a frame.
const fn transport(family: Family) -> usize {
    match family {
        Family::V4 => LINK + 20,
        Family::V6 => LINK + 40,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What the generator makes of a sum and what it adds.
    fn folded(sum: u32, words: [u32; 2], port: u16) -> u16 {
        let halves = |word: u32| (word & 0xffff) + (word >> 16);
        let sum = sum + halves(words[0]) + halves(words[1]) + u32::from(port);
        !(halves(halves(sum)) as u16)
    }

    #[test]
    fn checksums_are_those_of_the_whole_frame() {
        for family in [Family::V4, Family::V6] {
            let frames = Frames::forward(family, 1400, To::Services(1), false).unwrap();
            let plan = frames.plan;
            let (source, destination, port) = plan.ends(40_000);
            assert_eq!(source, tail(CLIENTS.host(family, 1)), "ports have run out");
            let link = PacketBuilder::ethernet2(OTHER, MAC);
            let ip = match (CLIENTS.host(family, 1), vip(family)) {
                (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
                (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
                _ => panic!("two families"),
            };
            let mut bytes = Vec::new();
            let payload = vec![0; frames.len - transport(family) - 20];
            let tcp = ip.tcp(port, PORT, 1, 65_535).ack(1);
            tcp.write(&mut bytes, &payload).unwrap();
            let field = |at: u32| {
                let at = at as usize;
                u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
            };
            let words = [source.to_be(), destination.to_be()];
            let tcp = folded(plan.tcp_sum, words, port.to_be());
            assert_eq!(tcp, field(plan.tcp_checksum), "TCP over {family:?}");
            if family == Family::V4 {
                let ip = folded(plan.ip_sum, words, 0);
                assert_eq!(ip, field(plan.ip_checksum));
            }
        }
    }

    #[test]
    fn a_frame_goes_to_the_link_address_that_it_is_told() {
        let to = To::At("192.0.2.1:443".parse().unwrap(), [6, 5, 4, 3, 2, 1]);
        let plan = Frames::forward(Family::V4, 64, to, true).unwrap().plan;
        let bytes: Vec<u8> = plan
            .template
            .iter()
            .flat_map(|it| it.to_ne_bytes())
            .collect();
        assert_eq!(bytes[..6], [6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[6..12], OTHER);
        assert_eq!(plan.ends(0).1, 0xc000_0201);
        assert_eq!(bytes[36..38], 443_u16.to_be_bytes());
    }

    #[test]
    fn no_frame_is_shorter_than_its_headers() {
        let len = |family| {
            Frames::forward(family, 64, To::Services(1), true)
                .unwrap()
                .len
        };
        assert_eq!((len(Family::V4), len(Family::V6)), (60, 76));
    }
}
