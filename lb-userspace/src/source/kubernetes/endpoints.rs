//! EndpointSlices and Endpoints → the endpoints of one service port.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::{
    Key, Sourced,
    annotations::Weights,
    known::Input,
    service::Port,
    slice::{SERVICE_LABEL, Slice},
};
use crate::{
    desired::{Condition, Endpoint, Family},
    source::{Findings, Origin, rules},
};

/// Finds what stands behind a Service.
pub(super) struct Index<'a> {
    slices: BTreeMap<&'a Key, Vec<&'a Arc<Sourced<Slice>>>>,
    legacy: BTreeMap<Key, &'a Arc<Sourced<Endpoints>>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(
        slices: BTreeMap<Key, &'a Arc<Sourced<Slice>>>,
        legacy: BTreeMap<Key, &'a Arc<Sourced<Endpoints>>>,
        services: &BTreeMap<Key, &Arc<Sourced<Service>>>,
        findings: &mut Findings,
    ) -> Self {
        let mut by_service: BTreeMap<&Key, Vec<_>> = BTreeMap::new();
        for (key, slice) in slices {
            let mut note = |what| {
                let object = format!("EndpointSlice {key}");
                findings.note(&slice.origin, &object, what);
            };
            let Some(service) = &slice.object.service else {
                note(format!("not used: it lacks the label {SERVICE_LABEL}"));
                continue;
            };
            if !services.contains_key(service) {
                note(format!("not used: there is no Service {service}"));
            }
            by_service.entry(service).or_default().push(slice);
        }
        for (key, endpoints) in &legacy {
            let what = if by_service.contains_key(key) {
                "not used: EndpointSlices of the same Service exist"
            } else if services.contains_key(key) {
                continue;
            } else {
                "not used: there is no Service of that name"
            };
            findings.note(&endpoints.origin, &format!("Endpoints {key}"), what);
        }
        Self {
            slices: by_service,
            legacy,
        }
    }

    /// What a Service depends on; `pooled` says that addresses come from pools.
    pub(super) fn input(&self, key: &Key, service: &Arc<Sourced<Service>>, pooled: bool) -> Input {
        let slices = self.slices.get(key);
        let legacy = self.legacy.get(key).filter(|_| slices.is_none());
        Input {
            service: Arc::clone(service),
            slices: slices
                .into_iter()
                .flatten()
                .map(|&it| Arc::clone(it))
                .collect(),
            legacy: legacy.map(|&it| Arc::clone(it)),
            pooled,
        }
    }
}

impl Input {
    /// The endpoints of one port of the Service.
    pub(super) fn endpoints(
        &self,
        key: &Key,
        object: &str,
        port: &Port,
        weights: &Weights,
        findings: &mut Findings,
    ) -> BTreeMap<SocketAddr, Endpoint> {
        let origin = &self.service.origin;
        let mut pool = Pool {
            port,
            weights,
            endpoints: BTreeMap::new(),
            seen: Vec::new(),
            offered: false,
            empty: true,
        };
        for slice in &self.slices {
            pool.add_slice(slice, findings);
        }
        if let Some(endpoints) = &self.legacy {
            pool.add_legacy(key, endpoints, findings);
        }
        if !pool.offered && !pool.empty {
            let what = format!(
                "its endpoints offer no port named `{}` ({}), so port {} has no backend",
                port.name, port.protocol, port.number
            );
            findings.note(origin, object, what);
        }
        for unused in weights.unused(&pool.seen) {
            let what = format!("naru.dev/weights: `{unused}` is no endpoint of this Service now");
            findings.note(origin, object, what);
        }
        pool.endpoints
    }
}

/// Gathers the endpoints of one port.
struct Pool<'a> {
    port: &'a Port,
    weights: &'a Weights,
    endpoints: BTreeMap<SocketAddr, Endpoint>,
    /// Address and name of every endpoint that was looked at.
    seen: Vec<(std::net::IpAddr, Option<String>)>,
    /// Whether any object offers the port.
    offered: bool,
    /// Whether no object lists any endpoint.
    empty: bool,
}

/// One endpoint as either kind of object gives it.
struct Candidate<'a> {
    address: &'a str,
    /// The family that its address must be of.
    family: Option<Family>,
    port: u16,
    /// `None`: not to be used at all.
    condition: Option<Condition>,
    node: Option<&'a str>,
    name: Option<&'a str>,
}

