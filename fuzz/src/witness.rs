//! A second opinion on packets: etherparse's.

use etherparse::{Ipv4Header, NetHeaders, PacketHeaders, TransportHeader};
use lb_common::Tuple;

use crate::headers::Headers;

/// What etherparse makes of a frame, if it can read it.
pub(crate) fn read(bytes: &[u8]) -> Option<PacketHeaders<'_>> {
    PacketHeaders::from_ethernet_slice(bytes).ok()
}

/// Whether addresses and ports are those that the kernel part reads. True also of what
/// etherparse cannot read, or reads no ports of.
pub(crate) fn agrees(bytes: &[u8], headers: &Headers) -> bool {
    let Some(packet) = read(bytes) else {
        return true;
    };
    let Tuple {
        src,
        dst,
        src_port,
        dst_port,
        ..
    } = headers.tuple;
    let addresses = match &packet.net {
        Some(NetHeaders::Ipv4(ip, _)) => (ip.source.into(), ip.destination.into()),
        Some(NetHeaders::Ipv6(ip, _)) => (ip.source.into(), ip.destination.into()),
        _ => return false,
    };
    let ports = match &packet.transport {
        Some(TransportHeader::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(TransportHeader::Udp(udp)) => (udp.source_port, udp.destination_port),
        _ => (src_port.get(), dst_port.get()),
    };
    addresses == (src.to_ip(), dst.to_ip()) && ports == (src_port.get(), dst_port.get())
}

/// Whether all checksums are right that etherparse can compute: those of IPv4 headers, TCP
/// and UDP.
pub(crate) fn is_valid(packet: &PacketHeaders<'_>) -> bool {
    let payload = packet.payload.slice();
    let (header, transport) = match (&packet.net, &packet.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => (
            is_right(ip),
            tcp.calc_checksum_ipv4(ip, payload).ok() == Some(tcp.checksum),
        ),
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => (
            is_right(ip),
            udp.checksum == 0 || udp.calc_checksum_ipv4(ip, payload).ok() == Some(udp.checksum),
        ),
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => (
            true,
            tcp.calc_checksum_ipv6(ip, payload).ok() == Some(tcp.checksum),
        ),
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => (
            true,
            udp.checksum == 0 || udp.calc_checksum_ipv6(ip, payload).ok() == Some(udp.checksum),
        ),
        (Some(NetHeaders::Ipv4(ip, _)), _) => (is_right(ip), true),
        _ => (true, true),
    };
    header && transport
}

fn is_right(ip: &Ipv4Header) -> bool {
    ip.header_checksum == ip.calc_header_checksum()
}
