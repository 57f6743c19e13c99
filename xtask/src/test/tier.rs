//! The tiers: what each needs, and how it is run.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    cluster,
    count::{Reader, Tally},
    kernel, lint, vm,
};
use crate::{
    fuzz,
    host::{self, Privilege},
    setup::Need,
};

/// The test programs of the tier `packet`.
const PACKET: [&str; 3] = ["packet", "model", "churn"];

/// A group of tests that need the same of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Format, clippy, house rules, licences, advisories, documentation
    Lint,
    /// Everything that runs on the host alone, as an ordinary user
    Unit,
    /// Packets through the kernel program with BPF_PROG_TEST_RUN
    Packet,
    /// Scenarios with real sockets in the lab
    Lan,
    /// The agent beside a real control plane
    Cluster,
    /// Random input to the parsers, for a minute
    Fuzz,
    /// The packet tier and native XDP on network cards, in virtual machines of several kernels
    Kernel,
    /// The testbed of vagrant/: nodes and a client as virtual machines, with the package
    Vm,
}

// === impl Tier ===

impl Tier {
    /// Those that run where none is named.
    pub(crate) const ALL: [Self; 7] = [
        Self::Lint,
        Self::Unit,
        Self::Packet,
        Self::Lan,
        Self::Fuzz,
        Self::Kernel,
        Self::Vm,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Packet => "packet",
            Self::Lan => "lan",
            Self::Cluster => "cluster",
            Self::Fuzz => "fuzz",
            Self::Kernel => "kernel",
            Self::Vm => "vm",
        }
    }

    /// What the set-up has to provide.
    pub(super) fn needs(self) -> &'static [Need] {
        match self {
            Self::Lint => &[Need::Build, Need::Style, Need::Lint],
            Self::Unit => &[Need::Build],
            Self::Packet | Self::Lan => &[Need::Build, Need::Lab],
            Self::Cluster => cluster::NEEDS,
            Self::Fuzz => fuzz::NEEDS,
            Self::Kernel => kernel::NEEDS,
            Self::Vm => vm::NEEDS,
        }
    }

    /// Why this tier cannot run on this machine, beyond what the set-up can mend.
    pub(super) fn obstacle(self) -> Option<&'static str> {
        if matches!(self, Self::Lint | Self::Unit | Self::Fuzz) {
            None
        } else if self == Self::Kernel {
            kernel::obstacle()
        } else if self == Self::Vm {
            vm::obstacle()
        } else if host::privilege() == Privilege::None {
            Some("loading BPF programs needs root: run as root, or let sudo work")
        } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            Some("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
        } else {
            None
        }
    }

    /// Runs the tier, its output passing through. `tail` goes to the test programs.
    pub(crate) fn run(self, tail: &[String]) -> Result<Tally> {
        match self {
            Self::Lint => Ok(lint::all().into()),
            Self::Unit => {
                let mut test = host::cargo("test");
                // As the other tiers, so that all share one build.
                test.args(["--release", "--workspace", "--exclude", "naru-tests"]);
                cargo_test(&mut test, tail)
            }
            Self::Packet => cargo_test(&mut as_root(&PACKET.map(Into::into))?, tail),
            Self::Lan => lan(tail),
            Self::Cluster => cluster::run(tail),
            Self::Fuzz => fuzz::tier().map(Into::into),
            Self::Kernel => kernel::run(tail),
            Self::Vm => vm::run(tail),
        }
    }
}

/// Runs the tier `lan`, and what failed in it once more: one test at a time, so that what then
/// disturbs it is not another one.
fn lan(tail: &[String]) -> Result<Tally> {
    let mut build = host::cargo("build");
    host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;
    let release = host::target().join("release");
    let run = |tail: &[String]| {
        let mut test = as_root(&lan_programs()?)?;
        test.env("NARU_BIN", release.join("naru"))
            .env("NARU_LAB_BIN", release.join("naru-lab"));
        cargo_test(&mut test, tail)
    };
    let first = run(tail)?;
    let unsteady = first.unsteady();
    if unsteady.is_empty() {
        return Ok(first);
    }
    println!("\n==== tier lan, once more: {}", unsteady.join(", "));
    let mut alone = vec!["--exact".to_owned(), "--test-threads=1".to_owned()];
    alone.extend(unsteady.into_iter().map(Into::into));
    let second = run(&alone)?;
    Ok(first.again(second))
}

/// Every test program but those of the other tiers, so that none is left out.
fn lan_programs() -> Result<Vec<String>> {
    let dir = host::root().join("tests/tests");
    let cannot_read = || format!("cannot read {}", dir.display());
    let mut programs = Vec::new();
    for entry in fs::read_dir(&dir).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        // A program is a file, or a directory with a main.rs.
        if path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").is_file() {
            let name = path.file_stem().unwrap_or_default();
            programs.push(name.to_string_lossy().into_owned());
        }
    }
    let elsewhere = [
        &PACKET[..],
        &[cluster::PROGRAM, kernel::PROGRAM, vm::PROGRAM],
    ]
    .concat();
    programs.retain(|name| !elsewhere.contains(&&**name));
    programs.sort();
    Ok(programs)
}

/// Test programs that run as root, while cargo itself and the compiler do not.
pub(crate) fn as_root(programs: &[String]) -> Result<Command> {
    let mut cargo = host::cargo("test");
    cargo.args(["--release", "-p", "naru-tests"]);
    for program in programs {
        cargo.args(["--test", program]);
    }
    if host::privilege() == Privilege::Sudo {
        let triple = triple()?.to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo -E");
    }
    Ok(cargo)
}

fn triple() -> Result<String> {
    let text = host::output("rustc", &["-vV"]).context("cannot run `rustc -vV`")?;
    let triple = text.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(Into::into).context("`rustc -vV` names no host")
}

pub(super) fn cargo_test(cargo: &mut Command, tail: &[String]) -> Result<Tally> {
    // A new snapshot is for a person to accept, never for a run of the tests to write.
    cargo
        .arg("--no-fail-fast")
        .env("INSTA_UPDATE", "no")
        .stdout(Stdio::piped());
    if !tail.is_empty() {
        cargo.arg("--").args(tail);
    }
    let mut child = cargo.spawn().context("cannot run `cargo test`")?;
    let Some(output) = child.stdout.take() else {
        bail!("`cargo test` has no output")
    };
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of `cargo test`")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        reader.line(&line);
    }
    let status = child.wait().context("cannot wait for `cargo test`")?;
    Ok(reader.finish(status.success()))
}
