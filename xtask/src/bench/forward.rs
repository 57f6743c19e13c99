//! The packet path: every candidate on the same frames, in namespaces.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use super::sockets::{Output, PERFORMANCE};
use crate::{
    host,
    setup::{self, Need},
};

pub(super) const HELP: &str = "\
Makes frames in the kernel, on one core, lets every candidate carry them and counts them
where they end: a bare XDP_TX and XDP_DROP, plain forwarding, kube-proxy's rules for nftables
and iptables, and Naru in each mode and algorithm; towards the backends and back. Needs root,
or sudo; about an hour, since candidates take turns ten times at each number of flows.

kube-proxy's rules need net.netfilter.nf_conntrack_max above the number of flows; where it is
lower they are left out, and it is said.

Examples:
  cargo xtask bench forward --rounds 3 --flows 1,1024 --packets 100000 --family 4
                                                     a first look, two minutes
  cargo xtask bench forward --only maglev-local,kernel --flows 131072 --size 64
                                                     two candidates, beside xdp_tx
  cargo xtask bench forward --json rows.json --plot pictures
  cargo xtask bench forward --write                  what docs/performance.md was made by";

/// Arguments of `bench forward`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which every candidate has its turn
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Numbers of flows, each a power of two; 1,1024,131072,1048576,4194304 unless told
    #[arg(long, value_name = "N,…")]
    flows: Option<String>,
    /// Only candidates whose names contain one of these; xdp_tx is always there
    #[arg(long, value_name = "TEXT,…")]
    only: Option<String>,
    /// Packets of each candidate in each round
    #[arg(long, value_name = "N")]
    packets: Option<u32>,
    /// 4, 6, or both
    #[arg(long, value_name = "N,…")]
    family: Option<String>,
    /// Bytes of a frame on the wire; 64,1400 unless told
    #[arg(long, value_name = "N,…")]
    size: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let needs = [Need::Build, Need::Lab];
    setup::quietly(&needs)?.demand(&needs)?;
    host::status(host::cargo("build").args(["--release", "-p", "naru-bench"]))?;

    let program = host::target().join("release").join("naru-bench");
    let mut command = host::as_root(&program)?;
    let settings = args.settings();
    command
        .arg("forward")
        .args(&settings)
        .args(args.output.words("forward", PERFORMANCE, &settings));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}

// === impl Args ===

impl Args {
    /// What decides on the numbers, as it was told.
    fn settings(&self) -> Vec<String> {
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let all = [
            ("--rounds", number(self.rounds)),
            ("--flows", self.flows.clone()),
            ("--only", self.only.clone()),
            ("--packets", number(self.packets)),
            ("--family", self.family.clone()),
            ("--size", self.size.clone()),
        ];
        let told = all
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        told.flatten().collect()
    }
}
