//! Claiming on the LAN: the program answers, for as long as the agent vouches for it, and
//! the announcer speaks.

use std::{collections::BTreeSet, time::Duration};

use super::state::State;
use crate::announce;

/// How long the program goes on answering without an agent, where no other node would
/// take over: longer than an agent takes to start again.
const ALONE: Duration = Duration::from_secs(60);
/// The same where others share the addresses and are not there at the moment: they might be
/// back before this node's agent is.
const DESERTED: Duration = Duration::from_secs(10);

impl State {
    /// Brings what is claimed in line with what this node is elected for: its datapath is in
    /// place by now. The program knows first, of what is new and of what is released, and of whoever
    /// had an address before.
    pub(super) fn claim(&mut self) {
        let (claims, again) = self.elect();
        let answerable = announce::answerable(&claims, &self.links);
        let former = &self.ownership.claims;
        let gained = claims.keys().filter(|ip| !former.contains_key(*ip));
        let gained = gained.chain(&again).copied().collect();
        let formers = self.formers(&claims, &gained);
        if let Err(error) = self.datapath.set_formers(&formers, &gained) {
            let failure = format!("{error}; connections of nodes that had addresses before end");
            self.failures.push(failure);
        }
        match self.datapath.set_claims(&answerable) {
            Ok(()) => {
                self.ownership.claims.clone_from(&claims);
                self.announcer.set_claims(claims);
                self.announcer.repeat(&again);
            }
            Err(error) => {
                self.failures.push(format!("claiming addresses: {error}"));
                self.ownership.claims = self.datapath.claims();
                self.announcer.set_claims(self.datapath.claims());
            }
        }
        self.speak();
        self.vouch();
        self.tell_announced();
    }

    /// Has the cluster know which Services this node announces.
    fn tell_announced(&self) {
        let (Some(herald), Some(assignment)) = (&self.herald, &self.addresses.assignment) else {
            return;
        };
        let claims = &self.ownership.claims;
        let attached: BTreeSet<u32> = self.attachments.values().map(|it| it.ifindex).collect();
        let announced = assignment.addresses.iter().filter_map(|(name, addresses)| {
            let claimed: Vec<_> = addresses.iter().filter_map(|ip| claims.get(ip)).collect();
            let on: BTreeSet<u32> = claimed.iter().copied().flatten().copied().collect();
            let names = on.iter().filter_map(|index| self.links.get(index));
            let names = names.map(|it| it.name.clone());
            let told = if on == attached {
                BTreeSet::new()
            } else {
                names.collect()
            };
            (!claimed.is_empty()).then(|| (name.clone(), told))
        });
        herald.tell(announced.collect());
    }

    /// Has the program go on answering: called on every tick, and when claims change. Among
    /// others, gossip's own thread renews the lease, in short steps.
    pub(super) fn vouch(&self) {
        if let Some(membership) = &self.cluster.membership {
            membership.confirm(self.cluster.view.number);
        } else if self.options.gossip.is_none()
            && let Err(error) = self.lease.renew(ALONE)
        {
            tracing::error!("{error}; claimed addresses will not be answered for");
        }
    }

    /// Leaves what no other node can announce to the next agent of this one, for as long as
    /// that may take to start; without any, answering ends at once.
    pub(super) fn resign(&self) {
        let left = self.ownership.claims.len();
        if left == 0 {
            return self.lease.end();
        }
        let time = if self.options.gossip.is_some() {
            DESERTED
        } else {
            ALONE
        };
        match self.lease.renew(time) {
            Ok(()) => tracing::info!("{left} addresses are answered for during {time:?} more"),
            Err(error) => tracing::error!("{error}; claimed addresses will not be answered for"),
        }
    }
}
