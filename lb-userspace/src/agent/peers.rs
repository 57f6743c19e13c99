//! The nodes that frames can be handed over to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::Mode;

use super::state::State;
use crate::net::{Known, NetError, RouteKind};

/// Who has not answered ARP or neighbour discovery for so long does not: as many questions as
/// the kernel asks before it gives up.
const SILENT: Duration = Duration::from_secs(3);

/// Between looks at which neighbours are sent to: the kernel takes an entry for stale after half a
/// minute or so.
const USED: Duration = Duration::from_secs(10);

/// A node on a LAN that this one is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) addr: IpAddr,
    /// Index of the interface that leads to it.
    pub(super) interface: u32,
}

/// The peers whose link addresses the kernel is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// By node name: by which interface, and where.
    there: BTreeMap<String, (u32, IpAddr)>,
    /// Those of them that left, and may be switched off by now.
    gone: BTreeSet<(u32, IpAddr)>,
}

/// When the kernel was told last who is sent to, and why it could not be.
#[derive(Debug, Default)]
pub(super) struct Used {
    at: Option<Instant>,
    pub(super) failure: Option<String>,
}

impl State {
    /// The nodes that packets may be handed over to: those that need no router in between, and
    /// that run Naru. Others would not know what to do with them.
    pub(super) async fn find_peers(
        &mut self,
        attached: &BTreeSet<u32>,
    ) -> Result<BTreeMap<String, Peer>, NetError> {
        let Some(wanted) = &self.wanted else {
            return Ok(BTreeMap::new());
        };
        let mut services = wanted.services.values();
        let dsr = services.any(|service| service.elsewhere == Mode::Dsr);
        if !dsr && self.options.gossip.is_none() {
            return Ok(BTreeMap::new());
        }
        let others = wanted.nodes.iter();
        let others = others.filter(|(name, _)| **name != self.options.node);
        let met: BTreeMap<_, _> = others.filter(|(name, _)| self.is_met(name)).collect();
        let mut peers = BTreeMap::new();
        for (name, node) in met {
            for &addr in &node.addresses {
                let route = self.survey.nodes.to(&self.network, addr).await?;
                let direct = route.kind == RouteKind::Unicast && route.gateway.is_none();
                let by = route.egress.filter(|egress| attached.contains(egress));
                if let (true, Some(interface)) = (direct, by) {
                    peers.insert(name.clone(), Peer { addr, interface });
                    break;
                }
            }
        }
        Ok(peers)
    }

    /// Has the kernel ask, now and then, whether those are still there to whom programs send by
    /// themselves.
    pub(super) async fn use_next_hops(&mut self) {
        if self.used.at.is_some_and(|at| at.elapsed() < USED) {
            return;
        }
        self.used.at = Some(Instant::now());
        let interfaces = self.attachments.values().map(|it| it.ifindex).collect();
        let links = self.datapath.next_hops();
        let told = self.network.use_neighbours(&links, &interfaces).await;
        let failure = told.err().map(|error| {
            format!("{error}; whoever gets another link address may not be found again")
        });
        if let Some(failure) = failure
            .as_ref()
            .filter(|it| self.used.failure.as_ref() != Some(it))
        {
            tracing::warn!("{failure}; trying again");
        }
        self.used.failure = failure;
    }

    fn peers_to_keep(&self) -> Kept {
        let lost = &self.cluster.view.lost;
        let there = self.peers.iter().filter(|(name, _)| !lost.contains(*name));
        let there: BTreeMap<_, _> = there
            .map(|(name, it)| (name.clone(), (it.interface, it.addr)))
            .collect();
        let members = &self.cluster.view.members;
        let met = &self.memory.peers;
        let gone = there
            .iter()
            .filter(|(name, _)| met.contains_key(*name) && !members.contains_key(*name))
            .map(|(_, key)| *key);
        Kept {
            gone: gone.collect(),
            there,
        }
    }

    /// Whether the kernel has to be told of others than those that it keeps.
    pub(super) fn keeps_other_peers(&self) -> bool {
        self.survey.kept.as_ref() != Some(&self.peers_to_keep())
    }

    /// Sees to it that the kernel goes on knowing the link addresses of the peers that are
    /// not lost. True where some peer has fallen silent, or speaks again.
    ///
    /// # Errors
    /// Where the kernel does not answer; it is to be asked again.
    pub(super) async fn keep_peers(&mut self) -> Result<bool, NetError> {
        let kept = self.peers_to_keep();
        let Kept { there, gone } = &kept;
        let wanted = there.values().copied().collect();
        let doubted = |key: &(u32, IpAddr)| gone.contains(key);
        self.survey.kept = None;
        let known = self.network.keep_neighbours(wanted, doubted).await?;
        self.survey.kept = Some(kept.clone());
        let (now, members) = (Instant::now(), &self.cluster.view.members);
        let away = there
            .iter()
            .filter(|(name, _)| !members.contains_key(*name));
        let unanswered = away.filter(|(_, key)| known.get(key) != Some(&Known::Yes));
        self.unanswered = unanswered
            .map(|(name, _)| (name, self.unanswered.get(name).copied().unwrap_or(now)))
            .map(|(name, since)| (name.clone(), since))
            .collect();
        let silent = self.unanswered.iter();
        let silent = silent.filter(|(_, since)| now - **since >= SILENT);
        let silent = silent.map(|(name, _)| name.clone()).collect();
        let before = std::mem::replace(&mut self.silent_peers, silent);
        for name in self.silent_peers.difference(&before) {
            tracing::warn!("node {name} does not answer: its backends take no new flows");
        }
        Ok(before != self.silent_peers)
    }
}
