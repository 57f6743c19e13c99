//! What many services, backends and flows cost, and what a flood of SYNs does.

use std::process::ExitCode;

use anyhow::Result;

use super::sockets::{Job, Output, PERFORMANCE, lab};
use crate::setup::Need;

pub(super) const HELP: &str = "\
Three parts. packets: nanoseconds a packet to ten services, with up to 10,000 of them and up to
10,000 backends each, and flows that begin; sizes take turns. memory: an agent's own memory and
its maps. flood: 1,000 connections ask ten times a second each while SYNs of ever other clients
come in as fast as one core makes them, for Maglev and round robin, in each mode; then with a
drain window open, then with conntrack loaded. Everything happens in network namespaces of its
own. Needs root, or sudo.

Examples:
  cargo xtask bench scale                            all of it, about 30 minutes
  cargo xtask bench scale --quick                    to see that it works, about 6 minutes
  cargo xtask bench scale --part packets --only maglev-dsr --sizes 10x10,10000x10
  cargo xtask bench scale --part memory
  cargo xtask bench scale --part flood --way nat --condition drain --seconds 10
  cargo xtask bench scale --json scale.json --plot .
  cargo xtask bench scale --write                    what docs/performance.md says of it";

/// What is said in place of everything that was not told, with `--quick`.
const QUICK: [(&str, &str); 6] = [
    ("--rounds", "2"),
    ("--sizes", "10x10,1000x10,10000x10"),
    ("--flows", "1024"),
    ("--memory", "10x10,1000x10"),
    ("--seconds", "3"),
    ("--quiet", "2"),
];
/// Options of the part that `naru-bench` does.
const PACKETS: [&str; 5] = ["--rounds", "--sizes", "--flows", "--only", "--family"];

/// Arguments of `bench scale`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts: packets, memory, flood
    #[arg(long, value_name = "NAME,…")]
    part: Option<String>,
    /// Few rounds and short floods, where nothing else is said
    #[arg(long)]
    quick: bool,
    /// packets: rounds, in each of which every size has its turn; 5 unless told
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// packets: services and backends of each, all held against the first
    #[arg(long, value_name = "SERVICESxBACKENDS,…")]
    sizes: Option<String>,
    /// packets: numbers of flows, each a power of two; 1024,131072 unless told
    #[arg(long, value_name = "N,…")]
    flows: Option<String>,
    /// packets: only candidates whose names contain one of these
    #[arg(long, value_name = "TEXT,…")]
    only: Option<String>,
    /// packets: 4, 6, or both; 4 unless told
    #[arg(long, value_name = "N,…")]
    family: Option<String>,
    /// memory: services and backends of each; 10x10,1000x10,10000x10 unless told
    #[arg(long, value_name = "SERVICESxBACKENDS,…")]
    memory: Option<String>,
    /// flood: connections that are open; 1000 unless told
    #[arg(long, value_name = "N")]
    connections: Option<u16>,
    /// flood: how long each is; 30 unless told
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// flood: how long it is quiet before; 5 unless told
    #[arg(long, value_name = "N")]
    quiet: Option<u64>,
    /// flood: only these ways to the pods: local, nat, dsr
    #[arg(long, value_name = "NAME,…")]
    way: Option<String>,
    /// flood: only these algorithms: maglev, round-robin
    #[arg(long, value_name = "NAME,…")]
    algorithm: Option<String>,
    /// flood: only under these conditions: plain, drain, conntrack
    #[arg(long, value_name = "NAME,…")]
    condition: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Builds, then becomes the program that measures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let needs = [Need::Build, Need::Lab, Need::Bench];
    let (options, told) = (args.options(), args.told_words());
    let job = Job {
        told: &told,
        packets: true,
        ..Job::new("scale", PERFORMANCE, &needs, &options)
    };
    lab(&job, &args.output)
}

// === impl Args ===

impl Args {
    /// What was told, as it was told.
    fn told(&self) -> Vec<(&'static str, String)> {
        fn number(value: Option<impl ToString>) -> Option<String> {
            value.map(|value| value.to_string())
        }
        let all = [
            ("--part", self.part.clone()),
            ("--rounds", number(self.rounds)),
            ("--sizes", self.sizes.clone()),
            ("--flows", self.flows.clone()),
            ("--only", self.only.clone()),
            ("--family", self.family.clone()),
            ("--memory", self.memory.clone()),
            ("--connections", number(self.connections)),
            ("--seconds", number(self.seconds)),
            ("--quiet", number(self.quiet)),
            ("--way", self.way.clone()),
            ("--algorithm", self.algorithm.clone()),
            ("--condition", self.condition.clone()),
        ];
        let told = all
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        told.collect()
    }

    fn told_words(&self) -> Vec<String> {
        let quick = self.quick.then(|| "--quick".to_owned());
        let told = self.told().into_iter();
        let told = told.flat_map(|(name, value)| [name.to_owned(), value]);
        quick.into_iter().chain(told).collect()
    }

    /// The same as the program of the lab takes it.
    fn options(&self) -> Vec<String> {
        let mut all = self.told();
        for (name, value) in QUICK {
            if self.quick && !all.iter().any(|(told, _)| *told == name) {
                all.push((name, value.to_owned()));
            }
        }
        let mut options = Vec::new();
        for (name, value) in all {
            if PACKETS.contains(&name) {
                options.push(format!("--packets={name}={value}"));
            } else if name == "--memory" {
                options.extend(["--sizes".to_owned(), value]);
            } else {
                options.extend([name.to_owned(), value]);
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::parse_from([&["scale"], words].concat()).args
    }

    #[test]
    fn each_part_gets_its_own_options() {
        let args = args(&["--sizes", "10x10", "--memory", "1000x10", "--way", "nat"]);
        let expected = [
            "--packets=--sizes=10x10",
            "--sizes",
            "1000x10",
            "--way",
            "nat",
        ];
        assert_eq!(args.options(), expected);
        let told = ["--sizes", "10x10", "--memory", "1000x10", "--way", "nat"];
        assert_eq!(args.told_words(), told);
    }

    #[test]
    fn what_is_told_stands_beside_quick() {
        let args = args(&["--quick", "--seconds", "10"]);
        let options = args.options();
        assert_eq!(options[..2], ["--seconds", "10"]);
        assert!(options.contains(&"--packets=--rounds=2".to_owned()));
        assert_eq!(options.iter().filter(|it| *it == "--seconds").count(), 1);
        assert_eq!(args.told_words(), ["--quick", "--seconds", "10"]);
    }
}
