//! `cargo xtask bench`: what Naru costs, measured.

mod failover;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// What faults of nodes, cables and agents cost the clients
    #[command(after_help = failover::HELP)]
    Failover(failover::Args),
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Failover(args) => failover::run(args),
    }
}
