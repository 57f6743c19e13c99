//! Packet → the bytes that leave: rewritten in place, or an answer made of them.

use std::net::IpAddr;

use super::parse::{Body, Fragment, Packet, Quote};
use crate::wire::{
    ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, Tuple, UDP, address_offsets, checksum, get16, get32,
    pseudo, put_ip, put16, put32, renewed, renewed_udp, sum,
};

/// TTL of what the balancer itself originates.
const TTL: u8 = 64;

/// Bytes that leave. At `loose` offsets stands a checksum that came in as -0 (0xffff),
/// which may leave as either zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    pub(crate) loose: Vec<usize>,
}

impl Output {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            loose: Vec::new(),
        }
    }

    fn note(&mut self, at: usize) {
        if get16(&self.bytes, at) == 0xffff {
            self.loose.push(at);
        }
    }
}

/// New addresses, ports and TTL; whatever checksum covers them follows.
pub(crate) fn rewrite(frame: &[u8], packet: &Packet, to: &Tuple, ttl: u8) -> Output {
    let mut out = Output::of(frame);
    network(&mut out, packet, to.src, to.dst, ttl);
    if packet.fragment == Fragment::Later {
        return out;
    }
    let (l4, end) = (packet.l4, packet.end);
    let field = match packet.protocol {
        TCP => Some(l4 + 16),
        UDP => Some(l4 + 6),
        _ => None,
    };
    let covered = |bytes: &[u8], src, dst| {
        let mut bytes = bytes[l4..end].to_vec();
        if let Some(field) = field {
            put16(&mut bytes, field - l4, 0);
        }
        pseudo(src, dst, packet.protocol, end - l4) + sum(&bytes)
    };
    let before = covered(&out.bytes, packet.src, packet.dst);
    put16(&mut out.bytes, l4, to.sport);
    put16(&mut out.bytes, l4 + 2, to.dport);
    let after = covered(&out.bytes, to.src, to.dst);
    if let Some(at) = field {
        renew(&mut out, at, packet.protocol, before, after);
    }
    out
}

/// Brings a transport checksum up to date.
fn renew(out: &mut Output, at: usize, protocol: u8, before: u32, after: u32) {
    let old = get16(&out.bytes, at);
    let new = if protocol == UDP {
        renewed_udp(old, before % 0xffff, after % 0xffff)
    } else {
        out.note(at);
        renewed(old, before % 0xffff, after % 0xffff)
    };
    put16(&mut out.bytes, at, new);
}

/// New addresses and TTL of the network header.
fn network(out: &mut Output, packet: &Packet, src: IpAddr, dst: IpAddr, ttl: u8) {
    let l3 = packet.l3;
    if packet.v6 {
        out.bytes[l3 + 7] = ttl;
        put_ip(&mut out.bytes, l3 + 8, src);
        put_ip(&mut out.bytes, l3 + 24, dst);
    } else {
        let l4 = packet.l4;
        ipv4_header(out, l3, l4, |bytes| {
            bytes[l3 + 8] = ttl;
            put_ip(bytes, l3 + 12, src);
            put_ip(bytes, l3 + 16, dst);
        });
    }
}

/// Changes an IPv4 header from `l3` to `l4` with its checksum.
fn ipv4_header(out: &mut Output, l3: usize, l4: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let field = l3 + 10;
    let covered = |bytes: &[u8]| (sum(&bytes[l3..field]) + sum(&bytes[field + 2..l4])) % 0xffff;
    out.note(field);
    let before = covered(&out.bytes);
    change(&mut out.bytes);
    let new = renewed(get16(&out.bytes, field), before, covered(&out.bytes));
    put16(&mut out.bytes, field, new);
}

/// An ICMP error with new outer addresses, and `quoted` as what it is about (RFC 5508
/// section 4: outer and quoted headers alike).
pub(crate) fn translate(
    frame: &[u8],
    packet: &Packet,
    to: (IpAddr, IpAddr),
    ttl: u8,
    quote: &Quote,
    quoted: &Tuple,
) -> Output {
    let mut out = Output::of(frame);
    let field = packet.l4 + 2;
    let message = |bytes: &[u8], src, dst| {
        let text = sum(&bytes[packet.l4..field]) + sum(&bytes[field + 2..packet.end]);
        let addresses = if packet.v6 {
            pseudo(src, dst, ICMPV6, packet.end - packet.l4)
        } else {
            0
        };
        (text + addresses) % 0xffff
    };
    let before = message(&out.bytes, packet.src, packet.dst);
    requote(&mut out, packet, quote, quoted);
    network(&mut out, packet, to.0, to.1, ttl);
    let after = message(&out.bytes, to.0, to.1);
    out.note(field);
    let new = renewed(get16(&out.bytes, field), before, after);
    put16(&mut out.bytes, field, new);
    out
}

