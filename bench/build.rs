//! Builds the generator of frames and puts it where the benchmark embeds it from.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ebpf_toolchain::embed(ebpf_toolchain::GENERATOR)
}
