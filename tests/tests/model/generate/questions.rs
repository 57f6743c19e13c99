//! Questions for the link addresses of what is claimed.

use std::net::{IpAddr, Ipv6Addr};

use lb_common::Hook;

use super::worlds::vips;
use crate::{
    node::{self, find},
    reference::questions::{CLAIMING, group},
    rng::Rng,
    scene::Step,
    subject,
    wire::{ICMPV6, checksum, octets, pseudo, put16, sum},
};

const CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A question for an address that may be claimed, now and then with something wrong.
pub(super) fn question(rng: &mut Rng) -> Step {
    let device = if rng.percent(80) {
        find(rng.pick(&CLAIMING))
    } else {
        find(rng.pick(&["east", "side"]))
    };
    let sender = match rng.below(12) {
        0 => device.mac,
        1 => [0xff; 6],
        2 => [0; 6],
        _ => CLIENT,
    };
    let mut frame = if rng.percent(50) {
        arp(rng, device, sender)
    } else {
        ndp(rng, device, sender)
    };
    if rng.percent(30) {
        let at = rng.below(frame.len());
        frame[at] = rng.byte();
    }
    if rng.percent(10) {
        let len = 14 + rng.below(frame.len() - 14);
        frame.truncate(len);
    }
    if rng.percent(20) {
        let len = rng.below(20);
        frame.extend(rng.bytes(len));
    }
    let at_tc = rng.percent(10) && subject::takes(Hook::TcIngress, &frame);
    let hook = if at_tc { Hook::TcIngress } else { Hook::Xdp };
    Step::Packet {
        hook,
        device: device.name,
        frame,
    }
}

fn arp(rng: &mut Rng, device: &node::Device, sender: [u8; 6]) -> Vec<u8> {
    let target = octets(rng.pick(&vips(false)));
    let from = match rng.below(10) {
        0 => target.clone(),
        1 => vec![0; 4],
        _ => vec![192, 168, 56, 1],
    };
    let to = rng.pick(&[[0xff; 6], [0xff; 6], device.mac, CLIENT]);
    let operation = rng.pick(&[1, 1, 1, 1, 2]);
    [
        &to[..],
        &CLIENT,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &sender,
        &from,
        &[0; 6],
        &target,
    ]
    .concat()
}

fn ndp(rng: &mut Rng, device: &node::Device, sender: [u8; 6]) -> Vec<u8> {
    let IpAddr::V6(target) = rng.pick(&vips(true)) else {
        return Vec::from([0; 14]);
    };
    let client: Ipv6Addr = "fd00::1".parse().expect("an address");
    let src = rng.pick(&[client, client, client, Ipv6Addr::UNSPECIFIED, target]);
    let dst = rng.pick(&[group(target), group(target), target, client]);
    let [.., a, b, c] = target.octets();
    let to = rng.pick(&[[0x33, 0x33, 0xff, a, b, c], device.mac, [0xff; 6]]);
    let mut message = vec![rng.pick(&[135, 135, 135, 135, 136]), 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    // Mostly without one where there is no address yet.
    for _ in 0..rng.pick(&[0, 0, 0, 1, 2]) {
        message.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    }
    if rng.percent(if src.is_unspecified() { 20 } else { 90 }) {
        message.extend([1, 1]);
        message.extend(sender);
    }
    let total = sum(&message) + pseudo(src.into(), dst.into(), ICMPV6, message.len());
    put16(&mut message, 2, checksum(total));
    let hops = rng.pick(&[255, 255, 255, 255, 255, 254]);
    let mut frame = [&to[..], &CLIENT, &[0x86, 0xdd, 0x60, 0, 0, 0, 0]].concat();
    frame.extend([message.len() as u8, 58, hops]);
    frame.extend(src.octets());
    frame.extend(dst.octets());
    frame.extend(message);
    frame
}
