//! `naru convert` and `naru pools --manifests`: what needs no agent.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use super::{Format, show};
use crate::{
    control::{Pools, Reply},
    ipam::{self, Authority, Ledger},
    source::{Source, manifest, metallb::convert as metallb},
};

/// Converts a file, or standard input for `-`.
///
/// # Errors
/// Where it cannot be read, or is refused.
pub(super) fn convert(file: &Path) -> anyhow::Result<ExitCode> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        let input = io::stdin().lock().read_to_string(&mut text);
        input.context("standard input cannot be read; give UTF-8 text")?;
        ("standard input".to_owned(), text)
    } else {
        let name = file.display().to_string();
        let text = manifest::contents(file)
            .with_context(|| format!("{name} cannot be read; name a file of UTF-8 text"))?;
        (name, text)
    };
    let converted = metallb::file(&name, &text)?;
    for note in &converted.notes {
        eprintln!("note: {note}");
    }
    let mut out = io::stdout().lock();
    out.write_all(converted.yaml.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what the pools of a directory would give to its services, if none had an address
/// but by its own word.
///
/// # Errors
/// Where the manifests are refused.
pub(super) fn offline(dir: PathBuf, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = Source::Manifests(dir).load()?;
    let assignment = ipam::assign(&loaded.desired, &Ledger::default(), Authority::This);
    show::reply(&Reply::Pools(Pools::from(&assignment)), format)?;
    Ok(ExitCode::SUCCESS)
}
