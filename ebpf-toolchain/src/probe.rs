//! Looks for the parts of a toolchain. Changes nothing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{NIGHTLY, TARGET};

const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_RUSTLIB: &str = "/usr/lib/rustlib";

/// Where Debian's compiler is, if it is installed together with its `core` for eBPF.
pub(crate) fn debian() -> Option<PathBuf> {
    let bin = PathBuf::from(DEBIAN_BIN);
    let core = Path::new(DEBIAN_RUSTLIB).join(TARGET).join("lib");
    let programs = ["cargo", "rustc"].map(|program| bin.join(program));
    (core.is_dir() && programs.iter().all(|file| file.is_file())).then_some(bin)
}

/// Where rustup's nightly is, if it has the component `rust-src`.
pub(crate) fn nightly() -> Option<PathBuf> {
    let mut rustc = Command::new(find("rustup")?);
    crate::scrub(&mut rustc);
    // A probe must not make rustup download what it looks for.
    rustc.env("RUSTUP_AUTO_INSTALL", "0");
    let output = rustc
        .args(["run", NIGHTLY, "rustc", "--print", "sysroot"])
        .output()
        .ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let core = sysroot.join("lib/rustlib/src/rust/library/core");
    (output.status.success() && core.is_dir()).then(|| sysroot.join("bin"))
}

/// The linker for eBPF, from PATH or from where `cargo install` puts it.
pub fn bpf_linker() -> Option<PathBuf> {
    find("bpf-linker")
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
