//! How fast changes of endpoints come into force, and what they cost, in the lab.

use std::process::ExitCode;

use anyhow::Result;

use super::sockets::{Job, Output, PERFORMANCE, lab};
use crate::setup::Need;

pub(super) const HELP: &str = "\
Runs the agent on a directory of manifests, changes EndpointSlices, and sees by requests of a
client when packets follow: for a service with one endpoint, and at several sizes, each with
the time of a start and the agent's memory. Times the building of Maglev tables. Then lets
endpoints come, drain and go by the thousand under load, and counts what is lost and what
breaks. Needs root, or sudo.

Examples:
  cargo xtask bench update                           all of it, about 15 minutes
  cargo xtask bench update --part flip               from a file to the first packet
  cargo xtask bench update --part scale --sizes 1000x10
  cargo xtask bench update --part churn --changes 500
  cargo xtask bench update --write                   what docs/performance.md says of it";

/// Arguments of `bench update`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts: flip, scale, maglev, churn
    #[arg(long, value_name = "NAME,…")]
    part: Option<String>,
    /// Changes of a service's only endpoint
    #[arg(long, value_name = "N", default_value_t = 200)]
    flips: u32,
    /// Services and backends of each, at which a single endpoint changes
    #[arg(
        long,
        value_name = "SERVICESxBACKENDS,…",
        default_value = "10x10,1000x10,10000x10,1x10000"
    )]
    sizes: String,
    /// Changes of a single endpoint at each of these sizes, or as many as fit into 120 s
    #[arg(long, value_name = "N", default_value_t = 50)]
    updates: u32,
    /// Random changes of endpoints under load
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    changes: u32,
    #[command(flatten)]
    output: Output,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut options = vec![
        "--flips".into(),
        args.flips.to_string(),
        "--sizes".into(),
        args.sizes.clone(),
        "--updates".into(),
        args.updates.to_string(),
        "--changes".into(),
        args.changes.to_string(),
    ];
    if let Some(part) = &args.part {
        options.extend(["--part".into(), part.clone()]);
    }
    let needs = [Need::Build, Need::Lab, Need::Bench];
    lab(
        &Job::new("update", PERFORMANCE, &needs, &options),
        &args.output,
    )
}
