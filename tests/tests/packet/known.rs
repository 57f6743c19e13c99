//! What packets of flows that are known by `nat` ask: a client's their flow's cell alone, a
//! backend's their own.

use std::{
    mem::offset_of,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Bucket, Cell, Ends, Hook, ReplyBucket, Verdict,
    cell::{Layout, WAYS},
    flow,
};
use naru::desired::{Service, Snat};

use crate::{
    Case,
    frames::{ACK, FIN, NODE_MAC, REMOTE_MAC, SYN, tcp},
    world::{Act, REMOTE, World, endpoints, service},
};

const VIP: &str = "192.168.56.11:80";
pub(crate) const CLIENT: &str = "192.168.56.1:40000";
/// Words of an entry of `ENDS`: one of the client's packet, and one of that which the backend sees.
const ENDS: usize = size_of::<Ends>() / 8;
const FROM: usize = offset_of!(Ends, from) / 8;
/// Words of buckets.
const FLOWS: usize = Bucket::WORDS;
const REPLIES: usize = ReplyBucket::WORDS;
const TO: usize = offset_of!(Ends, to) / 8;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "known: a client's packet by nat goes by its flow's cell alone",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                // The dry run goes by this, on the long way.
                edit::<ENDS>(&world, "ENDS", |ends| ends[TO] ^= 1 << 40);
                let ack = tcp(CLIENT, VIP, ACK).bytes();
                let ingress = world.ingress;
                let out = world.datapath.test_run(Hook::Xdp, &ack, ingress);
                let (from, to) = endpoints(&out.unwrap().bytes);
                assert_eq!((from, to.to_string().as_str()), (source, REMOTE));
            },
        },
        Case {
            name: "known: a backend's packet by nat goes by its own cell alone",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                edit::<ENDS>(&world, "ENDS", |ends| ends[FROM] ^= 1 << 40);
                assert_eq!(answered(&mut world, source, ACK).to_string(), CLIENT);
            },
        },
        Case {
            name: "known: a backend's packet keeps its flow fresh once none has for a while",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                let expires = |world: &World| {
                    let records = world.datapath.records();
                    records.iter().next().expect("a flow").flow.expires
                };
                let whole = expires(&world);
                edit::<FLOWS>(&world, "FLOWS", |cells| {
                    for cell in cells.chunks_mut(2).filter(|cell| cell[0] != 0) {
                        cell[1] -= 80_000 << 40;
                    }
                });
                for _ in 0..2 {
                    assert_eq!(answered(&mut world, source, ACK).to_string(), CLIENT);
                    assert_eq!(expires(&world), whole - 80_000, "its cell is let alone");
                }
                edit::<REPLIES>(&world, "REPLIES", |bucket| {
                    let marks = bucket.iter_mut().take(WAYS as usize);
                    for mark in marks.filter(|mark| **mark != 0) {
                        // Of a machine that has just started it is less.
                        let until = (*mark as u32).wrapping_sub(100) & flow::TICK;
                        *mark = *mark & Cell::MARK | u64::from(until);
                    }
                });
                assert_eq!(answered(&mut world, source, ACK).to_string(), CLIENT);
                let after = expires(&world);
                assert!(
                    (whole..whole + 60).contains(&after),
                    "{whole}, then {after}"
                );
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
        Case {
            name: "nat: neither a SYN-ACK sent again nor a forged one takes a connection's replies away",
            run: || {
                let mut world = World::new(&services());
                let source = connect(&mut world, CLIENT);
                // A backend that has not got that sends again; and one that has ended its side
                // opens nothing by a port that nobody but the flow knows.
                sent(&mut world, CLIENT, FIN | ACK);
                answered(&mut world, source, SYN | ACK);
                answered(&mut world, source, ACK);
                answered(&mut world, source, FIN | ACK);
                answered(&mut world, source, SYN | ACK);
                answered(&mut world, source, ACK);
            },
        },
    ]
}

pub(crate) fn services() -> [Service; 1] {
    [service(&[VIP], &[REMOTE])]
}

fn own(addr: IpAddr) -> Snat {
    Snat::shared(addr, lb_common::config::DEFAULT_SNAT_PORTS)
}

/// Two addresses that are looked for at one place, which of one network hardly any are.
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
pub(crate) fn connect(world: &mut World, client: &str) -> SocketAddr {
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

pub(crate) fn reply(source: SocketAddr, flags: u8) -> Vec<u8> {
    let segment = tcp(REMOTE, &source.to_string(), flags);
    segment.link(REMOTE_MAC, NODE_MAC).bytes()
}

/// Changes what is not empty in a table of flows.
fn edit<const WORDS: usize>(world: &World, map: &str, change: impl Fn(&mut [u64; WORDS])) {
    let mut table = world.datapath.words(map);
    for index in 0..table.len() {
        let mut entry = table.get(&index, 0).unwrap();
        if entry.iter().any(|&it| it != 0) {
            change(&mut entry);
            table.set(index, entry, 0).unwrap();
        }
    }
}
