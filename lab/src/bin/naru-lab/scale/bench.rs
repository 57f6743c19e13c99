//! The program `naru-bench`, which makes packets and looks into maps.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use naru_lab::{Agent, NetNs};
use serde::Deserialize;

/// Where it is.
pub(super) struct Bench(PathBuf);

/// What an agent's maps hold.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Held {
    bytes: u64,
    flows: u64,
    replies: u64,
}

/// What a flood was.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Flood {
    pub(super) packets: f64,
    pub(super) seconds: f64,
}

// === impl Bench ===

impl Bench {
    pub(super) fn new(program: &Path) -> Self {
        Self(program.to_owned())
    }

    /// What a packet costs, as rows.
    pub(super) fn scale(&self, args: &[String]) -> anyhow::Result<Vec<serde_json::Value>> {
        let name = format!("naru-lab-scale-{}.json", std::process::id());
        let file = std::env::temp_dir().join(name);
        let mut command = Command::new(&self.0);
        command.arg("scale").args(args).arg("--json").arg(&file);
        // The same rows are told in another order here; what is under way is on stderr.
        let status = command.stdout(Stdio::null()).status();
        let status = status.with_context(|| self.0.display().to_string())?;
        let text = std::fs::read_to_string(&file);
        // Where there is none, the next line tells.
        let _ = std::fs::remove_file(&file);
        ensure!(status.success(), "naru-bench scale: {status}");
        let text = text.with_context(|| file.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What an agent's maps hold.
    pub(super) fn maps(&self, agent: &Agent) -> anyhow::Result<Held> {
        let mut command = Command::new(&self.0);
        command.arg("maps").arg("--pin-dir").arg(agent.pin_dir());
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| self.0.display().to_string())?;
        ensure!(
            output.status.success(),
            "naru-bench maps: {}",
            output.status
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Floods a service by a device of a namespace, to the flood's end.
    pub(super) fn flood(&self, from: &NetNs, args: [(&str, String); 5]) -> anyhow::Result<Flood> {
        let program = self.0.to_string_lossy();
        let mut words = vec!["flood".to_owned()];
        for (name, value) in args {
            words.extend([name.to_owned(), value]);
        }
        let text = from.run(&program, &words)?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }
}

// === impl Held ===

impl Held {
    /// Of all maps.
    pub(super) fn mib(self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }

    /// Records of flows, and of their replies.
    pub(super) fn records(self) -> f64 {
        (self.flows + self.replies) as f64
    }
}
