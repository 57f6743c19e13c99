//! What Naru's packet path costs: `cargo xtask bench forward` and `scale`.
//!
//! Frames are made in the kernel, without a network card: a generator writes every header anew
//! and calls the program to measure, and what leaves the node is counted where it ends. What
//! the generator costs is measured with a stub in the program's place.
#![forbid(unsafe_code)]

mod candidate;
mod flood;
mod forward;
mod frames;
mod generator;
mod ground;
mod kind;
mod maps;
mod measure;
mod net;
mod node;
mod page;
mod plot;
mod proxy;
mod rounds;
mod row;
mod scale;
mod shape;
mod tool;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{flood::Flood, maps::Maps, row::Row, scale::Scale};

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
    /// Nanoseconds a packet, by number of services, of backends and of flows
    Scale(Scale),
    /// First packets of connections, for a program that is attached to a device
    #[command(hide = true)]
    Flood(Flood),
    /// What an agent's maps hold
    #[command(hide = true)]
    Maps(Maps),
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
    /// Only candidates whose names contain one of these; xdp_tx is always there
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Packets of each candidate in each round
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    packets: u32,
    /// 4, 6, or both
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4,6",
          value_parser = clap::value_parser!(u8).range(4..=6))]
    family: Vec<u8>,
    /// Bytes of a frame on the wire
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "64,1400"
    )]
    size: Vec<usize>,
    /// Write the rows to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw nanoseconds over flows as SVG into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Replace the tables of this page, and the pictures beside it that it shows
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// The command that the page is to name
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "naru-bench forward",
        requires = "page"
    )]
    command: String,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Forward(args) => forward(&args),
        Command::Scale(args) => scale(&args),
        Command::Flood(args) => flood::run(&args),
        Command::Maps(args) => maps::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("naru-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn forward(args: &Forward) -> Result<()> {
    args.check()?;
    // What cannot be written in the end is no reason to wait for it.
    let page = args.page.as_ref().map(std::fs::read_to_string);
    let page = page.transpose().context("the page to change")?;
    let rows = forward::run(args)?;
    tell(&rows, args.json.as_deref())?;
    if let Some(dir) = &args.plot {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for (name, svg) in plot::all(&rows)? {
            write(&dir.join(name), &svg)?;
        }
    }
    if let (Some(path), Some(page)) = (&args.page, &page) {
        let pictures = plot::all(&rows)?.into_iter();
        for (name, svg) in pictures.filter(|(name, _)| page.contains(name.as_str())) {
            write(&path.with_file_name(name), &svg)?;
        }
        write(path, &page::with(page, &rows, &args.command)?)?;
    }
    Ok(())
}

fn scale(args: &Scale) -> Result<()> {
    tell(&scale::run(args)?, args.json.as_deref())
}

/// Prints the rows, and writes them where that was asked for.
fn tell(rows: &[Row], json: Option<&Path>) -> Result<()> {
    println!("\n{}", row::table(rows).trim_fmt());
    json.map_or(Ok(()), |path| {
        write(path, &(serde_json::to_string_pretty(rows)? + "\n"))
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if number.is_power_of_two() => Ok(number),
        _ => Err("a power of two".to_owned()),
    }
}
