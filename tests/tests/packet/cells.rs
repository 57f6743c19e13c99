//! The tables of flows: when they are full, and on several CPUs.
#![allow(
    unsafe_code,
    reason = "bpf(2) runs a program of others by its descriptor"
)]

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use lb_common::{
    Bucket, Cell, Hook, Reply, ReplyBucket, Verdict,
    cell::{Layout, WAYS, buckets},
};
use naru::datapath::Records;
use nix::{
    libc,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    Case,
    frames::{ACK, SYN, tcp},
    world::{POD, REMOTE, World, endpoints, service},
};

const VIP: &str = "192.168.56.11:80";
/// Flows that the tables of these cases are to hold.
const FEW: u32 = 200;
/// Words of their buckets.
const FLOWS: usize = Bucket::WORDS;
const REPLIES: usize = ReplyBucket::WORDS;
/// Cells that they have for that.
const CELLS: usize = (buckets(FEW) * WAYS) as usize;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "cells: connections that work stay, whatever comes, here and by nat",
            run: || {
                works_through_a_flood(POD);
                works_through_a_flood(REMOTE);
            },
        },
        Case {
            name: "cells: on two CPUs and beside a sweep no flow is there twice, nor a cell lost",
            run: two_cpus,
        },
        Case {
            name: "cells: what was in the hand of an agent that was killed is freed by the next",
            run: killed,
        },
        Case {
            name: "cells: tables that were half made are made anew, in the size that is asked for",
            run: half_made,
        },
    ]
}

fn works_through_a_flood(backend: &str) {
    let mut world = World::small(&[service(&[VIP], &[backend])], FEW);
    let client = |n: u32| format!("192.168.56.1:{}", 20_000 + n);
    let verdict = match backend {
        POD => Verdict::ForwardLocal,
        _ => Verdict::ForwardNat,
    };
    let seen = |world: &mut World, n: u32, flags| {
        let (source, _) = world.forwarded(&tcp(&client(n), VIP, flags), verdict);
        source.to_string()
    };
    let began: Vec<_> = (0..60).map(|n| seen(&mut world, n, SYN)).collect();
    let (ingress, hook) = match backend {
        POD => (world.ingress, Hook::TcEgress),
        _ => (world.ingress, Hook::Xdp),
    };
    let answer = |world: &mut World, from: &str| {
        let answer = tcp(backend, from, SYN | ACK).bytes();
        let made = world.datapath.test_run(hook, &answer, ingress).unwrap();
        made.bytes != answer
    };
    for (n, from) in (0..).zip(&began) {
        assert!(answer(&mut world, from), "of an unknown flow");
        assert_eq!(seen(&mut world, n, ACK), *from);
    }
    let mut refused = 0;
    for n in 0..3_000_u32 {
        let client = format!("192.168.56.{}:{}", 2 + n % 7, 1_024 + n);
        let syn = tcp(&client, VIP, SYN).bytes();
        let made = world.datapath.test_run(Hook::Xdp, &syn, ingress).unwrap();
        if made.bytes == syn {
            // It found no room for its replies, which is one in hundreds of thousands.
            refused += 1;
            continue;
        }
        // The backend answers everybody, and hears no more of them. (By nat the answer is left to
        // TC: nobody knows their link addresses.)
        let [a, b, c, d] = made.bytes[26..30].try_into().unwrap();
        let port = u16::from_be_bytes(made.bytes[34..36].try_into().unwrap());
        answer(&mut world, &format!("{a}.{b}.{c}.{d}:{port}"));
    }
    assert!(refused < 3, "{refused} refused");
    let (flows, replies) = world.recorded();
    assert!(flows > CELLS * 9 / 10 && flows <= CELLS, "{flows} flows");
    assert_eq!(flows, replies);
    assert_eq!(world.datapath.records().remove_stray(), 0);
    for (n, from) in (0..).zip(&began) {
        assert_eq!(seen(&mut world, n, ACK), *from, "connection {n}");
    }
}

