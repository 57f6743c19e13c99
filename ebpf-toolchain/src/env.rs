//! Keeps the settings of one cargo out of another.

use std::{ffi::OsStr, process::Command};

/// Settings of cargo that are the user's rather than those of the cargo that calls:
/// where packages are kept, and how they are fetched.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
];

const DROPPED: [&str; 5] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];

/// Removes from `command` what a calling cargo or rustup has set for its own compiler.
///
/// Without it, a build inside of a build script would take the outer toolchain, its
/// flags and its target directory, or would wait for a lock that the outer one holds.
pub fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name) {
            command.env_remove(name);
        }
    }
}

fn is_foreign(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    // The outer toolchain's libraries; another compiler has its own.
    if name == "LD_LIBRARY_PATH" {
        return true;
    }
    DROPPED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_outer_cargo_sets_is_foreign_and_what_the_user_sets_is_not() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_foreign(name.as_ref()), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "RUSTUP_HOME",
            "PATH",
            "HOME",
        ] {
            assert!(!is_foreign(name.as_ref()), "{name}");
        }
    }
}
