//! What there is to know of a lab that is up: where it is, and whether it is kept.
//!
//! `/run/naru-lab/up-NAME.json` is the record, `up-NAME.lock` is locked by the keeper for
//! as long as it lives, `up-NAME.log` is what it says.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::kept::Kept;

const DIR: &str = "/run/naru-lab";

/// A lab that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// What people call it.
    pub(super) name: String,
    /// What it is called in the system.
    pub(super) id: String,
    /// Where its keeper listens.
    pub(super) socket: PathBuf,
    /// Where `naru` is, and `kubectl`.
    pub(super) program_dirs: Vec<PathBuf>,
    /// How to reach the API server of a cluster, from its LAN.
    pub(super) kubeconfig: Option<PathBuf>,
    /// An address that is served, and its port.
    pub(super) served: Vec<String>,
    /// Nodes, clients and pods.
    pub(super) machines: Vec<Machine>,
}

/// A node, a client or a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) agent: Option<AgentDirs>,
    pub(super) log: Option<PathBuf>,
}

/// Where a node's agent has what it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AgentDirs {
    pub(super) state_dir: PathBuf,
    pub(super) pin_dir: PathBuf,
}

// === impl Record ===

impl Record {
    /// The record of a cluster that is there.
    pub(super) fn of(name: &str, naru: &Path, kept: &dyn Kept) -> anyhow::Result<Self> {
        let (lab, topology) = (kept.lab(), kept.lab().topology());
        let machine = |name: &str| Machine {
            name: name.to_owned(),
            namespace: lab.node(name).name().to_owned(),
            agent: None,
            log: None,
        };
        let mut machines = Vec::new();
        for node in &topology.nodes {
            let agent = kept.agent(&node.name)?;
            machines.push(Machine {
                agent: Some(AgentDirs {
                    state_dir: agent.state_dir().to_owned(),
                    pin_dir: agent.pin_dir().to_owned(),
                }),
                log: Some(agent.log_file()),
                ..machine(&node.name)
            });
        }
        machines.extend(topology.clients.iter().map(|it| machine(&it.name)));
        machines.extend(topology.pods.iter().map(|it| Machine {
            log: Some(lab.dir().join(format!("{}.log", it.name))),
            ..machine(&it.name)
        }));
        let programs = naru.parent().unwrap_or(Path::new("/")).to_owned();
        let (kubeconfig, more) = kept.kubernetes().unzip();
        Ok(Self {
            name: name.to_owned(),
            id: lab.id().to_owned(),
            socket: lab.dir().join("keeper.sock"),
            program_dirs: [programs].into_iter().chain(more).collect(),
            kubeconfig,
            served: kept.served(),
            machines,
        })
    }

    /// The lab of this name, or the only one.
    pub(super) fn find(name: Option<&str>) -> anyhow::Result<Self> {
        let none = || anyhow!("no lab is up: `cargo xtask lab up nuc` makes one");
        if let Some(name) = name {
            return Self::read(name)?.ok_or_else(none);
        }
        let mut all = Vec::new();
        for name in ["nuc", "vxlan"] {
            all.extend(Self::read(name)?);
        }
        match all.len() {
            0 => Err(none()),
            1 => Ok(all.remove(0)),
            _ => bail!("two labs are up: say which with --lab NAME"),
        }
    }

    /// The lab of this name, where one is up.
    pub(super) fn read(name: &str) -> anyhow::Result<Option<Self>> {
        let path = file(name, "json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged: remove it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Makes it known, whole or not at all.
    pub(super) fn publish(&self) -> anyhow::Result<()> {
        let (path, draft) = (file(&self.name, "json"), file(&self.name, "draft"));
        let text = serde_json::to_string_pretty(self)?;
        let mut file = create(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, &path).with_context(|| path.display().to_string())
    }

    /// Whether its keeper lives.
    pub(super) fn is_kept(&self) -> anyhow::Result<bool> {
        Ok(lock(&self.name)?.is_none())
    }

    /// Forgets it.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        for what in ["json", "lock", "log"] {
            let path = file(&self.name, what);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A machine, by its name.
    pub(super) fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        let known = || {
            let names = self.machines.iter().map(|it| it.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let found = self.machines.iter().find(|it| it.name == name);
        found.with_context(|| format!("{name} is not in lab {}: {}", self.name, known()))
    }
}

/// The keeper's lock, where nobody has it.
pub(super) fn lock(name: &str) -> anyhow::Result<Option<Flock<File>>> {
    let path = file(name, "lock");
    let file = create(&path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| path.display().to_string()),
    }
}

/// Where the keeper of a lab says what happens.
pub(super) fn log(name: &str) -> PathBuf {
    file(name, "log")
}

/// Makes a file here, empty.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(DIR)
        .and_then(|()| File::create(path))
        .with_context(|| format!("{}: a lab needs root", path.display()))
}

fn file(name: &str, what: &str) -> PathBuf {
    // No lab's id begins so: sweeping leaves these alone.
    Path::new(DIR).join(format!("up-{name}.{what}"))
}
