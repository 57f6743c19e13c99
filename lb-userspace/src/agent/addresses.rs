//! The addresses of services of type LoadBalancer, as the agent's state has them.

use std::collections::BTreeMap;

use super::state::State;
use crate::{
    control::{Pools, Service},
    desired::{Balancer, BalancerName, Desired, ServiceName},
    ipam::{self, Assignment, Authority, Refusal},
};

/// What was assigned last, and whether it is written down.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// None before the first valid source.
    pub(super) assignment: Option<Assignment>,
    /// What it was made of, where this node, alone, or the source itself gave the addresses.
    of: Option<Desired>,
    /// Why the file does not hold it, if so. It is tried again while there is a reason.
    unsaved: Option<String>,
}

impl State {
    /// Gives addresses to those that are wanted, and writes down who has which before
    /// anything of it is in force.
    pub(super) fn assign(&mut self) {
        let Some(wanted) = &self.wanted else {
            return;
        };
        let known = self.merged_ledger();
        let settled = matches!(self.authority(), Authority::This | Authority::Source);
        if let Some(assignment) = &mut self.addresses.assignment
            && let Some(before) = &mut self.addresses.of
            && settled
            && assignment.ledger == known
            && assignment.follow(before, wanted)
        {
            before.clone_from(wanted);
            return;
        }
        let assignment = ipam::assign(wanted, &known, self.authority());
        self.addresses.of = settled.then(|| wanted.clone());
        self.cluster.waits = matches!(self.authority(), Authority::Other(_));
        for change in &assignment.changes {
            tracing::info!("{change}");
        }
        let before = self.addresses.assignment.take().unwrap_or_default();
        for (name, why) in &assignment.refused {
            match why {
                _ if before.refused.get(name) == Some(why) => {}
                // It takes a moment.
                Refusal::NotGiven => tracing::info!("{name} has no address: {why}"),
                _ => tracing::warn!("{name} has no address: {why}"),
            }
        }
        for it in assignment.displaced.difference(&before.displaced) {
            tracing::warn!("{it}");
        }
        if assignment.ledger != self.memory.addresses {
            self.memory.addresses = assignment.ledger.clone();
            self.save_addresses();
        }
        self.addresses.assignment = Some(assignment);
    }

    /// Tries again to write down who has which address, where that failed.
    pub(super) fn retry_addresses(&mut self) {
        if self.addresses.unsaved.is_some() {
            self.save_addresses();
        }
    }

    fn save_addresses(&mut self) {
        let saved = self.memory.save(&self.options.state_dir);
        let failure = saved.err().map(|error| {
            format!("the next agent may give out other addresses, as they cannot be saved: {error}")
        });
        if let Some(failure) = &failure
            && self.addresses.unsaved.as_ref() != Some(failure)
        {
            tracing::error!("{failure}; trying again");
        }
        self.addresses.unsaved = failure;
    }

    /// Who has no address, and what else is not as somebody wants it.
    pub(super) fn address_warnings(&self) -> impl Iterator<Item = String> {
        let assignment = self.addresses.assignment.iter();
        let assigned = assignment.flat_map(|it| {
            let refused = it.refused.iter();
            let refused = refused.map(|(name, why)| format!("{name} has no address: {why}"));
            refused.chain(it.displaced.iter().map(ToString::to_string))
        });
        assigned.chain(self.addresses.unsaved.clone())
    }

    /// The pools for the CLI.
    pub(super) fn pools(&self) -> anyhow::Result<Pools> {
        let assignment = self.addresses.assignment.as_ref();
        assignment.map(Pools::from).ok_or_else(|| {
            anyhow::anyhow!(
                "no valid configuration is in force, so pools are not known; see `naru status`"
            )
        })
    }

    /// Says of services which of them lack an address, and adds those that nothing serves
    /// for the lack of one.
    pub(super) fn tell_without_address(&self, services: &mut Vec<Service>) {
        let (Some(wanted), Some(assignment)) = (&self.wanted, &self.addresses.assignment) else {
            return;
        };
        let ports = |name: &BalancerName| {
            let balancer: Option<&Balancer> = wanted.balancers.get(name);
            balancer.into_iter().flat_map(|it| it.ports.keys())
        };
        let refused = assignment.refused.iter();
        let refused: BTreeMap<&ServiceName, String> = refused
            .flat_map(|(name, why)| ports(name).map(move |port| (port, why.to_string())))
            .collect();
        for (name, why) in refused {
            let mut listed = false;
            for row in services.iter_mut().filter(|row| row.name == name.0) {
                row.without_address = Some(why.clone());
                listed = true;
            }
            if let Some(service) = wanted.services.get(name).filter(|_| !listed) {
                services.push(Service::idle(name, service, why));
            }
        }
    }
}
