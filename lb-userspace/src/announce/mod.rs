//! Claims virtual IPs on the LAN: answers ARP for them and announces takeovers.
//!
//! [`Announcer::set_claims`] says which address is claimed on which interface; one
//! supervisor task keeps one responder task for each interface that can carry them,
//! through all that happens to interfaces. Only call it for addresses whose datapath
//! is in place: this module answers, it does not verify.
//!
//! ```text
//! set_claims ─► claims ─┬─► supervisor (netlink events) ─► starts and stops
//!                       └─► responder per interface: frames ◄─► Discovery (ARP)
//! ```
//! A protocol is a [`discovery::Discovery`]; NDP will be the second one.

mod arp;
mod burst;
mod discovery;
mod responder;
mod socket;
mod status;
mod supervisor;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinHandle};

pub use self::status::{AnnounceState, AnnounceStatus, SkipReason};
use self::{
    arp::Arp,
    discovery::Discovery,
    status::{Counters, Table},
};
use crate::net::{Mac, NetError, Network};

/// What is claimed where: virtual IP → indices of interfaces.
pub type Claims = BTreeMap<IpAddr, BTreeSet<u32>>;

/// Answers for the claimed addresses for as long as it lives.
pub struct Announcer {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

/// What the announcer's tasks have in common.
struct Shared {
    claims: watch::Sender<Claims>,
    table: Mutex<Table>,
}

// === impl Announcer ===

impl Announcer {
    /// Starts it, claiming nothing yet. Its sockets are made in the network namespace
    /// of the threads of the current tokio runtime.
    ///
    /// # Errors
    /// Where changes of interfaces cannot be followed.
    pub fn start(net: Network) -> Result<Self, NetError> {
        let events = net.events()?;
        let shared = Arc::new(Shared {
            claims: watch::Sender::new(Claims::new()),
            table: Mutex::default(),
        });
        let supervisor = tokio::spawn(supervisor::run(Arc::clone(&shared), net, events));
        Ok(Self { shared, supervisor })
    }

    /// Replaces what is claimed. Pairs of address and interface that are new are
    /// announced, those that stay go on undisturbed, and for those that are gone no
    /// answer is sent any more once this has returned.
    pub fn set_claims(&self, claims: Claims) {
        self.shared.claims.send_if_modified(|current| {
            let modified = *current != claims;
            *current = claims;
            modified
        });
        let claims = self.shared.claims.borrow().clone();
        self.shared.table().retain_counters(&claims);
    }

    /// Every claim, by address and interface, with what came of it.
    pub fn status(&self) -> Vec<AnnounceStatus> {
        let claims = self.shared.claims.borrow().clone();
        let table = self.shared.table();
        let pairs = claims
            .iter()
            .flat_map(|(vip, interfaces)| interfaces.iter().map(move |&index| (*vip, index)));
        pairs
            .map(|(vip, index)| {
                let state = match vip {
                    IpAddr::V4(_) => table.state(index, Arp::NAME),
                    IpAddr::V6(_) => AnnounceState::Skipped(SkipReason::Ipv6),
                };
                table.status(vip, index, state)
            })
            .collect()
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        // Its responders end with it.
        self.supervisor.abort();
    }
}

// === impl Shared ===

impl Shared {
    /// Plain data, valid whatever a panicking holder was doing.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self, vip: IpAddr, index: u32) -> Arc<Counters> {
        self.table().counters(vip, index)
    }

    /// Whether a frame's sender is this host, seen from another of its interfaces.
    fn is_own(&self, sender: Mac) -> bool {
        self.table().own_macs.contains(&sender)
    }
}
