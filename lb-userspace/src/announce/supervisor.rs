//! Keeps a speaker on every interface that something is claimed on and that can
//! carry it, through all that happens to interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    marker::PhantomData,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    Claims, Shared,
    arp::Arp,
    discovery::Discovery,
    ndp::Ndp,
    speaker::Speaker,
    status::{AnnounceState, SkipReason},
};
use crate::net::{Changes, Events, Link, Mac, Network};

/// Before another try at what failed.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, net: Network, events: Events) {
    let mut claims = shared.claims.subscribe();
    let mut events = Some(events);
    let mut arp = Listeners::<Arp>::new();
    let mut ndp = Listeners::<Ndp>::new();
    loop {
        let wanted = claims.borrow_and_update().clone();
        let mut settled = events.is_some();
        match net.links().await {
            Ok(links) => {
                shared.table().note_links(&links);
                settled &= arp.reconcile(&shared, &wanted, &links);
                settled &= ndp.reconcile(&shared, &wanted, &links);
            }
            Err(error) => {
                tracing::warn!(%error, "interfaces for announcing are not known");
                settled = false;
            }
        }
        let retry = Instant::now() + RETRY;
        tokio::select! {
            Ok(()) = claims.changed() => {}
            () = next_link_change(&mut events) => {}
            () = arp.ended(&shared) => {}
            () = ndp.ended(&shared) => {}
            () = sleep_until(retry), if !settled => {}
        }
        if events.is_none() {
            events = net.events().ok();
        }
    }
}

/// Returns when links changed, or when the subscription broke, which it then empties.
async fn next_link_change(events: &mut Option<Events>) {
    let Some(subscription) = events else {
        return std::future::pending().await;
    };
    loop {
        match subscription.next().await {
            Ok(Changes { links: true, .. }) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "lost the notices of changed interfaces");
                *events = None;
                return;
            }
        }
    }
}

/// The speakers of one protocol.
struct Listeners<D> {
    running: BTreeMap<u32, Running>,
    tasks: JoinSet<io::Error>,
    protocol: PhantomData<D>,
}

struct Running {
    carrier: Carrier,
    task: AbortHandle,
}

/// What a speaker was started for. With another one the neighbours are to be told
/// anew: they may sit behind another switch, or know another Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Carrier {
    name: String,
    mac: Mac,
    carrier_changes: u32,
}

impl<D: Discovery> Listeners<D> {
    fn new() -> Self {
        Self {
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            protocol: PhantomData,
        }
    }

    /// Starts and stops speakers as links and claims ask for it. False where one
    /// could not be started that should be.
    fn reconcile(
        &mut self,
        shared: &Arc<Shared>,
        claims: &Claims,
        links: &BTreeMap<u32, Link>,
    ) -> bool {
        let wanted: BTreeSet<u32> = claims
            .iter()
            .filter(|(vip, _)| D::own_family(**vip).is_some())
            .flat_map(|(_, interfaces)| interfaces.iter().copied())
            .collect();
        let unwanted: Vec<u32> = self
            .running
            .keys()
            .copied()
            .filter(|index| !wanted.contains(index))
            .collect();
        for index in unwanted {
            self.stop(index);
        }
        shared.table().retain_states(D::NAME, &wanted);

        let mut settled = true;
        for index in wanted {
            let state = match usable::<D>(links, index) {
                Ok(carrier) => self.start(shared, index, carrier),
                Err(reason) => {
                    self.stop(index);
                    AnnounceState::Skipped(reason)
                }
            };
            settled &= !matches!(state, AnnounceState::Failed(_));
            note::<D>(shared, index, state);
        }
        settled
    }

    fn start(&mut self, shared: &Arc<Shared>, index: u32, carrier: Carrier) -> AnnounceState {
        if self
            .running
            .get(&index)
            .is_some_and(|r| r.carrier == carrier)
        {
            return AnnounceState::Answering;
        }
        self.stop(index);
        let opened =
            Speaker::<D>::open(Arc::clone(shared), index, carrier.name.clone(), carrier.mac);
        match opened {
            Ok(speaker) => {
                let task = self.tasks.spawn(speaker.run());
                self.running.insert(index, Running { carrier, task });
                AnnounceState::Answering
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                AnnounceState::Failed("no raw socket without CAP_NET_RAW; run as root".to_owned())
            }
            Err(error) => AnnounceState::Failed(format!("raw socket: {error}")),
        }
    }

    fn stop(&mut self, index: u32) {
        if let Some(running) = self.running.remove(&index) {
            running.task.abort();
        }
    }

