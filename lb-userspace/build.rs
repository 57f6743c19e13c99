//! Builds the kernel program and puts it where the agent embeds it from:
//! `aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/naru-ebpf"))`.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ebpf_toolchain::{CHOICE, PROGRAM, Toolchain};

/// What goes into the program, as seen from the workspace's root.
const INPUTS: [&str; 5] = [
    "lb-ebpf/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/Cargo.lock",
    "lb-common/src",
    "lb-common/Cargo.toml",
];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:warning={error}");
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn std::error::Error>> {
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
    let elf = Toolchain::find()?.build(&root.join("lb-ebpf"), &out.join("ebpf"), PROGRAM)?;
    replace(&elf, &out.join(PROGRAM))?;
    Ok(())
}

fn dir(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
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
