//! What Naru's packet path costs: `cargo xtask bench forward`.
//!
//! The program runs on frames that a generator writes anew each time, in the kernel, without
//! a network card; what the generator costs is measured with a stub in its place.
#![forbid(unsafe_code)]

mod alone;
mod generator;
mod node;
mod row;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Measures Naru's packet path.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to measure.
#[derive(Subcommand)]
enum Command {
    /// Nanoseconds a packet, by number of flows
    Forward(Forward),
}

/// Arguments of `forward`.
#[derive(clap::Args)]
pub(crate) struct Forward {
    /// Rounds, in each of which every candidate has its turn
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,
    /// Numbers of flows, each a power of two
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,1024,131072,1048576,4194304",
          value_parser = power_of_two)]
    flows: Vec<u32>,
    /// Only candidates whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Packets of each candidate in each round
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    packets: u32,
    /// Write the rows to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Cli {
        command: Command::Forward(args),
    } = Cli::parse();
    match alone::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("naru-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if number.is_power_of_two() => Ok(number),
        _ => Err("a power of two".to_owned()),
    }
}
