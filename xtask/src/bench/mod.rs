//! `cargo xtask bench`: what Naru costs, measured.

mod all;
mod connect;
mod failover;
mod forward;
mod scale;
mod sockets;
mod update;

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
    /// Connections and requests a second, beside other balancers and none
    #[command(after_help = connect::HELP)]
    Connect(connect::Args),
    /// How fast changes of endpoints come into force, and what they cost
    #[command(after_help = update::HELP)]
    Update(update::Args),
    /// What many services, backends and flows cost, and what a flood of SYNs does
    #[command(after_help = scale::HELP)]
    Scale(scale::Args),
    /// forward, connect, update and scale, one after the other
    #[command(after_help = all::HELP)]
    All(all::Args),
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Failover(args) => failover::run(args),
        Bench::Forward(args) => forward::run(args),
        Bench::Connect(args) => connect::run(args),
        Bench::Update(args) => update::run(args),
        Bench::Scale(args) => scale::run(args),
        Bench::All(args) => all::run(args),
    }
}
