//! The rounds, in each of which every candidate has its turn.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use lb_common::Family;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    Forward,
    candidate::Candidate,
    kind::Kind,
    measure::{Measure, Times},
    node,
    row::Row,
};

/// Measures all candidates at all numbers of flows.
pub(crate) fn run(args: &Forward) -> Result<Vec<Row>> {
    stay_on_one_core()?;
    node::sweep()?;
    let mut numbers = args.flows.clone();
    numbers.sort_unstable();
    let most = *numbers.last().context("no number of flows")?;
    let mut rows = Vec::new();
    for family in args.families() {
        let mut candidates = set_up(args, family, most)?;
        for &flows in &numbers {
            rows.extend(at(args, &mut candidates, flows)?);
        }
    }
    Ok(rows)
}

fn set_up(args: &Forward, family: Family, most: u32) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for kind in Kind::all() {
        let name = kind.name();
        // All are held against the first.
        if kind == Kind::Tx || args.wants(&name) {
            tell(&format!("{}: setting up {name}", label(family)));
            let candidate = Candidate::new(kind, family, most);
            candidates.push(candidate.with_context(|| name)?);
        }
    }
    Ok(candidates)
}

/// All candidates with so many flows, in turn.
fn at(args: &Forward, candidates: &mut [Candidate], flows: u32) -> Result<Vec<Row>> {
    let family = candidates.first().map_or(Family::V4, |it| it.family);
    let begin = format!("{}, {flows} flows", label(family));
    let started = Instant::now();
    let mut ready = Vec::new();
    for candidate in candidates {
        let name = candidate.kind.name();
        tell(&format!("{begin}: beginning them with {name}"));
        match candidate.begin(flows) {
            Ok(()) => ready.push(candidate),
            Err(error) if candidate.kind == Kind::Tx => return Err(error.context(name)),
            Err(error) => warn(&format!("{begin}: no {name}: {error:#}")),
        }
    }
    let measures = Measure::all(&args.size);
    let mut times = vec![vec![Some(Times::default()); ready.len()]; measures.len()];
    for round in 1..=args.rounds {
        tell(&format!("{begin}: round {round} of {}", args.rounds));
        for (measure, times) in measures.iter().zip(&mut times) {
            for (candidate, times) in ready.iter_mut().zip(times) {
                let Some(so_far) = times else { continue };
                match measure.take(candidate, flows, args.packets, so_far) {
                    Ok(true) => {}
                    Ok(false) => *times = None,
                    Err(error) => {
                        let name = candidate.kind.name();
                        warn(&format!("{begin}: no more {name}: {error:#}"));
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
    println!("{begin}: {} s", started.elapsed().as_secs());
    Ok(rows)
}

/// Runs on one core from now on: softirqs run where they are raised, so the sinks do too.
fn stay_on_one_core() -> Result<()> {
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

const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// What is under way, where somebody looks on; it is overwritten by what comes next.
fn tell(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // A terminal that is gone misses nothing.
        let _ = write!(stderr, "\r\x1b[K{text}");
    } else if !text.is_empty() {
        let _ = writeln!(stderr, "{text}");
    }
}

fn warn(text: &str) {
    tell("");
    eprintln!("{text}");
}

// === impl Forward ===

impl Forward {
    fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.family.iter().map(|family| match family {
            6 => Family::V6,
            _ => Family::V4,
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0 && self.packets > 0, "nothing to measure");
        Ok(())
    }
}
