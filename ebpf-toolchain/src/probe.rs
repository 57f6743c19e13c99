//! Looks for the parts of a toolchain. Changes nothing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::TARGET;

pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: [&str; 2] = ["/usr/bin/cargo-clippy", "/usr/bin/clippy-driver"];
const DEBIAN_RUSTLIB: &str = "/usr/lib/rustlib";

/// Debian's compiler, if it is installed together with its `core` for eBPF.
pub fn debian_compiler() -> Option<PathBuf> {
    let core = Path::new(DEBIAN_RUSTLIB).join(TARGET).join("lib");
    let present = core.is_dir()
        && [DEBIAN_CARGO, DEBIAN_RUSTC]
            .iter()
            .all(|path| Path::new(path).is_file());
    present.then(|| DEBIAN_RUSTC.into())
}

pub(crate) fn debian_clippy() -> bool {
    DEBIAN_CLIPPY.iter().all(|path| Path::new(path).is_file())
}

/// The directory of rustup's nightly, if that has the component `rust-src`.
pub fn nightly_compiler() -> Option<PathBuf> {
    let sysroot = nightly_sysroot()?;
    sysroot
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
        .then_some(sysroot)
}

/// Whether nightly has this command.
pub(crate) fn nightly_has(command: &str) -> bool {
    nightly_sysroot().is_some_and(|sysroot| sysroot.join("bin").join(command).is_file())
}

fn nightly_sysroot() -> Option<PathBuf> {
    let mut rustc = Command::new(rustup());
    crate::scrub(&mut rustc);
    // A probe must not make rustup download what it looks for.
    rustc.env("RUSTUP_AUTO_INSTALL", "0");
    let output = rustc
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .output()
        .ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| sysroot.trim().into())
}

/// The linker for eBPF, from PATH or from where `cargo install` puts it.
pub fn bpf_linker() -> Option<PathBuf> {
    find("bpf-linker")
}

/// rustup's command; its bare name where it is not found, so that the error names it.
pub(crate) fn rustup() -> PathBuf {
    find("rustup").unwrap_or_else(|| "rustup".into())
}

fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_bin())
        .map(|dir| dir.join(command))
        .find(|file| file.is_file())
}

fn cargo_bin() -> Option<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir()?.join(".cargo"),
    };
    Some(home.join("bin"))
}
