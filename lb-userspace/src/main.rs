//! The command `naru`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    naru::cli::run(naru::cli::Cli::parse())
}
