//! `scale`: what many services, backends and flows cost, and what a flood of SYNs does.

mod asking;
mod bench;
mod case;
mod flood;
mod memory;
mod packets;
mod report;
mod site;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bench::Bench;
use case::{Case, Condition, Way};
use naru_lab::Algorithm;

use crate::measure::Output;
use crate::update::scale::Size;
use crate::update::size;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `naru` to measure
    #[arg(long, value_name = "PATH")]
    naru: PathBuf,
    /// The `naru-bench` that makes packets
    #[arg(long, value_name = "PATH")]
    bench: PathBuf,
    /// Only these parts
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    part: Vec<Part>,
    /// An argument of `naru-bench scale`, for what a packet costs; repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    packets: Vec<String>,
    /// Services and backends of each, for an agent's memory
    #[arg(long, value_name = "SERVICES×BACKENDS,…", value_delimiter = ',', value_parser = size,
          default_value = "10x10,1000x10,10000x10")]
    sizes: Vec<Size>,
    /// Changes of an endpoint before memory is looked at once more
    #[arg(long, value_name = "N", default_value_t = 20)]
    changes: usize,
    /// Connections that a flood meets
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u16).range(1..=20_000))]
    connections: u16,
    /// How long each flood is
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How long it is quiet before
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    quiet: u64,
    /// Floods only over these ways
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    way: Vec<Way>,
    /// Floods only where services choose so: maglev, round-robin
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = algorithm)]
    algorithm: Vec<Algorithm>,
    /// Floods only under these conditions
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    condition: Vec<Condition>,
    #[command(flatten)]
    output: Output,
}

/// What is measured one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds a packet, and flows that begin
    Packets,
    /// An agent and its maps
    Memory,
    /// Connections under a flood of SYNs
    Flood,
}

/// Measures; says whether all bounds are kept.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    let bench = Bench::new(&args.bench);
    let mut found = report::Found::default();
    if wanted(Part::Packets) {
        println!("what a packet costs, by services, backends and flows:");
        found.packets = packets::run(&bench, &args.packets)?;
    }
    if wanted(Part::Memory) {
        println!("an agent and its maps, services × backends each:");
        found.rows = memory::run(&args.naru, &bench, &args.sizes, args.changes)?;
    }
    if wanted(Part::Flood) {
        let plan = flood::Plan {
            connections: args.connections.into(),
            quiet: Duration::from_secs(args.quiet),
            flood: Duration::from_secs(args.seconds),
        };
        println!(
            "{} connections under a flood of SYNs, {} s each:",
            args.connections, args.seconds
        );
        let floods = flood::run(&args.naru, &bench, &cases(args), plan)?;
        found.rows.extend(floods);
    }
    report::tell(&found, &args.output)?;
    println!("{:.0} s in all.", began.elapsed().as_secs_f64());
    Ok(report::verdict(&found))
}

fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Case::all();
    cases.retain(|case| {
        (args.way.is_empty() || args.way.contains(&case.way))
            && (args.algorithm.is_empty() || args.algorithm.contains(&case.algorithm))
            && (args.condition.is_empty() || args.condition.contains(&case.condition))
    });
    cases
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    [Algorithm::Maglev, Algorithm::RoundRobin]
        .into_iter()
        .find(|it| it.name() == text)
        .ok_or_else(|| "maglev or round-robin".to_owned())
}
