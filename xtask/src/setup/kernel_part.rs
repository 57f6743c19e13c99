//! What the kernel part is compiled, linked and linted with.

use std::path::Path;

use ebpf_toolchain::{Kind, NIGHTLY};

use super::{
    apt,
    item::{Remedy, Step},
    list::{rustup, version},
};

/// Matches LLVM 22, which both Debian's rustc-web and this linker are built with.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const DEBIAN_CLIPPY: &[&str] = &["rust-web-clippy"];
/// What the linker is built from; its C++ library comes with the compiler.
const LINKER_PARTS: &[&str] = &["llvm-22-dev", "libzstd-dev", "zlib1g-dev", "g++"];

/// The compiler to install for the kernel part.
fn wanted_kind() -> Kind {
    if let Ok(Some(kind)) = Kind::chosen() {
        return kind;
    }
    Kind::find().unwrap_or_else(|_| {
        if apt::usable() && apt::knows(DEBIAN_COMPILER) {
            Kind::Debian
        } else {
            Kind::Nightly
        }
    })
}

pub(super) fn ebpf_compiler() -> Option<String> {
    let kind = Kind::find().ok()?;
    let path = kind.bin()?.join("rustc");
    Some(format!("{kind}, {}", path.display()))
}

pub(super) fn get_ebpf_compiler() -> Remedy {
    match wanted_kind() {
        Kind::Debian => Remedy {
            packages: DEBIAN_COMPILER,
            ..Remedy::default()
        },
        Kind::Nightly => rustup(&[
            "toolchain",
            "install",
            NIGHTLY,
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]),
    }
}

pub(super) fn bpf_linker() -> Option<String> {
    let path = ebpf_toolchain::bpf_linker()?.display().to_string();
    // Running it also shows that the libraries that it was linked to are still there.
    let version = version(&path, &["--version"])?;
    let number = version.split_whitespace().last()?;
    (series(number)? >= series(BPF_LINKER)?).then(|| format!("{version}, {path}"))
}

/// The part of a version number within which nothing breaks: `0.13` of `0.13.2`.
pub(super) fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn get_bpf_linker() -> Remedy {
    let install = Step::new(&[
        "cargo",
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--locked",
        "--no-default-features",
        "--features",
        "llvm-22",
    ])
    .env("LLVM_PREFIX", LLVM)
    .env("LLVM_SYS_221_PREFIX", LLVM);
    // Without rights the lists of packages may be empty; then the names are a fair guess.
    let by_apt = if apt::usable() {
        apt::knows(LINKER_PARTS)
    } else {
        apt::present()
    };
    if Path::new(LLVM).join("bin/llvm-config").is_file() && !apt::usable() {
        Remedy::step(install)
    } else if by_apt {
        Remedy {
            packages: LINKER_PARTS,
            ..Remedy::step(install)
        }
    } else {
        Remedy::advice(&format!(
            "cargo binstall bpf-linker@{BPF_LINKER}
               # or install LLVM 22 with its headers, set LLVM_PREFIX to where it is, and
               cargo install bpf-linker --version {BPF_LINKER} --locked              --no-default-features --features llvm-22"
        ))
    }
}

pub(super) fn ebpf_clippy() -> Option<String> {
    let kind = Kind::find().ok()?;
    kind.has_clippy().then(|| kind.to_string())
}

pub(super) fn get_ebpf_clippy() -> Remedy {
    match wanted_kind() {
        Kind::Debian => Remedy {
            packages: DEBIAN_CLIPPY,
            ..Remedy::default()
        },
        Kind::Nightly => rustup(&["component", "add", "clippy", "--toolchain", NIGHTLY]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_series_of_the_linker_is_no_match() {
        assert!(series("0.12.9") < series("0.13.0"));
        assert!(series("0.13.4") >= series("0.13.0"));
        assert!(series("1.0.0") >= series("0.13.0"));
        assert_eq!(series("nightly"), None);
    }
}
