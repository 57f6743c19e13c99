//! `connect`: whole connections and requests a second, through real sockets.

mod candidate;
mod cost;
mod nodes;
mod report;
mod rivals;
mod site;
mod wrk;

use std::path::PathBuf;
use std::time::Instant;

use candidate::{Candidate, Way};
use cost::Meter;
use site::Site;
use wrk::{Load, Sample, Use};

use crate::measure::Output;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `naru` to measure
    #[arg(long, value_name = "PATH")]
    naru: PathBuf,
    /// How often each candidate has its turn
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long a turn takes, for each use of connections
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many connections the client has open at a time
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(2..=10_000))]
    connections: u16,
    /// Only these ways: local, nat, dsr
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = way)]
    way: Vec<Way>,
    #[command(flatten)]
    output: Output,
}

/// What one candidate measured in one round.
struct Turn {
    candidate: Candidate,
    round: u32,
    how: Use,
    sample: Sample,
    /// Processor time of a request, µs.
    cost: f64,
}

/// Threads of the client.
const THREADS: usize = 2;
/// Pods of a service.
const PODS: usize = 2;

/// Measures; says whether all bounds are kept.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let ways = match args.way.is_empty() {
        true => &Way::ALL[..],
        false => &args.way,
    };
    let candidates = candidate::all(ways);
    println!("building the LAN, a node for each balancer …");
    let site = Site::build(&args.naru, PODS)?;
    for &candidate in &candidates {
        site.prepare(candidate)?;
        site.wait(candidate)?;
    }
    println!("ready after {:.0} s", began.elapsed().as_secs_f64());
    let mut turns = Vec::new();
    for round in 0..args.rounds {
        for way in ways {
            for how in [Use::KeepAlive, Use::Once] {
                let mut order = candidate::all(&[*way]);
                // Nobody always comes after the same neighbour's heat and leftovers.
                let first = round as usize % order.len();
                order.rotate_left(first);
                if round % 2 == 1 {
                    order.reverse();
                }
                for candidate in order {
                    turns.push(take_turn(args, &site, candidate, how, round)?);
                }
            }
        }
        println!(
            "  round {}/{} done, {:.0} s",
            round + 1,
            args.rounds,
            began.elapsed().as_secs_f64()
        );
    }
    site.teardown()?;
    let rows = report::rows(&candidates, &turns);
    report::tell(&rows, &args.output)?;
    println!("{:.0} s in all.", began.elapsed().as_secs_f64());
    Ok(report::verdict(&rows))
}

fn take_turn(
    args: &Args,
    site: &Site,
    candidate: Candidate,
    how: Use,
    round: u32,
) -> anyhow::Result<Turn> {
    let load = Load {
        threads: THREADS,
        connections: usize::from(args.connections),
        seconds: args.seconds,
    };
    site.prepare(candidate)?;
    let script = site.dir().join("wrk.lua");
    let target = site.target(candidate)?;
    let meter = Meter::start(site.servers())?;
    let sample = wrk::run(site.client(), target, how, load, &script)?;
    let used = meter.stop()?.as_secs_f64() * 1e6;
    Ok(Turn {
        candidate,
        round,
        how,
        sample,
        cost: used / sample.requests,
    })
}

fn way(text: &str) -> Result<Way, String> {
    let found = Way::ALL.into_iter().find(|it| it.name() == text);
    found.ok_or_else(|| format!("one of {}", Way::ALL.map(Way::name).join(", ")))
}