    /// Returns when a speaker has ended by itself. Why the interface failed it, the
    /// next look at the interfaces tells.
    async fn ended(&mut self, shared: &Arc<Shared>) {
        loop {
            let (id, reason) = match self.tasks.join_next_with_id().await {
                None => return std::future::pending().await,
                Some(Ok((id, error))) => (id, error.to_string()),
                Some(Err(error)) => (error.id(), error.to_string()),
            };
            let index = self
                .running
                .iter()
                .find_map(|(&index, running)| (running.task.id() == id).then_some(index));
            // One that was stopped is not in the table any more.
            if let Some(index) = index {
                self.running.remove(&index);
                note::<D>(shared, index, AnnounceState::Failed(reason));
                return;
            }
        }
    }
}

/// Whether an address can be claimed on that interface.
pub(super) fn carries(
    links: &BTreeMap<u32, Link>,
    index: u32,
    vip: IpAddr,
) -> Result<(), SkipReason> {
    match vip {
        IpAddr::V4(_) => usable::<Arp>(links, index).map(drop),
        IpAddr::V6(_) => usable::<Ndp>(links, index).map(drop),
    }
}

/// Whether the protocol can run on that interface.
fn usable<D: Discovery>(links: &BTreeMap<u32, Link>, index: u32) -> Result<Carrier, SkipReason> {
    let link = links.get(&index).ok_or(SkipReason::Gone)?;
    if link.loopback {
        return Err(SkipReason::Loopback);
    }
    if let Some(master) = link.master {
        let name = links.get(&master).map(|link| link.name.clone());
        return Err(SkipReason::Enslaved(
            name.unwrap_or_else(|| format!("#{master}")),
        ));
    }
    if let Some(reason) = D::refuses(link) {
        return Err(reason);
    }
    let mac = link.mac.ok_or(SkipReason::NotEthernet)?;
    if !link.up {
        return Err(SkipReason::Down);
    }
    if !link.carrier {
        return Err(SkipReason::NoCarrier);
    }
    Ok(Carrier {
        name: link.name.clone(),
        mac,
        carrier_changes: link.carrier_changes,
    })
}

/// Notes and, where it is news, logs.
fn note<D: Discovery>(shared: &Shared, index: u32, state: AnnounceState) {
    let mut table = shared.table();
    if !table.set_state(index, D::NAME, state.clone()) {
        return;
    }
    let interface = table.name(index);
    match state {
        AnnounceState::Pending => {}
        AnnounceState::Answering => tracing::info!(interface, "speaking {}", D::NAME),
        AnnounceState::Skipped(reason) => {
            tracing::info!(interface, %reason, "not speaking {}", D::NAME);
        }
        AnnounceState::Failed(error) => {
            tracing::warn!(interface, error, "not speaking {}", D::NAME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan() -> Link {
        Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            up: true,
            carrier: true,
            carrier_changes: 2,
            broadcast: true,
            ..Link::default()
        }
    }

    fn check(link: Link) -> Result<Carrier, SkipReason> {
        let bridge = Link {
            index: 9,
            name: "br0".to_owned(),
            ..Link::default()
        };
        usable::<Arp>(&BTreeMap::from([(2, link), (9, bridge)]), 2)
    }

    #[test]
    fn every_unusable_interface_has_its_reason() {
        assert!(check(lan()).is_ok());
        type Spoil = fn(&mut Link);
        let cases: [(Spoil, SkipReason); 7] = [
            (|l| l.up = false, SkipReason::Down),
            (|l| l.carrier = false, SkipReason::NoCarrier),
            (|l| l.loopback = true, SkipReason::Loopback),
            (|l| l.noarp = true, SkipReason::NoArp),
            (|l| l.broadcast = false, SkipReason::NoBroadcast),
            (|l| l.mac = None, SkipReason::NotEthernet),
            (
                |l| l.master = Some(9),
                SkipReason::Enslaved("br0".to_owned()),
            ),
        ];
        for (spoil, reason) in cases {
            let mut link = lan();
            spoil(&mut link);
            assert_eq!(check(link), Err(reason));
        }
        assert_eq!(usable::<Arp>(&BTreeMap::new(), 2), Err(SkipReason::Gone));
    }

    #[test]
    fn a_flap_or_another_address_starts_anew() {
        let before = check(lan());
        let flapped = Link {
            carrier_changes: 4,
            ..lan()
        };
        let readdressed = Link {
            mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            ..lan()
        };
        let resized = Link { mtu: 9000, ..lan() };
        assert_ne!(check(flapped), before);
        assert_ne!(check(readdressed), before);
        assert_eq!(check(resized), before);
    }
}
