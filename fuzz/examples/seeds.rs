//! Writes `fuzz/seeds`: inputs that mean something, for fuzzing to begin with.
//!
//! Checksums are left out; the target `packet` puts them in where its first byte says so.

use std::{fs, io, path::Path};

/// The TTL is to be counted down, the checksums are to be made right.
const HOP_AND_REPAIR: u8 = 3;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, frame) in packets() {
        write(&root, "packet", name, &[prefix(), frame].concat())?;
    }
    for (name, line) in lines() {
        write(&root, "control", name, format!("{line}\n").as_bytes())?;
    }
    Ok(())
}

fn write(root: &Path, target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = root.join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)
}

/// Where to rewrite to: as IPv4 from 192.168.56.101 to 10.244.1.2.
fn prefix() -> Vec<u8> {
    let mut prefix = vec![HOP_AND_REPAIR];
    prefix.extend([192, 168, 56, 101, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    prefix.extend([10, 244, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    prefix.extend([0xee, 0x48, 0x0b, 0xb8]);
    prefix
}

fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let syn = tcp(0x02, b"");
    let query = udp(1, b"query");
    let unsummed = udp(0, b"odd");
    let padding: &[u8] = &[0; 8];
    let (quote4, quote6) = (ipv4(UDP, &[], 0, &query), ipv6(TCP, &syn));
    let hop_by_hop = [
        &[60, 0, 1, 4, 0, 0, 0, 0, TCP, 0, 1, 4, 0, 0, 0, 0],
        &syn[..],
    ]
    .concat();
    let first = [&[UDP, 0, 0, 1, 0, 0, 0, 7], &query[..]].concat();
    let later = [&[UDP, 0, 0, 8, 0, 0, 0, 7], padding].concat();
    vec![
        ("syn-v4", eth4(ipv4(TCP, &[], 0x4000, &syn))),
        ("data-v4", eth4(ipv4(TCP, &[], 0x4000, &tcp(0x18, b"data")))),
        ("fin-v4", eth4(ipv4(TCP, &[], 0, &tcp(0x11, b"")))),
        ("reset-v4", eth4(ipv4(TCP, &[], 0, &tcp(0x04, b"")))),
        ("options-v4", eth4(ipv4(TCP, &[1; 8], 0, &syn))),
        (
            "padded-v4",
            [&eth4(ipv4(TCP, &[], 0, &syn)), padding].concat(),
        ),
        ("udp-v4", eth4(ipv4(UDP, &[], 0, &query))),
        ("udp-unsummed-v4", eth4(ipv4(UDP, &[], 0, &unsummed))),
        ("sctp-v4", eth4(ipv4(SCTP, &[], 0, &sctp()))),
        ("first-v4", eth4(ipv4(UDP, &[], 0x2000, &query))),
        ("later-v4", eth4(ipv4(UDP, &[], 0x0001, padding))),
        (
            "tagged-v4",
            eth(&[0x81, 0, 0, 7, 8, 0], &ipv4(TCP, &[], 0, &syn)),
        ),
        (
            "twice-tagged-v6",
            eth(
                &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd],
                &ipv6(UDP, &query),
            ),
        ),
        ("ping-v4", eth4(ipv4(ICMP, &[], 0, &icmp(8, 0, b"ping")))),
        ("too-big-v4", eth4(ipv4(ICMP, &[], 0, &icmp(3, 4, &quote4)))),
        (
            "expired-v4",
            eth4(ipv4(ICMP, &[], 0, &icmp(11, 0, &quote4[..28]))),
        ),
        ("syn-v6", eth6(ipv6(TCP, &syn))),
        ("udp-v6", eth6(ipv6(UDP, &query))),
        ("extensions-v6", eth6(ipv6(0, &hop_by_hop))),
        ("first-v6", eth6(ipv6(44, &first))),
        ("later-v6", eth6(ipv6(44, &later))),
        ("ping-v6", eth6(ipv6(ICMPV6, &icmp(128, 0, b"ping")))),
        ("too-big-v6", eth6(ipv6(ICMPV6, &icmp(2, 0, &quote6)))),
        ("neighbour-v6", eth6(ipv6(ICMPV6, &icmp(135, 0, &[0; 16])))),
        ("solicitation", eth6(solicitation())),
        ("arp", eth(&[8, 6], &[0; 28])),
        ("arp-request", eth(&[8, 6], &arp_request())),
    ]
}

fn eth4(packet: Vec<u8>) -> Vec<u8> {
    eth(&[0x08, 0x00], &packet)
}

fn eth6(packet: Vec<u8>) -> Vec<u8> {
    eth(&[0x86, 0xdd], &packet)
}

/// `tail` is what follows the addresses: tags and EtherType.
fn eth(tail: &[u8], packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 0x65, 2, 0, 0, 0, 0, 1], tail, packet].concat()
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() as u8 / 4;
    let [high, low] = ((usize::from(words) * 4 + payload.len()) as u16).to_be_bytes();
    let [a, b] = fragment.to_be_bytes();
    let mut packet = vec![0x40 | words, 0, high, low, 0, 1, a, b, 64, protocol, 0, 0];
    packet.extend([192, 168, 56, 1, 192, 168, 56, 11]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    packet.extend([0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]);
    packet.extend(payload);
    packet
}

fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 10, 11, 12, 13];
    segment.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// `checksum` 0 is none.
