//! Links, addresses and routes of this network namespace, through netlink.
//!
//! [`Network`] asks, [`Events`] says when to ask again, and everything that follows
//! from an answer is a pure function of it ([`Snapshot`], [`is_local_endpoint`]).
//! The namespace is that of the thread that calls [`Network::open`] or
//! [`Network::events`].

mod destroy;
mod events;
mod mac;
mod neighbour;
mod route;
mod routes;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, TryStreamExt};
use nix::errno::Errno;
use tokio::{sync::Mutex, time::timeout};

pub use self::{
    destroy::{Connected, destroy},
    events::{Changes, Events},
    mac::Mac,
    neighbour::Known,
    route::{Route, RouteKind, is_local_endpoint},
    routes::Routes,
    snapshot::{Address, Link, LinkKind, Snapshot, SnatChoice},
};

/// The kernel answers within microseconds. An answer that the library cannot parse
/// never reaches its request, which would wait for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// What can go wrong in asking the kernel.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket, or it broke.
    #[error("netlink socket: {0}; does this kernel or sandbox allow AF_NETLINK?")]
    Socket(#[source] io::Error),
    /// The kernel refused a question.
    #[error("asking the kernel for {what}: {source}")]
    Request {
        /// What was asked for.
        what: String,
        /// As rtnetlink tells it.
        source: rtnetlink::Error,
    },
    /// The kernel did not answer in time.
    #[error("asking the kernel for {what}: no answer within {PATIENCE:?}")]
    Silent {
        /// What was asked for.
        what: String,
    },
    /// A name that no interface has.
    #[error("no interface {name}; there are: {}", known.join(", "))]
    NoSuchInterface {
        /// The name that was looked for.
        name: String,
        /// Those that exist, by index.
        known: Vec<String>,
    },
}

/// A connection to the kernel's routing tables; clones share it.
#[derive(Clone)]
pub struct Network {
    handle: rtnetlink::Handle,
    /// The kernel lists one thing at a time on a socket; a second question meanwhile
    /// fails with EBUSY.
    listing: Arc<Mutex<()>>,
}

// === impl Network ===