impl Pool<'_> {
    /// Several slices may list an endpoint while it moves from one to another.
    fn add_slice(&mut self, slice: &Sourced<Slice>, findings: &mut Findings) {
        let Sourced {
            origin,
            object: slice,
        } = slice;
        let object = format!("EndpointSlice {}", slice.key);
        self.empty &= slice.endpoints.is_empty();
        let family = match &*slice.address_type {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            // Hand-written slices forget it; the addresses tell.
            "" => None,
            other => {
                let what = format!("addressType `{other}` cannot be balanced");
                return findings.problem(origin, &object, what, "use addressType IPv4 or IPv6");
            }
        };
        for port in &slice.ports {
            let protocol = port.protocol.as_deref();
            let Some(number) = self.matching(
                port.name.as_deref(),
                protocol,
                port.number,
                (origin, &object),
                findings,
            ) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let Some(address) = &endpoint.address else {
                    let what = "an endpoint without an address";
                    findings.problem(origin, &object, what, "give it one, or remove it");
                    continue;
                };
                if endpoint.has_others {
                    // As kube-proxy does; the meaning of further ones is undefined.
                    let what = format!("of the addresses after {address} none is used");
                    findings.note(origin, &object, what);
                }
                let candidate = Candidate {
                    address,
                    family,
                    port: number,
                    condition: endpoint.condition,
                    node: endpoint.node.as_deref(),
                    name: endpoint.name.as_deref(),
                };
                self.add(&candidate, origin, &object, findings);
            }
        }
    }

    fn add_legacy(&mut self, key: &Key, endpoints: &Sourced<Endpoints>, findings: &mut Findings) {
        let object = format!("Endpoints {key}");
        let Sourced {
            origin,
            object: endpoints,
        } = endpoints;
        for subset in endpoints.subsets.iter().flatten() {
            let addresses = subset.addresses.as_deref().unwrap_or_default();
            self.empty &= addresses.is_empty();
            for port in subset.ports.iter().flatten() {
                let protocol = port.protocol.as_deref();
                let Some(number) = self.matching(
                    port.name.as_deref(),
                    protocol,
                    Some(port.port),
                    (origin, &object),
                    findings,
                ) else {
                    continue;
                };
                for address in addresses {
                    let candidate = Candidate {
                        address: &address.ip,
                        family: None,
                        port: number,
                        condition: Some(Condition::Ready),
                        node: address.node_name.as_deref(),
                        name: address
                            .target_ref
                            .as_ref()
                            .and_then(|it| it.name.as_deref()),
                    };
                    self.add(&candidate, origin, &object, findings);
                }
            }
        }
    }

    /// The port that endpoints listen on, if an object's port is the one looked for.
    fn matching(
        &mut self,
        name: Option<&str>,
        protocol: Option<&str>,
        number: Option<i32>,
        (origin, object): (&Origin, &str),
        findings: &mut Findings,
    ) -> Option<u16> {
        if name.unwrap_or_default() != self.port.name {
            return None;
        }
        let number = rules::protocol(protocol).and_then(|protocol| {
            if protocol != self.port.protocol {
                return Ok(None);
            }
            match number {
                Some(number) => rules::port(number).map(Some),
                None => Ok(Some(self.port.target.unwrap_or(self.port.number))),
            }
        });
        match number {
            Ok(number) => {
                self.offered |= number.is_some();
                number
            }
            Err(objection) => {
                findings.problem(origin, object, objection.what, objection.remedy);
                None
            }
        }
    }

    fn add(
        &mut self,
        candidate: &Candidate<'_>,
        origin: &Origin,
        object: &str,
        findings: &mut Findings,
    ) {
        let ip = match rules::endpoint(candidate.address) {
            Ok(ip) => ip,
            Err(objection) => {
                return findings.problem(origin, object, objection.what, objection.remedy);
            }
        };
        if let Some(family) = candidate.family.filter(|family| *family != Family::of(ip)) {
            let what = format!("endpoint {ip} is not of addressType {family}");
            let remedy = "put the endpoints of each family into a slice of their own";
            return findings.problem(origin, object, what, remedy);
        }
        self.seen.push((ip, candidate.name.map(str::to_owned)));
        let Some(condition) = candidate.condition else {
            return;
        };
        let endpoint = Endpoint {
            weight: self.weights.of(ip, candidate.name),
            condition,
            node: candidate
                .node
                .filter(|node| !node.is_empty())
                .map(str::to_owned),
            name: candidate.name.map(str::to_owned),
        };
        match self.endpoints.entry(SocketAddr::new(ip, candidate.port)) {
            Entry::Vacant(entry) => {
                entry.insert(endpoint);
            }
            // Of two mentions the one that lets it take new flows counts.
            Entry::Occupied(mut entry) if endpoint.condition < entry.get().condition => {
                entry.insert(endpoint);
            }
            Entry::Occupied(_) => {}
        }
    }
}
