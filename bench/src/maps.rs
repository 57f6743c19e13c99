//! `maps`: what an agent's pinned maps take, and how many flows they have records of.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use naru::datapath::Records;
use serde::Serialize;

/// Arguments of `maps`.
#[derive(clap::Args)]
pub(crate) struct Maps {
    /// Where the agent pins them
    #[arg(long, value_name = "DIR")]
    pin_dir: PathBuf,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Held {
    /// Bytes of all maps, as the kernel counts them.
    bytes: u64,
    /// The same by map.
    maps: BTreeMap<String, u64>,
    /// Entries of the tables of flows.
    flows: usize,
    /// Of that for their replies.
    replies: usize,
}

/// Tells it as JSON.
pub(crate) fn run(args: &Maps) -> Result<()> {
    let records = Records::open(&args.pin_dir)?;
    let mut held = Held {
        flows: records.iter().count(),
        replies: records.replies().count(),
        ..Held::default()
    };
    for (name, data) in pinned(&args.pin_dir)? {
        let failed = || name.clone();
        let bytes = bytes_of(&data).with_context(failed)?;
        held.bytes += bytes;
        held.maps.insert(name, bytes);
    }
    println!("{}", serde_json::to_string(&held)?);
    Ok(())
}

/// Bytes of all maps below a pin directory.
pub(crate) fn bytes(pin_dir: &Path) -> Result<u64> {
    let maps = pinned(pin_dir)?.into_iter();
    maps.map(|(name, data)| bytes_of(&data).context(name)).sum()
}

/// All maps below a pin directory, by name.
fn pinned(pin_dir: &Path) -> Result<Vec<(String, MapData)>> {
    let mut maps = Vec::new();
    for dir in entries(pin_dir)? {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        // `v` and the version of what they hold.
        if !name.starts_with('v') {
            continue;
        }
        for pin in entries(&dir)? {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            let data = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
            maps.push((name.into_owned(), data));
        }
    }
    Ok(maps)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn bytes_of(data: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).context(path)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = bytes.context("the kernel does not say what it takes")?;
    Ok(bytes.trim().parse()?)
}
