//! Finds a Rust compiler that can make eBPF programs, and builds `lb-ebpf` with it.
//!
//! Two kinds are known, see [`Kind`]. Both build scripts and `xtask` use
//! this crate, so that there is one place that knows flags and environment.
//!
//! ```no_run
//! # fn main() -> Result<(), ebpf_toolchain::Error> {
//! let toolchain = ebpf_toolchain::Toolchain::find()?;
//! let elf = toolchain.build("lb-ebpf".as_ref(), "target/ebpf".as_ref(), ebpf_toolchain::PROGRAM)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod embed;
mod env;
mod error;
mod probe;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

pub use embed::embed;
pub use env::scrub;
pub use error::Error;
pub use probe::bpf_linker;

/// The compiler's name for eBPF in little-endian byte order.
pub const TARGET: &str = "bpfel-unknown-none";

/// The name of the object that the agent loads, as `lb-ebpf` builds it.
pub const PROGRAM: &str = "naru-ebpf";

/// The name of the benchmark's generator of frames, likewise.
pub const GENERATOR: &str = "naru-bench-ebpf";

/// The nightly to take: one whose LLVM is the 22 of the pinned bpf-linker. A later
/// LLVM writes what an earlier one cannot read ("Invalid record").
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// The variable that chooses between [`Kind`]s: `debian` or `nightly`.
pub const CHOICE: &str = "NARU_EBPF_TOOLCHAIN";

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's packages `rustc-web`, `cargo-web` and `libstd-rust-web-dev-bpf`, which
    /// bring a ready-made `core` for eBPF.
    Debian,
    /// rustup's [`NIGHTLY`] with the component `rust-src`, which builds `core` itself.
    Nightly,
}

/// A compiler and a linker that together make eBPF programs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    kind: Kind,
    bin: PathBuf,
    linker: PathBuf,
}

// === impl Kind ===

impl Kind {
    /// The kind that the environment asks for in [`CHOICE`], if it asks for one.
    pub fn chosen() -> Result<Option<Self>, Error> {
        match std::env::var_os(CHOICE) {
            None => Ok(None),
            Some(value) => Self::parse(&value).map(Some),
        }
    }

    /// The compiler to take: the one that [`CHOICE`] names, else Debian's, else nightly.
    ///
    /// Debian's comes first because it needs neither a nightly nor a `core` of its own.
    pub fn find() -> Result<Self, Error> {
        match Self::chosen()? {
            Some(kind) if kind.bin().is_some() => Ok(kind),
            Some(kind) => Err(Error::NotPresent(kind)),
            None => [Self::Debian, Self::Nightly]
                .into_iter()
                .find(|kind| kind.bin().is_some())
                .ok_or(Error::NoCompiler),
        }
    }

    fn parse(value: &OsString) -> Result<Self, Error> {
        match value.to_str() {
            Some("debian") => Ok(Self::Debian),
            Some("nightly") => Ok(Self::Nightly),
            _ => Err(Error::UnknownKind(value.clone())),
        }
    }

    /// The directory of cargo and rustc, if this compiler is here and can build eBPF.
    pub fn bin(self) -> Option<PathBuf> {
        match self {
            Self::Debian => probe::debian(),
            Self::Nightly => probe::nightly(),
        }
    }

    /// Whether this compiler comes with clippy.
    pub fn has_clippy(self) -> bool {
        self.bin().is_some_and(|bin| {
            ["cargo-clippy", "clippy-driver"]
                .iter()
                .all(|file| bin.join(file).is_file())
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Debian => "Debian's packages",
            Self::Nightly => "rustup's nightly",
        })
    }
}

// === impl Toolchain ===

impl Toolchain {
    /// Finds a compiler as [`Kind::find`] does, and bpf-linker.
    pub fn find() -> Result<Self, Error> {
        let kind = Kind::find()?;
        let bin = kind.bin().ok_or(Error::NotPresent(kind))?;
        let linker = bpf_linker().ok_or(Error::NoLinker)?;
        Ok(Self { kind, bin, linker })
    }

    /// Where the compiler comes from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Builds the package in `crate_dir` and returns the path of the program.
    ///
    /// The compiler's messages go to standard error. `target_dir` must not be the one
    /// of a cargo that waits for this call: it holds the lock on it.
    pub fn build(
        &self,
        crate_dir: &Path,
        target_dir: &Path,
        object: &str,
    ) -> Result<PathBuf, Error> {
        self.cargo("build", crate_dir, target_dir, &["--bin", object])?;
        let elf = target_dir.join(TARGET).join("release").join(object);
        if elf.is_file() {
            Ok(elf)
        } else {
            Err(Error::NoProgram(elf))
        }
    }

    /// Runs clippy over the package in `crate_dir` and denies warnings.
    pub fn clippy(&self, crate_dir: &Path, target_dir: &Path) -> Result<(), Error> {
        self.cargo("clippy", crate_dir, target_dir, &["--", "-D", "warnings"])
    }

    fn cargo(
        &self,
        verb: &'static str,
        crate_dir: &Path,
        target_dir: &Path,
        tail: &[&str],
    ) -> Result<(), Error> {
        let mut cargo = self.command(verb);
        cargo
            .current_dir(crate_dir)
            .arg(verb)
            .args(["--release", "--target", TARGET, "--target-dir"])
            .arg(target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags());
        if crate_dir.join("Cargo.lock").is_file() {
            cargo.arg("--locked");
        }
        if self.kind == Kind::Nightly {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo.args(tail);
        let failed = |cause| Error::Cargo {
            verb,
            dir: crate_dir.into(),
            kind: self.kind,
            cause,
        };
        match cargo.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(status.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The cargo of this toolchain, in an environment free of the calling cargo's.
    ///
    /// All programs are named by their paths, as PATH may lead to another toolchain's.
    fn command(&self, verb: &str) -> Command {
        // Cargo would prefer the clippy that rustup has put into cargo's bin directory.
        let program = if verb == "clippy" {
            "cargo-clippy"
        } else {
            "cargo"
        };
        let mut cargo = Command::new(self.bin.join(program));
        scrub(&mut cargo);
        cargo
            .env("CARGO", self.bin.join("cargo"))
            .env("RUSTC", self.bin.join("rustc"));
        if self.kind == Kind::Debian {
            // The BPF target is not among those that a stable compiler promises.
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    /// Flags in cargo's encoded form, which allows for blanks in the linker's path.
    fn rustflags(&self) -> OsString {
        let mut flags = OsString::from("-Clinker=");
        flags.push(&self.linker);
        // BTF describes the maps; v3 (kernel 5.12) has the fetching atomics.
        flags.push("\x1f-Clink-arg=--btf\x1f-Cdebuginfo=2\x1f-Ctarget-cpu=v3");
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_from_their_names() {
        assert!(matches!(Kind::parse(&"debian".into()), Ok(Kind::Debian)));
        assert!(matches!(Kind::parse(&"nightly".into()), Ok(Kind::Nightly)));
        assert!(matches!(
            Kind::parse(&"stable".into()),
            Err(Error::UnknownKind(_))
        ));
    }

    #[test]
    fn a_linker_with_a_blank_in_its_path_stays_one_flag() {
        let toolchain = Toolchain {
            kind: Kind::Debian,
            bin: "/usr/bin".into(),
            linker: "/home/a b/bpf-linker".into(),
        };
        let flags = toolchain.rustflags().into_string().expect("made of text");
        assert_eq!(
            flags.split('\x1f').next(),
            Some("-Clinker=/home/a b/bpf-linker")
        );
    }
}
