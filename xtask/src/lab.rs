//! `cargo xtask lab`: a LAN to play in.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    controlplane, host,
    setup::{self, Need},
};

pub(crate) const HELP: &str = "\
Leaves a LAN of network namespaces with an agent on every node, until it is told to go.
Needs root, or sudo. docs/lab.md goes through it step by step.

Examples:
  cargo xtask lab up nuc            three nodes, a client, five HTTP servers
  cargo xtask lab up nuc --nodes 7
  cargo xtask lab up nuc --kubernetes
                                    a cluster of Kubernetes on them
  cargo xtask lab exec client curl -s 192.168.56.11
  cargo xtask lab exec nuc01 naru status
  cargo xtask lab cut nuc02         pulls a cable; `heal nuc02` plugs it in
  cargo xtask lab off nuc02         a node without power; `on nuc02` gives it back
  cargo xtask lab status            how it is, and who owns which address
  cargo xtask lab logs nuc01 -f     what the agent there says
  cargo xtask lab down              removes everything, also what a crash has left

`cargo xtask lab help` tells all, `--lab NAME` says which lab where there are two.";

/// Arguments of `lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to do, with its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "up | exec | cut | heal | off | on | status | logs | down"
    )]
    words: Vec<String>,
}

/// Builds where a lab is to be made, then becomes the program that does the work.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kubernetes = args.words.iter().any(|word| word == "--kubernetes");
    let release = host::target().join("release");
    let program = release.join("naru-lab");
    // What is in use is not replaced under it, and a command should take no time.
    if args.words.iter().any(|word| word == "up") || !program.is_file() {
        let mut needs = vec![Need::Build, Need::Lab];
        needs.extend(kubernetes.then_some(Need::ControlPlane));
        setup::quietly(&needs)?.demand(&needs)?;
        let mut build = host::cargo("build");
        host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;
    }
    let mut command = host::as_root(&program)?;
    command.arg("lab").arg("--naru").arg(release.join("naru"));
    if kubernetes {
        command
            .arg("--control-plane")
            .arg(controlplane::programs()?);
    }
    command.args(&args.words);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
