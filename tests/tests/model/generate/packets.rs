//! Packets: of clients and backends, errors about them, pings, and others.

use std::net::IpAddr;

use lb_common::Hook;

use super::{
    Generator,
    build::{self, Parts, transport},
    decorate::decorate,
    errors,
    mutate::mutate,
    worlds::{client, towards, vips},
};
use crate::{
    node::{self, Device, find, host_of},
    reference::State,
    rng::Rng,
    scene::Step,
    subject,
    wire::{ACK, FIN, RST, SCTP, SYN, TCP, Tuple, UDP},
};

/// Bytes of the shortest frame that the kernel takes for a test run.
pub(super) const LEAST: usize = 14;
/// Bytes of the longest frame, such that an answer's headers fit an MTU of 1,500 on top.
const MOST: usize = 1_440;

/// A station on the LAN, whichever.
const STATION: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A packet on its way to a hook.
pub(super) struct Draft {
    hook: Hook,
    device: &'static Device,
    pub(super) parts: Parts,
}

pub(super) fn packet(generator: &mut Generator, state: &State) -> Step {
    let draft = match generator.rng.below(100) {
        0..=42 => request(generator, state),
        43..=52 => reply(generator, state),
        53..=62 => unrecorded(generator),
        63..=66 => direct(generator, state),
        67..=82 => errors::error(generator, state),
        83..=86 => ping(generator),
        _ => other(generator),
    };
    let mut draft = draft.unwrap_or_else(|| other(generator).expect("always one"));
    let rng = &mut generator.rng;
    decorate(rng, &mut draft.parts, &mut generator.ids);
    let mut frame = draft.parts.frame();
    frame.truncate(MOST);
    match rng.below(200) {
        0 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
        1 => {
            let len = LEAST + rng.below(100);
            frame = rng.bytes(len);
        }
        2..=40 => mutate(rng, &mut frame),
        _ => {}
    }
    Step::Packet {
        hook: if subject::takes(draft.hook, &frame) {
            draft.hook
        } else {
            Hook::Xdp
        },
        device: draft.device.name,
        frame,
    }
}

/// A packet to an interface, addressed to it.
pub(super) fn inbound(rng: &mut Rng, device: &'static Device, src: IpAddr, dst: IpAddr) -> Draft {
    let device = if rng.percent(8) {
        find(rng.pick(&["uplink", "east", "slow", "narrow", "still", "side", "pods"]))
    } else {
        device
    };
    let to = match rng.below(40) {
        0 => [0xff; 6],
        1 => STATION,
        _ => device.mac,
    };
    let hook = rng.pick(&[
        Hook::Xdp,
        Hook::Xdp,
        Hook::Xdp,
        Hook::TcIngress,
        Hook::TcIngress,
    ]);
    Draft {
        hook,
        device,
        parts: parts([to, station(rng)], src, dst),
    }
}

/// Who a frame says that it is from: mostly anybody, else a peer by its own address, or one
/// that hands it over or gives it back.
fn station(rng: &mut Rng) -> [u8; 6] {
    match rng.below(20) {
        0..=2 => [0x6e, 0x61, 0x72, 0, 0, rng.byte()],
        3 => rng.pick(&node::peer_macs()),
        4 => [0x6e, 0x61, rng.pick(&[0x73, 0x74]), 0, 0, rng.byte()],
        5 => [0x6e, 0x61, rng.byte(), 0, 0, 1],
        _ => STATION,
    }
}

pub(super) fn outbound(device: &'static Device, src: IpAddr, dst: IpAddr) -> Draft {
    Draft {
        hook: Hook::TcEgress,
        device,
        parts: parts([STATION, device.mac], src, dst),
    }
}

pub(super) fn parts(stations: [[u8; 6]; 2], src: IpAddr, dst: IpAddr) -> Parts {
    Parts {
        stations,
        tags: Vec::new(),
        src,
        dst,
        protocol: 0,
        ttl: 64,
        class: 0,
        dont_cut: true,
        options: Vec::new(),
        extensions: Vec::new(),
        fragment: None,
        message: Vec::new(),
        padding: 0,
    }
}

pub(super) fn flags(rng: &mut Rng) -> u8 {
    match rng.below(20) {
        0..=8 => SYN,
        9..=12 => ACK,
        13 => ACK | 0x08,
        14 => FIN | ACK,
        15 => RST,
        16 => RST | ACK,
        17 => SYN | ACK,
        18 => 0,
        _ => rng.byte(),
    }
}

pub(super) fn payload(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0..=9 => 0,
        10..=15 => rng.below(12),
        16 | 17 => 1_150 + rng.below(200),
        _ => rng.below(200),
    };
    rng.bytes(len)
}

fn carry(rng: &mut Rng, draft: &mut Draft, tuple: &Tuple, flags: u8) {
    let payload = payload(rng);
    draft.parts.protocol = tuple.protocol;
    draft.parts.message = transport(tuple, flags, &payload, rng);
}

/// A client's packet to a frontend, or of a flow that there is.
fn request(generator: &mut Generator, state: &State) -> Option<Draft> {
    let rng = &mut generator.rng;
    let tuple = if !state.flows.is_empty() && rng.percent(45) {
        *state.flows.keys().nth(rng.below(state.flows.len()))?
    } else {
        let service = &generator
            .services
            .get(rng.below(generator.services.len().max(1)))?;
        let frontend = rng.pick(&service.frontends);
        let (src, sport) = client(rng, &generator.clients, frontend.is_ipv6());
        Tuple {
            src,
            sport,
            dst: frontend.ip(),
            dport: frontend.port(),
            protocol: service.protocol,
        }
    };
    let mut draft = inbound(rng, find("uplink"), tuple.src, tuple.dst);
    let flags = flags(rng);
    carry(rng, &mut draft, &tuple, flags);
    Some(draft)
}

