//! Whole connections and requests a second, through real sockets, in the lab.

use std::process::ExitCode;

use anyhow::Result;

use super::sockets::{Job, Output, PERFORMANCE, lab};
use crate::setup::Need;

pub(super) const HELP: &str = "\
Builds a LAN with a node for each balancer (none, nftables by kube-proxy's rules, HAProxy,
Naru) and nginx as the pods, and lets wrk ask through each in turn: over connections that
are kept, and over one each. All uplinks have the same offloads. Needs root, or sudo.

Examples:
  cargo xtask bench connect                          ten rounds, about 17 minutes
  cargo xtask bench connect --rounds 2 --seconds 1   to see that it works
  cargo xtask bench connect --way local              only pods of the balancer's node
  cargo xtask bench connect --json connect.json --plot .
  cargo xtask bench connect --write                  what docs/performance.md says of it";

/// Arguments of `bench connect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each candidate has its turn
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,
    /// How long a turn takes, for each use of connections
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u32,
    /// How many connections the client has open at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    connections: u16,
    /// Only these ways to the pods: local, nat, dsr
    #[arg(long, value_name = "NAME,…")]
    way: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut options = vec![
        "--rounds".into(),
        args.rounds.to_string(),
        "--seconds".into(),
        args.seconds.to_string(),
        "--connections".into(),
        args.connections.to_string(),
    ];
    if let Some(way) = &args.way {
        options.extend(["--way".into(), way.clone()]);
    }
    let needs = [Need::Build, Need::Lab, Need::Bench];
    lab(
        &Job::new("connect", PERFORMANCE, &needs, &options),
        &args.output,
    )
}
