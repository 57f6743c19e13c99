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
        // Held while sending, as for an answer.
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
        // Held while sending: once a release has returned, nothing leaves for it.
        let claims = self.shared.claims.borrow();
        let Some(vip) = asked_here::<D>(&heard, &claims, self.index) else {
            return Ok(());
        };
        let Some(claimed) = self.claimed.get(&vip.into()) else {
            return Ok(());
        };
        claimed.counters.requests.add();
        match self.socket.send(&self.discovery.answer(&heard, vip)) {
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

/// The address that is asked for, where it is claimed on that interface. Who announces
/// it as its own asks nobody, whatever the frame says.
fn asked_here<D: Discovery>(
    heard: &Heard<D::Addr>,
    claims: &Claims,
    index: u32,
) -> Option<D::Addr> {
    heard
        .asks
        .filter(|&vip| vip != heard.sender_addr && is_claimed(claims, vip.into(), index))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::arp::Arp;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const VIP: [u8; 4] = [192, 168, 56, 11];

    /// A request by 192.168.56.100 for this address, to all.
    fn request(vip: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([2, 0, 0, 0, 0, 2, 192, 168, 56, 100, 0, 0, 0, 0, 0, 0]);
        frame.extend(vip);
        frame
    }

    fn asked(frame: &[u8], claims: &Claims, index: u32) -> Option<IpAddr> {
        let heard = Arp::new(MAC).hear(frame)?;
        asked_here::<Arp>(&heard, claims, index).map(IpAddr::from)
    }

    fn claims() -> Claims {
        Claims::from([(VIP.into(), [2].into())])
    }

    #[test]
    fn a_claim_counts_on_its_interface_only() {
        assert_eq!(asked(&request(VIP), &claims(), 2), Some(VIP.into()));
        assert_eq!(asked(&request(VIP), &claims(), 3), None);
        assert_eq!(asked(&request([192, 168, 56, 12]), &claims(), 2), None);
    }

    proptest! {
        /// Whatever the bytes, nothing is answered but the claimed address.
        #[test]
        fn nothing_else_is_ever_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            vip in prop_oneof![Just(VIP), any::<[u8; 4]>()],
            changes in proptest::collection::vec((0usize..42, any::<u8>()), 0..4),
        ) {
            prop_assert_eq!(asked(&bytes, &Claims::new(), 2), None);
            let mut frame = request(vip);
            for (at, byte) in changes {
                frame[at] = byte;
            }
            prop_assert_eq!(asked(&frame, &Claims::new(), 2), None);
            if let Some(answered) = asked(&frame, &claims(), 2) {
                prop_assert_eq!(answered, IpAddr::from(VIP));
                prop_assert_eq!(&frame[38..], &VIP[..]);
            }
        }
    }
}
