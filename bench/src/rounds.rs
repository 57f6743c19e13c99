//! The rounds, in each of which every candidate has its turn.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use lb_common::Family;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    candidate::Candidate,
    kind::Kind,
    measure::{Measure, Times},
    row::Row,
};

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    pub(crate) rounds: u32,
    /// Packets of each candidate in each round.
    pub(crate) packets: u32,
}

/// Begins so many flows with all candidates and lets them take turns, `what` being what is
/// told of them. Whoever cannot is left out, and it is said.
pub(crate) fn run(
    what: &str,
    candidates: &mut [Candidate],
    measures: &[Measure],
    flows: u32,
    turns: Turns,
) -> Result<Vec<Row>> {
    let mut ready = Vec::new();
    for candidate in candidates {
        let name = candidate.name();
        tell(&format!("{what}: beginning them with {name}"));
        match candidate.begin(flows) {
            Ok(()) => ready.push(candidate),
            // All are held against it.
            Err(error) if candidate.kind == Kind::Tx => return Err(error.context(name)),
            Err(error) => warn(&format!("{what}: no {name}: {error:#}")),
        }
    }
    let mut times = vec![vec![Some(Times::default()); ready.len()]; measures.len()];
    for round in 1..=turns.rounds {
        tell(&format!("{what}: round {round} of {}", turns.rounds));
        for (measure, times) in measures.iter().zip(&mut times) {
            for (candidate, times) in ready.iter_mut().zip(times) {
                let Some(so_far) = times else { continue };
                match measure.take(candidate, flows, turns.packets, so_far) {
                    Ok(true) => {}
                    Ok(false) => *times = None,
                    Err(error) => {
                        let name = candidate.name();
                        warn(&format!("{what}: no more {name}: {error:#}"));
                        *times = None;
                    }
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (measure, times) in measures.iter().zip(&times) {
        rows.extend(measure.rows(&mut ready, flows, times)?);
    }
    tell("");
    Ok(rows)
}

/// Runs on one core from now on: softirqs run where they are raised, so the sinks do too.
pub(crate) fn stay_on_one_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    // The last one: interrupts go to the first, mostly.
    for cpu in (0..CpuSet::count()).rev() {
        if allowed.is_set(cpu)? {
            let mut only = CpuSet::new();
            only.set(cpu)?;
            return Ok(sched_setaffinity(this, &only)?);
        }
    }
    bail!("no core to run on")
}

/// The families of these numbers, 4 or 6.
pub(crate) fn families(numbers: &[u8]) -> impl Iterator<Item = Family> + '_ {
    numbers.iter().map(|family| match family {
        6 => Family::V6,
        _ => Family::V4,
    })
}

pub(crate) const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Whether a name has one of these parts, or none is asked for.
pub(crate) fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
}

/// What is under way, where somebody looks on; it is overwritten by what comes next.
pub(crate) fn tell(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // A terminal that is gone misses nothing.
        let _ = write!(stderr, "\r\x1b[K{text}");
    } else if !text.is_empty() {
        let _ = writeln!(stderr, "{text}");
    }
}

pub(crate) fn warn(text: &str) {
    tell("");
    eprintln!("{text}");
}
