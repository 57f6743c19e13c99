//! `cargo xtask test`: the tiers, and the account of them.

mod again;
mod cluster;
mod count;
mod debian;
pub(crate) mod kernel;
pub(crate) mod lint;
mod tier;
mod vm;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

pub(crate) use count::{Count, Reader, Tally};
pub(crate) use tier::{Tier, as_root};

use crate::setup::{self, Need, Report};

pub(crate) const HELP: &str = "\
Tiers: lint, unit, packet, lan, fuzz, kernel, vm; without any, all of these. Ends with a
line for each tier and last, alone on its line, `N passed, N failed, N skipped`. Only the
test programs of packet, lan and cluster run as root, through sudo where this is not root. Kernel
and vm run in virtual machines; their kernels and disk (about 450 MB) are downloaded once,
to ~/.cache/naru. Up to three tests of lan that fail are run again, one at a time, and count
by that; what they said the first time is told at the end.
The tier cluster runs where it is named: it builds a control plane out of Kubernetes' Go modules
first, ten minutes of one core, once; where those cannot be reached, it takes the programs in the
directory that KUBEBUILDER_ASSETS names, and says which there have to be.

Examples:
  cargo xtask test
  cargo xtask test lint unit
  cargo xtask test lan -- masquerade      tests of a tier whose names contain a word";

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tiers to run
    #[arg(value_enum, value_name = "TIER")]
    tiers: Vec<Tier>,
    /// Count a tier that this machine cannot run as skipped rather than failed
    #[arg(long)]
    allow_skip: bool,
    /// Handed to the test programs
    #[arg(last = true, value_name = "ARGS")]
    tail: Vec<String>,
}

/// How one tier ended.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tiers = if args.tiers.is_empty() {
        &Tier::ALL[..]
    } else {
        &args.tiers
    };
    let mut needs: Vec<Need> = tiers
        .iter()
        .flat_map(|tier| tier.needs())
        .copied()
        .collect();
    needs.dedup();
    let report = setup::quietly(&needs)?;
    let lines: Vec<_> = tiers.iter().map(|tier| one(*tier, args, &report)).collect();
    Ok(account(&lines))
}

fn one(tier: Tier, args: &Args, report: &Report) -> Line {
    let name = tier.name();
    let started = Instant::now();
    let obstacle = match report.demand(tier.needs()) {
        Ok(()) => tier.obstacle().map(Into::into),
        Err(error) => Some(error.to_string()),
    };
    let tally = if let Some(reason) = obstacle {
        eprintln!("\n!!!! tier {name} CANNOT RUN: {reason}");
        let skipped = Count {
            skipped: 1,
            ..Count::default()
        };
        let count = if args.allow_skip {
            skipped
        } else {
            Count::FAILED
        };
        count.into()
    } else {
        println!("\n==== tier {name}");
        executed(name, tier.run(&args.tail))
    };
    Line {
        name,
        tally,
        took: started.elapsed(),
    }
}

/// A tier in which nothing was tested has not passed.
fn executed(name: &str, result: Result<Tally>) -> Tally {
    match result {
        Ok(tally) if tally.count.passed + tally.count.failed > 0 => tally,
        Ok(Tally { count, .. }) => {
            eprintln!("!!!! tier {name}: no test was executed");
            Count { failed: 1, ..count }.into()
        }
        Err(error) => {
            eprintln!("!!!! tier {name}: {error:#}");
            Count::FAILED.into()
        }
    }
}

/// Prints once more what failed tests said, a line for each tier, and the totals, which
/// decide the exit status.
pub(crate) fn account(lines: &[Line]) -> ExitCode {
    for Line { name, tally, .. } in lines {
        for said in &tally.once {
            let what = format!("failed once in tier {name}, and passed when it was run again");
            println!("\n==== {what}\n{}", said.trim_end());
        }
        for said in &tally.failures {
            println!("\n==== failed in tier {name}\n{}", said.trim_end());
        }
    }
    let mut total = Count::default();
    println!();
    for Line { name, tally, took } in lines {
        let count = tally.count;
        total += count;
        println!(
            "{name:<10}{:>4} passed{:>5} failed{:>5} skipped{:>8.1} s{}",
            count.passed,
            count.failed,
            count.skipped,
            took.as_secs_f32(),
            second(tally)
        );
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How many of a tier's tests have passed only when they were run again, where any have.
fn second(tally: &Tally) -> String {
    match tally.once.len() {
        0 => String::new(),
        many => format!(", {many} of them the second time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_without_a_test_has_failed() {
        let failed = Tally::from(Count::FAILED);
        assert_eq!(executed("unit", Ok(Tally::default())), failed);
        let all_ignored = Count {
            skipped: 2,
            ..Count::default()
        };
        assert_eq!(executed("unit", Ok(all_ignored.into())).count.failed, 1);
        let some = Count {
            passed: 2,
            ..Count::default()
        };
        assert_eq!(executed("unit", Ok(some.into())).count, some);
    }
}
