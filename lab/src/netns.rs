//! A network namespace of a lab, and how to be in it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::error::{Error, Result};
use crate::tool::{feed, run, tool};

/// Where `ip netns` keeps its namespaces.
pub(crate) const DIR: &str = "/run/netns";

/// A network namespace, by its name for `ip netns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    pub(crate) fn new(name: String) -> Self {
        Self { name }
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIR).join(&self.name)
    }

    /// A command that will run in this network namespace, and only in that: mounts stay
    /// as they are, so bpffs and cgroups are seen (`ip netns exec` would hide them).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = tool("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command here to its end and gives back what it wrote to stdout.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: &[S]) -> Result<String> {
        run(self.command(program).args(args))
    }

    /// Runs a command here to its end, fed through stdin, and gives back what it wrote.
    pub fn feed<S: AsRef<OsStr>>(&self, program: &str, args: &[S], input: &str) -> Result<String> {
        feed(self.command(program).args(args), input)
    }

    /// Runs a closure on a thread of its own in this namespace: sockets that it makes
    /// are here, and stay here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.join().map(|()| work()));
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`enter`](Self::enter), without waiting for the end.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || namespace.join().map(|()| work()))
    }

    /// The MAC address of a device in here.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let found = self.enter(|| -> Result<Option<[u8; 6]>> {
            let all = nix::ifaddrs::getifaddrs()
                .map_err(Error::os(format!("devices of {}", self.name)))?;
            Ok(all
                .filter(|interface| interface.interface_name == device)
                .find_map(|interface| interface.address?.as_link_addr()?.addr()))
        })??;
        found.ok_or_else(|| Error::Topology(format!("{} has no device {device}", self.name)))
    }

    /// Sets a sysctl of this namespace, by its path below `/proc/sys/net`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/net/{key}");
                std::fs::write(&path, value)
                    .map_err(Error::io(format!("{path} = {value} in {}", self.name)))?;
            }
            Ok(())
        })?
    }

    /// Feeds lines to `ip` in this namespace; far quicker than a process a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        feed(tool("ip").args(["-n", &self.name, "-batch", "-"]), lines).map(drop)
    }

    /// Takes the calling thread into this namespace, for good.
    fn join(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).map_err(Error::io(path.display().to_string()))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .map_err(Error::os(format!("entering namespace {}", self.name)))
    }
}
