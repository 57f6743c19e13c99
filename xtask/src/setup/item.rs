//! What an item of the set-up is.

use std::{fmt, process::Command};

use super::apt;
use crate::host::{self, Privilege};

/// For what an item is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the agent with the kernel part in it.
    Build,
    /// Running the lab and loading programs into the kernel.
    Lab,
    /// Formatting and clippy.
    Style,
    /// The other checks of the sources.
    Lint,
    /// Running the fuzz targets.
    Fuzz,
    /// Running tests on kernels of several series.
    Kernel,
    /// Building the Debian package.
    Package,
    /// Building the container image.
    Image,
    /// Running the testbed as virtual machines.
    Vm,
    /// Measuring beside other balancers.
    Bench,
    /// Building a control plane.
    ControlPlane,
}

/// Something that has to be on the machine.
pub(crate) struct Item {
    pub(super) name: &'static str,
    /// Completes "needed to …".
    pub(super) purpose: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) probe: Probe,
    pub(super) get: Get,
}

/// How to see whether an item is there. Must be quick and change nothing.
pub(super) enum Probe {
    /// It is there if this program is.
    Program(&'static str),
    /// Says what was found, if it is there.
    Call(fn() -> Option<String>),
}

/// Where a remedy comes from. Asked only if the item is missing.
pub(super) enum Get {
    /// These packages.
    Packages(&'static [&'static str]),
    /// Commands that have nothing to do with packages.
    Steps(fn() -> Remedy),
    /// One way or another, depending on what apt knows.
    Choice(fn() -> Remedy),
}

/// How an item comes to the machine: packages first, then steps in order.
#[derive(Default)]
pub(crate) struct Remedy {
    pub(super) packages: &'static [&'static str],
    pub(super) steps: Vec<Step>,
    /// What only the user can do, in place of the two.
    pub(super) advice: Option<String>,
}

/// One command: run where that is allowed, else printed.
#[derive(Clone, Default)]
pub(crate) struct Step {
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) words: Vec<String>,
    pub(super) as_root: bool,
}

// === impl Need ===

impl Need {
    pub(crate) const ALL: [Self; 11] = [
        Self::Build,
        Self::Lab,
        Self::Style,
        Self::Lint,
        Self::Fuzz,
        Self::Kernel,
        Self::Package,
        Self::Image,
        Self::Vm,
        Self::Bench,
        Self::ControlPlane,
    ];
}

// === impl Item ===

impl Item {
    pub(super) fn serves(&self, needs: &[Need]) -> bool {
        self.needs.iter().any(|need| needs.contains(need))
    }

    pub(super) fn found(&self) -> Option<String> {
        match self.probe {
            Probe::Program(name) => host::find(name).map(|path| path.display().to_string()),
            Probe::Call(probe) => probe(),
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self.get {
            Get::Packages(packages) => Remedy {
                packages,
                ..Remedy::default()
            },
            Get::Steps(remedy) | Get::Choice(remedy) => remedy(),
        }
    }

    pub(super) fn may_use_apt(&self) -> bool {
        !matches!(self.get, Get::Steps(_))
    }
}

// === impl Remedy ===

impl Remedy {
    pub(super) fn step(step: Step) -> Self {
        Self {
            steps: vec![step],
            ..Self::default()
        }
    }

    pub(super) fn advice(text: &str) -> Self {
        Self {
            advice: Some(text.into()),
            ..Self::default()
        }
    }

    /// Whether all of it can be done from here.
    pub(super) fn is_allowed(&self) -> bool {
        let as_root = self.steps.iter().any(|step| step.as_root);
        self.advice.is_none()
            && (self.packages.is_empty() || apt::usable())
            && (!as_root || host::privilege() != Privilege::None)
    }

    /// The commands for the user to type.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.packages.is_empty() {
            if !apt::present() {
                lines.push("# with your system's package manager; Debian names these:".into());
            }
            lines.push(apt::update().to_string());
            lines.push(apt::install(self.packages).to_string());
        }
        lines.extend(self.steps.iter().map(Step::to_string));
        lines.extend(self.advice.clone());
        lines
    }
}

// === impl Step ===

impl Step {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self {
            words: words.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    pub(super) fn by_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// The command, through sudo where it needs root and this is not root.
    pub(crate) fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = if self.as_root && !host::is_root() {
            // Not -E: sudo may refuse that, and packages need none of our environment.
            let mut sudo = Command::new("sudo");
            sudo.arg("env").args(
                self.env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            );
            sudo
        } else {
            let mut command = Command::new(words.next().map_or("true", String::as_str));
            command.envs(self.env.iter().map(|(name, value)| (name, value)));
            command
        };
        command.args(words).current_dir(host::root());
        command
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_root && !host::is_root() {
            f.write_str("sudo ")?;
        }
        for (name, value) in &self.env {
            write!(f, "{name}={value} ")?;
        }
        f.write_str(&self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_printed_as_one_types_it() {
        let step = Step::new(&["apt-get", "install", "wrk"])
            .by_root()
            .env("A", "b");
        let sudo = if host::is_root() { "" } else { "sudo " };
        assert_eq!(step.to_string(), format!("{sudo}A=b apt-get install wrk"));
    }

    #[test]
    fn advice_is_never_carried_out() {
        assert!(!Remedy::advice("install rustup").is_allowed());
        assert_eq!(Remedy::advice("install rustup").lines(), ["install rustup"]);
    }
}
