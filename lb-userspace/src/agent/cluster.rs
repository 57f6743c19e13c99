//! The other nodes, as the agent's state has them: who is there, what this one tells them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use tokio::time::{Instant, timeout_at};

use super::state::State;
use crate::{
    desired::{BalancerName, Condition, Desired, Endpoint},
    election::Standing,
    ipam::{Authority, Ledger},
    membership::{self, Key, LEASE, Member, Membership, View, Words},
    source::Source,
};

/// How long others may take to announce what a node that stops hands over.
const HAND_OVER: Duration = Duration::from_millis(1500);

/// How long a node waits for others that its source knows before it gives addresses out
/// alone: longer than a switch takes to let a port through.
const LONELY: Duration = Duration::from_secs(60);

/// How nodes that share virtual IPs find and trust each other.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// The file with the key that all share.
    pub key: PathBuf,
    /// Where this node listens; none: its InternalIP, or else an address of the first attached
    /// interface by name that has any.
    pub address: Option<IpAddr>,
    /// The port, of this node and of those that the source knows.
    pub port: u16,
    /// Where others are found, beside the nodes that the source knows.
    pub join: Vec<SocketAddr>,
}

/// What is known of the others.
#[derive(Default)]
pub(super) struct Cluster {
    /// None for a node that is alone on purpose.
    pub(super) membership: Option<Membership>,
    /// As of the last change.
    pub(super) view: View,
    /// The Services that others say they want, and that have an address.
    pub(super) wanted_elsewhere: BTreeSet<BalancerName>,
    /// Another node was to give addresses out when that was looked at last.
    pub(super) waits: bool,
    /// This node is about to stop.
    pub(super) leaving: bool,
}

impl State {
    /// Joins the others, where the options say so. Before that, and for a moment after,
    /// nothing is announced.
    pub(super) async fn join(&mut self) -> anyhow::Result<()> {
        let Some(gossip) = self.options.gossip.clone() else {
            return Ok(());
        };
        let key = Key::load(&gossip.key)?;
        let ip = match gossip.address.or_else(|| self.own_address()) {
            Some(ip) => ip,
            None => self.first_address().await?,
        };
        let options = membership::Options {
            node: self.options.node.clone(),
            address: SocketAddr::new(ip, gossip.port),
            key,
            hold_down: self.options.hold_down.unwrap_or_default(),
            state_dir: self.options.state_dir.clone(),
        };
        let lease = self.datapath.lease()?;
        let mut broken = false;
        let renew = move || {
            let renewed = lease.renew(LEASE);
            if let Err(error) = &renewed
                && !broken
            {
                tracing::error!("{error}; claimed addresses will not be answered for");
            }
            broken = renewed.is_err();
        };
        self.cluster.membership = Some(Membership::start(options, renew)?);
        tracing::info!("gossip on {ip}, port {}", gossip.port);
        self.seek();
        Ok(())
    }

    /// The InternalIP of this node, IPv4 before IPv6.
    fn own_address(&self) -> Option<IpAddr> {
        let node = self.wanted.as_ref()?.nodes.get(&self.options.node)?;
        node.addresses.first().copied()
    }

    async fn first_address(&self) -> anyhow::Result<IpAddr> {
        let snapshot = self.network.snapshot().await?;
        let mut attached = self.attachments.values();
        let found = attached.find_map(|it| {
            let v4 = snapshot.first_global(it.ifindex, false);
            v4.or_else(|| snapshot.first_global(it.ifindex, true))
        });
        found.context("no interface has an address to gossip from; give --gossip-address")
    }

    /// Whether gossip has ended by itself.
    pub(super) fn has_lost_gossip(&self) -> bool {
        let membership = self.cluster.membership.as_ref();
        membership.is_some_and(|it| !it.is_running())
    }

    /// Tells gossip where the others may be.
    pub(super) fn seek(&self) {
        let (Some(membership), Some(gossip)) = (&self.cluster.membership, &self.options.gossip)
        else {
            return;
        };
        let nodes = self.wanted.iter().flat_map(|it| &it.nodes);
        let others = nodes.filter(|(name, _)| **name != self.options.node);
        let known = others
            .flat_map(|(_, node)| &node.addresses)
            .map(|&ip| SocketAddr::new(ip, gossip.port));
        let met = self.memory.peers.values().chain(&gossip.join).copied();
        membership.seek(known.chain(met).collect());
    }

    /// Writes down where others were met: an agent whose source is invalid finds them by it,
    /// and one that starts anew hands packets over to them at once. True where somebody was
    /// never met before.
    fn remember_peers(&mut self) -> bool {
        let members = self.cluster.view.members.iter();
        let others = members.filter(|(name, _)| **name != self.options.node);
        let met = others.map(|(name, it)| (name.clone(), it.address));
        let mut peers = self.memory.peers.clone();
        peers.extend(met);
        if let Some(wanted) = self.wanted.as_ref().filter(|it| !it.nodes.is_empty()) {
            let there = |name: &String| {
                wanted.nodes.contains_key(name) || self.cluster.view.members.contains_key(name)
            };
            peers.retain(|name, _| there(name));
        }
        if peers == self.memory.peers {
            return false;
        }
        let news = peers.keys().any(|it| !self.memory.peers.contains_key(it));
        self.memory.peers = peers;
        if let Err(error) = self.memory.save(&self.options.state_dir) {
            tracing::warn!("the next agent will not know where the others are: {error}");
        }
        news
    }

