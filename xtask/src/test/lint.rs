//! The tier `lint`: what can be said about the sources without running them.
//!
//! Each piece counts as one test.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use ebpf_toolchain::Toolchain;

use super::count::Count;
use crate::{
    docs, fuzz,
    host::{self, status},
    tidy,
};

/// How a piece ended, if not with an error.
enum Outcome {
    Passed,
    /// It cannot be judged here, for this reason.
    Skipped(String),
}

type Piece = (&'static str, fn() -> Result<Outcome>);

const STYLE: &[Piece] = &[("format", format), ("clippy", clippy)];

const REST: &[Piece] = &[
    ("format of lb-ebpf", format_ebpf),
    ("format of fuzz", format_fuzz),
    ("clippy of lb-ebpf", clippy_ebpf),
    ("clippy of fuzz", clippy_fuzz),
    ("documentation", documentation),
    ("pages made out of the code", pages),
    ("licences and sources", licences),
    ("licences and sources of lb-ebpf", licences_ebpf),
    ("licences and sources of fuzz", licences_fuzz),
    ("advisories", advisories),
];

/// The pieces that one wants after every change.
pub(crate) fn style() -> Count {
    pieces(STYLE)
}

/// All pieces and the house rules.
pub(super) fn all() -> Count {
    let mut count = pieces(STYLE);
    count += house_rules();
    count += pieces(REST);
    count
}

fn pieces(pieces: &[Piece]) -> Count {
    let mut count = Count::default();
    for (name, piece) in pieces {
        println!("---- {name}");
        match piece() {
            Ok(Outcome::Passed) => count.passed += 1,
            Ok(Outcome::Skipped(reason)) => {
                eprintln!("!!!! {name} skipped: {reason}");
                count.skipped += 1;
            }
            Err(error) => {
                eprintln!("!!!! {name} failed: {error:#}");
                count.failed += 1;
            }
        }
    }
    count
}

fn house_rules() -> Count {
    println!("---- house rules");
    let mut count = Count::default();
    match tidy::check(host::root()) {
        Ok(rules) => {
            for (rule, breaches) in rules {
                if breaches.is_empty() {
                    count.passed += 1;
                } else {
                    count.failed += 1;
                    eprintln!(
                        "!!!! {rule}; but not so in\n     {}",
                        breaches.join("\n     ")
                    );
                }
            }
        }
        Err(error) => {
            eprintln!("!!!! house rules: {error:#}");
            count.failed += 1;
        }
    }
    count
}

/// Runs a command that passes if it succeeds.
fn passes(command: &mut Command) -> Result<Outcome> {
    status(command).map(|()| Outcome::Passed)
}

fn format() -> Result<Outcome> {
    passes(host::cargo("fmt").args(["--all", "--check"]))
}

fn format_ebpf() -> Result<Outcome> {
    passes(host::cargo("fmt").args(["--check", "--manifest-path", "lb-ebpf/Cargo.toml"]))
}

fn format_fuzz() -> Result<Outcome> {
    passes(host::cargo("fmt").args(["--check", "--manifest-path", "fuzz/Cargo.toml"]))
}

fn clippy() -> Result<Outcome> {
    passes(host::cargo("clippy").args(["--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn clippy_ebpf() -> Result<Outcome> {
    let toolchain = Toolchain::find()?;
    if !toolchain.kind().has_clippy() {
        return Ok(Outcome::Skipped(format!(
            "{} came without clippy",
            toolchain.kind()
        )));
    }
    toolchain.clippy(&host::root().join("lb-ebpf"), &host::target().join("ebpf"))?;
    Ok(Outcome::Passed)
}

fn clippy_fuzz() -> Result<Outcome> {
    passes(&mut fuzz::clippy())
}

fn documentation() -> Result<Outcome> {
    let mut doc = host::cargo("doc");
    passes(
        doc.args(["--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn pages() -> Result<Outcome> {
    docs::check().map(|()| Outcome::Passed)
}

fn licences() -> Result<Outcome> {
    licences_of("Cargo.toml")
}

/// The kernel part has a lock file of its own, and so dependencies of its own.
fn licences_ebpf() -> Result<Outcome> {
    licences_of("lb-ebpf/Cargo.toml")
}

/// So do the fuzz targets.
fn licences_fuzz() -> Result<Outcome> {
    licences_of("fuzz/Cargo.toml")
}

fn licences_of(manifest: &str) -> Result<Outcome> {
    // Offline, cargo-deny wants every package at hand, those for other systems too.
    status(host::cargo("fetch").args(["--quiet", "--locked", "--manifest-path", manifest]))?;
    passes(deny(manifest).args(["check", "licenses", "bans", "sources"]))
}

fn deny(manifest: &str) -> Command {
    let mut deny = host::cargo("deny");
    deny.args([
        "--offline",
        "--manifest-path",
        manifest,
        "--config",
        "deny.toml",
    ]);
    deny
}

/// Judges by a fresh database, else by the last one that was fetched.
fn advisories() -> Result<Outcome> {
    let mut fetch = Command::new("timeout");
    fetch
        .arg("60")
        .arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    fetch
        .args(["deny", "fetch", "db"])
        .current_dir(host::root());
    // What went wrong matters only where there is no older copy.
    let fetched = fetch.output().context("cannot run `cargo deny fetch`")?;
    if !fetched.status.success() && !has_advisories() {
        let text = String::from_utf8_lossy(&fetched.stderr);
        let cause = text
            .lines()
            .find(|line| line.contains("ERROR"))
            .unwrap_or("no answer");
        return Ok(Outcome::Skipped(format!(
            "the database cannot be fetched: {}",
            cause.trim()
        )));
    }
    status(deny("Cargo.toml").args(["check", "advisories"]))?;
    status(deny("lb-ebpf/Cargo.toml").args(["check", "advisories"]))?;
    passes(deny("fuzz/Cargo.toml").args(["check", "advisories"]))
}

fn has_advisories() -> bool {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let databases = home.map(|home| home.join("advisory-dbs"));
    databases
        .and_then(|dir| fs::read_dir(dir).ok())
        .is_some_and(|mut entries| entries.any(|entry| entry.is_ok_and(|e| e.path().is_dir())))
}