/// Rewrites the quoted packet. Of its transport checksum only the change of addresses
/// and ports can be known, since the quote ends early.
fn requote(out: &mut Output, packet: &Packet, quote: &Quote, quoted: &Tuple) {
    let old = &quote.tuple;
    let (src, dst) = address_offsets(packet.v6);
    let set = |bytes: &mut Vec<u8>| {
        put_ip(bytes, quote.l3 + src, quoted.src);
        put_ip(bytes, quote.l3 + dst, quoted.dst);
    };
    if packet.v6 {
        set(&mut out.bytes);
    } else {
        ipv4_header(out, quote.l3, quote.l4, set);
    }
    put16(&mut out.bytes, quote.l4, quoted.sport);
    put16(&mut out.bytes, quote.l4 + 2, quoted.dport);
    let at = match old.protocol {
        TCP => quote.l4 + 16,
        UDP => quote.l4 + 6,
        _ => return,
    };
    if at + 2 <= packet.end {
        let parts = |tuple: &Tuple| {
            let ports = u32::from(tuple.sport) + u32::from(tuple.dport);
            pseudo(tuple.src, tuple.dst, 0, 0) + ports
        };
        renew(out, at, old.protocol, parts(old), parts(quoted));
    }
}

/// The reply to a ping.
pub(crate) fn echo(frame: &[u8], packet: &Packet) -> Output {
    let mut out = Output::of(frame);
    swap_stations(&mut out.bytes);
    network(&mut out, packet, packet.dst, packet.src, TTL);
    let (l4, field) = (packet.l4, packet.l4 + 2);
    out.note(field);
    let before = sum(&out.bytes[l4..field]);
    out.bytes[l4] = if packet.v6 { 129 } else { 0 };
    let after = sum(&out.bytes[l4..field]);
    // Of the words only this one changed; what is right stays right.
    let change = (u32::from(get16(&out.bytes, field)) + before + 0xffff - after) % 0xffff;
    put16(&mut out.bytes, field, change as u16);
    out
}

fn swap_stations(frame: &mut [u8]) {
    for at in 0..6 {
        frame.swap(at, at + 6);
    }
}

/// A frame around `message`, from the packet's destination to its source.
fn answer(frame: &[u8], packet: &Packet, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut out = frame[..packet.l3].to_vec();
    swap_stations(&mut out);
    let header = if packet.v6 {
        let mut header = vec![0; 40];
        header[0] = 0x60;
        put16(&mut header, 4, message.len() as u16);
        header[6] = protocol;
        header[7] = TTL;
        put_ip(&mut header, 8, packet.dst);
        put_ip(&mut header, 24, packet.src);
        header
    } else {
        let mut header = vec![0; 20];
        header[0] = 0x45;
        put16(&mut header, 2, 20 + message.len() as u16);
        put16(&mut header, 6, 0x4000);
        header[8] = TTL;
        header[9] = protocol;
        put_ip(&mut header, 12, packet.dst);
        put_ip(&mut header, 16, packet.src);
        let sum = checksum(sum(&header));
        put16(&mut header, 10, sum);
        header
    };
    out.extend(header);
    out.extend(message);
    out
}

/// The RST that a closed port sends (RFC 9293 section 3.10.7.1).
pub(crate) fn reset(frame: &[u8], packet: &Packet) -> Vec<u8> {
    let Body::Ports {
        sport,
        dport,
        flags,
        len,
    } = packet.body
    else {
        unreachable!("TCP has ports")
    };
    let mut tcp = vec![0; 20];
    put16(&mut tcp, 0, dport);
    put16(&mut tcp, 2, sport);
    tcp[12] = 5 << 4;
    if flags & ACK != 0 {
        put32(&mut tcp, 4, get32(frame, packet.l4 + 8));
        tcp[13] = RST;
    } else {
        let data = packet.end - packet.l4 - len;
        let occupied = data + usize::from(flags & SYN != 0) + usize::from(flags & FIN != 0);
        let next = get32(frame, packet.l4 + 4).wrapping_add(occupied as u32);
        put32(&mut tcp, 8, next);
        tcp[13] = RST | ACK;
    }
    let total = sum(&tcp) + pseudo(packet.dst, packet.src, TCP, tcp.len());
    put16(&mut tcp, 16, checksum(total));
    answer(frame, packet, TCP, &tcp)
}

/// An ICMP error about the packet, quoting its headers: the network header with all that
/// belongs to it, and of the transport header 20 bytes at most.
pub(crate) fn error(frame: &[u8], packet: &Packet, kind: u8, code: u8, word: u32) -> Vec<u8> {
    let Body::Ports { len, .. } = packet.body else {
        unreachable!("only packets with ports are answered so")
    };
    let quoted = &frame[packet.l3..packet.l4 + len.min(20)];
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    put32(&mut message, 4, word);
    message.extend(quoted);
    let mut total = sum(&message);
    let protocol = if packet.v6 { ICMPV6 } else { ICMP };
    if packet.v6 {
        total += pseudo(packet.dst, packet.src, protocol, message.len());
    }
    put16(&mut message, 2, checksum(total));
    answer(frame, packet, protocol, &message)
}
