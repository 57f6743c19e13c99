//! Debian's and Ubuntu's packages.

use super::item::Step;
use crate::host::{self, Privilege};

/// Whether packages come from apt here.
pub(super) fn present() -> bool {
    host::find("apt-get").is_some()
}

/// Whether packages may be installed from here.
pub(super) fn usable() -> bool {
    present() && host::privilege() != Privilege::None
}

/// Whether apt knows all of these packages.
pub(super) fn knows(packages: &[&str]) -> bool {
    let mut args = vec!["show", "--no-all-versions"];
    args.extend(packages);
    host::succeeds("apt-cache", &args)
}

pub(super) fn update() -> Step {
    Step::new(&["apt-get", "update"]).by_root()
}

/// Only what is asked for: recommended packages would bring daemons and manuals.
pub(super) fn install(packages: &[&str]) -> Step {
    let mut words = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
    words.extend(packages);
    Step::new(&words)
        .by_root()
        .env("DEBIAN_FRONTEND", "noninteractive")
}
