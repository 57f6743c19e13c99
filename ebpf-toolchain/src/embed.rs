//! What a build script does whose crate embeds an object of `lb-ebpf`.

use std::{
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{CHOICE, Toolchain};

/// What goes into an object, as seen from the workspace's root.
const INPUTS: [&str; 5] = [
    "lb-ebpf/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/Cargo.lock",
    "lb-common/src",
    "lb-common/Cargo.toml",
];

/// Builds `object` and puts it where the crate, which stands beside `lb-ebpf`, embeds it from:
/// `aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", object))`. To be all that the
/// script's `main` does; what goes wrong is told to whoever runs cargo.
pub fn embed(object: &str) -> ExitCode {
    match try_embed(object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:warning={error}");
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn try_embed(object: &str) -> Result<(), Box<dyn std::error::Error>> {
    let root = dir("CARGO_MANIFEST_DIR")?.join("..");
    let out = dir("OUT_DIR")?;
    println!("cargo:rerun-if-env-changed={CHOICE}");
    // A path that does not exist would make cargo run this again every time.
    for input in INPUTS
        .iter()
        .map(|input| root.join(input))
        .filter(|input| input.exists())
    {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    let elf = Toolchain::find()?.build(&root.join("lb-ebpf"), &out.join("ebpf"), object)?;
    replace(&elf, &out.join(object))?;
    Ok(())
}

fn dir(variable: &str) -> Result<PathBuf, String> {
    var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {variable}"))
}

fn replace(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        )
    })
}
