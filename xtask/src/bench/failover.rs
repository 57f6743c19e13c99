//! Failovers: every fault many times, in the lab.

use std::{os::unix::process::CommandExt, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{self, Need},
};

pub(super) const HELP: &str = "\
Builds a LAN with an agent on every node and lets each fault happen to the node that owns
the address, while a client asks every 10 ms over UDP, holds TCP connections open, and
asks by ARP who the owner is. A run takes about 15 s. Needs root, or sudo.

Examples:
  cargo xtask bench failover                         each fault five times, three nodes
  cargo xtask bench failover --runs 50 --fault node-off
  cargo xtask bench failover --runs 5,node-off=50 --nodes 3,7 --busy 300 --write
                                                     what docs/failover.md was made by";

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
    /// Write every run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw one failover as SVG into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Write the table of docs/failover.md and the picture beside it
    #[arg(long)]
    write: bool,
    /// The first node owns everything, whatever happens: what is lost without membership
    #[arg(long)]
    static_owner: bool,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let needs = [Need::Build, Need::Lab];
    setup::quietly(&needs)?.demand(&needs)?;
    let mut build = host::cargo("build");
    host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;

    let release = host::target().join("release");
    let mut command = host::as_root(&release.join("naru-lab"))?;
    command
        .arg("failover")
        .arg("--naru")
        .arg(release.join("naru"));
    command.args(["--runs", &args.runs, "--nodes", &args.nodes]);
    if let Some(faults) = &args.fault {
        command.args(["--fault", faults]);
    }
    if let Some(seconds) = args.busy {
        command.args(["--busy", &seconds.to_string()]);
    }
    if let Some(path) = &args.json {
        command.arg("--json").arg(path);
    }
    let docs = host::root().join("docs");
    let plot = args.plot.clone().or(args.write.then(|| docs.clone()));
    if let Some(dir) = plot {
        command.arg("--plot").arg(dir);
    }
    if args.write {
        command.arg("--page").arg(docs.join("failover.md"));
        command.arg("--command").arg(args.words());
    }
    if args.static_owner {
        command.arg("--static-owner");
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}

// === impl Args ===

impl Args {
    /// The command that gives the same again.
    fn words(&self) -> String {
        let mut words = format!("cargo xtask bench failover --runs {}", self.runs);
        words += &format!(" --nodes {}", self.nodes);
        if let Some(faults) = &self.fault {
            words += &format!(" --fault {faults}");
        }
        if let Some(seconds) = self.busy {
            words += &format!(" --busy {seconds}");
        }
        if self.static_owner {
            words += " --static-owner";
        }
        words + " --write"
    }
}
