//! What must hold of answers to packets that cannot go on.

use std::net::IpAddr;

use etherparse::{TcpHeader, TransportSlice};
use lb_common::{Family, flow::tcp_flag};

use crate::{
    headers::{Fragment, Headers},
    wire::{get16, get32},
    witness::Packet,
};

/// Longest network header that an ICMP error quotes.
const MAX_QUOTED: usize = 128;
/// Longest ICMPv6 error (RFC 4443 section 2.4).
const MAX_ERROR_V6: usize = 1280;

/// Whether a packet must be left without an answer.
pub(crate) fn must_not_be(headers: &Headers) -> bool {
    let nobody = match headers.tuple.src.to_ip() {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            first == 0 || first == 127 || first >= 224
        }
        // Nothing of ::/96 is anyone's: unspecified, loopback, once IPv4-compatible.
        IpAddr::V6(ip) => ip.is_multicast() || ip.octets()[..12] == [0; 12],
    };
    nobody
        || headers.fragment == Fragment::Later
        || headers.tcp_flags & tcp_flag::RST != 0
        || headers.l4() - headers.l3() > MAX_QUOTED
}

/// Holds an answer to a TCP segment against RFC 9293 section 3.10.7.1.
pub(crate) fn reset(asked: &[u8], headers: &Headers, answer: &[u8]) {
    let Some(TransportSlice::Tcp(tcp)) = common(asked, headers, answer).transport else {
        panic!("no TCP in {answer:02x?}");
    };
    assert_eq!(answer.len(), headers.l3() + header_len(headers) + 20);
    let l4 = headers.l4();
    let (seq, ack) = (get32(asked, l4 + 4), get32(asked, l4 + 8));
    let payload = headers.end() - l4 - usize::from(headers.transport_len);
    let flag = |flag| u32::from(headers.tcp_flags & flag != 0);
    let occupied = payload as u32 + flag(tcp_flag::SYN) + flag(tcp_flag::FIN);
    let mut expected = TcpHeader::new(get16(asked, l4 + 2), get16(asked, l4), 0, 0);
    expected.rst = true;
    if headers.tcp_flags & tcp_flag::ACK != 0 {
        expected.sequence_number = ack;
    } else {
        expected.ack = true;
        expected.acknowledgment_number = seq.wrapping_add(occupied);
    }
    expected.checksum = tcp.checksum();
    assert_eq!(tcp.to_header(), expected);
}

/// Holds an ICMP error of this type and code against RFC 792 and RFC 4443; `word` follows
/// its checksum.
pub(crate) fn error(asked: &[u8], headers: &Headers, answer: &[u8], kind_code: [u8; 2], word: u32) {
    common(asked, headers, answer);
    let l3 = headers.l3();
    let l4 = l3 + header_len(headers);
    assert_eq!(answer[l4..l4 + 2], kind_code);
    assert_eq!(get32(answer, l4 + 4), word);
    let quote = &answer[l4 + 8..];
    let least = headers.l4() - l3 + 8;
    assert!(quote.len() >= least, "{} bytes are quoted", quote.len());
    assert!(asked[l3..headers.end()].starts_with(quote), "{quote:02x?}");
    if headers.tuple.family() == Family::V6 {
        assert!(answer.len() - l3 <= MAX_ERROR_V6);
    }
}

/// What all answers have in common: they go back whence the packet came, in a packet that
/// is right as a whole. Gives that.
fn common<'a>(asked: &[u8], headers: &Headers, answer: &'a [u8]) -> Packet<'a> {
    let l3 = headers.l3();
    assert_eq!(answer[..6], asked[6..12]);
    assert_eq!(answer[6..12], asked[..6]);
    assert_eq!(answer[12..l3], asked[12..l3]);
    let Some(packet) = Packet::read(answer) else {
        panic!("{answer:02x?} cannot be read");
    };
    assert!(packet.is_valid(), "{answer:02x?}");
    let tuple = &headers.tuple;
    assert_eq!(
        (packet.src, packet.dst, packet.len, packet.ttl),
        (tuple.dst.to_ip(), tuple.src.to_ip(), answer.len() - l3, 64)
    );
    packet
}

fn header_len(headers: &Headers) -> usize {
    match headers.tuple.family() {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}
