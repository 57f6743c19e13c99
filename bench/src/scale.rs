//! `scale`: Naru over numbers of services, of backends and of flows; and flows that begin.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use lb_common::{Family, Mode};

use crate::{
    candidate::{Candidate, Setting},
    kind::{Alone, Direction, Kind},
    measure::{FRESH, Measure},
    node, power_of_two,
    rounds::{self, Turns, families, is_wanted, label, stay_on_one_core, tell},
    row::Row,
    shape::Shape,
};

/// Local backends at most: more than a node has pods.
const MOST_LOCAL: u32 = 1_000;

/// Arguments of `scale`.
#[derive(clap::Args)]
pub(crate) struct Scale {
    /// Rounds, in each of which every number has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Services and backends of each; all are held against the first
    #[arg(
        long,
        value_name = "SERVICESxBACKENDS,…",
        value_delimiter = ',',
        default_value = "10x10,100x10,1000x10,10000x10,10x100,10x1000,10x10000"
    )]
    pub(crate) sizes: Vec<Shape>,
    /// Numbers of flows, each a power of two
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1024,131072",
          value_parser = power_of_two)]
    pub(crate) flows: Vec<u32>,
    /// Only candidates whose names contain one of these
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Packets of each size in each round
    #[arg(long, value_name = "N", default_value_t = 1 << 18)]
    pub(crate) packets: u32,
    /// 4, 6, or both
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4",
          value_parser = clap::value_parser!(u8).range(4..=6))]
    pub(crate) family: Vec<u8>,
    /// Write the rows to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Measures Naru in each mode and by each algorithm at all sizes, which take turns.
pub(crate) fn run(args: &Scale) -> Result<Vec<Row>> {
    ensure!(args.rounds > 0 && args.packets > 0, "nothing to measure");
    stay_on_one_core()?;
    node::sweep()?;
    let mut numbers = args.flows.clone();
    numbers.sort_unstable();
    let most = *numbers.last().context("no number of flows")?;
    let fresh = FRESH * args.rounds * numbers.len() as u32;
    let turns = Turns {
        rounds: args.rounds,
        packets: args.packets,
    };
    let mut rows = Vec::new();
    for family in families(&args.family) {
        for kind in Kind::all() {
            if !matches!(kind, Kind::Naru(..)) || !is_wanted(&args.only, &kind.name()) {
                continue;
            }
            let mut candidates = set_up(args, kind, family, (most, fresh))?;
            for &flows in &numbers {
                let what = format!("{}, {}, {flows} flows", kind.name(), label(family));
                let started = Instant::now();
                let measures = measures();
                let all = rounds::run(&what, &mut candidates, &measures, flows, turns)?;
                rows.extend(all.into_iter().filter(|it| it.candidate == kind.name()));
                println!("{what}: {} s", started.elapsed().as_secs());
            }
        }
    }
    Ok(rows)
}

/// One of a kind at each size, and what all are held against.
fn set_up(
    args: &Scale,
    kind: Kind,
    family: Family,
    (most, fresh): (u32, u32),
) -> Result<Vec<Candidate>> {
    let first = *args.sizes.first().context("no size")?;
    let setting = |shape| Setting {
        family,
        shape,
        most,
        fresh,
    };
    let mut candidates = vec![Candidate::new(Kind::Tx, setting(first))?];
    for &shape in &args.sizes {
        let what = format!("{} with {shape}", kind.name());
        if matches!(kind, Kind::Naru(_, Mode::Local)) && shape.reached() > MOST_LOCAL {
            println!("{what}: left out, no node has so many pods");
            continue;
        }
        tell(&format!("{}: setting up {what}", label(family)));
        candidates.push(Candidate::new(kind, setting(shape)).with_context(|| what)?);
    }
    Ok(candidates)
}

fn measures() -> [Measure; 4] {
    let direction = Direction::Forward;
    let hook = lb_common::Hook::Xdp;
    [
        Measure::Path(direction, 64),
        Measure::Path(Direction::Reply, 64),
        Measure::Program(Alone { hook, direction }),
        Measure::Fresh,
    ]
}
