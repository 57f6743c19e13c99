//! Reads a source anew whenever it may have changed.
//!
//! inotify tells of changes at once; a burst of events is read when it has been
//! quiet for [`QUIET`], and no later than [`PATIENCE`] after its first event, so a
//! change is on its way to the kernel well within 50 ms.
//!
//! Of a directory of manifests only those files are looked at that the events are about.
//! Beside it, sizes and times of all files are compared every [`POLL`]. That costs a
//! `stat` call for each and finds what inotify cannot tell: a link whose target changed
//! in another directory, a network file system, a directory made anew, watches that
//! ran out. Equal outcomes are not sent twice, and of a directory only files that have
//! changed are read again, so a needless look costs nothing more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, MetadataKind, ModifyKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    News, Outcome, Source,
    manifest::{self, Touched},
    reader::Reader,
};

/// How long a burst must have been quiet before the source is read.
pub const QUIET: Duration = Duration::from_millis(5);
/// How long a burst may go on before the source is read all the same.
pub const PATIENCE: Duration = Duration::from_millis(20);
/// How often files are compared without any event.
pub const POLL: Duration = Duration::from_secs(1);

/// Outcomes that may wait for the receiver; a slow one delays reading.
const WAITING: usize = 4;

pub(super) fn spawn(source: Source) -> mpsc::Receiver<News<Outcome>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        match &source {
            Source::Flags(flags) => {
                // Flags never change, but the channel stays open: its end means failure.
                if sender.send(News::now(flags.desired())).await.is_ok() {
                    sender.closed().await;
                }
            }
            Source::Cluster(cluster) => cluster.clone().outcomes(sender).await,
            Source::Manifests(_) | Source::Config(_) => follow(source, sender).await,
        }
    });
    receiver
}

async fn follow(source: Source, sender: mpsc::Sender<News<Outcome>>) {
    let (events, mut changed) = mpsc::channel(1);
    let mut watches = Watches::new(&source, events);
    let mut reader = Some(Reader::new(&source));
    let mut last: Option<Outcome> = None;
    let (mut since, mut stale) = (Instant::now(), true);
    // However often events come.
    let mut next_look = since + POLL;
    loop {
        // Watch first, then look, then read: what changes in between is an event.
        stale |= watches.renew();
        let mut touched = watches.touched();
        if stale {
            touched = Touched::All;
        }
        let read = move |reader: &mut Reader| reader.read_touched(&touched);
        let Some(outcome) = blocking(&mut reader, read).await else {
            return;
        };
        if last.as_ref() != Some(&outcome) {
            last = Some(outcome.clone());
            let news = News {
                what: outcome,
                since,
            };
            if sender.send(news).await.is_err() {
                return;
            }
        }
        loop {
            tokio::select! {
                _ = sender.closed() => return,
                _ = changed.recv() => {
                    (since, stale) = (Instant::now(), false);
                    settle(&mut changed).await;
                    break;
                }
                () = sleep_until(next_look) => {
                    let looked = blocking(&mut reader, |it| it.is_stale()).await;
                    next_look = Instant::now() + POLL;
                    match looked {
                        Some(false) => {}
                        Some(true) => {
                            (since, stale) = (Instant::now(), true);
                            break;
                        }
                        None => return,
                    }
                }
            }
        }
    }
}

/// Waits for the end of a burst of events whose first has just come.
async fn settle(changed: &mut mpsc::Receiver<()>) {
    let first = Instant::now();
    loop {
        let end = (Instant::now() + QUIET).min(first + PATIENCE);
        match timeout_at(end, changed.recv()).await {
            Ok(Some(())) if end < first + PATIENCE => {}
            _ => return,
        }
    }
}

/// Works with the reader where blocking is allowed; `None` while the runtime shuts down.
async fn blocking<T: Send + 'static>(
    reader: &mut Option<Reader>,
    work: impl FnOnce(&mut Reader) -> T + Send + 'static,
) -> Option<T> {
    let mut taken = reader.take()?;
    let worked = tokio::task::spawn_blocking(move || (work(&mut taken), taken)).await;
    let (outcome, returned) = worked.ok()?;
    *reader = Some(returned);
    Some(outcome)
}

