//! Failovers: every fault many times, in the lab.

use std::process::ExitCode;

use anyhow::Result;

use super::sockets::{Job, Output, lab};
use crate::setup::Need;

pub(super) const HELP: &str = "\
Builds a LAN with an agent on every node and lets each fault happen to the node that owns
the address, while a client asks every 10 ms over UDP, holds TCP connections open, and
asks by ARP who the owner is. A run takes about 15 s. Needs root, or sudo.

Examples:
  cargo xtask bench failover                         each fault five times, three nodes
  cargo xtask bench failover --runs 50 --fault node-off
  cargo xtask bench failover --runs 5,node-off=50 --nodes 3,7 --busy 300 --write
                                                     writes docs/failover.md anew";

/// Arguments of `bench failover`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each fault happens, and how often one that is named
    #[arg(long, value_name = "N,NAME=N,…", default_value = "5")]
    runs: String,
    /// LANs of so many nodes
    #[arg(long, value_name = "N,…", default_value = "3")]
    nodes: String,
    /// Only these faults: node-off, agent-killed, …
    #[arg(long, value_name = "NAME,…")]
    fault: Option<String>,
    /// Also keep all cores busy for so many seconds, and see whether the owner stays
    #[arg(long, value_name = "SECONDS")]
    busy: Option<u64>,
    /// The first node owns everything, whatever happens: what is lost without membership
    #[arg(long)]
    static_owner: bool,
    #[command(flatten)]
    output: Output,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let needs = [Need::Build, Need::Lab];
    let settings = args.settings();
    let page = "docs/failover.md";
    lab(&Job::new("failover", page, &needs, &settings), &args.output)
}

// === impl Args ===

impl Args {
    /// What was asked for, but for where it goes.
    fn settings(&self) -> Vec<String> {
        let mut settings = ["--runs", &self.runs, "--nodes", &self.nodes]
            .map(str::to_owned)
            .to_vec();
        if let Some(faults) = &self.fault {
            settings.extend(["--fault".into(), faults.clone()]);
        }
        if let Some(seconds) = self.busy {
            settings.extend(["--busy".into(), seconds.to_string()]);
        }
        if self.static_owner {
            settings.push("--static-owner".into());
        }
        settings
    }
}
