//! One interface: announces the addresses newly claimed there, sees to it that questions
//! for them come in, and hears who else claims them.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    Claims, Shared,
    burst::Burst,
    discovery::{Discovery, Heard},
    groups::Groups,
    socket::LinkSocket,
    status::Counters,
};
use crate::net::Mac;

/// More than any frame that matters: ARP takes 42 bytes, neighbour discovery little
/// more. The rest of a longer one is cut off.
const FRAME: usize = 512;
/// A line in the log for each conflicting frame would let the LAN fill the disk.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Speaks on one interface, until the interface fails it.
pub(super) struct Speaker<D> {
    index: u32,
    name: String,
    discovery: D,
    socket: LinkSocket,
    shared: Arc<Shared>,
    groups: Groups,
    claimed: BTreeMap<IpAddr, Claimed>,
}

/// An address that this speaker has taken up.
struct Claimed {
    counters: Arc<Counters>,
    /// As of the last burst.
    repeats: u64,
    burst: Option<Burst>,
    conflict_logged: Option<Instant>,
}

impl<D: Discovery> Speaker<D> {
    /// Opens its socket; see [`LinkSocket::open`] for what that needs.
    pub(super) fn open(
        shared: Arc<Shared>,
        index: u32,
        name: String,
        mac: Mac,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: LinkSocket::open(&name, index, D::ETHER_TYPE, D::FILTER)?,
            discovery: D::new(mac),
            index,
            name,
            shared,
            groups: Groups::new(index),
            claimed: BTreeMap::new(),
        })
    }

    /// Runs until the socket fails, mostly because the interface went down or away.
    /// Everything claimed when it starts is announced.
    pub(super) async fn run(mut self) -> io::Error {
        match self.serve().await {
            Err(error) => error,
        }
    }

    async fn serve(&mut self) -> Result<Infallible, io::Error> {
        let mut changes = self.shared.claims.subscribe();
        let mut buffer = [0; FRAME];
        self.follow_claims()?;
        loop {
            self.announce_due()?;
            let due = self.claimed.values().filter_map(|c| c.burst?.due()).min();
            tokio::select! {
                // Claims first: what follows is judged by the newest.
                biased;
                Ok(()) = changes.changed() => self.follow_claims()?,
                length = self.socket.receive(&mut buffer) => self.on_frame(&buffer[..length?]),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Takes up what is newly claimed here and forgets what is released.
    fn follow_claims(&mut self) -> io::Result<()> {
        let claims = self.shared.claims.borrow().clone();
        self.claimed
            .retain(|&vip, _| is_claimed(&claims, vip, self.index));
        let here = claims.iter().filter(|(_, on)| on.contains(&self.index));
        let here = here.filter_map(|(vip, _)| D::own_family(*vip));
        let here: Vec<IpAddr> = here.map(Into::into).collect();
        // Before anybody is told whom to ask.
        self.join(&here)?;
        for vip in here {
            // Other counters than ours: it was released and claimed again meanwhile.
            let counters = self.shared.counters(vip, self.index);
            let repeats = counters.repeats.get();
            if let Some(known) = self.claimed.get_mut(&vip)
                && Arc::ptr_eq(&known.counters, &counters)
            {
                if known.repeats != repeats {
                    known.repeats = repeats;
                    known.burst = Some(Burst::new(Instant::now()));
                }
                continue;
            }
            tracing::info!(%vip, interface = self.name, "claiming by {}", D::NAME);
            let claimed = Claimed {
                counters,
                repeats,
                burst: Some(Burst::new(Instant::now())),
                conflict_logged: None,
            };
            self.claimed.insert(vip, claimed);
        }
        Ok(())
    }

    /// Joins the groups that questions for these addresses go to, and leaves the others:
    /// several addresses may share one, which stays as long as one of them does.
    fn join(&mut self, claimed: &[IpAddr]) -> io::Result<()> {
        let own = claimed.iter().filter_map(|vip| D::own_family(*vip));
        let groups: BTreeSet<_> = own.filter_map(D::group).collect();
        self.groups.follow(&groups).map_err(|error| {
            let text = format!("joining a multicast group: {error}; is IPv6 off on the interface?");
            io::Error::new(error.kind(), text)
        })
    }

    fn announce_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        // Held while sending: once a release has returned, nothing leaves for it.
        let claims = self.shared.claims.borrow();
        for (&vip, claimed) in &mut self.claimed {
            let Some(burst) = &mut claimed.burst else {
                continue;
            };
            match burst.due() {
                None => claimed.burst = None,
                Some(due) if due <= now && is_claimed(&claims, vip, self.index) => {
                    match announce(self.discovery, &self.socket, vip, &claimed.counters) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            burst.postpone(now);
                        }
                        done => {
                            done?;
                            burst.advance();
                        }
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &[u8]) {
        if let Some(heard) = self.discovery.hear(frame)
            && !self.shared.is_own(heard.sender)
        {
            self.check_conflict(&heard);
        }
    }

    /// RFC 5227, section 2.4: whoever else sends from a claimed address is in
    /// conflict with us. Counted and told, not fought: two balancers that defend the
    /// same address would fill the LAN.
    fn check_conflict(&mut self, heard: &Heard<D::Addr>) {
        let vip = heard.sender_addr.into();
        let Some(claimed) = self.claimed.get_mut(&vip) else {
            return;
        };
        claimed.counters.conflicts.add();
        let now = Instant::now();
        if claimed
            .conflict_logged
            .is_none_or(|at| now - at >= LOG_EVERY)
        {
            claimed.conflict_logged = Some(now);
            tracing::warn!(
                %vip,
                interface = self.name,
                by = %heard.sender,
                conflicts = claimed.counters.conflicts.get(),
                "another station uses an address that is claimed here",
            );
        }
    }
}

fn is_claimed(claims: &Claims, vip: IpAddr, index: u32) -> bool {
    claims.get(&vip).is_some_and(|on| on.contains(&index))
}

/// One round.
fn announce<D: Discovery>(
    discovery: D,
    socket: &LinkSocket,
    vip: IpAddr,
    counters: &Counters,
) -> io::Result<()> {
    let Some(vip) = D::own_family(vip) else {
        return Ok(());
    };
    for frame in discovery.announcement(vip) {
        socket.send(&frame)?;
        counters.gratuitous.add();
    }
    Ok(())
}
