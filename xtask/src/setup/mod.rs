//! `cargo xtask setup`: what is needed, whether it is there, and how it comes here.
//!
//! [`list`] is the data, this module the engine: probe every item, then install what
//! is missing where that is allowed, and print the commands where it is not.

mod apt;
pub(crate) mod go;
mod item;
mod kernel_part;
mod list;
mod progress;

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use item::{Item, Remedy};
pub(crate) use item::{Need, Step};
pub(crate) use progress::run as show;

pub(crate) const HELP: &str = "\
Looks for each item first and does nothing where it is there. What is missing comes by
apt-get, rustup or cargo install, where this may install; otherwise the exact commands
are printed. The one other thing that it does: as root, it mounts the BPF file system at
/sys/fs/bpf if that is not mounted. Logs are in target/xtask/.

NARU_EBPF_TOOLCHAIN=debian|nightly chooses the compiler for the kernel part.";

/// What is not there after all efforts.
pub(crate) struct Report {
    unmet: Vec<&'static Item>,
}

/// Everything that any of the other commands needs, with a line for each item.
pub(crate) fn all() -> Result<ExitCode> {
    ebpf_toolchain::Kind::chosen()?;
    let report = ensure(&Need::ALL, true);
    report.demand(&Need::ALL)?;
    println!("all set");
    Ok(ExitCode::SUCCESS)
}

/// What these needs ask for, in silence where nothing is missing.
pub(crate) fn quietly(needs: &[Need]) -> Result<Report> {
    // A wrong choice of compiler is no missing item; it must not start an installation.
    ebpf_toolchain::Kind::chosen()?;
    Ok(ensure(needs, false))
}

fn ensure(needs: &[Need], tell_all: bool) -> Report {
    let started = Instant::now();
    let items = list::ITEMS.iter().filter(|item| item.serves(needs));
    let mut found = 0;
    let mut missing = Vec::new();
    for item in items {
        match item.found() {
            Some(what) => {
                found += 1;
                if tell_all {
                    say(item, &what);
                }
            }
            None => missing.push(item),
        }
    }
    if missing.is_empty() {
        println!(
            "set-up: {found} items found, {:.1} s",
            started.elapsed().as_secs_f32()
        );
        return Report { unmet: missing };
    }
    let names: Vec<_> = missing.iter().map(|item| item.name).collect();
    println!("set-up: {found} items found, missing: {}", names.join(", "));
    Report {
        unmet: install(missing),
    }
}

/// Installs what may be installed and returns the items that are still missing.
fn install(missing: Vec<&'static Item>) -> Vec<&'static Item> {
    let mut unmet = Vec::new();
    let mut by_hand = Vec::new();
    // What apt knows decides between remedies, so its lists come first.
    if missing.iter().any(|item| item.may_use_apt()) && apt::usable() {
        attempt("package lists", &apt::update());
    }
    let mut allowed = Vec::new();
    for item in missing {
        let remedy = item.remedy();
        if remedy.is_allowed() {
            allowed.push((item, remedy));
        } else {
            by_hand.push((item, remedy));
        }
    }
    let packages: Vec<_> = allowed
        .iter()
        .flat_map(|(_, remedy)| remedy.packages)
        .copied()
        .collect();
    if !packages.is_empty() {
        attempt("packages", &apt::install(&packages));
    }
    for (item, remedy) in allowed {
        let worked = remedy.steps.iter().all(|step| attempt(item.name, step));
        match item.found() {
            Some(what) if worked => say(item, &what),
            _ => {
                eprintln!(
                    "  {:<18} still missing; needed to {}",
                    item.name, item.purpose
                );
                by_hand.push((item, remedy));
            }
        }
    }
    print_by_hand(&by_hand);
    unmet.extend(by_hand.into_iter().map(|(item, _)| item));
    unmet
}

fn attempt(label: &str, step: &Step) -> bool {
    match progress::run(label, step) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("  {label:<18} {error:#}");
            false
        }
    }
}

fn say(item: &Item, what: &str) {
    println!("  {:<18} {what}", item.name);
}

fn print_by_hand(items: &[(&Item, Remedy)]) {
    if items.is_empty() {
        return;
    }
    eprintln!("\nThis may not, or could not, install everything. To do so by hand:");
    for (item, remedy) in items {
        eprintln!("\n  # {}, needed to {}", item.name, item.purpose);
        for line in remedy.lines() {
            eprintln!("  {line}");
        }
    }
    eprintln!();
}

// === impl Report ===

impl Report {
    /// Fails if something that these needs ask for is missing.
    pub(crate) fn demand(&self, needs: &[Need]) -> Result<()> {
        let names: Vec<_> = self
            .unmet
            .iter()
            .filter(|item| item.serves(needs))
            .map(|item| item.name)
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        bail!(
            "missing: {}; the commands to install it stand above",
            names.join(", ")
        )
    }
}
