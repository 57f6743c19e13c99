//! The chores of Naru's developers. `cargo xtask --help` lists them.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod controlplane;
mod docs;
mod fuzz;
mod host;
mod image;
mod lab;
mod mutants;
mod package;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, runs and tests Naru.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Examples:
  cargo xtask run                   show the balancer at work, in network namespaces
  cargo xtask lab up nuc            leave a LAN to play in
  cargo xtask test                  set up and run every tier of the tests
  cargo xtask test lint unit        only those that need no rights
  cargo xtask check                 the fast inner loop while writing code"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install all that building, running and testing need
    #[command(after_help = setup::HELP)]
    Setup,
    /// Show the balancer at work in a LAN of network namespaces, or run the agent here
    #[command(after_help = run::HELP)]
    Run(run::Args),
    /// Leave a LAN to play in, with an agent on every node
    #[command(after_help = lab::HELP)]
    Lab(lab::Args),
    /// Measure
    #[command(subcommand)]
    Bench(Box<bench::Bench>),
    /// Run the tests, by tier
    #[command(after_help = test::HELP)]
    Test(test::Args),
    /// Format, clippy and unit tests: the fast inner loop
    Check,
    /// Run the fuzz targets, each for a bounded time
    #[command(after_help = fuzz::HELP)]
    Fuzz(fuzz::Args),
    /// Put faults into the program, one at a time, and see that the tests find each
    #[command(after_help = mutants::HELP)]
    Mutants(mutants::Args),
    /// Record how many instructions the verifier walks on each kernel
    #[command(after_help = test::kernel::HELP)]
    Verifier,
    /// Build the Debian package
    #[command(after_help = package::HELP)]
    Package,
    /// Build the container image
    #[command(after_help = image::HELP)]
    Image(image::Args),
    /// Write the pages that are made out of the code
    #[command(after_help = docs::HELP)]
    Docs,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup => setup::all(),
        Command::Run(args) => run::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Bench(bench) => bench::run(&bench),
        Command::Test(args) => test::run(&args),
        Command::Check => check::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Verifier => test::kernel::record(),
        Command::Package => package::run(),
        Command::Image(args) => image::run(&args),
        Command::Docs => docs::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
