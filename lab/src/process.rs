//! Other people's servers, on a machine of the lab.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::netns::NetNs;
use crate::tool::not_started;

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl NetNs {
    /// Starts a server here that stays in the foreground; what it says goes to `log`.
    pub fn start<S: AsRef<OsStr>>(&self, program: &str, args: &[S], log: &Path) -> Result<Process> {
        let _gate = interrupt::gate();
        let failed = || Error::io(log.display().to_string());
        let file = File::create(log).map_err(failed())?;
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed())?)
            .stderr(file)
            // Ctrl-C is for the lab, which ends what it has started in order.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| not_started(&command, error))?;
        Ok(Process(child))
    }
}

// === impl Process ===

impl Process {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The namespace's clean-up ends what is left in any case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
