//! What is elected about: addresses that the same node announces.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kube_core::{Selector, SelectorExt};

use crate::desired::{
    Advertisement, Balancer, Condition, Desired, Endpoint, Labels, Service, ServiceName,
    TrafficPolicy,
};

/// Addresses that stay together: those of a service of two families, and of all that share
/// one with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The address that the order goes by: the first one of the Service's status, else, and where
    /// several Services share addresses, the first one, IPv4 before IPv6.
    pub key: IpAddr,
    /// All of them.
    pub addresses: BTreeSet<IpAddr>,
    /// The services on them.
    pub services: BTreeSet<&'a ServiceName>,
    /// Who may announce them, as far as advertisements say it.
    pub advertised: Advertised<'a>,
    /// Local where every service on them is.
    pub policy: TrafficPolicy,
    /// Those services, as far as a source says what they are.
    behind: Option<Vec<&'a Service>>,
    /// Where endpoints of these serve, once somebody asks.
    places: OnceCell<BTreeSet<Option<&'a str>>>,
}

/// Who may announce an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertised<'a> {
    /// Every node, on all interfaces: it is of no pool.
    Everywhere,
    /// Those that one of these admits.
    By(Vec<&'a Advertisement>),
}

/// The subjects of what is wanted, by every address. Services have their addresses by now,
/// and nothing that only this node knows is laid over them.
pub fn subjects(desired: &Desired) -> BTreeMap<IpAddr, Subject<'_>> {
    let balancers = balancers(desired);
    let mut groups: Vec<Option<Subject<'_>>> = Vec::new();
    let mut places: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for unit in units(desired, &balancers) {
        let touched: BTreeSet<usize> = unit
            .addresses
            .iter()
            .filter_map(|ip| places.get(ip).copied())
            .collect();
        // What is there takes the unit in: it may be the hundredth on its address.
        let there = touched.into_iter().filter_map(|it| groups[it].take());
        let merged = match there.reduce(joined) {
            Some(group) => joined(group, unit),
            None => unit,
        };
        places.extend(merged.addresses.iter().map(|&ip| (ip, groups.len())));
        groups.push(Some(merged));
    }
    let mut found = BTreeMap::new();
    for mut subject in groups.into_iter().flatten() {
        subject.advertised = advertised(&subject, desired, &balancers);
        // Most have one address, or one of each family.
        let mut addresses = subject.addresses.clone();
        let last = addresses.pop_last();
        found.extend(addresses.into_iter().map(|ip| (ip, subject.clone())));
        found.extend(last.map(|ip| (ip, subject)));
    }
    found
}

/// The Service that a service is a port of.
fn balancers(desired: &Desired) -> BTreeMap<&ServiceName, &Balancer> {
    let all = desired.balancers.values();
    all.flat_map(|it| it.ports.keys().map(move |port| (port, it)))
        .collect()
}

/// A subject for each Service of type LoadBalancer, and for each service that is none.
fn units<'a>(
    desired: &'a Desired,
    balancers: &BTreeMap<&ServiceName, &Balancer>,
) -> impl Iterator<Item = Subject<'a>> {
    let together = desired
        .balancers
        .values()
        .map(|it| (it.ports.keys().collect(), it.given.as_slice()));
    // Most have cluster IPs alone.
    let services = desired.services.iter();
    let services = services.filter(|(_, service)| !service.frontends.is_empty());
    let alone = services.map(|(name, _)| name);
    let alone = alone.filter(|it| !balancers.contains_key(it));
    together
        .chain(alone.map(|it| (vec![it], &[] as &[IpAddr])))
        .filter_map(move |(names, given): (Vec<&ServiceName>, &[IpAddr])| {
            let services = names
                .into_iter()
                .filter_map(|name| desired.services.get_key_value(name));
            services
                .clone()
                .any(|(_, service)| !service.frontends.is_empty())
                .then_some(())?;
            let mut subject = services
                .map(|(name, service)| Subject::of(name, service))
                .reduce(joined)?;
            // MetalLB goes by the first one in the Service's status, of whatever family.
            if let Some(first) = given.iter().find(|it| subject.addresses.contains(it)) {
                subject.key = *first;
            }
            Some(subject)
        })
}

fn joined<'a>(mut one: Subject<'a>, other: Subject<'a>) -> Subject<'a> {
    one.join(other);
    one
}

