//! What can be wrong with a toolchain, and what helps.

use std::{ffi::OsString, path::PathBuf};

use crate::{CHOICE, Kind};

/// Why there is no eBPF program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither of the two compilers is installed.
    #[error(
        "no Rust compiler for eBPF: neither Debian's packages (rustc-web, cargo-web, \
         libstd-rust-web-dev-bpf) nor rustup's nightly with rust-src is installed; \
         run `cargo xtask setup`"
    )]
    NoCompiler,
    /// The environment asks for a compiler that is not installed.
    #[error(
        "{CHOICE} asks for {0}, which cannot build eBPF on this machine; \
         unset it or run `cargo xtask setup`"
    )]
    NotPresent(Kind),
    /// The environment asks for something else.
    #[error("{CHOICE} is {0:?}; it may be `debian`, `nightly` or unset")]
    UnknownKind(OsString),
    /// There is no linker.
    #[error("bpf-linker is neither in PATH nor in cargo's bin directory; run `cargo xtask setup`")]
    NoLinker,
    /// Cargo could not be run, or said no; the compiler's messages stand above.
    #[error("`cargo {verb}` of {} with {kind} failed: {cause}", .dir.display())]
    Cargo {
        /// What cargo was to do.
        verb: &'static str,
        /// The package.
        dir: PathBuf,
        /// The compiler.
        kind: Kind,
        /// How it ended.
        cause: String,
    },
    /// The build went well but made something else.
    #[error("{} was not built; does lb-ebpf still name its program so?", .0.display())]
    NoProgram(PathBuf),
}
