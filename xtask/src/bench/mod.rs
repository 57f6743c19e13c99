//! `cargo xtask bench`: what Naru costs, measured.

mod failover;
mod forward;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// What faults of nodes, cables and agents cost the clients
    #[command(after_help = failover::HELP)]
    Failover(failover::Args),
    /// What a packet costs, beside other ways to carry it
    #[command(after_help = forward::HELP)]
    Forward(forward::Args),
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Failover(args) => failover::run(args),
        Bench::Forward(args) => forward::run(args),
    }
}