fn advertised<'a>(
    subject: &Subject<'_>,
    desired: &'a Desired,
    balancers: &BTreeMap<&ServiceName, &'a Balancer>,
) -> Advertised<'a> {
    let pools: BTreeSet<&str> = desired
        .pools
        .iter()
        .filter(|(_, pool)| {
            let mut addresses = subject.addresses.iter();
            addresses.any(|&ip| pool.ranges.iter().any(|range| range.contains(ip)))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if pools.is_empty() {
        return Advertised::Everywhere;
    }
    let nothing = Labels::new();
    let labels: Vec<&Labels> = subject
        .services
        .iter()
        .map(|name| balancers.get(name).map_or(&nothing, |it| &it.labels))
        .collect();
    let about = |it: &&Advertisement| {
        let named = it.pools.iter().any(|pool| pools.contains(pool.as_str()));
        let mut services = labels.iter();
        named && services.any(|labels| any_of(&it.service_selectors, labels))
    };
    Advertised::By(desired.advertisements.values().filter(about).collect())
}

/// Whether some selector selects it; without any, all are selected.
fn any_of(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|it| it.matches(labels))
}

// === impl Subject ===

impl<'a> Subject<'a> {
    fn of(name: &'a ServiceName, service: &'a Service) -> Self {
        let addresses: BTreeSet<IpAddr> = service.frontends.iter().map(|it| it.addr.ip()).collect();
        Self {
            key: addresses
                .first()
                .copied()
                .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            services: BTreeSet::from([name]),
            advertised: Advertised::Everywhere,
            policy: service.external_policy,
            behind: Some(vec![service]),
            places: OnceCell::new(),
            addresses,
        }
    }

    /// An address of which nothing is known but that it is served.
    pub fn bare(ip: IpAddr) -> Self {
        Self {
            key: ip,
            addresses: BTreeSet::from([ip]),
            services: BTreeSet::new(),
            advertised: Advertised::Everywhere,
            policy: TrafficPolicy::Cluster,
            behind: None,
            places: OnceCell::new(),
        }
    }

    fn join(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.services.extend(other.services);
        self.behind = self.behind.take().zip(other.behind).map(|(mut all, more)| {
            all.extend(more);
            all
        });
        self.places = OnceCell::new();
        if other.policy == TrafficPolicy::Cluster {
            self.policy = TrafficPolicy::Cluster;
        }
        if let Some(&first) = self.addresses.first() {
            self.key = first;
        }
    }

    /// Whether any endpoint is ready or serving; where nothing is known of them, one is.
    pub fn is_usable(&self) -> bool {
        self.behind.is_none() || self.serving().next().is_some()
    }

    /// Whether an endpoint that serves is on this node, as far as the source says it; where
    /// it does not, the node itself knows.
    pub fn is_on(&self, node: &str) -> bool {
        let places = || self.serving().map(|it| it.node.as_deref()).collect();
        let places = self.places.get_or_init(places);
        self.behind.is_none() || places.contains(&None) || places.contains(&Some(node))
    }

    fn serving(&self) -> impl Iterator<Item = &'a Endpoint> {
        let services = self.behind.iter().flatten();
        let endpoints = services.flat_map(|it| it.endpoints.values());
        endpoints.filter(|it| matches!(it.condition, Condition::Ready | Condition::Draining))
    }
}

// === impl Advertised ===

impl Advertised<'_> {
    /// Whether no node whatever may announce it.
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Self::By(none) if none.is_empty())
    }

    /// The sum of the weights that a node with these labels gets; none where it may not
    /// announce.
    pub fn preference(&self, node: &Labels) -> Option<u32> {
        let Self::By(all) = self else { return Some(0) };
        let mut admitting = all
            .iter()
            .filter(|it| any_of(&it.node_selectors, node))
            .peekable();
        admitting.peek()?;
        let weights = admitting
            .flat_map(|it| &it.preferences)
            .filter(|(_, selector)| selector.matches(node))
            .map(|&(weight, _)| weight);
        Some(weights.fold(0, u32::saturating_add))
    }

    /// Whether a node with these labels announces it on the interface of this name.
    pub fn on_interface(&self, node: &Labels, interface: &str) -> bool {
        let Self::By(all) = self else { return true };
        let mut admitting = all.iter().filter(|it| any_of(&it.node_selectors, node));
        admitting.any(|it| it.interfaces.is_empty() || it.interfaces.contains(interface))
    }
}
