//! Frames out of their parts, with right lengths and checksums.

use std::net::IpAddr;

use crate::{
    rng::Rng,
    wire::{ICMP, ICMPV6, SCTP, TCP, Tuple, UDP, checksum, octets, pseudo, put16, put32, sum},
};

/// A frame before it is put together.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) stations: [[u8; 6]; 2],
    /// EtherType and contents of VLAN tags, the outermost first.
    pub(super) tags: Vec<(u16, u16)>,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) class: u8,
    pub(super) dont_cut: bool,
    /// IPv4 options, or IPv6 extension headers by their numbers and lengths.
    pub(super) options: Vec<u8>,
    pub(super) extensions: Vec<(u8, usize)>,
    pub(super) fragment: Option<Piece>,
    /// What follows the network header.
    pub(super) message: Vec<u8>,
    /// Bytes behind the packet.
    pub(super) padding: usize,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) id: u32,
    /// In units of eight bytes.
    pub(super) offset: u16,
    pub(super) more: bool,
}

impl Parts {
    /// The network header with what follows it.
    pub(super) fn packet(&self) -> Vec<u8> {
        if self.src.is_ipv6() {
            self.ipv6()
        } else {
            self.ipv4()
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = self.stations.concat();
        for (kind, tag) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let kind: u16 = if self.src.is_ipv6() { 0x86dd } else { 0x0800 };
        frame.extend(kind.to_be_bytes());
        frame.extend(self.packet());
        frame.resize(frame.len() + self.padding, 0xaa);
        frame
    }

    fn ipv4(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        let mut header = vec![0; 20];
        header[0] = 0x45 + (options.len() / 4) as u8;
        header[1] = self.class;
        put16(
            &mut header,
            2,
            (20 + options.len() + self.message.len()) as u16,
        );
        let mut bits = if self.dont_cut { 0x4000 } else { 0 };
        if let Some(piece) = self.fragment {
            put16(&mut header, 4, piece.id as u16);
            bits = piece.offset & 0x1fff | if piece.more { 0x2000 } else { 0 };
        }
        put16(&mut header, 6, bits);
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&octets(self.src));
        header[16..20].copy_from_slice(&octets(self.dst));
        header.extend(options);
        let sum = checksum(sum(&header));
        put16(&mut header, 10, sum);
        header.extend(&self.message);
        header
    }

    fn ipv6(&self) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if self.fragment.is_some() {
            chain.push((44, 8));
        }
        let mut header = vec![0; 40];
        header[0] = 0x60 | self.class >> 4;
        header[1] = self.class << 4;
        header[6] = chain.first().map_or(self.protocol, |(kind, _)| *kind);
        header[7] = self.ttl;
        header[8..24].copy_from_slice(&octets(self.src));
        header[24..40].copy_from_slice(&octets(self.dst));
        for (at, (kind, len)) in chain.iter().enumerate() {
            let next = chain.get(at + 1).map_or(self.protocol, |(kind, _)| *kind);
            let mut extension = vec![0; *len];
            extension[0] = next;
            extension[1] = (len / 8 - 1) as u8;
            if let (44, Some(piece)) = (*kind, self.fragment) {
                extension[1] = 0;
                put16(&mut extension, 2, piece.offset << 3 | u16::from(piece.more));
                put32(&mut extension, 4, piece.id);
            } else {
                // One option that pads it all.
                extension[2] = 1;
                extension[3] = (len - 4) as u8;
            }
            header.extend(extension);
        }
        let payload = header.len() - 40 + self.message.len();
        put16(&mut header, 4, payload as u16);
        header.extend(&self.message);
        header
    }
}

/// A transport header with a payload. `flags` are TCP's.
pub(super) fn transport(tuple: &Tuple, flags: u8, payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = match tuple.protocol {
        TCP => {
            let options = rng.pick(&[0, 0, 0, 4, 12, 20, 40]);
            let mut header = rng.bytes(20);
            header[12] = (5 + options as u8 / 4) << 4;
            header[13] = flags;
            put16(&mut header, 16, 0);
            header.resize(20 + options, 1);
            header
        }
        UDP => {
            let mut header = vec![0; 8];
            put16(&mut header, 4, 8 + payload.len() as u16);
            header
        }
        SCTP => rng.bytes(12),
        _ => rng.bytes(8),
    };
    put16(&mut bytes, 0, tuple.sport);
    put16(&mut bytes, 2, tuple.dport);
    bytes.extend(payload);
    let total = pseudo(tuple.src, tuple.dst, tuple.protocol, bytes.len()) + sum(&bytes);
    match tuple.protocol {
        TCP => put16(&mut bytes, 16, checksum(total)),
        UDP if rng.percent(15) => {}
        UDP => {
            let sum = checksum(total);
            put16(&mut bytes, 6, if sum == 0 { 0xffff } else { sum });
        }
        _ => {}
    }
    bytes
}

/// A message of the control protocol of an address's family.
pub(super) fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    let mut total = sum(&bytes);
    let protocol = if src.is_ipv6() { ICMPV6 } else { ICMP };
    if src.is_ipv6() {
        total += pseudo(src, dst, protocol, bytes.len());
    }
    put16(&mut bytes, 2, checksum(total));
    (protocol, bytes)
}
