//! The command `naru-lab`: shows Naru at work on a LAN of network namespaces.
#![forbid(unsafe_code)]

mod connect;
mod demo;
mod failover;
mod measure;
mod play;
mod reflect;
mod scale;
mod server;
mod update;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// A LAN of network namespaces with real servers as pods.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the balancer at work, step by step, and checks each step.
    ///
    /// Needs root. Everything that it makes is in network namespaces of its own, and is
    /// removed at the end, also after Ctrl-C (exit code 130).
    Demo {
        /// The `naru` to show.
        #[arg(long, value_name = "PATH")]
        naru: PathBuf,
        /// Ends after the last step, where a terminal would keep a live table.
        #[arg(long)]
        once: bool,
    },
    /// A LAN to play in, which stays until it is taken down.
    Lab(play::Args),
    /// Measures what faults of nodes, cables and agents cost.
    ///
    /// Needs root. Builds a LAN with an agent on every node, lets each fault happen many
    /// times to the node that owns the address, and shows what clients saw.
    Failover(failover::Args),
    /// Measures connections and requests a second, beside other balancers and none.
    ///
    /// Needs root, nginx, wrk and HAProxy. Builds a LAN with a node for each balancer, and
    /// lets them take turns.
    Connect(connect::Args),
    /// Measures how fast changes of endpoints come into force, and what they cost.
    ///
    /// Needs root. Runs the agent on a directory of manifests and changes them.
    Update(update::Args),
    /// Measures what many services, backends and flows cost, and what a flood of SYNs does.
    ///
    /// Needs root and nginx. What a packet costs is measured by `naru-bench`; memory is that of
    /// an agent, and the flood comes over the cable of a lab.
    Scale(scale::Args),
    /// Keeps a lab that is up.
    #[command(hide = true)]
    Keep(play::KeeperArgs),
    /// Writes what vagrant/ is made of out of the topology.
    #[command(hide = true)]
    Testbed {
        /// Where to.
        dir: PathBuf,
    },
    /// Serves as a pod.
    #[command(hide = true)]
    Pod(server::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { naru, once } => demo::run(&naru, once),
        Command::Lab(args) => play::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Update(args) => update::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Keep(args) => play::keep(&args).map(|()| true),
        Command::Testbed { dir } => testbed(&dir),
        Command::Pod(args) => server::run(args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("naru-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn testbed(dir: &Path) -> anyhow::Result<bool> {
    naru_lab::testbed::write(&naru_lab::Topology::nuc(), dir)
        .with_context(|| format!("cannot write below {}", dir.display()))?;
    Ok(true)
}