impl Network {
    /// Connects, and spawns the connection's task onto the current tokio runtime,
    /// where it ends with the last clone.
    ///
    /// # Errors
    /// Where there is no netlink socket to be had.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            listing: Arc::default(),
        })
    }

    /// Subscribes to changes from now on: subscribe first, then take a snapshot, and
    /// nothing is missed.
    ///
    /// # Errors
    /// Where there is no netlink socket to be had.
    pub fn events(&self) -> Result<Events, NetError> {
        Events::open()
    }

    /// All links and addresses.
    ///
    /// A change in the middle of it may show in one and not in the other; it also
    /// causes an event, after which the next snapshot is right.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub async fn snapshot(&self) -> Result<Snapshot, NetError> {
        let links = self.links().await?;
        let _turn = self.listing.lock().await;
        let addresses = collect("addresses", self.handle.address().get().execute()).await?;
        Ok(Snapshot {
            links,
            addresses: addresses.iter().filter_map(Address::from_message).collect(),
        })
    }

    /// All links, by index.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub async fn links(&self) -> Result<BTreeMap<u32, Link>, NetError> {
        let _turn = self.listing.lock().await;
        let links = collect("links", self.handle.link().get().execute()).await?;
        Ok(links
            .into_iter()
            .map(Link::from)
            .map(|link| (link.index, link))
            .collect())
    }

    /// The way that the kernel would send a packet for this address, its routing
    /// rules included. Where there is none, the kind is [`RouteKind::Unreachable`].
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub async fn route_to(&self, destination: IpAddr) -> Result<Route, NetError> {
        let what = format!("the route to {destination}");
        let request = self.handle.route().get(Route::request(destination));
        match collect(&what, request.execute()).await {
            Ok(answers) => Ok(answers
                .into_iter()
                .next()
                .map_or(Route::UNREACHABLE, Route::from)),
            Err(NetError::Request {
                source: rtnetlink::Error::NetlinkError(error),
                ..
            }) if Route::is_refusal(Errno::from_raw(-error.raw_code())) => Ok(Route::UNREACHABLE),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel resolve the link addresses of these neighbours, by interface index, and
    /// keep them so (`ip neighbour … managed`, Linux 5.16): XDP sends to those alone that are
    /// resolved. What was set by hand (`permanent`) stays as it is. Those that do not answer are
    /// asked again: the kernel itself would wait for five seconds each time. Those of whom
    /// `doubted` says so are asked whether they are still there, which the kernel itself would do
    /// after half a minute. Gives what was known of each before.
    ///
    /// # Errors
    /// Where the kernel does not answer, or refuses.
    pub async fn keep_neighbours(
        &self,
        wanted: BTreeSet<(u32, IpAddr)>,
        doubted: impl Fn(&(u32, IpAddr)) -> bool,
    ) -> Result<BTreeMap<(u32, IpAddr), Known>, NetError> {
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let turn = self.listing.lock().await;
        let known = collect("neighbours", self.handle.neighbours().get().execute()).await?;
        drop(turn);
        let entries = known.iter().filter_map(neighbour::entry);
        let entries: Vec<_> = entries.filter(|it| wanted.contains(&it.key)).collect();
        let well = entries
            .iter()
            .filter(|it| it.kept && it.known != Known::Silent);
        let well: BTreeSet<_> = well.map(|it| it.key).collect();
        let request = |&(interface, ip): &(u32, IpAddr)| {
            let request = self.handle.neighbours().add(interface, ip);
            (format!("to resolve neighbour {ip}"), request.replace())
        };
        let keep = |key: &(u32, IpAddr)| {
            let (what, request) = request(key);
            (what, neighbour::managed(request))
        };
        let answering = entries.iter().filter(|it| it.known == Known::Yes);
        let doubted = answering.filter(|it| it.kept && !it.probed && doubted(&it.key));
        let doubts = doubted.flat_map(|it| {
            let (what, probe) = request(&it.key);
            [(what, neighbour::doubted(probe)), keep(&it.key)]
        });
        let missing = wanted.difference(&well).map(keep);
        for (what, request) in doubts.chain(missing) {
            match timeout(PATIENCE, request.execute()).await {
                Ok(answer) => answer.map_err(|source| NetError::Request { what, source })?,
                Err(_elapsed) => return Err(NetError::Silent { what }),
            }
        }
        Ok(entries.iter().map(|it| (it.key, it.known)).collect())
    }
}

impl Network {
    /// Tells the kernel that somebody sends to these link addresses by these interfaces, as XDP does
    /// by what the kernel said of a neighbour. By itself it would never ask again whether that is
    /// still right, and whoever has another link address since would not be found.
    ///
    /// # Errors
    /// Where the kernel does not answer, or refuses one of them; it is told of all others.
    pub async fn use_neighbours(
        &self,
        links: &BTreeSet<[u8; 6]>,
        interfaces: &BTreeSet<u32>,
    ) -> Result<(), NetError> {
        let turn = self.listing.lock().await;
        let known = collect("neighbours", self.handle.neighbours().get().execute()).await?;
        drop(turn);
        let entries = known.iter().filter_map(neighbour::entry);
        let used = entries.filter(|it| {
            let stale = it.stale.is_some_and(|link| links.contains(&link));
            stale && !it.kept && interfaces.contains(&it.key.0)
        });
        let mut outcome = Ok(());
        for entry in used {
            let (interface, ip) = entry.key;
            let request = self.handle.neighbours().add(interface, ip).replace();
            let what = format!("to ask for neighbour {ip}");
            match timeout(PATIENCE, neighbour::used(request).execute()).await {
                Ok(Ok(())) => {}
                Ok(Err(source)) => outcome = outcome.and(Err(NetError::Request { what, source })),
                // Nor would it answer about the others.
                Err(_elapsed) => return Err(NetError::Silent { what }),
            }
        }
        outcome
    }
}

async fn collect<T>(
    what: &str,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetError> {
    match timeout(PATIENCE, answers.try_collect()).await {
        Ok(Ok(all)) => Ok(all),
        Ok(Err(source)) => Err(NetError::Request {
            what: what.to_owned(),
            source,
        }),
        Err(_elapsed) => Err(NetError::Silent {
            what: what.to_owned(),
        }),
    }
}
