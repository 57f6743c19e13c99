//! `forward`: all candidates over numbers of flows, for one service.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_common::Family;

use crate::{
    Forward,
    candidate::{Candidate, Setting},
    kind::Kind,
    measure::Measure,
    node,
    rounds::{self, Turns, families, is_wanted, label, stay_on_one_core, tell},
    row::Row,
    shape::Shape,
};

/// Measures all candidates at all numbers of flows.
pub(crate) fn run(args: &Forward) -> Result<Vec<Row>> {
    stay_on_one_core()?;
    node::sweep()?;
    let mut numbers = args.flows.clone();
    numbers.sort_unstable();
    let most = *numbers.last().context("no number of flows")?;
    let measures = Measure::all(&args.size);
    let turns = Turns {
        rounds: args.rounds,
        packets: args.packets,
    };
    let mut rows = Vec::new();
    for family in families(&args.family) {
        let mut candidates = set_up(args, family, most)?;
        for &flows in &numbers {
            let what = format!("{}, {flows} flows", label(family));
            let started = Instant::now();
            rows.extend(rounds::run(
                &what,
                &mut candidates,
                &measures,
                flows,
                turns,
            )?);
            println!("{what}: {} s", started.elapsed().as_secs());
        }
    }
    Ok(rows)
}

fn set_up(args: &Forward, family: Family, most: u32) -> Result<Vec<Candidate>> {
    let setting = Setting {
        family,
        shape: Shape::ONE,
        most,
        fresh: 0,
    };
    let mut candidates = Vec::new();
    for kind in Kind::all() {
        let name = kind.name();
        // All are held against the first.
        if kind == Kind::Tx || is_wanted(&args.only, &name) {
            tell(&format!("{}: setting up {name}", label(family)));
            candidates.push(Candidate::new(kind, setting).with_context(|| name)?);
        }
    }
    Ok(candidates)
}

// === impl Forward ===

impl Forward {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0 && self.packets > 0, "nothing to measure");
        Ok(())
    }
}
