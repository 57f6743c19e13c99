//! What can be said about the testbed without booting it. Each piece counts as one test.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::host;
use crate::test::Count;

type Piece = (&'static str, fn() -> Result<()>);

const PIECES: [Piece; 3] = [
    ("the scripts please shellcheck", scripts),
    ("the Vagrantfile is valid, by whatever provider", vagrant),
    ("the service's file is valid", service),
];

pub(super) fn all() -> Count {
    let mut count = Count::default();
    for (name, piece) in PIECES {
        match piece() {
            Ok(()) => {
                println!("test {name} ... ok");
                count.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED");
                eprintln!("!!!! {name}: {error:#}");
                count.failed += 1;
            }
        }
    }
    count
}

fn scripts() -> Result<()> {
    let dir = host::root().join("vagrant/provision");
    let cannot_read = || format!("cannot read {}", dir.display());
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&dir).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        if path.extension().is_some_and(|end| end == "sh") {
            scripts.push(path);
        }
    }
    if scripts.is_empty() {
        bail!("there are none in {}", dir.display());
    }
    host::status(
        Command::new("shellcheck")
            .arg("--external-sources")
            .args(scripts),
    )
}

/// With each kind of cluster; what Vagrant keeps is kept below target/.
fn vagrant() -> Result<()> {
    for cluster in ["none", "k3s", "kubeadm"] {
        let mut vagrant = Command::new("vagrant");
        vagrant
            .args(["validate", "--ignore-provider"])
            .current_dir(host::root().join("vagrant"))
            .env("CLUSTER", cluster);
        host::status(&mut keeping(vagrant))?;
    }
    // Nor is it a Vagrantfile that takes anything.
    let mut wrong = Command::new("vagrant");
    wrong
        .args(["validate", "--ignore-provider"])
        .current_dir(host::root().join("vagrant"))
        .env("CLUSTER", "no-such");
    let output = keeping(wrong).output().context("cannot run vagrant")?;
    if output.status.success() {
        bail!("CLUSTER=no-such is taken for valid");
    }
    Ok(())
}

fn keeping(mut vagrant: Command) -> Command {
    let dir = host::target().join("xtask/vagrant");
    vagrant
        .env("VAGRANT_HOME", dir.join("home"))
        .env("VAGRANT_DOTFILE_PATH", dir.join("machines"))
        .env("VAGRANT_CHECKPOINT_DISABLE", "1");
    vagrant
}

/// Where the host has systemd's own tool; the guests load the file anyway.
fn service() -> Result<()> {
    let Some(analyze) = host::find("systemd-analyze") else {
        println!("     no systemd-analyze here: the machines tell");
        return Ok(());
    };
    let unit: PathBuf = host::root().join("lb-userspace/debian/naru.service");
    // The program that it names need not be installed here.
    let dir = env::temp_dir().join(format!("naru-unit-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let text =
        fs::read_to_string(&unit).with_context(|| format!("cannot read {}", unit.display()))?;
    let here = dir.join("naru.service");
    let outcome = fs::write(&here, text.replace("/usr/bin/naru", "/bin/true"))
        .with_context(|| format!("cannot write {}", here.display()))
        .and_then(|()| {
            let output = Command::new(analyze)
                .args(["verify", "--man=no"])
                .arg(&here)
                .output()
                .context("cannot run systemd-analyze")?;
            let text = String::from_utf8_lossy(&output.stderr);
            // It also speaks of other units, which are the host's affair.
            let ours: Vec<_> = text.lines().filter(|it| it.contains("naru")).collect();
            if !ours.is_empty() {
                bail!("{}", ours.join("\n"));
            }
            Ok(())
        });
    // What cannot be removed is a small file below /tmp.
    let _ = fs::remove_dir_all(&dir);
    outcome
}
