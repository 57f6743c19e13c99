//! Claims virtual IPs on the LAN: announces takeovers, joins the groups that questions go
//! to, and hears who else claims an address. Answering is the kernel program's part.
//!
//! [`Announcer::set_claims`] says which address is claimed on which interface; one
//! supervisor task keeps one speaker task for each interface and protocol that can carry
//! them, through all that happens to interfaces. Only call it for addresses whose datapath
//! is in place, and that the program answers for ([`crate::datapath::Datapath::set_claims`],
//! with what [`answerable`] leaves of them): this module speaks, it does not verify.
//!
//! ```text
//! set_claims ─► claims ─┬─► supervisor (netlink events) ─► starts and stops
//!                       └─► speaker per interface: frames ◄─► Discovery (ARP, NDP)
//! ```
//! A protocol is a [`discovery::Discovery`].

mod arp;
mod burst;
mod discovery;
mod groups;
mod ndp;
mod socket;
mod speaker;
mod status;
mod supervisor;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_common::ClaimCount;
use tokio::{sync::watch, task::JoinHandle};

pub use self::status::{AnnounceState, AnnounceStatus, SkipReason};
use self::{
    arp::Arp,
    discovery::Discovery,
    ndp::Ndp,
    status::{Counters, Table},
};
use crate::net::{Link, Mac, NetError, Network};

/// What is claimed where: virtual IP → indices of interfaces.
pub type Claims = BTreeMap<IpAddr, BTreeSet<u32>>;

/// What the program counted: virtual IP and index of the interface → questions and answers.
pub type ClaimCounts = BTreeMap<(IpAddr, u32), ClaimCount>;

/// The claims that may be answered for: on interfaces that can carry them. What a frame came
/// in by says nothing of that: a port of a bridge, say, sees the bridge's.
pub fn answerable(claims: &Claims, links: &BTreeMap<u32, Link>) -> Claims {
    let mut answerable = claims.clone();
    for (&vip, interfaces) in &mut answerable {
        interfaces.retain(|&index| match supervisor::carries(links, index, vip) {
            // Nothing comes in until it is back, and then it is answered at once.
            Ok(()) | Err(SkipReason::Down | SkipReason::NoCarrier) => true,
            Err(_) => false,
        });
    }
    answerable
}

/// Whether one of these interfaces carries questions for the address now.
pub fn is_carried(vip: IpAddr, interfaces: &BTreeSet<u32>, links: &BTreeMap<u32, Link>) -> bool {
    let mut interfaces = interfaces.iter();
    interfaces.any(|&index| supervisor::carries(links, index, vip).is_ok())
}

/// Speaks for the claimed addresses for as long as it lives.
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
    /// announced, those that stay go on undisturbed, and for those that are gone nothing
    /// is sent any more once this has returned.
    pub fn set_claims(&self, claims: Claims) {
        self.shared.claims.send_if_modified(|current| {
            let modified = *current != claims;
            *current = claims;
            modified
        });
        let claims = self.shared.claims.borrow().clone();
        self.shared.table().retain_counters(&claims);
    }

    /// Announces these once more, those of them that are claimed: somebody else has spoken for
    /// them meanwhile.
    pub fn repeat(&self, addresses: &BTreeSet<IpAddr>) {
        if !addresses.is_empty() {
            self.shared.table().repeat(addresses);
            self.shared.claims.send_modify(|_| {});
        }
    }

    /// Every claim, by address and interface, with what came of it, and what the program
    /// counted.
    pub fn status(&self, counts: &ClaimCounts) -> Vec<AnnounceStatus> {
        let claims = self.shared.claims.borrow().clone();
        let table = self.shared.table();
        let pairs = claims
            .iter()
            .flat_map(|(vip, interfaces)| interfaces.iter().map(move |&index| (*vip, index)));
        pairs
            .map(|(vip, index)| {
                let protocol = match vip {
                    IpAddr::V4(_) => Arp::NAME,
                    IpAddr::V6(_) => Ndp::NAME,
                };
                let count = counts.get(&(vip, index)).copied().unwrap_or_default();
                table.status(vip, index, table.state(index, protocol), count)
            })
            .collect()
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        // Its speakers end with it.
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