    /// Whether a node runs Naru, as far as this one can know.
    pub(super) fn is_met(&self, node: &str) -> bool {
        self.options.gossip.is_none() || self.memory.peers.contains_key(node)
    }

    /// Whether all that are there had the time to be met.
    pub(super) fn has_met(&self) -> bool {
        self.options.gossip.is_none() || self.cluster.view.settled
    }

    /// Whether somebody is there that has not just started. Whoever is heard first need not be
    /// the one that has the addresses, and what it says now may not have come yet.
    fn is_reunited(&self) -> bool {
        let members = self.cluster.view.members.iter();
        let mut others = members.filter(|(name, _)| **name != self.options.node);
        others.any(|(_, it)| !it.words.standing.starting)
    }

    /// Has this node listen for others before it announces anything: it was cut off, and
    /// they may have gone on without it.
    pub(super) fn listen_again(&mut self) {
        if let Some(membership) = &self.cluster.membership {
            tracing::info!("listening for other nodes before answering");
            membership.listen();
            self.cluster.view = membership.view();
        }
    }

    /// Takes over who is there. Claims come first: clients wait for them.
    pub(super) async fn view_changed(&mut self) {
        let Some(membership) = &self.cluster.membership else {
            return;
        };
        let view = membership.view();
        let before = std::mem::replace(&mut self.cluster.view, view);
        let reunited = before.is_deserted() && self.is_reunited();
        if reunited {
            self.listen_again();
        }
        self.tell_of(&before);
        self.cluster.wanted_elsewhere = self.wanted_elsewhere();
        self.remember_claimants();
        let lost = before.lost != self.cluster.view.lost;
        // Whoever takes an address has the endpoints of all others first, and the ways to them.
        let returned = !before.lost.is_subset(&self.cluster.view.lost);
        let met = self.remember_peers();
        if reunited {
            self.claim();
        }
        let settled = before.settled != self.cluster.view.settled;
        let reassign = settled
            || Self::allocations(&before) != Self::allocations(&self.cluster.view)
            || self.authority_in(&before) != self.authority();
        let joined = self.cluster.view.members.keys();
        let joined = joined.filter(|it| !before.members.contains_key(*it));
        if joined.count() > 0 {
            // Whoever came may have spoken for an address on its side of a split.
            self.ownership.repeat_all();
        }
        if reassign {
            self.assign();
        }
        if returned || met {
            self.reconcile().await;
            return;
        }
        self.claim();
        if lost || reassign {
            self.reconcile().await;
        }
    }

    fn tell_of(&self, before: &View) {
        let now = &self.cluster.view;
        for name in now.members.keys() {
            if !before.members.contains_key(name) && *name != self.options.node {
                tracing::info!("node {name} is there");
            }
        }
        for name in before.members.keys() {
            if now.lost.contains(name) {
                tracing::warn!(
                    "node {name} is gone without a word: its backends take no new flows"
                );
            } else if !now.members.contains_key(name) {
                tracing::info!("node {name} has left");
            }
        }
    }

    /// Takes endpoints on nodes that are lost, or silent, out of what is wanted.
    pub(super) fn without_lost(&self, desired: &mut Desired) {
        if self.cluster.view.lost.is_empty() && self.silent_peers.is_empty() {
            return;
        }
        let lost = |endpoint: &Endpoint| endpoint.node.as_ref().is_some_and(|it| self.is_lost(it));
        desired.services.change(
            |_, service| service.endpoints.values().any(lost),
            |_, service| {
                for endpoint in service.endpoints.values_mut().filter(|it| lost(it)) {
                    endpoint.condition = Condition::Unhealthy;
                }
            },
        );
    }

    /// Whether a node is gone, as far as gossip or ARP tells.
    pub(super) fn is_lost(&self, node: &str) -> bool {
        self.cluster.view.lost.contains(node) || self.silent_peers.contains(node)
    }

    /// Everybody that stands for election, this node by what it knows of itself.
    pub(super) fn members(&self) -> BTreeMap<String, Standing> {
        let members = self.cluster.view.members.iter();
        let mut members: BTreeMap<String, Standing> = members
            .map(|(name, it)| (name.clone(), it.words.standing.clone()))
            .collect();
        let held_down = members
            .get(&self.options.node)
            .is_some_and(|it| it.held_down);
        let own = Standing {
            starting: self.options.gossip.is_some() && !self.cluster.view.settled,
            leaving: self.cluster.leaving,
            held_down,
            withheld: self.ownership.withheld.clone(),
            claims: self.ownership.claims.keys().copied().collect(),
        };
        members.insert(self.options.node.clone(), own);
        members
    }

