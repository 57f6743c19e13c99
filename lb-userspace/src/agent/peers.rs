//! The nodes that frames can be handed over to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::Mode;

use super::state::State;
use crate::net::{NetError, RouteKind};

/// A node on a LAN that this one is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) addr: IpAddr,
    /// Index of the interface that leads to it.
    pub(super) interface: u32,
}

impl State {
    /// The nodes that packets may be handed over to: those that need no router in between, and
    /// that run Naru. Others would not know what to do with them.
    pub(super) async fn find_peers(
        &self,
        attached: &BTreeSet<u32>,
    ) -> Result<BTreeMap<String, Peer>, NetError> {
        let mut peers = BTreeMap::new();
        let Some(wanted) = &self.wanted else {
            return Ok(peers);
        };
        let mut services = wanted.services.values();
        let dsr = services.any(|service| service.elsewhere == Mode::Dsr);
        if !dsr && self.options.gossip.is_none() {
            return Ok(peers);
        }
        let others = wanted.nodes.iter();
        let others = others.filter(|(name, _)| **name != self.options.node);
        for (name, node) in others.filter(|(name, _)| self.is_met(name)) {
            for &addr in &node.addresses {
                let route = self.network.route_to(addr).await?;
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

    /// Sees to it that the kernel goes on knowing the link addresses of the peers that are
    /// not lost.
    pub(super) async fn keep_peers(&mut self) {
        let lost = &self.cluster.view.lost;
        let there = self.peers.iter().filter(|(name, _)| !lost.contains(*name));
        let wanted = there.map(|(_, it)| (it.interface, it.addr));
        if let Err(error) = self.network.keep_neighbours(wanted.collect()).await {
            let failure = format!("{error}; packets are not handed over to a node without it");
            self.failures.push(failure);
        }
    }
}
