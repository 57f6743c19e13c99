//! The kernel side: programs, maps and links. The only module that speaks to BPF.
//!
//! Everything is pinned below [`Options::pin_dir`] and outlives the process: maps in
//! `v<ABI>/`, links in `links/`. Opening takes over what is there, so a restart is an
//! ordinary reconcile, and an upgrade replaces programs under live links.

mod apply;
mod attach;
mod claims;
mod clients;
mod difference;
mod explain;
mod filter;
mod generations;
pub mod heap;
mod hops;
mod load;
mod preflight;
mod read;
mod records;
mod socket;
mod stranded;
mod sweep;
mod tc;
mod unpin;
mod words;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_common::{Backend, Flow, Protocol, Tuple};
use nix::fcntl::{Flock, FlockArg};

pub use self::{
    apply::Applied,
    attach::{AttachMode, Attachment},
    claims::Lease,
    explain::{Explanation, Probe, TestFrame},
    generations::Unrecorded,
    load::Datapath,
    preflight::preflight,
    read::FlowEntry,
    records::{Record, Records},
    stranded::Stranded,
    sweep::{Sweeper, Swept},
    tc::{TcKind, TcMode},
};

/// Where BPF objects are pinned unless told otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/naru";

/// How long flows without a record keep a backend that their slot names no more: longer than
/// the keep-alive timeouts of common servers and clients.
pub const DEFAULT_DRAIN_WINDOW: Duration = Duration::from_secs(300);

/// What is decided when the programs are loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system for maps and links.
    pub pin_dir: PathBuf,
    /// Capacity of the flow tables. Applies when they are created; existing ones keep theirs.
    pub max_flows: u32,
    /// Seed of the flow hash and of the Maglev tables, equal in the whole cluster.
    pub seed: u64,
    /// What becomes of TCP flows whose backend is gone.
    pub gone_flows: GoneFlows,
    /// For how long after a change flows that have no record keep the backend from before it:
    /// one that sends at least once in that time keeps it for good.
    pub drain_window: Duration,
    /// How the classifiers are attached.
    pub tc: TcMode,
    /// A log line for every packet that concerns a service, for debugging.
    pub log_packets: bool,
}

/// What becomes of TCP flows whose backend is gone: no endpoint of any service any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GoneFlows {
    /// Their clients are told by RST.
    #[default]
    Reset,
    /// They go on to its address, as kube-proxy has it, until they end.
    Leave,
}

impl GoneFlows {
    /// Whether a flow goes on with this backend, which has its backend's index.
    fn keep(self, tuple: &Tuple, flow: &Flow, backend: &Backend) -> bool {
        let left = self == Self::Leave && tuple.protocol == Protocol::Tcp as u8;
        backend.serves(flow.backend) || left && backend.is(flow.backend)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pin_dir: DEFAULT_PIN_DIR.into(),
            max_flows: lb_common::config::DEFAULT_MAX_FLOWS as u32,
            seed: lb_common::config::DEFAULT_SEED,
            gone_flows: GoneFlows::Reset,
            drain_window: DEFAULT_DRAIN_WINDOW,
            tc: TcMode::Auto,
            log_packets: false,
        }
    }
}

/// Why the kernel side could not be set up, read or changed; every text says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum DatapathError {
    #[error(
        "not permitted to load BPF programs: missing {missing}; run as root (`sudo naru agent …`), \
         or grant the binary these capabilities with setcap"
    )]
    Privileges { missing: String },
    #[error(
        "this kernel ({release}) cannot load Naru's programs: {what}; use a kernel of 6.1 or newer \
         built with {config}"
    )]
    Kernel {
        release: String,
        what: String,
        config: &'static str,
    },
    #[error(
        "{path} is not on a BPF file system ({reason}); mount one: mount -t bpf bpf /sys/fs/bpf"
    )]
    NoBpffs { path: PathBuf, reason: String },
    #[error(
        "another naru agent uses the maps in {path}; stop it, or give this one its own --pin-dir"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} is shared with other programs; give Naru a directory of its own: --pin-dir \
         {path}/naru"
    )]
    SharedPinDir { path: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the kernel refused program {program}: {reason}")]
    Load { program: String, reason: String },
    #[error("the embedded eBPF object has no {what}; the build is broken")]
    Object { what: String },
    #[error(
        "pinned map {path} has another layout than this version of Naru expects ({found}, not \
         {expected}); stop the agent that uses it and run `naru detach`"
    )]
    ForeignMap {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("map {map}: {reason}")]
    Map { map: &'static str, reason: String },
    #[error(
        "{interface}: another XDP program is attached; see it with `ip -details link show dev \
         {interface}`, and remove it with `ip link set dev {interface} xdp off`"
    )]
    Occupied { interface: String },
    #[error(
        "{interface}: its driver cannot run XDP programs natively ({reason}); use --attach generic \
         (slower), or --attach auto to let Naru choose"
    )]
    NoNativeXdp { interface: String, reason: String },
    #[error("{interface}: attaching {program} failed: {reason}")]
    Attach {
        interface: String,
        program: &'static str,
        reason: String,
    },
    #[error(
        "{path}: attaching {program} failed: {reason}; --cgroup takes a directory of a cgroup2 file \
         system (`findmnt -t cgroup2`)"
    )]
    Cgroup {
        path: PathBuf,
        program: &'static str,
        reason: String,
    },
    #[error("the dry run failed: {reason}")]
    TestRun { reason: String },
}

impl DatapathError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, source }
    }

    fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |error| Self::Map {
            map,
            reason: causes(&error),
        }
    }
}

/// An error and all its causes in one line, without repeating a cause that is already in
/// its parent's text.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Held for as long as the maps of a pin directory are written: two writers would
/// undo each other's work.
type Lock = Flock<fs::File>;

fn lock(pin_dir: &Path) -> Result<Lock, DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(pin_dir)
        .map_err(DatapathError::file(pin_dir))?;
    let dir = fs::File::open(pin_dir).map_err(DatapathError::file(pin_dir))?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|_| DatapathError::InUse {
        path: pin_dir.to_path_buf(),
    })
}

/// Removes programs, maps and pins below `pin_dir`: takes the kernel side away whole.
///
/// Gives the names of what was removed; an absent directory is not an error, and what is
/// not Naru's stays.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, DatapathError> {
    let mut removed = Vec::new();
    if !pin_dir.exists() {
        return Ok(removed);
    }
    let _lock = lock(pin_dir)?;
    // Links first: while one lives, its program uses the maps.
    let links = pin_dir.join(load::LINKS);
    for pin in fs::read_dir(&links).into_iter().flatten().flatten() {
        unpin::detach(&pin.path())?;
    }
    remove_tree(&links, &mut removed)?;
    for entry in fs::read_dir(pin_dir).map_err(DatapathError::file(pin_dir))? {
        let path = entry.map_err(DatapathError::file(pin_dir))?.path();
        if load::is_maps_dir(&path) {
            remove_tree(&path, &mut removed)?;
        }
    }
    match fs::remove_dir(pin_dir) {
        // Somebody else's pins are in it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        result => result.map_err(DatapathError::file(pin_dir))?,
    }
    Ok(removed)
}

fn remove_tree(dir: &Path, removed: &mut Vec<String>) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DatapathError::file(dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(DatapathError::file(dir))?.path();
        if path.is_dir() {
            remove_tree(&path, removed)?;
        } else {
            fs::remove_file(&path).map_err(DatapathError::file(&path))?;
            if let Some(name) = path.file_name() {
                removed.push(name.to_string_lossy().into_owned());
            }
        }
    }
    fs::remove_dir(dir).map_err(DatapathError::file(dir))
}
