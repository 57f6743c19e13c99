//! What packets of flows that are known by `nat` ask, and what they do not: most forward ones a
//! cell alone, most replies what says where the flow began.

use std::{
    mem::offset_of,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Cell, Ends, Hook, Verdict,
    cell::Fresh,
    flow::{self, tick},
};
use naru::desired::{Service, Snat};

use crate::{
    Case,
    frames::{ACK, FIN, NODE_MAC, REMOTE_MAC, SYN, tcp},
    world::{Act, REMOTE, World, endpoints, service},
};

const VIP: &str = "192.168.56.11:80";
const CLIENT: &str = "192.168.56.1:40000";
/// Words of an entry of `ENDS`.
const FRESH: usize = offset_of!(Ends, fresh) / 8;
const TO: usize = offset_of!(Ends, to) / 8;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "known: a client's packet by nat goes by its flow's cell alone, a reply by where it began",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                // Neither knows what it does not ask for.
                edit(&world, "ENDS", |ends| ends[TO] ^= 1 << 40);
                assert_eq!(sent(&mut world, CLIENT, ACK), source);
                edit(&world, "ENDS", |ends| ends[TO] ^= 1 << 40);
                edit(&world, "FLOWS", |cells| cells.fill(Cell::FREE));
                // The dry run does not know that way.
                let ingress = world.ingress;
                let out = world
                    .datapath
                    .test_run(Hook::Xdp, &reply(source, ACK), ingress);
                assert_eq!(endpoints(&out.unwrap().bytes).1.to_string(), CLIENT);
            },
        },
        Case {
            name: "known: replies keep a flow fresh, once in a sixteenth of its timeout, and at once where it ends",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                let silent = |world: &World| world.datapath.flows(2).unwrap().0[0].idle;
                age(&world, 100);
                answered(&mut world, source, ACK);
                assert!(silent(&world) >= 100, "its cell was asked");
                edit(&world, "ENDS", |ends| {
                    let timeout = 0;
                    ends[FRESH] = Fresh::new(ends[FRESH], now() - 2, timeout).0;
                });
                answered(&mut world, source, ACK);
                assert!(silent(&world) < 3, "its cell was not asked");
                // And from now on it is fresh again.
                age(&world, 100);
                answered(&mut world, source, ACK);
                assert!(silent(&world) >= 100, "its cell was asked again");
                // A client that closes has an end of it.
                sent(&mut world, CLIENT, FIN | ACK);
                age(&world, 50);
                answered(&mut world, source, ACK);
                assert!(silent(&world) < 3, "a flow that ends was not asked");
            },
        },
        Case {
            name: "known: a source that shares its place has flows of its own, and leaves the first one's",
            run: || {
                let [first, second] = sharing();
                let mut world = World::with_snat(&services(), own(first));
                let source = connect(&mut world, CLIENT);
                assert_eq!(source.ip(), first);
                world.snat_from(own(second));
                world.change(&services());
                let other = "192.168.56.1:40001";
                let others = connect(&mut world, other);
                assert_eq!(others.ip(), second);
                for _ in 0..2 {
                    assert_eq!(sent(&mut world, CLIENT, ACK), source);
                    assert_eq!(sent(&mut world, other, ACK), others);
                }
                assert_eq!(answered(&mut world, others, ACK).to_string(), other);
            },
        },
    ]
}

fn services() -> [Service; 1] {
    [service(&[VIP], &[REMOTE])]
}

fn own(addr: IpAddr) -> Snat {
    Snat::shared(addr, lb_common::config::DEFAULT_SNAT_PORTS)
}

/// Two addresses that are looked for at one place: never of one network of 256.
fn sharing() -> [IpAddr; 2] {
    let first = IpAddr::from([192, 168, 56, 50]);
    let place = |ip: IpAddr| flow::source(&ip.into());
    let mut others = (1..=250).map(|last| IpAddr::from([192, 168, 57, last]));
    let second = others.find(|&other| place(other) == place(first));
    [
        first,
        second.expect("250 addresses have most of 255 places"),
    ]
}

/// Opens a connection, which each side has said something of; gives what the backend takes for its
/// client.
#[track_caller]
fn connect(world: &mut World, client: &str) -> SocketAddr {
    let source = sent(world, client, SYN);
    answered(world, source, SYN | ACK);
    sent(world, client, ACK);
    answered(world, source, ACK);
    source
}

/// Where the backend sees a client's segment come from.
#[track_caller]
fn sent(world: &mut World, client: &str, flags: u8) -> SocketAddr {
    let (from, to) = world.forwarded(&tcp(client, VIP, flags), Verdict::ForwardNat);
    assert_eq!(to.to_string(), REMOTE);
    from
}

/// Who is sent the backend's segment to `source`.
#[track_caller]
fn answered(world: &mut World, source: SocketAddr, flags: u8) -> SocketAddr {
    let (reply, verdict) = (reply(source, flags), Verdict::ReplyNat);
    let (from, to) = endpoints(&world.send(Hook::Xdp, &reply, verdict, Act::SentBack));
    assert_eq!(from.to_string(), VIP);
    to
}

fn reply(source: SocketAddr, flags: u8) -> Vec<u8> {
    let segment = tcp(REMOTE, &source.to_string(), flags);
    segment.link(REMOTE_MAC, NODE_MAC).bytes()
}

/// Has all flows been refreshed so many ticks earlier.
fn age(world: &World, ticks: u64) {
    edit(world, "FLOWS", |cells| {
        for cell in cells.chunks_mut(2).filter(|it| it[0] & Cell::TAKEN != 0) {
            cell[1] -= ticks << 40;
        }
    });
}

/// Changes what is not empty in one of the tables of flows, by 128 bytes.
fn edit(world: &World, map: &str, change: impl Fn(&mut [u64; 16])) {
    let mut table = world.datapath.buckets(map);
    for index in 0..table.len() {
        let mut entry = table.get(&index, 0).unwrap();
        if entry.iter().any(|&it| it != 0) {
            change(&mut entry);
            table.set(index, entry, 0).unwrap();
        }
    }
}

fn now() -> u32 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    tick(std::time::Duration::from(now).as_nanos() as u64)
}
