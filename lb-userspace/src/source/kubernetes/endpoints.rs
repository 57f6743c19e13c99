//! EndpointSlices and Endpoints → the endpoints of one service port.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
};

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::{EndpointConditions, EndpointSlice},
};

use super::{Key, Sourced, annotations::Weights, service::Port};
use crate::{
    desired::{Condition, Endpoint, Family},
    source::{Findings, Origin, rules},
};

/// Ties an EndpointSlice to its Service (discovery/v1, `LabelServiceName`).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Finds what stands behind a Service.
pub(super) struct Index<'a> {
    slices: BTreeMap<Key, Vec<(Key, &'a Sourced<EndpointSlice>)>>,
    legacy: BTreeMap<Key, &'a Sourced<Endpoints>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(
        slices: BTreeMap<Key, &'a Sourced<EndpointSlice>>,
        legacy: BTreeMap<Key, &'a Sourced<Endpoints>>,
        services: &BTreeMap<Key, &Sourced<Service>>,
        findings: &mut Findings,
    ) -> Self {
        let mut by_service: BTreeMap<Key, Vec<_>> = BTreeMap::new();
        for (key, slice) in slices {
            let object = format!("EndpointSlice {key}");
            let labels = slice.object.metadata.labels.as_ref();
            let Some(name) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) else {
                let what = format!("not used: it lacks the label {SERVICE_LABEL}");
                findings.note(&slice.origin, &object, what);
                continue;
            };
            let service = Key {
                namespace: key.namespace.clone(),
                name: name.clone(),
            };
            if !services.contains_key(&service) {
                let what = format!("not used: there is no Service {service}");
                findings.note(&slice.origin, &object, what);
            }
            by_service.entry(service).or_default().push((key, slice));
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

    /// The endpoints of one port of a Service.
    pub(super) fn of(
        &self,
        key: &Key,
        object: &str,
        port: &Port,
        weights: &Weights,
        origin: &Origin,
        findings: &mut Findings,
    ) -> BTreeMap<SocketAddr, Endpoint> {
        let mut pool = Pool {
            port,
            weights,
            endpoints: BTreeMap::new(),
            seen: Vec::new(),
            offered: false,
            empty: true,
        };
        match self.slices.get(key) {
            Some(slices) => {
                for (name, slice) in slices {
                    pool.add_slice(name, slice, findings);
                }
            }
            None => {
                if let Some(endpoints) = self.legacy.get(key) {
                    pool.add_legacy(key, endpoints, findings);
                }
            }
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
    node: Option<&'a String>,
    name: Option<&'a String>,
}

impl Pool<'_> {
    /// Several slices may list an endpoint while it moves from one to another.
    fn add_slice(&mut self, key: &Key, slice: &Sourced<EndpointSlice>, findings: &mut Findings) {
        let object = format!("EndpointSlice {key}");
        let Sourced {
            origin,
            object: slice,
        } = slice;
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        self.empty &= endpoints.is_empty();
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            // Hand-written slices forget it; the addresses tell.
            "" => None,
            other => {
                let what = format!("addressType `{other}` cannot be balanced");
                return findings.problem(origin, &object, what, "use addressType IPv4 or IPv6");
            }
        };
        for port in slice.ports.iter().flatten() {
            let protocol = port.protocol.as_deref();
            let Some(number) = self.matching(
                port.name.as_deref(),
                protocol,
                port.port,
                (origin, &object),
                findings,
            ) else {
                continue;
            };
            for endpoint in endpoints {
                let Some(address) = endpoint.addresses.first() else {
                    let what = "an endpoint without an address";
                    findings.problem(origin, &object, what, "give it one, or remove it");
                    continue;
                };
                if endpoint.addresses.len() > 1 {
                    // As kube-proxy does; the meaning of further ones is undefined.
                    let what = format!("of the addresses after {address} none is used");
                    findings.note(origin, &object, what);
                }
                let candidate = Candidate {
                    address,
                    family,
                    port: number,
                    condition: condition(endpoint.conditions.as_ref()),
                    node: endpoint.node_name.as_ref(),
                    name: endpoint.target_ref.as_ref().and_then(|it| it.name.as_ref()),
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
                        node: address.node_name.as_ref(),
                        name: address.target_ref.as_ref().and_then(|it| it.name.as_ref()),
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
        self.seen.push((ip, candidate.name.cloned()));
        let Some(condition) = candidate.condition else {
            return;
        };
        let endpoint = Endpoint {
            weight: self.weights.of(ip, candidate.name.map(String::as_str)),
            condition,
            node: candidate.node.filter(|node| !node.is_empty()).cloned(),
            name: candidate.name.cloned(),
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

/// What an endpoint's conditions allow (discovery/v1, EndpointConditions).
fn condition(conditions: Option<&EndpointConditions>) -> Option<Condition> {
    let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    let serving = conditions.and_then(|it| it.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
    if ready {
        Some(Condition::Ready)
    } else if serving && terminating {
        Some(Condition::Draining)
    } else {
        None
    }
}
