//! `update`: how fast changes of endpoints come into force, and what they cost.

mod churn;
mod flip;
mod probe;
mod report;
pub(crate) mod scale;
pub(crate) mod scene;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use naru_lab::Algorithm;
use scale::Size;
use scene::Scene;

use crate::measure::Output;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `naru` to measure
    #[arg(long, value_name = "PATH")]
    naru: PathBuf,
    /// Changes of a service's only endpoint
    #[arg(long, value_name = "N", default_value_t = 200)]
    flips: usize,
    /// Services and backends of each, at which a single endpoint changes
    #[arg(long, value_name = "SERVICES×BACKENDS,…", value_delimiter = ',', value_parser = size,
          default_values_t = scale::SIZES)]
    sizes: Vec<Size>,
    /// Changes of a single endpoint at each of these sizes, or as many as fit into 120 s
    #[arg(long, value_name = "N", default_value_t = 50)]
    updates: usize,
    /// Random changes of endpoints under load
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    changes: usize,
    /// The pause after each of these, ms
    #[arg(long, value_name = "MS", default_value_t = 10)]
    pause: u64,
    /// Connections that are held open over them
    #[arg(long, value_name = "N", default_value_t = 200)]
    held: usize,
    /// Only these parts
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    part: Vec<Part>,
    #[command(flatten)]
    output: Output,
}

/// What is measured one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From a file to the first packet
    Flip,
    /// Reconciling at several sizes
    Scale,
    /// Building Maglev tables
    Maglev,
    /// Changes under load
    Churn,
}

/// Pods that stay.
const KEPT: usize = 8;
/// How often a table is built.
const BUILDS: usize = 100;

/// Measures; says whether all bounds are kept.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    let mut rows = Vec::new();
    let scene = Scene::build(KEPT)?;
    if wanted(Part::Flip) {
        println!("from a file to the first packet, {} times:", args.flips);
        rows.extend(flip::run(&scene, &args.naru, args.flips)?);
    }
    if wanted(Part::Scale) {
        println!("reconciling, services × backends each:");
        for size in &args.sizes {
            let row = scale::run(&scene, &args.naru, *size, args.updates)?;
            println!("  {}", row.line());
            rows.push(row);
        }
    }
    if wanted(Part::Maglev) {
        println!("building Maglev tables, {BUILDS} times each:");
        rows.extend(table::run(BUILDS));
    }
    if wanted(Part::Churn) {
        let plan = churn::Plan {
            changes: args.changes,
            pause: Duration::from_millis(args.pause),
            held: args.held,
        };
        for algorithm in [Algorithm::Maglev, Algorithm::RoundRobin] {
            println!("{} changes under load, {}:", args.changes, algorithm.name());
            let row = churn::run(&scene, &args.naru, algorithm, plan)?;
            println!("  {}", row.line());
            rows.push(row);
        }
    }
    scene.lab.teardown()?;
    report::tell(&rows, &args.output)?;
    println!("{:.0} s in all.", began.elapsed().as_secs_f64());
    Ok(report::verdict(&rows))
}

/// `1000x10`.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    let parts = text.split_once(['x', '×']);
    let parts = parts.map(|(services, backends)| (services.parse(), backends.parse()));
    match parts {
        Some((Ok(services), Ok(backends))) if services > 0 && backends > 1 => {
            Ok(Size { services, backends })
        }
        _ => Err("SERVICESxBACKENDS, with two backends or more".to_owned()),
    }
}
