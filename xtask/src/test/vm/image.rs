//! The disk of the testbed's machines: Debian 12 with systemd, built once and cached.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{Step, show},
};

/// What a box of Vagrant's has, as far as the testbed's scripts need it: they install
/// nothing where this is there, and the machines have no way out.
const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,iproute2,procps,python3,curl";
/// What mmdebstrap is told. It runs as root where this is root, else in a user namespace.
const RECIPE: [&str; 6] = [
    "--variant=apt",
    "--format=ext2",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    // Each machine gets its own.
    "--customize-hook=rm -f \"$1/etc/resolv.conf\" \"$1/etc/hostname\"",
];
const SUITE: &str = "bookworm";
/// Room on the disk; what is not used takes none on the host.
const SIZE: &str = "1500M";

/// The disk, from the cache where it was built by this recipe.
pub(super) fn image(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("machines");
    let path = dir.join(name());
    if path.is_file() {
        return Ok(path);
    }
    // Those of older recipes go.
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let part = dir.join("part.ext2");
    let file = part.display().to_string();
    let include = format!("--include={PACKAGES}");
    let mut words = vec!["timeout", "1200", "mmdebstrap", &include];
    words.extend(RECIPE);
    words.extend([SUITE, &file]);
    show("disk of Debian 12", &Step::new(&words))?;
    let resize = host::find("resize2fs").context("no resize2fs; `apt-get install e2fsprogs`")?;
    let resize = resize.display().to_string();
    show("its size", &Step::new(&[&resize, &file, SIZE]))?;
    fs::rename(&part, &path)
        .with_context(|| format!("cannot move {} to {}", part.display(), path.display()))?;
    Ok(path)
}

/// Another recipe has another name. The hash need not be the same everywhere: elsewhere
/// there is another cache.
fn name() -> String {
    let mut hasher = DefaultHasher::new();
    (PACKAGES, RECIPE, SUITE, SIZE).hash(&mut hasher);
    format!("{SUITE}-{:016x}.ext2", hasher.finish())
}