fn udp(checksum: u8, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53, 0, 8 + payload.len() as u8, 0, checksum];
    datagram.extend(payload);
    datagram
}

fn sctp() -> Vec<u8> {
    vec![
        0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef, 1, 0, 0, 4,
    ]
}

/// A neighbour solicitation with a link address; its checksum is the repaired one.
fn solicitation() -> Vec<u8> {
    let vip = [0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    let link = [1, 1, 2, 0, 0, 0, 0, 1];
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], &vip[..], &link].concat();
    let mut packet = ipv6(ICMPV6, &message);
    packet[7] = 255;
    packet
}

fn arp_request() -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 168, 56, 1];
    request.extend([0, 0, 0, 0, 0, 0, 192, 168, 56, 11]);
    request
}

fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 1, 0, 1], rest].concat()
}

/// Requests and replies, as they are on the control socket.
fn lines() -> Vec<(&'static str, &'static str)> {
    vec![
        ("status", r#""status""#),
        ("services", r#""services""#),
        ("backends", r#""backends""#),
        ("flows", r#"{"flows":100}"#),
        (
            "explain",
            r#"{"explain":{"client":"192.168.56.1:40000","frontend":"[fd00::b]:80","protocol":"tcp","interface":"eth0"}}"#,
        ),
        (
            "drain",
            r#"{"drain":{"backend":"10.0.0.11:8080","undo":false}}"#,
        ),
        ("failed", r#"{"failed":"no such backend"}"#),
        (
            "drained",
            r#"{"drained":{"target":"10.0.0.11","undone":true,"backends":["10.0.0.11:80"],"without":["default/web:http"]}}"#,
        ),
        (
            "flow-list",
            r#"{"flows":{"flows":[{"protocol":"udp","client":"192.168.56.1:4000","frontend":"192.168.56.11:53","backend":"10.0.0.1:53","snat":null,"state":"replied","idle":3}],"more":false}}"#,
        ),
        (
            "service-list",
            r#"{"services":[{"name":"default/web:http","frontends":["192.168.56.11:80"],"node_port":30080,"algorithm":"maglev","slots":1021,"backends":1,"external_policy":"Cluster","internal_policy":"Cluster","session_affinity":600,"health_check":null,"source_ranges":["10.0.0.0/8"],"packets_in":1,"bytes_in":2,"packets_out":3,"bytes_out":4,"flows":5}]}"#,
        ),
    ]
}
