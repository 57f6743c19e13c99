//! Questions for claimed addresses, by RFC 826 and RFC 4861 sections 7.1.1 and 7.2.4.

use std::net::{IpAddr, Ipv6Addr};

use lb_common::Hook;

use super::{Input, State, parse::Packet};
use crate::{
    node::Device,
    wire::{ICMPV6, checksum, get_ip, octets, pseudo, put_ip, put16, sum},
};

/// The interfaces on which the addresses of services are claimed.
pub(crate) const CLAIMING: [&str; 2] = ["uplink", "slow"];

/// Most bytes of options that are read.
const MOST_OPTIONS: usize = 32;

/// The answer to an ARP request.
pub(super) fn arp(state: &State, input: &Input<'_>) -> Option<Vec<u8>> {
    let frame = input.frame;
    if frame.len() < 42 || frame[12..22] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] {
        return None;
    }
    let (sender, from) = (&frame[22..28], &frame[28..32]);
    let target = get_ip(frame, 38, false);
    let me = claimant(state, input, target)?;
    let to_me = frame[..6] == me.mac || frame[..6] == [0xff; 6];
    if !to_me || !is_another(sender, me) || *from == frame[38..42] {
        return None;
    }
    let mut answer = frame.to_vec();
    answer[..6].copy_from_slice(sender);
    answer[6..12].copy_from_slice(&me.mac);
    answer[21] = 2;
    answer[22..28].copy_from_slice(&me.mac);
    put_ip(&mut answer, 28, target);
    answer[32..42].copy_from_slice(&frame[22..32]);
    Some(answer)
}

/// The answer to a neighbour solicitation.
pub(super) fn ndp(state: &State, input: &Input<'_>, packet: &Packet) -> Option<Vec<u8>> {
    let message = &input.frame[packet.l4..packet.end];
    if packet.l3 != 14 || packet.l4 != 54 || packet.ttl != 255 {
        return None;
    }
    if message.len() < 24 || message.len() > 24 + MOST_OPTIONS || message[..2] != [135, 0] {
        return None;
    }
    let total = sum(message) + pseudo(packet.src, packet.dst, ICMPV6, message.len());
    let IpAddr::V6(target) = get_ip(message, 8, true) else {
        return None;
    };
    let me = claimant(state, input, target.into())?;
    let group = group(target);
    let [.., a, b, c] = target.octets();
    let to = &input.frame[..6];
    let to_me = *to == me.mac || *to == [0x33, 0x33, 0xff, a, b, c];
    let (to_group, to_target) = (packet.dst == group, packet.dst == target);
    if !total.is_multiple_of(0xffff) || !to_me || !(to_group || to_target) {
        return None;
    }
    let link = source(&message[24..])?;
    let probe = packet.src == Ipv6Addr::UNSPECIFIED;
    let (to, dst, flags) = match (probe, link) {
        (true, None) if to_group => (
            vec![0x33, 0x33, 0, 0, 0, 1],
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            0x20,
        ),
        (false, Some(link)) if is_another(&link, me) => (link, packet.src, 0x40),
        _ => return None,
    };
    let somebody = !packet.src.is_multicast() && octets(packet.src)[..12] != [0; 12];
    if !probe && (!somebody || packet.src == target) {
        return None;
    }
    let mut answer = [&to[..], &me.mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32]].concat();
    answer.extend([58, 255]);
    answer.extend(octets(target.into()));
    answer.extend(octets(dst));
    answer.extend([136, 0, 0, 0, flags, 0, 0, 0]);
    answer.extend(octets(target.into()));
    answer.extend([&[2, 1], &me.mac[..]].concat());
    let total = sum(&answer[54..]) + pseudo(target.into(), dst, ICMPV6, 32);
    put16(&mut answer, 56, checksum(total));
    Some(answer)
}

/// The interface, where XDP meets a question for an address that is claimed on it.
fn claimant(state: &State, input: &Input<'_>, target: IpAddr) -> Option<&'static Device> {
    let here = input.hook == Hook::Xdp && CLAIMING.contains(&input.device.name);
    (here && state.is_claimed(target)).then_some(input.device)
}

/// Whether a link address can be one station's, and not this one's.
fn is_another(link: &[u8], me: &Device) -> bool {
    link[0] & 1 == 0 && *link != [0; 6] && *link != me.mac
}

/// The group that solicitations for an address go to (RFC 4291 section 2.7.1).
pub(crate) fn group(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let mut octets = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    octets[13..].copy_from_slice(&[a, b, c]);
    octets.into()
}

/// The link address in the options, if there is one; none where they are none.
fn source(mut options: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut found = None;
    while !options.is_empty() {
        let len = usize::from(*options.get(1)?) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if options[0] == 1 {
            found = Some(options[2..8].to_vec());
        }
        options = &options[len..];
    }
    Some(found)
}
