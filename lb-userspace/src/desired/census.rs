//! How many endpoints are where.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Endpoint, Service, ServiceName, Shared};

/// How many endpoints of services there are at each address, kept up with what is wanted: to go
/// over all of them for the sake of one that has changed takes longer than most of what follows from
/// it.
#[derive(Debug)]
pub struct Census {
    counts: fn(&Endpoint) -> bool,
    /// Whose endpoints are counted.
    services: Shared<ServiceName, Service>,
    at: BTreeMap<IpAddr, usize>,
}

impl Census {
    /// One of those endpoints that `counts` says it of.
    pub fn of(counts: fn(&Endpoint) -> bool) -> Self {
        Self {
            counts,
            services: Shared::default(),
            at: BTreeMap::new(),
        }
    }

    /// Takes those of these services in place of those before.
    pub fn follow(&mut self, services: &Shared<ServiceName, Service>) {
        let none = Service::default();
        for (now, before) in services.exchanged(&self.services) {
            let (now, before) = (now.unwrap_or(&none), before.unwrap_or(&none));
            for (at, one, other) in now.exchanged(before) {
                let count = self.at.entry(at.ip()).or_default();
                *count += usize::from(one.is_some_and(self.counts));
                *count = count.saturating_sub(other.is_some_and(self.counts).into());
                if *count == 0 {
                    self.at.remove(&at.ip());
                }
            }
        }
        self.services.clone_from(services);
    }

    /// How many there are at this address.
    pub fn count(&self, ip: IpAddr) -> usize {
        self.at.get(&ip).copied().unwrap_or_default()
    }

    /// Where there are any, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.at.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::desired::Condition;

    /// Pods by the last byte of their addresses and their ports; those on a node that is named.
    fn service(pods: &[(u8, u16)], placed: &[(u8, u16)]) -> Service {
        let endpoint = |node: Option<&str>| Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: node.map(str::to_owned),
            name: None,
        };
        let at = |&(last, port): &(u8, u16)| SocketAddr::from(([10, 0, 0, last], port));
        let unplaced = pods.iter().map(|it| (at(it), endpoint(None)));
        let placed = placed.iter().map(|it| (at(it), endpoint(Some("nuc02"))));
        Service {
            endpoints: unplaced.chain(placed).collect(),
            ..Service::default()
        }
    }

    #[test]
    fn an_address_counts_while_any_service_has_an_endpoint_there() {
        let name = |it: &str| ServiceName(it.to_owned());
        let mut census = Census::of(|it| it.node.is_none());
        let mut found = |services: &Shared<ServiceName, Service>| -> Vec<(u8, usize)> {
            census.follow(services);
            (0..=255)
                .map(|last| (last, census.count([10, 0, 0, last].into())))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        let mut services = Shared::from([
            (name("a"), service(&[(1, 80), (1, 81), (2, 80)], &[(9, 80)])),
            (name("b"), service(&[(2, 80), (3, 80)], &[])),
        ]);
        let all = [(1, 2), (2, 2), (3, 1)];
        assert_eq!(found(&services), all);
        assert_eq!(found(&services), all, "counted once");
        services.insert(name("a"), service(&[(1, 81)], &[(2, 80)]));
        assert_eq!(found(&services), [(1, 1), (2, 1), (3, 1)]);
        services.remove(&name("b"));
        services.insert(name("c"), service(&[(4, 80)], &[(1, 81)]));
        assert_eq!(found(&services), [(1, 1), (4, 1)]);
        services.insert(name("a"), service(&[], &[(1, 81)]));
        assert_eq!(found(&services), [(4, 1)]);
        assert!(found(&Shared::default()).is_empty());
    }
}
