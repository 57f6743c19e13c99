//! The tier `vm`: the testbed of vagrant/ as virtual machines under software emulation.
//! Three nodes and a client boot Debian 12, are provisioned by the scripts that Vagrant
//! runs, and install the package; `tests/tests/vm` is what then happens on their LAN.
//!
//! It needs no rights on the host and no network: disk and kernel are downloaded once.

mod checks;
mod image;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    count::Tally,
    debian::{
        ramdisk::Ramdisk,
        series,
        store::{Kernel, Store},
    },
    kernel, tier,
};
use crate::{host, package, setup::Need};

/// What the set-up has to provide.
pub(super) const NEEDS: &[Need] = &[Need::Build, Need::Package, Need::Vm];
/// The test program.
pub(super) const PROGRAM: &str = "vm";

/// What it takes to mount the disk and the shared directories, to be commanded, and to
/// have network cards: in the machines nobody else looks for drivers.
const MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "ext4",
    "9pnet_virtio",
    "9p",
    "virtio_console",
];

/// Why this machine cannot run the tier, whatever is installed.
pub(super) fn obstacle() -> Option<&'static str> {
    kernel::obstacle()
}

/// Runs the tier. `tail` goes to the test program.
pub(super) fn run(tail: &[String]) -> Result<Tally> {
    let scripts = checks::all();
    let mut store = Store::open()?;
    let kernel = store.kernel(series::BOOKWORM)?;
    let image = image::image(&host::cache()?)?;
    let package = package::build()?;
    let dir = host::target().join("xtask/vm");
    let shared = share(&dir, &package)?;
    let ramdisk = ramdisk(&dir, &kernel)?;

    let mut test = host::cargo("test");
    test.args(["--release", "-p", "naru-tests", "--test", PROGRAM]);
    test.env("NARU_VM_KERNEL", kernel.image())
        .env("NARU_VM_MODULES", kernel.modules())
        .env("NARU_VM_RAMDISK", ramdisk)
        .env("NARU_VM_DISK", image)
        .env("NARU_VM_SHARED", shared)
        .env("NARU_VM_LOGS", dir);
    let mut tally = tier::cargo_test(&mut test, tail)?;
    tally.count += scripts;
    Ok(tally)
}

/// What the machines get to see below /vagrant, as the Vagrantfile puts it together.
fn share(dir: &Path, package: &Path) -> Result<PathBuf> {
    let shared = dir.join("shared");
    if shared.exists() {
        fs::remove_dir_all(&shared)
            .with_context(|| format!("cannot remove {}", shared.display()))?;
    }
    let vagrant = host::root().join("vagrant");
    for part in ["provision", "manifests"] {
        copy_all(&vagrant.join(part), &shared.join(part))?;
    }
    copy(
        &vagrant.join("topology.json"),
        &shared.join("topology.json"),
    )?;
    copy(package, &shared.join("naru.deb"))?;
    // No secret: nobody but these machines ever sees it.
    let key = shared.join("gossip.key");
    fs::write(&key, format!("{}\n", "6e617275".repeat(8)))
        .with_context(|| format!("cannot write {}", key.display()))?;
    Ok(shared)
}

/// Copies the files of a directory.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let cannot_read = || format!("cannot read {}", from.display());
    for entry in fs::read_dir(from).with_context(cannot_read)? {
        let entry = entry.with_context(cannot_read)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn ramdisk(dir: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let path = dir.join("ramdisk.cpio");
    let ramdisk = Ramdisk {
        init: include_str!("init.sh"),
        modules: &MODULES,
        files: &[
            ("channel.sh", include_str!("channel.sh")),
            ("channel.service", include_str!("channel.service")),
        ],
    };
    ramdisk.write(&path, kernel)?;
    Ok(path)
}