fn two_cpus() {
    let mut world = World::small(&[service(&[VIP], &[REMOTE, POD])], FEW);
    let fd = world.datapath.descriptor(Hook::Xdp).unwrap();
    let ingress = world.ingress;
    let records = world.datapath.records();
    let over = AtomicBool::new(false);
    let (sent, restored) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut removed = 0;
            while !over.load(Ordering::Relaxed) {
                let some = records.iter().step_by(17);
                removed += some.filter(|record| records.remove(record)).count();
                removed += records.remove_stray();
                // The senders have two CPUs to themselves, mostly.
                thread::sleep(Duration::from_millis(1));
            }
            removed
        });
        let senders: Vec<_> = (0..2_usize)
            .map(|cpu| {
                let (fd, sent, restored) = (&fd, &sent, &restored);
                scope.spawn(move || {
                    let mut set = CpuSet::new();
                    set.set(cpu % aya::util::nr_cpus().unwrap()).unwrap();
                    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
                    // Both send the same at once, of more clients than there is room for.
                    for n in 0..20_000_u32 {
                        sent.fetch_add(1, Ordering::AcqRel);
                        while sent.load(Ordering::Acquire) < 2 * (n + 1) {
                            thread::yield_now();
                        }
                        let port = 1_024 + n.wrapping_mul(2_654_435_761) % 600;
                        let flags = if n % 3 == 0 { ACK } else { SYN };
                        let segment = tcp(&format!("192.168.56.1:{port}"), VIP, flags);
                        let sent = segment.bytes();
                        let made = run(fd, &sent, ingress);
                        let (from, to) = endpoints(&made);
                        if to.to_string() == REMOTE {
                            // Its backend answers while others come, go and take its place.
                            let answer = tcp(REMOTE, &from.to_string(), ACK).bytes();
                            let made = run(fd, &answer, ingress);
                            let (from, to) = endpoints(&made);
                            if made != answer {
                                assert_eq!(from.to_string(), VIP);
                                assert_eq!(to.ip().to_string(), "192.168.56.1");
                                assert!((1_024..1_624).contains(&to.port()), "{to}");
                                restored.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        assert!(sweeper.join().unwrap() > 100, "the sweep was in time");
    });
    let restored = restored.into_inner();
    assert!(restored > 1_000, "{restored} answers came to a client");
    check(&records);
    // Whatever is left to its owner is in nobody's way: all of it can be had.
    for n in 0..20_000_u32 {
        let client = format!("192.168.56.{}:{}", 2 + n % 7, 1_024 + n);
        run(&fd, &tcp(&client, VIP, SYN).bytes(), ingress);
    }
    check(&records);
    assert_eq!(records.iter().count(), CELLS, "cells that are lost");
}

/// An agent that dies while it removes a flow, and one while it removes what leads there.
fn killed() {
    let mut world = World::small(&[service(&[VIP], &[POD])], FEW);
    let ingress = world.ingress;
    let segment = |port: u16| tcp(&format!("192.168.56.1:{port}"), VIP, SYN).bytes();
    for port in 1_000..1_040 {
        world
            .datapath
            .test_run(Hook::Xdp, &segment(port), ingress)
            .unwrap();
    }
    assert_eq!(world.recorded(), (40, 40));
    hold::<FLOWS>(&world, "FLOWS", 0, Cell::BUSY);
    hold::<REPLIES>(&world, "REPLIES", ReplyBucket::SECOND, Reply::GIVEN_UP);
    let mut sweeper = world.datapath.sweeper().unwrap();
    // Seen, freed, and what led to the flow with it.
    for _ in 0..3 {
        sweeper.sweep().unwrap();
    }
    assert_eq!(in_hand::<Bucket, FLOWS>(&world, "FLOWS"), 0);
    assert_eq!(in_hand::<ReplyBucket, REPLIES>(&world, "REPLIES"), 0);
    let records = world.datapath.records();
    assert_eq!(records.iter().count(), 39);
    // Their clients come back, and are served.
    for port in 1_000..1_040 {
        let syn = segment(port);
        let made = world.datapath.test_run(Hook::Xdp, &syn, ingress).unwrap();
        assert_ne!(made.bytes, syn, "port {port}");
    }
    assert_eq!(records.iter().count(), 40);
}

/// Writes a word of the first bucket whose first cell is taken.
fn hold<const WORDS: usize>(world: &World, map: &str, word: usize, new: u64) {
    let mut table = world.datapath.words::<WORDS>(map);
    let (index, mut bucket) = (0..table.len())
        .map(|index| (index, table.get(&index, 0).unwrap()))
        .find(|(_, bucket)| bucket[0] & Cell::TAKEN != 0)
        .expect("a flow in the first cell of some bucket");
    bucket[word] = new;
    table.set(index, bucket, 0).unwrap();
}

/// How many cells are somebody's who has them in hand.
fn in_hand<B: Layout, const WORDS: usize>(world: &World, map: &str) -> usize {
    let buckets = world.datapath.words::<WORDS>(map);
    let buckets = buckets.iter().map(Result::unwrap);
    let cells = buckets.flat_map(|bucket| {
        let first = move |way| bucket[way * B::FIRST_STEP];
        let second = move |way| bucket[B::SECOND + way * B::SECOND_STEP];
        (0..WAYS as usize).map(move |way| (first(way), second(way)))
    });
    let in_hand = |(first, second): &(u64, u64)| {
        *first == Cell::BUSY || *first != Cell::FREE && *second == Reply::GIVEN_UP
    };
    cells.filter(in_hand).count()
}

fn half_made() {
    let world = World::small(&[service(&[VIP], &[POD])], FEW);
    let mut world = world.reopen_after(|maps, options| {
        // What a start leaves behind that is killed, or finds no memory, between two maps.
        fs::remove_file(maps.join("FLOWS")).unwrap();
        options.max_flows = 10 * FEW;
    });
    world.apply_again(&[service(&[VIP], &[POD])]);
    for n in 0..10 * FEW {
        let client = format!("192.168.56.1:{}", 2_000 + n);
        let syn = tcp(&client, VIP, SYN).bytes();
        let ingress = world.ingress;
        world.datapath.test_run(Hook::Xdp, &syn, ingress).unwrap();
    }
    let all = (10 * FEW) as usize;
    assert_eq!(world.recorded(), (all, all));
}

/// That no two flows are one, nor are their replies, and that nothing leads nowhere.
#[track_caller]
fn check(records: &Records) {
    let all: Vec<_> = records.iter().collect();
    let flows: BTreeSet<_> = all.iter().map(|record| record.tuple).collect();
    assert_eq!(flows.len(), all.len(), "flows that are there twice");
    let replies: BTreeSet<_> = all.iter().filter_map(|record| record.reply).collect();
    assert_eq!(
        replies.len(),
        all.len(),
        "replies that lead to one of two flows"
    );
    assert_eq!(records.remove_stray(), 0, "replies that lead nowhere");
}

/// `union bpf_attr` for a run of a program.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    action: u32,
    len_in: u32,
    len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_len_in: u32,
    context_len_out: u32,
    context_in: u64,
    context_out: u64,
    more: [u32; 4],
}

/// Runs an XDP program on a frame that comes in by an interface, on this thread's CPU; gives what
/// it made of it.
fn run(program: &impl AsFd, frame: &[u8], ingress: u32) -> Vec<u8> {
    // `struct xdp_md`.
    let context = [0, frame.len() as u32, 0, ingress, 0, 0];
    let mut out = vec![0_u8; frame.len() + 256];
    let mut attributes = Run {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        len_in: frame.len() as u32,
        len_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        context_len_in: size_of_val(&context) as u32,
        context_in: context.as_ptr() as u64,
        ..Run::default()
    };
    const TEST_RUN: i32 = 10;
    // SAFETY: the structure begins as `union bpf_attr` does for this command, and the kernel
    // reads and writes within the lengths that it says.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            TEST_RUN,
            &raw mut attributes,
            size_of::<Run>(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    out.truncate(attributes.len_out as usize);
    out
}
