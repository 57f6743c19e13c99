//! The directories of an agent: commands find it by them.

use std::path::{Path, PathBuf};

use crate::{agent::DEFAULT_STATE_DIR, control::DEFAULT_RUN_DIR, datapath::DEFAULT_PIN_DIR};

/// Where the agent keeps what.
#[derive(Debug, clap::Args)]
pub(super) struct Dirs {
    /// Directory of what outlives a reboot, such as who is drained [default: /var/lib/naru]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "NARU_STATE_DIR",
        hide_env = true
    )]
    state_dir: Option<PathBuf>,
    /// Directory of the agent's control socket [default: the --state-dir where one is given, else
    /// /run/naru]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "NARU_RUN_DIR",
        hide_env = true
    )]
    run_dir: Option<PathBuf>,
    /// Directory on a BPF file system where programs and maps are pinned
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "NARU_PIN_DIR",
        hide_env = true,
        default_value = DEFAULT_PIN_DIR
    )]
    pub(super) pin_dir: PathBuf,
}

// === impl Dirs ===

impl Dirs {
    pub(super) fn state_dir(&self) -> &Path {
        self.state_dir
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_STATE_DIR))
    }

    /// An agent with a state directory of its own has its socket there too, so that one
    /// flag is enough to keep several apart.
    pub(super) fn run_dir(&self) -> &Path {
        let given = self.run_dir.as_deref().or(self.state_dir.as_deref());
        given.unwrap_or(Path::new(DEFAULT_RUN_DIR))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        dirs: Dirs,
    }

    fn dirs(args: &[&str]) -> (PathBuf, PathBuf) {
        let args = ["naru"].iter().chain(args);
        let dirs = Probe::try_parse_from(args).unwrap().dirs;
        (dirs.state_dir().to_owned(), dirs.run_dir().to_owned())
    }

    #[test]
    fn the_socket_follows_the_state_where_that_is_given() {
        let places = |state: &str, run: &str| (PathBuf::from(state), PathBuf::from(run));
        assert_eq!(dirs(&[]), places("/var/lib/naru", "/run/naru"));
        assert_eq!(dirs(&["--state-dir", "/a"]), places("/a", "/a"));
        assert_eq!(dirs(&["--run-dir", "/b"]), places("/var/lib/naru", "/b"));
        let both = ["--state-dir", "/a", "--run-dir", "/b"];
        assert_eq!(dirs(&both), places("/a", "/b"));
    }
}
