//! The real agent, on a node of the lab.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::interrupt;
use crate::manifests::Manifests;
use crate::netns::NetNs;
use crate::pod::signal;
use crate::tool::{not_started, run};
use crate::topology::UPLINK;

/// How long the agent may take to be ready: seconds of one core, which others may want.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(15);

/// How to run the agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    naru: PathBuf,
    manifests: Option<PathBuf>,
    interfaces: Vec<String>,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl AgentOptions {
    /// The agent of this binary, natively on the node's uplink: the lab's cables carry
    /// whole packets, which the agent does not expect of virtual ones.
    pub fn new(naru: impl Into<PathBuf>) -> Self {
        Self {
            naru: naru.into(),
            manifests: None,
            interfaces: Vec::new(),
            args: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Reads this directory.
    #[must_use]
    pub fn manifests(mut self, manifests: &Manifests) -> Self {
        self.manifests = Some(manifests.dir().to_owned());
        self
    }

    /// On this interface, in place of the uplink, and as the agent likes it; may be said more than once.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.interfaces.push(name.to_owned());
        self
    }

    /// A further argument of `naru agent`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of the agent's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Further arguments of `naru agent`.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// An agent on a node. Dropping it stops it and detaches the datapath.
#[derive(Debug)]
pub struct Agent {
    node: String,
    namespace: NetNs,
    pins: PathBuf,
    state: PathBuf,
    options: AgentOptions,
    process: Mutex<Option<Child>>,
}

impl Agent {
    pub(crate) fn start(
        node: &str,
        namespace: NetNs,
        pins: PathBuf,
        state: PathBuf,
        options: AgentOptions,
    ) -> Result<Self> {
        fs::create_dir_all(&state).map_err(Error::io(state.display().to_string()))?;
        let process = Mutex::new(None);
        let agent = Self {
            node: node.to_owned(),
            namespace,
            pins,
            state,
            options,
            process,
        };
        agent.launch()?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Where its programs, links and maps are pinned.
    pub fn pin_dir(&self) -> &Path {
        &self.pins
    }

    /// Where its socket and its state are.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Its number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.is_running()
            .then(|| self.process().as_ref().map(Child::id))
            .flatten()
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.process()
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it at once: SIGKILL. The datapath stays.
    pub fn kill(&self) -> Result<()> {
        let Some(mut child) = self.process().take() else {
            return Ok(());
        };
        child
            .kill()
            .and_then(|()| child.wait())
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// Asks it to end, and waits for that: SIGTERM. The datapath stays.
    pub fn stop(&self) -> Result<()> {
        if let Some(child) = self.process().as_ref() {
            signal(child, Signal::SIGTERM).map_err(|errno| self.error(errno))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            if Instant::now() > deadline {
                self.kill()?;
                return Err(self.error("did not end 15 s after SIGTERM"));
            }
            sleep(Duration::from_millis(10));
        }
        *self.process() = None;
        Ok(())
    }

    /// Holds it where it is, as a machine that hangs would: SIGSTOP.
    pub fn pause(&self) -> Result<()> {
        self.send(Signal::SIGSTOP)
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.send(Signal::SIGCONT)
    }

    fn send(&self, which: Signal) -> Result<()> {
        match self.process().as_ref() {
            Some(child) => signal(child, which).map_err(|errno| self.error(errno)),
            None => Err(self.error("does not run")),
        }
    }

    /// Starts it again, after stopping it where it runs; returns when it is ready.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.launch()?;
        self.wait_ready()
    }

    /// Starts it with other options, as an upgrade does; returns when it is ready.
    pub fn restart_with(&mut self, options: AgentOptions) -> Result<()> {
        self.stop()?;
        self.options = options;
        self.launch()?;
        self.wait_ready()
    }

    /// A `naru` command on the agent's node that reaches this agent.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.namespace.command(&self.options.naru);
        command.args(args);
        command
            .arg("--pin-dir")
            .arg(&self.pins)
            .arg("--state-dir")
            .arg(&self.state);
        command
    }

    /// What such a command says, as `agent.cli(&["services"])`.
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// What such a command says with `-o json`.
    pub fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.cli(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .map_err(|error| self.error(format!("`naru {}`: {error} in {text}", args.join(" "))))
    }

    /// Stops it and takes its programs, links, maps and pins away.
    pub fn detach(&self) -> Result<()> {
        self.stop()?;
        self.cli(&["detach"]).map(drop)
    }

    /// Takes its programs, links, maps and pins away, as a machine without power forgets
    /// them. It must not run.
    pub fn forget(&self) -> Result<()> {
        self.cli(&["detach"]).map(drop)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where it logs to.
    pub fn log_file(&self) -> PathBuf {
        self.state.with_extension("agent.log")
    }

    fn launch(&self) -> Result<()> {
        let _gate = interrupt::gate();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.map_err(|error| self.error(error))?;
        let mut command = self.command(&["agent", "--node-name", &self.node]);
        if let Some(dir) = &self.options.manifests {
            command.arg("--manifests").arg(dir);
        }
        for interface in &self.options.interfaces {
            command.args(["--interface", interface]);
        }
        if self.options.interfaces.is_empty() {
            command.args(["--interface", UPLINK]);
            if !self.options.args.iter().any(|arg| arg == "--attach") {
                command.args(["--attach", "native"]);
            }
        }
        command.args(&self.options.args).stdin(Stdio::null());
        command.envs(self.options.environment.iter().cloned());
        command
            .stdout(log.try_clone().map_err(|error| self.error(error))?)
            .stderr(log);
        // Ctrl-C is for the lab, which ends its agents in order.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|error| not_started(&command, error))?;
        *self.process() = Some(child);
        Ok(())
    }

    /// Ready is when the agent itself says so.
    fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let answer = self.json(&["status"]);
            let Err(error) = answer else { return Ok(()) };
            if !self.is_running() {
                return Err(self.error(format!("ended; its log:\n{}", self.log_tail())));
            }
            if Instant::now() > deadline {
                let log = self.log_tail();
                return Err(self.error(format!("not ready in 60 s: {error}; its log:\n{log}")));
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, reason: impl ToString) -> Error {
        Error::Agent {
            node: self.node.clone(),
            reason: reason.to_string(),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What this cannot remove goes with the lab.
        let _ = self.kill();
        if self.pins.exists() {
            let _ = self.cli(&["detach"]);
        }
    }
}
