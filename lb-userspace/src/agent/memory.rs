//! What the agent remembers over its own restart and the machine's: who was drained by
//! hand, who was healthy, who was given which address.
//!
//! One small file of JSON in the state directory, replaced as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::drain::Target;
use crate::{desired::ServiceName, ipam::Ledger};

/// Where the state directory is unless told otherwise: it outlives a reboot.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/naru";
/// Name of the file in the state directory.
const FILE: &str = "state.json";

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// Backends that `naru drain` took out.
    pub(super) drained: BTreeSet<Target>,
    /// What was found of those that are checked: after a restart nobody is taken for
    /// healthy, or for new, who is not.
    pub(super) health: Vec<Remembered>,
    /// Where other nodes were met by gossip, by name.
    #[serde(rename = "met")]
    pub(super) peers: BTreeMap<String, SocketAddr>,
    /// What was given out of pools, so that no address moves because of a restart.
    pub(super) addresses: Ledger,
}

/// An endpoint of a service, and whether it was healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) service: ServiceName,
    pub(super) endpoint: SocketAddr,
    pub(super) healthy: bool,
}

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(super) struct MemoryError {
    path: PathBuf,
    source: io::Error,
}

impl Memory {
    /// Reads what the last agent left; nothing where there was none.
    pub(super) fn load(state_dir: &Path) -> Result<Self, MemoryError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| MemoryError {
                path,
                source: error.into(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(MemoryError { path, source }),
        }
    }

    /// Replaces the file: who reads it finds the old text or the new one, whatever
    /// happens meanwhile.
    pub(super) fn save(&self, state_dir: &Path) -> Result<(), MemoryError> {
        let path = state_dir.join(FILE);
        let draft = state_dir.join(format!(".{FILE}.new"));
        let write = || -> io::Result<()> {
            // For root alone, as it names pods.
            let mut dir = DirBuilder::new();
            dir.recursive(true).mode(0o700).create(state_dir)?;
            let mut file = File::create(&draft)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| MemoryError { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_broken_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        let load = || Memory::load(dir.path());
        assert_eq!(load().expect("nothing yet"), Memory::default());
        let drained = ["10.0.0.1:80", "10.0.0.2", "default/web-0"];
        let memory = Memory {
            drained: drained.map(|text| text.parse().expect("target")).into(),
            health: vec![Remembered {
                service: ServiceName("-/web:80".to_owned()),
                endpoint: "10.0.0.1:80".parse().expect("address"),
                healthy: false,
            }],
            peers: BTreeMap::from([(
                "nuc02".to_owned(),
                "192.168.56.102:7947".parse().expect("address"),
            )]),
            addresses: serde_json::from_str(
                r#"{"clock": 2, "entries": {"default/web": {"generation": 1, "stamp": 2,
                    "addresses": ["10.0.0.9"], "pool": "first", "released": false}}}"#,
            )
            .expect("ledger"),
        };
        memory.save(dir.path()).expect("saved");
        let new = dir.path().join("a/b");
        memory
            .save(&new)
            .expect("saved where there was no directory");
        assert_eq!(Memory::load(&new).expect("there"), memory);
        memory.save(dir.path()).expect("saved again");
        assert_eq!(load().expect("there"), memory);
        // Of another version, which knows less or more.
        fs::write(
            dir.path().join(FILE),
            r#"{"peers": [], "drained": ["10.0.0.2"]}"#,
        )
        .expect("write");
        assert_eq!(load().expect("read").drained.len(), 1);
        fs::write(dir.path().join(FILE), "{").expect("write");
        let error = load().expect_err("broken").to_string();
        assert!(error.contains("state.json: "), "{error}");
    }
}
