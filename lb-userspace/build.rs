//! Builds the kernel program and puts it where the agent embeds it from:
//! `aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/naru-ebpf"))`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ebpf_toolchain::embed(ebpf_toolchain::PROGRAM)
}
