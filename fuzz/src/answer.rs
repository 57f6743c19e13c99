//! What must hold of answers to packets that cannot go on.

use std::net::IpAddr;

use etherparse::{NetHeaders, TcpHeader, TransportHeader};
use lb_common::{Family, flow::tcp_flag};

use crate::{
    headers::{Fragment, Headers},
    wire::{get16, get32, sum},
    witness,
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
    let tcp = common(asked, headers, answer, |transport| match transport {
        Some(TransportHeader::Tcp(tcp)) => Some(tcp.clone()),
        _ => None,
    });
    let Some(tcp) = tcp else {
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
    expected.checksum = tcp.checksum;
    assert_eq!(tcp, expected);
}

/// Holds an ICMP error of this type and code against RFC 792 and RFC 4443; `word` follows
/// its checksum.
pub(crate) fn error(asked: &[u8], headers: &Headers, answer: &[u8], kind_code: [u8; 2], word: u32) {
    common(asked, headers, answer, |_| Some(()));
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
    let len = answer.len() - l4;
    let mut total = sum(&answer[l4..]);
    if headers.tuple.family() == Family::V6 {
        total += sum(&answer[l3 + 8..l3 + 40]) + 58 + len as u32;
    }
    assert_eq!(total % 0xffff, 0, "checksum of {answer:02x?}");
}

/// What all answers have in common: they go back whence the packet came, in a packet that
/// is right as a whole. Gives what `pick` finds in it.
fn common<T>(
    asked: &[u8],
    headers: &Headers,
    answer: &[u8],
    pick: impl FnOnce(&Option<TransportHeader>) -> Option<T>,
) -> Option<T> {
    let l3 = headers.l3();
    assert_eq!(answer[..6], asked[6..12]);
    assert_eq!(answer[6..12], asked[..6]);
    assert_eq!(answer[12..l3], asked[12..l3]);
    let Some(packet) = witness::read(answer) else {
        panic!("{answer:02x?} cannot be read");
    };
    assert!(witness::is_valid(&packet), "{answer:02x?}");
    let tuple = &headers.tuple;
    let (src, dst, len, ttl): (IpAddr, IpAddr, _, _) = match &packet.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            let len = usize::from(ip.total_len);
            (
                ip.source.into(),
                ip.destination.into(),
                len,
                ip.time_to_live,
            )
        }
        Some(NetHeaders::Ipv6(ip, _)) => {
            let len = 40 + usize::from(ip.payload_length);
            (ip.source.into(), ip.destination.into(), len, ip.hop_limit)
        }
        _ => panic!("{answer:02x?} is no IP packet"),
    };
    assert_eq!((src, dst), (tuple.dst.to_ip(), tuple.src.to_ip()));
    assert_eq!((len, ttl), (answer.len() - l3, 64));
    pick(&packet.transport)
}

fn header_len(headers: &Headers) -> usize {
    match headers.tuple.family() {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}
