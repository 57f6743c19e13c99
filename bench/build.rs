//! Builds the generator of frames and puts it where the benchmark embeds it from.
#![forbid(unsafe_code)]

use std::{env, fs, path::PathBuf, process::ExitCode};

use ebpf_toolchain::{CHOICE, GENERATOR, Toolchain};

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
    let dir = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .ok_or("cargo is silent")
    };
    let (root, out) = (dir("CARGO_MANIFEST_DIR")?.join(".."), dir("OUT_DIR")?);
    println!("cargo:rerun-if-env-changed={CHOICE}");
    for input in [
        "lb-ebpf/src/bench.rs",
        "lb-ebpf/src/packet.rs",
        "lb-common/src/bench.rs",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    let elf = Toolchain::find()?.build(&root.join("lb-ebpf"), &out.join("ebpf"), GENERATOR)?;
    fs::copy(elf, out.join(GENERATOR))?;
    Ok(())
}
