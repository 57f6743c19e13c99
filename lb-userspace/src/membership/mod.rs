//! Who is there: live membership of the nodes that share virtual IPs, by gossip.
//!
//! The protocol is scuttlebutt with a failure detector, by the crate chitchat; datagrams
//! are authenticated here. A member is given up when nothing that it says has been heard of,
//! by whatever way, for [`DETECTION`]. Gossip runs in a thread of its own, which also renews
//! the lease under which the kernel program answers for addresses: an agent that is busy for
//! a moment is not taken for dead, and one that does not get on loses its lease.
//!
//! ```text
//! agent ── Words, beat ─► keeper (thread) ◄── datagrams ──► other nodes
//!       ◄── View ────────   │
//!                           └─► lease, renewed while all is well
//! ```

mod keeper;
mod key;
mod transport;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::watch;

use self::keeper::Keeper;
pub use self::{
    key::{Key, KeyError},
    transport::Counters,
    words::Words,
};

/// The port of gossip unless told otherwise.
pub const DEFAULT_PORT: u16 = 7947;
/// A member of whom nothing was heard for so long is given up (at most a quarter later).
pub const DETECTION: Duration = Duration::from_millis(600);
/// How long the kernel program answers for addresses after the last renewal. Shorter than
/// [`DETECTION`], so that a node that others have given up does not answer any more.
pub const LEASE: Duration = Duration::from_millis(500);

/// How to take part.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's name; no two members have the same.
    pub node: String,
    /// Where it listens, and is found by others.
    pub address: SocketAddr,
    /// The key that all share.
    pub key: Key,
    /// For how long a node that comes back announces only what nobody else can.
    pub hold_down: Duration,
    /// A directory for the count of this node's starts.
    pub state_dir: PathBuf,
}

/// Why gossip cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The socket cannot be had.
    #[error("gossip on {address}: {reason}; choose an address of this host by --gossip-address")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The count of starts cannot be kept.
    #[error("{path}: {source}; without it others would take this node for its former self")]
    Generation {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No thread.
    #[error("the thread for gossip: {0}")]
    Thread(#[from] std::io::Error),
}

/// Who is there, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Counts views, so that an answer can say which one it is to.
    pub number: u64,
    /// Whether this node has listened long enough to know who is there. Until then it
    /// announces nothing.
    pub settled: bool,
    /// Everybody that is live, this node among them, by name.
    pub members: BTreeMap<String, Member>,
    /// Members that have gone without a word, by name.
    pub lost: BTreeSet<String>,
    /// How often this node has been told to listen.
    listened: u64,
}

impl View {
    /// Whether this node knows that nobody else is there.
    pub fn is_deserted(&self) -> bool {
        self.settled && self.members.len() <= 1
    }
}

/// A live member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is reached by gossip.
    pub address: SocketAddr,
    /// What it says.
    pub words: Words,
}

/// Takes part for as long as it lives.
pub struct Membership {
    view: watch::Receiver<View>,
    words: watch::Sender<Words>,
    seeds: watch::Sender<BTreeSet<SocketAddr>>,
    pulse: watch::Sender<Pulse>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// What the agent's own task tells the keeper, so that the lease is renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pulse {
    /// The last view that claims were brought in line with.
    seen: u64,
    /// A number that changes with every turn of the agent's loop.
    turn: u64,
    /// How often this node has been told to listen.
    listen: u64,
    /// Stop.
    stop: bool,
}

// === impl Membership ===

impl Membership {
    /// Starts gossip. `renew` is called while the lease may be renewed, a few times within
    /// each [`LEASE`].
    ///
    /// # Errors
    /// Where the address is none of this host's or is taken, or the state directory cannot
    /// be written.
    pub fn start(
        options: Options,
        renew: impl FnMut() + Send + 'static,
    ) -> Result<Self, MembershipError> {
        let counters = Arc::<Counters>::default();
        let (view, view_receiver) = watch::channel(View::default());
        let (words, words_receiver) = watch::channel(Words::default());
        let (seeds, seeds_receiver) = watch::channel(BTreeSet::new());
        let (pulse, pulse_receiver) = watch::channel(Pulse::default());
        let keeper = Keeper {
            view,
            words: words_receiver,
            seeds: seeds_receiver,
            pulse: pulse_receiver,
            renew: Box::new(renew),
        };
        let thread = keeper::spawn(keeper, options, Arc::clone(&counters))?;
        Ok(Self {
            view: view_receiver,
            words,
            seeds,
            pulse,
            counters,
            thread: Some(thread),
        })
    }

    /// Who is there now.
    pub fn view(&self) -> View {
        let mut view = self.view.borrow().clone();
        view.settled &= view.listened == self.pulse.borrow().listen;
        view
    }

    /// Listens before the view counts again, as after the start but for half as long.
    pub fn listen(&self) {
        self.pulse.send_modify(|pulse| pulse.listen += 1);
    }

    /// Waits until somebody came, went or says something else. Cancel safe. Never returns
    /// where gossip has ended; [`Self::is_running`] tells.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says something else from now on; what is the same costs nothing.
    pub fn say(&self, words: Words) {
        self.words.send_if_modified(|current| {
            let modified = *current != words;
            *current = words;
            modified
        });
    }

    /// Where others may be found that are not known yet.
    pub fn seek(&self, addresses: BTreeSet<SocketAddr>) {
        self.seeds.send_if_modified(|current| {
            let modified = *current != addresses;
            *current = addresses;
            modified
        });
    }

    /// Claims are in line with this view: the lease may be renewed for a while.
    pub fn confirm(&self, view: u64) {
        self.pulse.send_modify(|pulse| {
            pulse.seen = view;
            pulse.turn += 1;
        });
    }

    /// Datagrams, for the status.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether gossip goes on.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }

    /// Ends gossip; others have been told by [`Words`] before.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.pulse.send_modify(|pulse| pulse.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for gossip had panicked");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
