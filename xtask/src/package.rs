//! `cargo xtask package`: the Debian package of the agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    host,
    setup::{self, Need},
};

pub(crate) const HELP: &str = "\
Builds the agent and packs it with its systemd service, completions and documentation:
target/debian/naru_VERSION_amd64.deb. It runs where Debian is as new as here, or newer.
docs/install.md tells how to install it; vagrant/ installs it in virtual machines.

Example:
  cargo xtask package && sudo apt-get install ./target/debian/naru_*.deb";

/// What the set-up has to provide.
pub(crate) const NEEDS: &[Need] = &[Need::Build, Need::Package];

/// Where the package's manifest looks for completions, below where cargo builds to.
const COMPLETIONS: &str = "release/completions";
/// The shells, and the file of each.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "naru.bash"),
    ("zsh", "_naru"),
    ("fish", "naru.fish"),
];

pub(crate) fn run() -> Result<ExitCode> {
    setup::quietly(NEEDS)?.demand(NEEDS)?;
    println!("package: {}", build()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the package and gives its path.
pub(crate) fn build() -> Result<PathBuf> {
    // With the lab, as the tests do, so that all share one build.
    host::status(host::cargo("build").args(["--release", "-p", "naru", "-p", "naru-lab"]))?;
    complete(&host::target().join("release/naru"))?;
    let output = host::cargo("deb")
        .args(["--package", "naru", "--no-build"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run `cargo deb`")?;
    if !output.status.success() {
        bail!("`cargo deb` failed: {}", output.status);
    }
    // The last line that it prints is the path.
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().last().unwrap_or_default().trim();
    let path = host::root().join(path);
    if !path.is_file() {
        bail!("`cargo deb` made no package: it printed `{}`", text.trim());
    }
    Ok(path)
}

/// Writes the completions, by the program itself.
fn complete(naru: &Path) -> Result<()> {
    let dir = host::target().join(COMPLETIONS);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (shell, file) in SHELLS {
        let program = naru.display().to_string();
        let text = host::output(&program, &["completions", shell])
            .with_context(|| format!("{program} prints no completions for {shell}"))?;
        let path = dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
