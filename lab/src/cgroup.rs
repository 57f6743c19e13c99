//! A cgroup of a lab's: the processes of one node, which its agent serves at their sockets.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    tool::run,
};

/// A cgroup. It is removed with its lab.
#[derive(Clone, Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one below the root of cgroup2.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let root = root()?
            .ok_or_else(|| Error::Topology("no cgroup2 file system is mounted".to_owned()))?;
        let path = root.join(name);
        fs::create_dir(&path).map_err(Error::io(path.display().to_string()))?;
        Ok(Self(path))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes a process in.
    pub fn take(&self, pid: u32) -> Result<()> {
        let file = self.procs();
        fs::write(&file, pid.to_string()).map_err(Error::io(file.display().to_string()))
    }

    /// Has a shell run these lines in it; gives what they print.
    pub(crate) fn run(&self, mut shell: Command, lines: &str) -> Result<String> {
        let all = format!("echo $$ > {}\n{lines}", self.procs().display());
        run(shell.args(["-ec", &all]))
    }

    fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

/// Where cgroup2 is mounted, if it is.
pub(crate) fn root() -> Result<Option<PathBuf>> {
    const MOUNTS: &str = "/proc/mounts";
    let mounts = fs::read_to_string(MOUNTS).map_err(Error::io(MOUNTS))?;
    let mut fields = mounts.lines().map(|line| line.split_whitespace().skip(1));
    let found = fields.find_map(|mut it| {
        let place = it.next()?;
        (it.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    Ok(found)
}
