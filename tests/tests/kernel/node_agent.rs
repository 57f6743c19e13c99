//! The real agent on the guest's devices.

use std::{
    fs::{self, File},
    ops::Deref,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    machine::{self, Machine, PATIENCE, binary},
    site,
};

const PINS: &str = "/sys/fs/bpf/naru-kernel";
const STATE: &str = "/run/naru-kernel";
const LOG: &str = "/run/naru-kernel.log";
const CONFIGURATION: &str = "/run/naru-kernel.yaml";
/// The cgroup whose processes are served at their sockets.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup/node";

/// Loading the programs takes long on an emulated processor: what can, shares an agent.
static RUNNING: Mutex<Option<NodeAgent>> = Mutex::new(None);

/// An agent; dropped, it ends, and its programs are taken off the devices.
pub(crate) struct NodeAgent {
    args: Vec<String>,
    process: Child,
}

/// The agent that runs. There is one at a time.
pub(crate) struct Running(MutexGuard<'static, Option<NodeAgent>>);

impl Deref for Running {
    type Target = NodeAgent;

    fn deref(&self) -> &NodeAgent {
        self.0.as_ref().expect("an agent")
    }
}

/// An agent on the card alone, with further arguments.
pub(crate) fn on_card(machine: &Machine, args: &[&str]) -> Running {
    let vip = site::CARD.vip;
    let mut all = vec!["--interface".to_owned(), machine.uplink.clone()];
    for vip in [format!("{vip}:80"), format!("{vip}:80/udp")] {
        all.extend(["--vip".to_owned(), vip]);
    }
    for (_, address) in site::CARD.servers {
        all.extend(["--backend".to_owned(), address.to_owned()]);
    }
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    with(all)
}

/// An agent on every device, for all sites and for the processes of the cgroup.
pub(crate) fn on_all(machine: &Machine) -> Running {
    fs::write(CONFIGURATION, site::configuration()).unwrap();
    fs::create_dir_all(CGROUP).unwrap();
    let mut args = vec!["--config", CONFIGURATION, "--cgroup", CGROUP];
    for name in [
        &machine.uplink,
        &machine.vlan,
        machine::BOND,
        machine::TUNNEL,
    ] {
        args.extend(["--interface", name]);
    }
    with(args.into_iter().map(Into::into).collect())
}

/// An agent with these arguments: the one that runs, where it has them, else a new one.
fn with(args: Vec<String>) -> Running {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if running.as_ref().is_none_or(|agent| agent.args != args) {
        if let Some(agent) = running.take() {
            agent.end();
        }
        *running = Some(NodeAgent::start(args));
    }
    Running(running)
}

/// Ends the agent that runs, if one does.
pub(crate) fn end() {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(agent) = running.take() {
        agent.end();
    }
}

// === impl NodeAgent ===

impl NodeAgent {
    /// Starts it, and waits until it answers for all addresses.
    fn start(args: Vec<String>) -> Self {
        fs::create_dir_all(STATE).unwrap();
        let log = File::create(LOG).unwrap();
        let process = naru()
            .arg("agent")
            .args(&args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut agent = Self { args, process };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let claimed = ask(&["status"]).map(|status| status["announced"].clone());
            let claimed = claimed.as_ref().and_then(Value::as_array);
            if claimed.is_some_and(|all| {
                !all.is_empty() && all.iter().all(|it| it["state"] == "answering")
            }) {
                return agent;
            }
            let ended = agent.process.try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended:\n{}", agent.log());
            let late = Instant::now() > deadline;
            assert!(!late, "the agent is not ready:\n{}", agent.log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn status(&self) -> Value {
        ask(&["status"]).unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    /// How it is attached to an interface.
    pub(crate) fn attachment(&self, interface: &str) -> Value {
        let status = self.status();
        let mut rows = status["attachments"].as_array().unwrap().iter();
        let row = rows.find(|row| row["interface"] == interface);
        row.unwrap_or_else(|| panic!("not on {interface}: {status}"))
            .clone()
    }

    /// How often a verdict was given at a hook.
    pub(crate) fn packets(&self, hook: &str, verdict: &str) -> u64 {
        let status = self.status();
        let rows = status["verdicts"].as_array().unwrap();
        rows.iter()
            .find(|row| row["hook"] == hook && row["verdict"] == verdict)
            .map_or(0, |row| row["packets"].as_u64().unwrap())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(LOG).unwrap_or_default()
    }

    /// Ends it and takes everything off the devices, which must succeed.
    fn end(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let output = naru().arg("detach").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "naru detach: {text}");
        assert!(!Path::new(PINS).exists(), "pins are left");
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = naru().arg("detach").output();
    }
}

fn naru() -> Command {
    let mut command = Command::new(binary("NARU_BIN"));
    command.args(["--pin-dir", PINS, "--state-dir", STATE]);
    command
}

fn ask(args: &[&str]) -> Option<Value> {
    let output = naru().args(args).args(["-o", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}