    /// Who gives addresses out: the first by name of those that stay.
    pub(super) fn authority(&self) -> Authority<'_> {
        self.authority_in(&self.cluster.view)
    }

    /// Whether addresses are not the nodes' to give out.
    fn is_told_addresses(&self) -> bool {
        matches!(self.options.source, Source::Cluster(_))
    }

    fn authority_in<'a>(&'a self, view: &'a View) -> Authority<'a> {
        if self.is_told_addresses() {
            return Authority::Source;
        }
        if self.options.gossip.is_none() {
            return Authority::This;
        }
        if !self.may_give(view) {
            return Authority::Other("the other nodes that the source knows");
        }
        let stays = |name: &str, it: &Member| {
            let standing = &it.words.standing;
            if name == self.options.node {
                self.is_ready() && !self.cluster.leaving
            } else {
                !standing.starting && !standing.leaving
            }
        };
        match view.members.iter().find(|(name, it)| stays(name, it)) {
            Some((name, _)) if *name == self.options.node => {
                Authority::Among(&self.cluster.wanted_elsewhere)
            }
            Some((name, _)) => Authority::Other(name),
            None => Authority::Other("the nodes to find each other"),
        }
    }

    /// Whether this node knows who is there, and what is wanted.
    fn is_ready(&self) -> bool {
        self.cluster.view.settled && self.wanted.is_some()
    }

    /// Whether what this node would give out is not likely to have been given by others whom
    /// it does not hear yet, its cable or its key being on the way.
    fn may_give(&self, view: &View) -> bool {
        let nodes = self.wanted.iter().flat_map(|it| it.nodes.keys());
        let others = nodes.filter(|name| **name != self.options.node);
        view.members.len() > 1 || others.count() == 0 || self.started.elapsed() >= LONELY
    }

    fn wanted_elsewhere(&self) -> BTreeSet<BalancerName> {
        let members = self.cluster.view.members.iter();
        let others = members.filter(|(name, _)| **name != self.options.node);
        let names = others.flat_map(|(_, it)| it.words.allocations.keys());
        names.map(|name| BalancerName(name.clone())).collect()
    }

    /// What the members say was given, by whom.
    fn allocations(view: &View) -> BTreeMap<&str, &BTreeMap<String, String>> {
        let members = view.members.iter();
        let giving = members.filter(|(_, it)| !it.words.allocations.is_empty());
        giving
            .map(|(name, it)| (name.as_str(), &it.words.allocations))
            .collect()
    }

    /// All that is known of addresses that were given, by this node and the others.
    pub(super) fn merged_ledger(&self) -> Ledger {
        let mut ledger = self.memory.addresses.clone();
        for (node, words) in Self::allocations(&self.cluster.view) {
            match Ledger::from_words(words) {
                Ok(theirs) => {
                    ledger.merge(&theirs);
                }
                Err(error) => tracing::warn!("node {node}: {error}"),
            }
        }
        ledger
    }

    /// Tells the others how this node stands, and lets the lease go on.
    pub(super) fn speak(&self) {
        let Some(membership) = &self.cluster.membership else {
            return;
        };
        let standing = self.members().remove(&self.options.node);
        // By every member, of what it wants: so the one that gives out hears of what was
        // given while it was away, and of what it does not know itself.
        let wants = |name: &BalancerName| {
            let wanted = self.wanted.as_ref();
            wanted.is_some_and(|it| it.balancers.contains_key(name))
        };
        membership.say(Words {
            standing: standing.unwrap_or_default(),
            allocations: self.memory.addresses.to_words(wants),
        });
        membership.confirm(self.cluster.view.number);
    }

    /// Hands over what this node announces, then leaves the others.
    pub(super) async fn leave(&mut self) {
        let owned: BTreeSet<IpAddr> = self.ownership.claims.keys().copied().collect();
        self.cluster.leaving = true;
        self.claim();
        let deadline = Instant::now() + HAND_OVER;
        while !self.handed_over(&owned) {
            let Some(membership) = &mut self.cluster.membership else {
                break;
            };
            if timeout_at(deadline, membership.changed()).await.is_err() {
                tracing::warn!("not all addresses were taken over by other nodes in time");
                break;
            }
            self.cluster.view = membership.view();
            self.claim();
        }
        if let Some(membership) = self.cluster.membership.take() {
            membership.stop();
        }
    }

    /// Whether others announce all of these that any of them may.
    fn handed_over(&self, owned: &BTreeSet<IpAddr>) -> bool {
        let members = self.members();
        let successors = self.winners(&self.subjects(), &members);
        owned.iter().all(|ip| {
            let successor = successors.get(ip).and_then(|it| members.get(it));
            successor.is_none_or(|it| it.claims.contains(ip))
        })
    }
}
