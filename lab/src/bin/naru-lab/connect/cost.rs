//! Processor time of all that takes part in a request: client, pods, proxy, and the kernel's
//! threads for what comes off the wire.
//!
//! Most of the kernel's work for a packet is done, and counted, in the process that sends it.
//! Rates suffer from whatever else the machine does; this does so far less.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Where the counting of one turn began.
pub(super) struct Meter {
    servers: Vec<u32>,
    began: Duration,
}

// === impl Meter ===

impl Meter {
    /// Begins to count, with these processes as the servers.
    pub(super) fn start(servers: Vec<u32>) -> anyhow::Result<Self> {
        let mut servers = servers;
        servers.extend(kernel_threads()?);
        let began = used(&servers)?;
        Ok(Self { servers, began })
    }

    /// What was used since. The client has to have ended by now.
    pub(super) fn stop(self) -> anyhow::Result<Duration> {
        Ok(used(&self.servers)?.saturating_sub(self.began))
    }
}

/// Processor time that these processes, with threads of theirs that have ended, and all children
/// that have ended have used so far.
fn used(servers: &[u32]) -> anyhow::Result<Duration> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let mut sum = time(children.user_time()) + time(children.system_time());
    for server in servers {
        let pid = Pid::from_raw((*server).try_into().context("a process id")?);
        let used = clock_getcpuclockid(pid)
            .and_then(clock_gettime)
            .with_context(|| format!("process {server}: its processor time"))?;
        sum += Duration::from(used);
    }
    Ok(sum)
}

fn time(value: TimeVal) -> Duration {
    let seconds = Duration::from_secs(value.tv_sec().unsigned_abs());
    seconds + Duration::from_micros(value.tv_usec().unsigned_abs())
}

/// `ksoftirqd`, one a core.
fn kernel_threads() -> anyhow::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry.context("/proc")?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        // Whoever ends meanwhile is none of them.
        let called = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if called.starts_with("ksoftirqd/") {
            threads.push(pid);
        }
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    /// Keeps the processor busy for 50 ms.
    fn work() {
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            std::hint::black_box(until);
        }
    }

    #[test]
    fn a_process_that_works_is_charged() {
        let meter = Meter::start(vec![std::process::id()]).unwrap();
        work();
        assert!(meter.stop().unwrap() > Duration::from_millis(1));
    }

    #[test]
    fn a_thread_that_has_ended_still_counts() {
        let meter = Meter::start(vec![std::process::id()]).unwrap();
        std::thread::spawn(work).join().unwrap();
        assert!(meter.stop().unwrap() > Duration::from_millis(1));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let error = Meter::start(vec![child.id()]).err().unwrap();
        assert!(format!("{error:#}").contains(&format!("process {}", child.id())));
    }
}