/// A backend's packet of a flow that there is.
fn reply(generator: &mut Generator, state: &State) -> Option<Draft> {
    let rng = &mut generator.rng;
    if state.replies.is_empty() {
        return None;
    }
    let mut tuple = *state.replies.keys().nth(rng.below(state.replies.len()))?;
    if rng.percent(5) {
        tuple.sport ^= 1;
    }
    let local = node::is_pod(tuple.src) || node::is_host(tuple.src);
    let mut draft = if local != rng.percent(4) {
        outbound(towards(tuple.dst), tuple.src, tuple.dst)
    } else {
        inbound(rng, towards(tuple.src), tuple.src, tuple.dst)
    };
    let flags = match rng.below(10) {
        0..=2 => SYN | ACK,
        3..=6 => ACK,
        7 => FIN | ACK,
        _ => flags(rng),
    };
    carry(rng, &mut draft, &tuple, flags);
    Some(draft)
}

/// A packet of a client to a backend of some service, as the backend sees it without `nat`.
pub(super) fn to_backend(generator: &mut Generator, local: bool) -> Option<Tuple> {
    let rng = &mut generator.rng;
    let services = generator.services.iter();
    let here = |ip| node::is_pod(ip) || node::is_host(ip);
    let backends = services.flat_map(|service| {
        let addrs = service.backends.iter().map(|backend| backend.addr);
        addrs.map(|addr| (addr, service.protocol))
    });
    let fitting: Vec<_> = backends
        .filter(|(addr, _)| !local || here(addr.ip()))
        .collect();
    if fitting.is_empty() {
        return None;
    }
    let (addr, protocol) = rng.pick(&fitting);
    let (src, sport) = client(rng, &generator.clients, addr.is_ipv6());
    Some(Tuple {
        src,
        sport,
        dst: addr.ip(),
        dport: addr.port(),
        protocol,
    })
}

/// What a local backend sends from the port that it serves, whoever asked.
fn unrecorded(generator: &mut Generator) -> Option<Draft> {
    let tuple = to_backend(generator, true)?.reversed();
    let rng = &mut generator.rng;
    let mut draft = outbound(towards(tuple.dst), tuple.src, tuple.dst);
    let flags = match rng.below(12) {
        0..=2 => SYN | ACK,
        3..=7 => ACK,
        8 => SYN,
        _ => flags(rng),
    };
    carry(rng, &mut draft, &tuple, flags);
    Some(draft)
}

/// A client's packet to a local backend's own address, and to others that were noted.
fn direct(generator: &mut Generator, state: &State) -> Option<Draft> {
    let tuple = if !state.direct.is_empty() && generator.rng.percent(30) {
        let at = generator.rng.below(state.direct.len());
        state.direct.keys().nth(at)?.reversed()
    } else {
        to_backend(generator, true)?
    };
    let rng = &mut generator.rng;
    let mut draft = inbound(rng, towards(tuple.src), tuple.src, tuple.dst);
    let flags = flags(rng);
    carry(rng, &mut draft, &tuple, flags);
    Some(draft)
}

fn ping(generator: &mut Generator) -> Option<Draft> {
    let rng = &mut generator.rng;
    let (src, _) = rng.pick(&generator.clients);
    let v6 = src.is_ipv6();
    let dst = rng.pick(&vips(v6));
    let mut draft = inbound(rng, find("uplink"), src, dst);
    let kind = if v6 {
        rng.pick(&[128, 128, 128, 129, 135])
    } else {
        rng.pick(&[8, 8, 8, 0, 13])
    };
    let len = 4 + rng.below(60);
    let rest = rng.bytes(len);
    (draft.parts.protocol, draft.parts.message) = build::icmp(src, dst, kind, 0, &rest);
    Some(draft)
}

/// What is for no service: other ports, protocols and addresses, and what pods send of
/// their own accord.
fn other(generator: &mut Generator) -> Option<Draft> {
    let rng = &mut generator.rng;
    let (src, sport) = rng.pick(&generator.clients);
    let v6 = src.is_ipv6();
    let uplink = find("uplink");
    let pod = host_of(find("pods"), 2 + rng.below(3) as u8, v6);
    let dst = match rng.below(8) {
        0 => host_of(uplink, 102, v6),
        1 => pod,
        _ => rng.pick(&vips(v6)),
    };
    let tuple = Tuple {
        src,
        sport,
        dst,
        dport: rng.pick(&[80, 53, 8080, 22, 65_520, 65_535]),
        protocol: rng.pick(&[TCP, TCP, UDP, SCTP, 47, 51, 59]),
    };
    let (tuple, mut draft) = if rng.percent(25) {
        let tuple = Tuple {
            src: pod,
            sport: 3000,
            dst: src,
            dport: sport,
            ..tuple
        };
        (tuple, outbound(towards(src), tuple.src, tuple.dst))
    } else {
        (tuple, inbound(rng, uplink, tuple.src, tuple.dst))
    };
    let flags = flags(rng);
    carry(rng, &mut draft, &tuple, flags);
    Some(draft)
}
