//! The packet tier: single packets through the loaded program (BPF_PROG_TEST_RUN).
//!
//! A case is a sentence, the packets that go in, and for each the verdict, the action
//! and the packet that comes out. What comes out is built anew from its parts by
//! etherparse, checksums included, so nothing here repeats the program's arithmetic.
//! Every packet also goes through the dry run first, which must say the same and
//! change nothing. Cases share loaded programs, and find all maps empty.
//!
//! The process runs in a network namespace of its own:
//!
//! ```text
//! client 192.168.56.1 ──┐
//! remote 192.168.56.102 ┼── uplink (192.168.56.101, attached)      this node, nuc01
//! silent 192.168.56.103 ┘   pods   (10.244.1.1/24, local pods)
//!        (no neighbour)     side   (10.9.0.1/24, not attached)
//!                           still  (10.8.0.1/24, attached, does not forward)
//!                           east   (10.7.0.1/24, attached)
//!                           slow   (10.6.0.1/24, attached, XDP cannot redirect to it)
//!                           narrow (10.5.0.1/24, attached, MTU 1280)
//! ```
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod announce;
mod cells;
mod clients;
mod direct;
mod dsr;
mod empty;
mod errors;
mod failing;
mod forward;
mod fragments;
mod frames;
mod gone;
mod hops;
mod ipv6;
mod known;
mod leave;
mod link;
mod near;
mod pool;
mod ports;
mod primaries;
mod quoted;
mod refuse;
mod sides;
mod slots;
mod state;
mod tables;
mod takeover;
mod world;

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use lb_common::Verdict;
use libtest_mimic::{Arguments, Trial};
use nix::sched::{CloneFlags, unshare};

/// Verdicts that some case has seen.
static SEEN: Mutex<BTreeSet<Verdict>> = Mutex::new(BTreeSet::new());

/// Verdicts that no packet can bring about: they stand for faults of the kernel.
const FAULTS: [Verdict; 2] = [Verdict::TableFull, Verdict::EmitFailed];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own; run as root");
    world::build_network();
    let cases = [
        forward::cases(),
        announce::cases(),
        cells::cases(),
        clients::cases(),
        dsr::cases(),
        ipv6::cases(),
        link::cases(),
        fragments::cases(),
        errors::cases(),
        leave::cases(),
        refuse::cases(),
        known::cases(),
        near::cases(),
        ports::cases(),
        state::cases(),
        gone::cases(),
        failing::cases(),
        slots::cases(),
        tables::cases(),
        takeover::cases(),
        hops::cases(),
        primaries::cases(),
        direct::cases(),
        quoted::cases(),
    ]
    .concat();
    let trials = cases
        .into_iter()
        .map(|case| {
            Trial::test(case.name, move || {
                (case.run)();
                Ok(())
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    pool::drain();
    let all = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    if all && !every_verdict_was_seen() {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// A case: a sentence, and what must hold.
#[derive(Clone)]
struct Case {
    name: &'static str,
    run: fn(),
}

/// Tells of the verdicts without a case.
fn every_verdict_was_seen() -> bool {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<_> = Verdict::ALL
        .iter()
        .filter(|verdict| !seen.contains(verdict) && !FAULTS.contains(verdict))
        .map(|verdict| verdict.name())
        .collect();
    if !missing.is_empty() {
        println!("verdicts that no case has seen: {}", missing.join(", "));
    }
    missing.is_empty()
}
