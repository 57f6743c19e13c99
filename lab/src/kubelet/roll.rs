//! What all kubelets of a cluster know of its pods: since when they are ready, and how much CPU
//! they use.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

/// Less time than this tells nothing of how much CPU a pod uses.
const WINDOW: Duration = Duration::from_secs(1);

/// A pod by its namespace and name.
type Key = (String, String);

/// The pods of a cluster that run.
#[derive(Clone, Debug, Default)]
pub struct Roll(Arc<Mutex<BTreeMap<Key, Entry>>>);

#[derive(Debug)]
struct Entry {
    labels: BTreeMap<String, String>,
    container: String,
    pid: u32,
    ready: Option<Instant>,
    /// When its CPU time was read last, and what it was, in ticks.
    last: (Instant, u64),
    usage: Option<Usage>,
}

/// What a pod used in a window of time.
#[derive(Clone, Copy, Debug)]
struct Usage {
    until: Timestamp,
    window: Duration,
    nanocores: u64,
}

impl Roll {
    /// A pod's server was started.
    pub(super) fn started(
        &self,
        key: Key,
        labels: BTreeMap<String, String>,
        container: &str,
        pid: u32,
    ) {
        let entry = Entry {
            labels,
            container: container.to_owned(),
            pid,
            ready: None,
            last: (Instant::now(), ticks(pid)),
            usage: None,
        };
        self.lock().insert(key, entry);
    }

    /// The API server was told that it is ready, or that it is not.
    pub(super) fn told(&self, key: &Key, ready: bool) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.ready = ready.then(|| entry.ready.unwrap_or_else(Instant::now));
        }
    }

    /// Its server has ended.
    pub(super) fn ended(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Since when the API server knows that a pod is ready; none where it is not.
    pub fn ready_since(&self, namespace: &str, pod: &str) -> Option<Instant> {
        let key = (namespace.to_owned(), pod.to_owned());
        self.lock().get(&key)?.ready
    }

    /// What the pods of a namespace use that have these labels, as metrics.k8s.io has it.
    pub(super) fn metrics(&self, namespace: &str, labels: &[(&str, &str)]) -> Value {
        let mut roll = self.lock();
        let ours = roll.iter_mut().filter(|((of, _), entry)| {
            let has = |(key, value): &(&str, &str)| {
                entry.labels.get(*key).map(String::as_str) == Some(*value)
            };
            of == namespace && labels.iter().all(has)
        });
        let items: Vec<Value> = ours
            .filter_map(|((_, name), entry)| Some(entry.measure()?.metrics(namespace, name, entry)))
            .collect();
        json!({ "kind": "PodMetricsList", "apiVersion": API, "metadata": {}, "items": items })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The API that tells what pods use.
pub(crate) const API: &str = "metrics.k8s.io/v1beta1";

impl Entry {
    /// What it used lately; none before there is something to tell.
    fn measure(&mut self) -> Option<Usage> {
        let (at, before) = self.last;
        let window = at.elapsed();
        if window >= WINDOW {
            let now = ticks(self.pid);
            let used = u128::from(now.saturating_sub(before)) * u128::from(tick());
            let nanocores = used * 1_000_000_000 / window.as_nanos().max(1);
            self.last = (Instant::now(), now);
            self.usage = Some(Usage {
                until: Timestamp::now(),
                window,
                nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX),
            });
        }
        self.usage
    }
}

impl Usage {
    fn metrics(self, namespace: &str, name: &str, of: &Entry) -> Value {
        json!({
            "metadata": { "name": name, "namespace": namespace, "labels": of.labels },
            "timestamp": self.until.to_string(),
            "window": format!("{}ms", self.window.as_millis()),
            "containers": [{
                "name": of.container,
                "usage": { "cpu": format!("{}n", self.nanocores), "memory": resident(of.pid) },
            }],
        })
    }
}

/// The CPU time of a process (`proc_pid_stat(5)`); 0 where it is gone.
fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, in parentheses, may have anything in it.
    let after = text.rsplit_once(')').map_or("", |(_, it)| it);
    let fields = after.split_whitespace().skip(11).take(2);
    fields.filter_map(|it| it.parse::<u64>().ok()).sum()
}

/// The memory of a process, as a quantity (`proc_pid_status(5)`).
fn resident(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = text.lines();
    let line = lines.find_map(|it| it.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().strip_suffix(" kB"));
    format!("{}Ki", kib.unwrap_or("0"))
}

/// How long a tick is, in nanoseconds.
fn tick() -> u64 {
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let hertz = hertz.and_then(|it| u64::try_from(it).ok()).unwrap_or(100);
    1_000_000_000 / hertz.max(1)
}
