//! One interface: answers for the addresses claimed there, and announces new ones.

use std::{collections::BTreeMap, convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Claims, Shared,
    burst::Burst,
    discovery::{Discovery, Heard},
    socket::LinkSocket,
    status::Counters,
};
use crate::net::Mac;

/// More than any frame that matters: ARP takes 42 bytes, neighbour discovery little
/// more. The rest of a longer one is cut off.
const FRAME: usize = 512;
/// A line in the log for each conflicting frame would let the LAN fill the disk.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Answers on one interface, until the interface fails it.
pub(super) struct Responder<D> {
    index: u32,
    name: String,
    discovery: D,
    socket: LinkSocket,
    shared: Arc<Shared>,
    claimed: BTreeMap<IpAddr, Claimed>,
}

/// An address that this responder has taken up.
struct Claimed {
    counters: Arc<Counters>,
    burst: Option<Burst>,
    conflict_logged: Option<Instant>,
}

impl<D: Discovery> Responder<D> {
    /// Opens its socket; see [`LinkSocket::open`] for what that needs.
    pub(super) fn open(
        shared: Arc<Shared>,
        index: u32,
        name: String,
        mac: Mac,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: LinkSocket::open(&name, index, D::ETHER_TYPE)?,
            discovery: D::new(mac),
            index,
            name,
            shared,
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
        self.follow_claims();
        loop {
            self.announce_due()?;
            let due = self.claimed.values().filter_map(|c| c.burst?.due()).min();
            tokio::select! {
                // Claims first: what follows is judged by the newest.
                biased;
                Ok(()) = changes.changed() => self.follow_claims(),
                length = self.socket.receive(&mut buffer) => self.on_frame(&buffer[..length?])?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Takes up what is newly claimed here and forgets what is released.
    fn follow_claims(&mut self) {
        let claims = self.shared.claims.borrow().clone();
        self.claimed
            .retain(|&vip, _| is_claimed(&claims, vip, self.index));
        for (&vip, interfaces) in &claims {
            if D::own_family(vip).is_none() || !interfaces.contains(&self.index) {
                continue;
            }
            // Other counters than ours: it was released and claimed again meanwhile.
            let counters = self.shared.counters(vip, self.index);
            let known = self.claimed.get(&vip);
            if known.is_some_and(|claimed| Arc::ptr_eq(&claimed.counters, &counters)) {
                continue;
            }
            tracing::info!(%vip, interface = self.name, "claiming by {}", D::NAME);
            let claimed = Claimed {
                counters,
                burst: Some(Burst::new(Instant::now())),
                conflict_logged: None,
            };
            self.claimed.insert(vip, claimed);
        }
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

    fn on_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let Some(heard) = self.discovery.hear(frame) else {
            return Ok(());
        };
        if self.shared.is_own(heard.sender) {
            return Ok(());
        }
        self.check_conflict(&heard);
        // Who announces an address as its own asks nobody.
        let Some(asked) = heard.asks.filter(|&asked| asked != heard.sender_addr) else {
            return Ok(());
        };
        let vip = asked.into();
        let claims = self.shared.claims.borrow();
        let Some(claimed) = self.claimed.get(&vip) else {
            return Ok(());
        };
        if !is_claimed(&claims, vip, self.index) {
            return Ok(());
        }
        claimed.counters.requests.add();
        match self.socket.send(&self.discovery.answer(&heard, asked)) {
            Ok(()) => claimed.counters.responses.add(),
            // Who asked asks again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
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
