//! Whose lab is this, and what is left of the labs whose owner is gone.
//!
//! A lab's id is in every name that it leaves in the system, so that all of it can be
//! found without having been told:
//!
//! | what | where |
//! |---|---|
//! | record | `/run/naru-lab/ID.json` |
//! | files (state, logs, manifests) | `/run/naru-lab/ID/` |
//! | namespaces, and the processes in them | `/run/netns/naru-ID-*` |
//! | pins of agents | `/sys/fs/bpf/naru-lab-ID-*` |
//! | cgroups of nodes | `naru-lab-ID-*` at the root of cgroup2 |
//!
//! The owner holds a lock on the record for as long as it lives. A record that can be
//! locked by somebody else is a dead owner's, whatever process has its number now.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::error::{Error, Result};
use crate::tool::{feed_now, tool};
use crate::{cgroup, interrupt, netns};

pub(crate) const RUN: &str = "/run/naru-lab";
const BPFFS: &str = "/sys/fs/bpf";

/// The labs of this process that are not yet removed.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The ownership of a lab's id. Dropping it removes everything that carries the id.
#[derive(Debug)]
pub(crate) struct Owned {
    id: String,
    removed: bool,
    _lock: Flock<File>,
}

impl Owned {
    /// Takes a fresh id, recorded before anything is made under it.
    pub(crate) fn claim() -> Result<Self> {
        let _gate = interrupt::gate();
        let _turn = turn()?;
        let id = fresh_id();
        let record = record(&id);
        let failed = || Error::io(record.display().to_string());
        let file = File::create(&record).map_err(failed())?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed()(errno.into()))?;
        let text = serde_json::json!({ "id": id, "pid": getpid().as_raw() });
        lock.write_all(format!("{text}\n").as_bytes())
            .map_err(failed())?;
        fs::create_dir(files(&id)).map_err(Error::io(files(&id).display().to_string()))?;
        live().insert(id.clone());
        Ok(Self {
            id,
            removed: false,
            _lock: lock,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The directory for the lab's files.
    pub(crate) fn dir(&self) -> PathBuf {
        files(&self.id)
    }

    /// The name of a namespace of this lab.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}{name}", namespace_prefix(&self.id))
    }

    /// The name of a cgroup of this lab.
    pub(crate) fn cgroup(&self, node: &str) -> String {
        format!("{}{node}", pin_prefix(&self.id))
    }

    /// The pin directory of an agent of this lab.
    pub(crate) fn pins(&self, node: &str) -> PathBuf {
        Path::new(BPFFS).join(format!("{}{node}", pin_prefix(&self.id)))
    }

    /// Removes everything, and says what could not be removed.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.remove_once()
    }

    fn remove_once(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        let _gate = interrupt::gate();
        let result = clean(&self.id);
        live().remove(&self.id);
        result
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = self.remove_once() {
            tell(&self.id, &error);
        }
    }
}

/// Removes what labs whose owner is dead have left; gives back their ids. Every lab does
/// this when it starts. What cannot be removed is told on stderr and left for next time.
pub fn sweep() -> Result<Vec<String>> {
    let _gate = interrupt::gate();
    let _turn = turn()?;
    let mut swept = Vec::new();
    for id in known_ids()? {
        // Held until the end of the round. Where there is no record at all, a tool went
        // on making things after its lab was killed and swept.
        let _lock = match File::open(record(&id)) {
            Ok(file) => match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Some(lock),
                Err(_) => continue,
            },
            Err(_) => None,
        };
        match clean(&id) {
            Ok(()) => swept.push(id),
            Err(error) => tell(&id, &error),
        }
    }
    Ok(swept)
}

/// Held to make a record or to sweep: so that no record is seen before it is locked, and
/// whoever returns from a sweep knows the dead to be gone.
fn turn() -> Result<Flock<File>> {
    fs::create_dir_all(RUN).map_err(Error::io(RUN))?;
    let dir = File::open(RUN).map_err(Error::io(RUN))?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| Error::os(RUN)(errno))
}

/// The ids of which there is any trace.
fn known_ids() -> Result<BTreeSet<String>> {
    let places = [(RUN, ""), (netns::DIR, "naru-"), (BPFFS, "naru-lab-")];
    let mut ids = BTreeSet::new();
    for (dir, prefix) in places {
        for path in entries(Path::new(dir), prefix)? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix(prefix));
            let id = name.and_then(|name| name.split(['-', '.']).next());
            ids.extend(id.filter(|id| is_id(id)).map(str::to_owned));
        }
    }
    Ok(ids)
}

