//! The real agent on the guest's card.

use std::{
    fs::{self, File},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::machine::{Machine, PATIENCE, SERVERS, VIP, binary};

const PINS: &str = "/sys/fs/bpf/naru-kernel";
const STATE: &str = "/run/naru-kernel";
const LOG: &str = "/run/naru-kernel.log";

/// An agent; dropped, it ends, and its programs are taken off the card.
pub(crate) struct NodeAgent {
    process: Child,
}

// === impl NodeAgent ===

impl NodeAgent {
    /// Starts it with further arguments, and waits until it answers for the address.
    pub(crate) fn start(machine: &Machine, args: &[&str]) -> Self {
        fs::create_dir_all(STATE).unwrap();
        let log = File::create(LOG).unwrap();
        let mut command = naru();
        command.args(["agent", "--interface", &machine.uplink]);
        command.args(["--vip", &format!("{VIP}:80")]);
        command.args(["--vip", &format!("{VIP}:80/udp")]);
        for (_, address) in SERVERS {
            command.args(["--backend", address]);
        }
        let process = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut agent = Self { process };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask(&["status"]);
            if answer.is_some_and(|it| it["announced"][0]["state"] == "answering") {
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

    /// Ends it and takes everything off the card, which must succeed.
    pub(crate) fn end(mut self) {
        let output = self.take_away();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "naru detach: {text}");
    }

    fn take_away(&mut self) -> Output {
        let _ = self.process.kill();
        let _ = self.process.wait();
        naru().arg("detach").output().unwrap()
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        self.take_away();
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
