//! `cargo xtask fuzz`: the fuzz targets, each for a bounded time.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{self, Need},
    test::{self, Count, Line},
};

pub(crate) const HELP: &str = "\
packet      any frame through the kernel part's parser, rewriters and answers, on the host
manifests   any text as Kubernetes YAML, through to what the maps would hold
control     any bytes at the agent's control socket, and as its reply

Begins with the inputs in fuzz/seeds (`cargo run --manifest-path fuzz/Cargo.toml --example
seeds` writes those of packets anew) and with what earlier runs found worth keeping, in
target/fuzz/corpus. An input that fails is kept in fuzz/artifacts and can be run again.

Examples:
  cargo xtask fuzz
  cargo xtask fuzz packet --seconds 3600
  cargo xtask fuzz packet --input fuzz/artifacts/packet/crash-…";

/// For how long the tier runs each target.
const TIER_SECONDS: u32 = 20;
/// In how many pieces the compiler works at a crate. With the usual one the targets are faster, as
/// nothing is inlined across pieces, but cores lie idle for minutes while the agent is compiled.
const CODEGEN_UNITS: &str = "16";
/// Seconds after which a single input counts as a failure.
const INPUT_SECONDS: u32 = 10;

/// What the set-up has to provide.
pub(crate) const NEEDS: &[Need] = &[Need::Build, Need::Fuzz];

/// Arguments of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets to run; all of them by default
    #[arg(value_enum, value_name = "TARGET")]
    targets: Vec<Target>,
    /// How long to run each
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u32,
    /// Run one input instead, for one target
    #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
    input: Option<PathBuf>,
}

/// A fuzz target in `fuzz/fuzz_targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    Packet,
    Manifests,
    Control,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::quietly(NEEDS)?.demand(NEEDS)?;
    let targets = match &args.targets[..] {
        [] => &Target::ALL,
        some => some,
    };
    build()?;
    if let Some(input) = &args.input {
        let input =
            fs::canonicalize(input).with_context(|| format!("cannot find {}", input.display()))?;
        for target in targets {
            host::status(cargo("run").arg(target.name()).arg(&input))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let line = |target: &Target| {
        let started = Instant::now();
        Line {
            name: target.name(),
            tally: target.run(args.seconds).into(),
            took: started.elapsed(),
        }
    };
    let lines: Vec<_> = targets.iter().map(line).collect();
    Ok(test::account(&lines))
}

/// The tier `fuzz`: every target counts as one test.
pub(crate) fn tier() -> Result<Count> {
    build()?;
    let mut count = Count::default();
    for target in Target::ALL {
        count += target.run(TIER_SECONDS);
    }
    Ok(count)
}

fn build() -> Result<()> {
    println!("---- fuzz targets");
    host::status(&mut cargo("build"))
}

/// Clippy over the targets, which tells in seconds whether they fit the code.
pub(crate) fn clippy() -> Command {
    let mut clippy = ours("clippy");
    clippy.args(["--manifest-path", "fuzz/Cargo.toml", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    clippy
}

/// The command of cargo-fuzz. Without a sanitizer, which would cost more than it finds: all
/// that is read of an input here is read with bounds checks.
fn cargo(verb: &str) -> Command {
    let mut cargo = ours("fuzz");
    cargo
        .args([verb, "--fuzz-dir", "fuzz", "--sanitizer", "none"])
        .args(["--codegen-units", CODEGEN_UNITS]);
    cargo
}

/// A command of cargo's with the stable compiler: what the sources of the kernel part and
/// cargo-fuzz want of a nightly, that has as well.
fn ours(verb: &str) -> Command {
    let mut cargo = host::cargo(verb);
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", directory());
    cargo
}

fn directory() -> PathBuf {
    host::target().join("fuzz")
}

// === impl Target ===

impl Target {
    const ALL: [Self; 3] = [Self::Packet, Self::Manifests, Self::Control];

    fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Manifests => "manifests",
            Self::Control => "control",
        }
    }

    /// Where inputs that mean something are, from the workspace's root.
    fn seeds(self) -> &'static str {
        match self {
            Self::Packet => "fuzz/seeds/packet",
            Self::Manifests => "lb-userspace/tests/golden",
            Self::Control => "fuzz/seeds/control",
        }
    }

    fn run(self, seconds: u32) -> Count {
        let name = self.name();
        println!("---- fuzz target {name}, {seconds} s");
        let failures = Path::new("fuzz/artifacts").join(name);
        let before = files(&failures);
        match self.search(seconds) {
            Ok(()) => Count {
                passed: 1,
                ..Count::default()
            },
            Err(error) => {
                eprintln!("!!!! fuzz target {name} failed: {error:#}");
                for file in files(&failures).difference(&before) {
                    eprintln!(
                        "     the input is kept; to run it again:\n     \
                         cargo xtask fuzz {name} --input {}",
                        file.display()
                    );
                }
                Count::FAILED
            }
        }
    }

    fn search(self, seconds: u32) -> Result<()> {
        let corpus = directory().join("corpus").join(self.name());
        fs::create_dir_all(&corpus)
            .with_context(|| format!("cannot create {}", corpus.display()))?;
        let mut run = cargo("run");
        run.arg(self.name())
            .arg(&corpus)
            .arg(self.seeds())
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg("-print_final_stats=1");
        host::status(&mut run)
    }
}

/// The files in a directory below the workspace's root; none where it is not there.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(host::root().join(dir)).into_iter().flatten();
    entries
        .filter_map(|entry| Some(dir.join(entry.ok()?.file_name())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        for target in Target::ALL {
            let dir = host::root().join(target.seeds());
            assert!(
                fs::read_dir(&dir).is_ok_and(|dir| dir.count() > 3),
                "{}",
                dir.display()
            );
        }
    }

    #[test]
    fn every_target_that_is_there_is_known() {
        let there = files(Path::new("fuzz/fuzz_targets"));
        let known = Target::ALL.map(|target| format!("fuzz/fuzz_targets/{}.rs", target.name()));
        assert_eq!(there, known.iter().map(PathBuf::from).collect());
    }
}
