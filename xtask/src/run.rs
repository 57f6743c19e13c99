//! `cargo xtask run`: builds everything and shows it at work.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{self, Need},
};

pub(crate) const HELP: &str = "\
Without arguments, lays out a LAN of network namespaces with three nodes, a client and
five real HTTP servers as pods, and takes them through balancing, the loss of a pod and
the loss of the agent. Everything that it makes, it removes. Needs root, or sudo.

Examples:
  cargo xtask run                   stay with a live table until Ctrl-C
  cargo xtask run --once            end when all is shown; the exit status tells
  cargo xtask run -- agent --interface eth0 --vip 192.168.56.11:80 \\
      --backend 10.0.0.11:8080 --backend 10.0.0.12:8080
                                    run the agent on this very host";

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// End when everything is shown, on a terminal too
    #[arg(long, conflicts_with = "naru")]
    once: bool,
    /// Run `naru` on this host with these arguments instead, as in `-- agent --help`
    #[arg(last = true, value_name = "ARGS")]
    naru: Vec<String>,
}

/// Builds, then becomes the program that is to run.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let here = !args.naru.is_empty();
    // The agent on this host needs no lab.
    let needs: &[Need] = if here {
        &[Need::Build]
    } else {
        &[Need::Build, Need::Lab]
    };
    setup::quietly(needs)?.demand(needs)?;

    let mut build = host::cargo("build");
    build.args(["--release", "-p", "naru"]);
    if !here {
        build.args(["-p", "naru-lab"]);
    }
    host::status(&mut build)?;

    let release = host::target().join("release");
    let naru = release.join("naru");
    let mut command = if here {
        let mut command = host::as_root(&naru)?;
        command.args(&args.naru);
        command
    } else {
        let mut command = host::as_root(&release.join("naru-lab"))?;
        command.arg("demo").arg("--naru").arg(&naru);
        if args.once {
            command.arg("--once");
        }
        command
    };
    // Taking the place of this process hands on terminal, signals and exit status as
    // they are: an interrupt reaches the lab alone, and the shell waits for its cleaning.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}