/// The directories under inotify.
struct Watches {
    /// `None` where the kernel has no watches left: the comparison of files remains.
    watcher: Option<RecommendedWatcher>,
    /// The watched directories, with device and inode of what stood there then.
    watched: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// What events were about, and has not been read since.
    touched: Arc<Mutex<Touched>>,
    /// Keeps the channel open where there is no watcher to hold it.
    _events: mpsc::Sender<()>,
}

impl Watches {
    fn new(source: &Source, events: mpsc::Sender<()>) -> Self {
        let subject = subject(source);
        let kept = events.clone();
        let touched: Arc<Mutex<Touched>> = Arc::default();
        let told = Arc::clone(&touched);
        let handler = move |event: notify::Result<Event>| {
            // An error may have swallowed events, so it counts as a change.
            let about = match event {
                Ok(event) if alters(&event) => subject(&event),
                Ok(_) => None,
                Err(_) => Some(Touched::All),
            };
            let Some(about) = about else { return };
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(about);
            // One that is still waiting says the same.
            let _ = events.try_send(());
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| {
                tracing::warn!(%error, "no file system events, looking every {POLL:?} instead");
            })
            .ok();
        let watched = match source {
            Source::Manifests(dir) => [Some(dir.clone()), parent(dir)],
            Source::Config(file) => [parent(file), None],
            Source::Flags(_) | Source::Cluster(_) => [None, None],
        };
        let watched = watched
            .into_iter()
            .flatten()
            .map(|dir| (dir, None))
            .collect();
        Self {
            watcher,
            watched,
            touched,
            _events: kept,
        }
    }

    /// What events were about since the last call.
    fn touched(&self) -> Touched {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *touched)
    }

    /// Watches directories that were made, or made anew, since the last call. True where there
    /// are any: what happened in them meanwhile nobody has told.
    fn renew(&mut self) -> bool {
        let mut renewed = false;
        let Some(watcher) = &mut self.watcher else {
            return renewed;
        };
        for (dir, watched) in &mut self.watched {
            let now = fs::metadata(dir).ok().map(|it| (it.dev(), it.ino()));
            if *watched == now {
                continue;
            }
            renewed = true;
            if watched.is_some() {
                // The old directory's watch may be gone with it.
                let _ = watcher.unwatch(dir);
            }
            *watched = now.filter(|_| match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => true,
                Err(error) => {
                    let dir = dir.display();
                    tracing::debug!(%error, "cannot watch {dir}, looking every {POLL:?} instead");
                    false
                }
            });
        }
        renewed
    }
}

/// The directory that holds `path`.
fn parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}

/// Whether an event can have altered what a file says.
fn alters(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        // Permissions decide whether a file can be read; its times say nothing.
        EventKind::Modify(ModifyKind::Metadata(
            MetadataKind::AccessTime | MetadataKind::WriteTime,
        )) => false,
        _ => true,
    }
}

/// Tells what an event is about; none for a neighbour of the source. Of a manifest that is
/// written or moved in its directory nothing else is to be looked at.
fn subject(source: &Source) -> impl Fn(&Event) -> Option<Touched> + Send + 'static {
    let (own, inside) = match source {
        Source::Manifests(dir) => (dir.clone(), true),
        Source::Config(path) => (path.clone(), false),
        Source::Flags(_) | Source::Cluster(_) => (PathBuf::new(), false),
    };
    let own_name = own.file_name().map(ToOwned::to_owned);
    let of_path = move |path: &Path| {
        let name = path.file_name();
        let is_manifest = inside && manifest::is_manifest_name(name);
        // A mounted ConfigMap is replaced by renaming the link `..data`.
        let any = path == own
            || name == own_name.as_deref()
            || name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        match name {
            Some(name) if is_manifest && !any && path.parent() == Some(&own) => {
                Some(Touched::Files(BTreeSet::from([name.to_owned()])))
            }
            _ => (any || is_manifest).then_some(Touched::All),
        }
    };
    move |event| {
        if event.paths.is_empty() {
            return Some(Touched::All);
        }
        let all = event.paths.iter().filter_map(|path| of_path(path));
        all.reduce(|mut one, more| {
            one.add(more);
            one
        })
    }
}

#[cfg(test)]
mod tests;
