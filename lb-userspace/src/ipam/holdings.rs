//! Who holds which address, and who may have it beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::Refusal;
use crate::desired::{Balancer, BalancerName, Desired, Frontend, ServiceName};

/// The addresses that are taken while an assignment is made.
pub(super) struct Holdings<'a> {
    desired: &'a Desired,
    held: BTreeMap<IpAddr, Vec<&'a BalancerName>>,
    /// What services have without asking anybody: external and cluster IPs.
    fixed: BTreeMap<Frontend, &'a ServiceName>,
    /// The addresses of those, and those of the nodes: given out only on request.
    avoided: BTreeSet<IpAddr>,
}

impl<'a> Holdings<'a> {
    pub(super) fn new(desired: &'a Desired) -> Self {
        let services = desired.services.iter();
        let fixed: BTreeMap<_, _> = services
            .flat_map(|(name, service)| service.named().map(move |it| (*it, name)))
            .collect();
        Self {
            desired,
            held: BTreeMap::new(),
            fixed,
            avoided: Self::of_others(desired),
        }
    }

    /// The addresses that are somebody's without having been given: of nodes, external and cluster
    /// IPs, and what others gave.
    pub(super) fn of_others(desired: &Desired) -> BTreeSet<IpAddr> {
        let nodes = desired.nodes.values().flat_map(|it| &it.addresses);
        let services = desired.services.values();
        let fixed = services.flat_map(|it| it.external.union(&it.cluster));
        let fixed = fixed.map(|it| it.addr.ip());
        let foreign = desired.foreign.keys().copied();
        nodes.copied().chain(fixed).chain(foreign).collect()
    }

    pub(super) fn take(&mut self, name: &'a BalancerName, addresses: &BTreeSet<IpAddr>) {
        for ip in addresses {
            self.held.entry(*ip).or_default().push(name);
        }
    }

    /// Whether anybody holds it.
    pub(super) fn is_held(&self, ip: IpAddr) -> bool {
        self.held.contains_key(&ip)
    }

    /// Whether it is given out only to who asks for it by name.
    pub(super) fn is_avoided(&self, ip: IpAddr) -> bool {
        self.avoided.contains(&ip)
    }

    /// Why it cannot be beside those who hold the address.
    pub(super) fn company(
        &self,
        name: &BalancerName,
        balancer: &Balancer,
        ip: IpAddr,
    ) -> Option<Refusal> {
        let others = self.held.get(&ip).into_iter().flatten();
        let mut others = others.filter(|other| **other != name);
        others.find_map(|other| {
            let why = match self.desired.balancers.get(*other) {
                Some(theirs) => apart(balancer, theirs)?,
                None => "this node does not know that Service yet".to_owned(),
            };
            Some(Refusal::Taken {
                ip,
                by: (*other).clone(),
                why,
            })
        })
    }

    /// Why it is not given an address that somebody has without asking: as external or cluster IP
    /// on one of its ports, or of others. What it says itself that it has was given to it, whoever
    /// names it since.
    pub(super) fn fixed(&self, balancer: &Balancer, ip: IpAddr) -> Option<Refusal> {
        if balancer.given.contains(&ip) {
            return None;
        }
        if let Some(by) = self.desired.foreign.get(&ip) {
            return Some(Refusal::Taken {
                ip,
                by: by.clone(),
                why: "that Service is of another load balancer, or not valid".to_owned(),
            });
        }
        balancer.ports.values().find_map(|&(port, protocol)| {
            let addr = SocketAddr::new(ip, port);
            let frontend = Frontend { addr, protocol };
            let by = *self.fixed.get(&frontend)?;
            let own = balancer.ports.contains_key(by);
            (!own).then(|| Refusal::Fixed {
                frontend,
                by: by.clone(),
            })
        })
    }

    /// The endpoint of its own that one of its ports would be on.
    pub(super) fn circle(&self, balancer: &Balancer, ip: IpAddr) -> Option<Refusal> {
        balancer.ports.iter().find_map(|(name, &(port, _))| {
            let addr = SocketAddr::new(ip, port);
            let service = self.desired.services.get(name)?;
            let own = service.endpoints.contains_key(&addr);
            own.then_some(Refusal::Circle(addr))
        })
    }
}

/// Why two balancers may not share an address, if so.
pub(super) fn apart(one: &Balancer, other: &Balancer) -> Option<String> {
    let keys = (
        one.sharing_key.as_deref().unwrap_or_default(),
        other.sharing_key.as_deref().unwrap_or_default(),
    );
    if keys.0.is_empty() || keys.0 != keys.1 {
        let why = "they do not have the same annotation metallb.io/allow-shared-ip";
        return Some(why.to_owned());
    }
    if one.backend_key != other.backend_key {
        let why = "with externalTrafficPolicy Local only Services of the same pods share one";
        return Some(why.to_owned());
    }
    let mut ports = one.ports.values();
    let both = ports.find(|port| other.ports.values().any(|it| it == *port));
    both.map(|(port, protocol)| format!("both have port {port}/{protocol}"))
}