/// What is in the system under a lab's id: nothing, after it was removed.
pub fn left_of(id: &str) -> Result<Vec<PathBuf>> {
    let mut left = entries(Path::new(netns::DIR), &namespace_prefix(id))?;
    left.extend(entries(Path::new(BPFFS), &pin_prefix(id))?);
    left.extend(cgroups(id)?);
    left.extend(
        [files(id), record(id)]
            .into_iter()
            .filter(|path| path.exists()),
    );
    Ok(left)
}

fn cgroups(id: &str) -> Result<Vec<PathBuf>> {
    match cgroup::root()? {
        Some(root) => entries(&root, &pin_prefix(id)),
        None => Ok(Vec::new()),
    }
}

/// Removes all labs of this process; for when it is about to end.
pub(crate) fn clean_all() {
    for id in std::mem::take(&mut *live()) {
        if let Err(error) = clean(&id) {
            tell(&id, &error);
        }
    }
}

/// Removes everything that carries the id; the record last, so that a clean-up which is
/// itself cut short is taken up again.
fn clean(id: &str) -> Result<()> {
    let namespaces = entries(Path::new(netns::DIR), &namespace_prefix(id))?;
    end_processes_in(&namespaces)?;
    let names = namespaces
        .iter()
        .filter_map(|path| path.file_name()?.to_str());
    let batch: String = names.map(|name| format!("netns del {name}\n")).collect();
    if !batch.is_empty() {
        feed_now(tool("ip").args(["-batch", "-"]), &batch)?;
    }
    for pins in entries(Path::new(BPFFS), &pin_prefix(id))? {
        gone(fs::remove_dir_all(&pins), &pins)?;
    }
    for cgroup in cgroups(id)? {
        gone(fs::remove_dir(&cgroup), &cgroup)?;
    }
    gone(fs::remove_dir_all(files(id)), &files(id))?;
    gone(fs::remove_file(record(id)), &record(id))
}

/// Kills every process whose network namespace is one of these, or is about to be.
pub(crate) fn end_processes_in(namespaces: &[PathBuf]) -> Result<()> {
    let entering: Vec<String> = namespaces
        .iter()
        .map(|path| format!("--net={}", path.display()))
        .collect();
    let inside: BTreeSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|file| (file.dev(), file.ino()))
        .collect();
    let ours = |pid: &Pid| {
        // In this order: what is no longer on its way in is inside.
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        let nsenter = words
            .next()
            .is_some_and(|program| program.ends_with("nsenter"));
        let file = fs::metadata(format!("/proc/{pid}/ns/net"));
        (nsenter && words.any(|word| entering.iter().any(|argument| argument == word)))
            || file.is_ok_and(|file| inside.contains(&(file.dev(), file.ino())))
    };
    for _ in 0..100 {
        let processes: Vec<Pid> = entries(Path::new("/proc"), "")?
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok().map(Pid::from_raw))
            .filter(|pid| *pid != getpid())
            .filter(ours)
            .collect();
        if processes.is_empty() {
            return Ok(());
        }
        for pid in processes {
            // It may have ended by itself meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10));
    }
    Err(Error::Io {
        what: "ending the processes of a lab".to_owned(),
        source: ErrorKind::TimedOut.into(),
    })
}

fn tell(id: &str, error: &Error) {
    eprintln!("lab {id} is not wholly removed, the next one tries again: {error}");
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unique on this machine, also against process ids that come round again; short, and
/// without the `-` that ends it in names.
fn fresh_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{:x}x{:05x}{count}",
        getpid().as_raw(),
        since.as_millis() & 0xf_ffff
    )
}

/// Whether this could come from [`fresh_id`]: what others have named is left alone.
fn is_id(text: &str) -> bool {
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once('x')
        .is_some_and(|(pid, rest)| hex(pid) && hex(rest) && rest.len() > 5)
}

fn record(id: &str) -> PathBuf {
    Path::new(RUN).join(format!("{id}.json"))
}

fn files(id: &str) -> PathBuf {
    Path::new(RUN).join(id)
}

fn namespace_prefix(id: &str) -> String {
    format!("naru-{id}-")
}

fn pin_prefix(id: &str) -> String {
    format!("naru-lab-{id}-")
}

/// What is in a directory under names that begin so; nothing where it is not there.
fn entries(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir.display().to_string())(error)),
    };
    Ok(list
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect())
}

/// Removing what is already gone is no failure.
fn gone(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_what_others_name() {
        assert!(is_id(&fresh_id()));
        assert_ne!(fresh_id(), fresh_id());
        assert!(
            !["lab", "max", "a-b", "x", "12xab", ""]
                .iter()
                .any(|name| is_id(name))
        );
    }
}
