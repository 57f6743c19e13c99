//! One Kubernetes Service → a service for each of its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::{api::core::v1::ServicePort, apimachinery::pkg::util::intstr::IntOrString};
use lb_common::{Algorithm, Protocol, maglev};

use super::{
    Key, Terms,
    addresses::{self, Addresses},
    annotations::{self, Choices},
    known::Input,
    policies,
};
use crate::{
    desired::{self, Family, Frontend, NodePort, ServiceName},
    source::{Findings, Origin, health, rules},
};

/// One port of a Service, as its endpoints are looked up by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Empty where the port has no name.
    pub(super) name: String,
    pub(super) number: u16,
    /// `targetPort` where it is a number.
    pub(super) target: Option<u16>,
    /// `nodePort` where there is one.
    pub(super) on_node: Option<u16>,
    pub(super) protocol: Protocol,
}

/// What one Kubernetes Service comes to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A service for each port; none where nobody reaches it. Those that take their address
    /// from a pool may have no frontend yet.
    pub(super) ports: Vec<(ServiceName, Arc<desired::Service>)>,
    /// It as a load balancer, where naru is that; the labels of its namespace are not known yet.
    pub(super) balancer: Option<Arc<desired::Balancer>>,
}

/// Reads it.
pub(super) fn ports(
    key: &Key,
    object: &str,
    input: &Input,
    terms: &Terms,
    findings: &mut Findings,
) -> Found {
    let service = &input.service;
    let origin = &service.origin;
    let metadata = &service.object.metadata;
    let Some(spec) = &service.object.spec else {
        findings.problem(
            origin,
            object,
            "spec is missing",
            "write its ports and type",
        );
        return Found::default();
    };
    let choices = annotations::choices(metadata.annotations.as_ref(), origin, object, findings);
    let Some(addresses) = addresses::read(object, service, spec, terms, findings) else {
        return Found::default();
    };
    let policies = policies::read(object, service, spec, findings);

    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        findings.problem(
            origin,
            object,
            "spec.ports is empty",
            "name at least one port",
        );
    }
    let mut named = BTreeSet::new();
    let mut services = Vec::new();
    let mut balanced = BTreeMap::new();
    for port in ports {
        let port = match read_port(port) {
            Ok(port) => port,
            Err(objection) => {
                findings.problem(origin, object, objection.what, objection.remedy);
                continue;
            }
        };
        if !port.name.is_empty() && !super::is_name(&port.name) {
            let what = format!(
                "`{}` is no name that Kubernetes takes for a port",
                port.name
            );
            findings.problem(
                origin,
                object,
                what,
                "use lower-case letters, digits and `-`",
            );
            continue;
        }
        if !named.insert(port.name.clone()) {
            let what = if port.name.is_empty() {
                "several ports and not all have a name".to_owned()
            } else {
                format!("two ports are called {}", port.name)
            };
            findings.problem(origin, object, what, "give each port a name of its own");
            continue;
        }
        if addresses.wants_node_ports && port.on_node.is_none() {
            let what = format!(
                "port {} has no nodePort, and none is allocated: write one",
                port.number
            );
            findings.note(origin, object, what);
        }
        if !addresses.reach(&port) {
            continue;
        }
        let found = input.endpoints(key, object, &port, &choices.weights, findings);
        let at = |ips: &BTreeSet<IpAddr>| -> BTreeSet<Frontend> {
            let frontend = |&ip| Frontend {
                addr: SocketAddr::new(ip, port.number),
                protocol: port.protocol,
            };
            ips.iter().map(frontend).collect()
        };
        let served = desired::Service {
            frontends: at(&addresses.load_balancer),
            external: at(&addresses.external),
            cluster: match port.protocol {
                Protocol::Sctp => BTreeSet::new(),
                Protocol::Tcp | Protocol::Udp => at(&addresses.cluster),
            },
            node_port: node_port(&port, &addresses, &found),
            algorithm: choices.algorithm,
            maglev_slots: choices.maglev_slots,
            elsewhere: choices.elsewhere,
            external_policy: policies.external,
            internal_policy: policies.internal,
            affinity: policies.affinity,
            source_ranges: policies.source_ranges.clone(),
            health_check: choices.health_check.clone(),
            health_check_port: policies
                .health_check_port
                .filter(|_| !terms.beside_kube_proxy),
            endpoints: found,
        };
        if addresses.take_packets(&port)
            && let Some(objection) = on_other_ports(&port, &addresses)
        {
            findings.problem(origin, object, objection.what, objection.remedy);
        } else if port.on_node.is_some() && addresses.node_ports && served.node_port.is_none() {
            let what = format!(
                "port {} has no node port: over SCTP only one that is the targetPort could be",
                port.number
            );
            findings.note(origin, object, what);
        }
        if port.protocol == Protocol::Sctp && !addresses.cluster.is_empty() {
            let what = format!(
                "port {} is not served at its cluster IP: sockets of SCTP cannot be translated",
                port.number
            );
            findings.note(origin, object, what);
        }
        if served.protocol().is_none() && !addresses.pooled {
            continue;
        }
        if let Some(check) = &choices.health_check
            && let Err(objection) = health::fits(check, port.protocol)
        {
            let what = format!("annotation naru.dev/health-check: {}", objection.what);
            findings.problem(origin, object, what, objection.remedy);
        }
        examine(&served, origin, object, &choices, findings);
        let at = (port.number, port.protocol);
        if addresses.pooled {
            on_those_ports(&served, at, origin, object, findings);
        }
        let label = if port.name.is_empty() {
            port.number.to_string()
        } else {
            port.name
        };
        let name = ServiceName(format!("{key}:{label}"));
        balanced.insert(name.clone(), at);
        services.push((name, Arc::new(served)));
    }
    let balancer = addresses
        .wish
        .filter(|_| !balanced.is_empty())
        .map(|wish| wish.balancer(key, &service.object, spec, &policies, balanced));
    let balancer = balancer.map(Arc::new);
    Found {
        ports: services,
        balancer,
    }
}

/// Looks at the endpoints of a port whose address is not known yet.
fn on_those_ports(
    service: &desired::Service,
    (number, protocol): (u16, Protocol),
    origin: &Origin,
    object: &str,
    findings: &mut Findings,
) {
    for &endpoint in service.endpoints.keys() {
        if let Err(objection) = rules::on_port(endpoint, number, protocol) {
            findings.problem(origin, object, objection.what, objection.remedy);
        }
    }
}

/// The node port of a port, and the families in which it is served.
fn node_port(
    port: &Port,
    addresses: &Addresses,
    endpoints: &BTreeMap<SocketAddr, desired::Endpoint>,
) -> Option<NodePort> {
    let number = port.on_node.filter(|_| addresses.node_ports)?;
    let mut targets = endpoints.keys().map(SocketAddr::port).chain(port.target);
    if !targets.all(|target| rules::same_port(port.protocol, number, target)) {
        return None;
    }
    let mut families = addresses.families.clone();
    if families.is_empty() {
        families = endpoints.keys().map(|addr| Family::of(addr.ip())).collect();
    }
    if families.is_empty() {
        families.insert(Family::V4);
    }
    Some(NodePort {
        port: number,
        protocol: port.protocol,
        families,
    })
}

/// What is wrong with a port over SCTP whose `targetPort` is another one.
fn on_other_ports(port: &Port, addresses: &Addresses) -> Option<rules::Objection> {
    let target = port.target?;
    let from = match port.on_node.filter(|_| addresses.wants_node_ports) {
        Some(number) => number,
        None => port.number,
    };
    if rules::same_port(port.protocol, from, target) {
        return None;
    }
    Some(rules::Objection::new(
        format!(
            "port {from} leads to targetPort {target}: over SCTP a port cannot be changed on the \
             way, because the checksum of the whole packet covers it"
        ),
        "make the two the same, or leave the port out",
    ))
}

/// Looks at what a port came to as a whole.
fn examine(
    service: &desired::Service,
    origin: &Origin,
    object: &str,
    choices: &Choices,
    findings: &mut Findings,
) {
    let family = |addr: &SocketAddr| Family::of(addr.ip());
    for frontend in service.named() {
        for &endpoint in service.endpoints.keys() {
            if let Err(objection) = rules::behind(endpoint, frontend) {
                findings.problem(origin, object, objection.what, objection.remedy);
            }
        }
        let wanted = family(&frontend.addr);
        let mut endpoints = service.endpoints.keys();
        if !service.endpoints.is_empty() && !endpoints.any(|it| family(it) == wanted) {
            let what = format!("frontend {frontend} has no backend: no endpoint is {wanted}");
            findings.note(origin, object, what);
        }
    }
    if choices.algorithm == Algorithm::Maglev {
        let (slots, n) = (choices.maglev_slots, service.endpoints.len() as u64);
        if u64::from(slots) < n * 100 && slots < maglev::DEFAULT_SLOTS {
            let what = format!(
                "{slots} Maglev slots spread unevenly over {n} endpoints; take at least 100 each"
            );
            findings.note(origin, object, what);
        }
    }
}

fn read_port(port: &ServicePort) -> Result<Port, rules::Objection> {
    Ok(Port {
        name: port.name.clone().unwrap_or_default(),
        number: rules::port(port.port)?,
        target: match port.target_port {
            // An unset target port reads as 0 from some tools.
            None | Some(IntOrString::String(_) | IntOrString::Int(0)) => None,
            Some(IntOrString::Int(target)) => Some(rules::port(target)?),
        },
        on_node: match port.node_port {
            None | Some(0) => None,
            Some(number) => Some(rules::port(number)?),
        },
        protocol: rules::protocol(port.protocol.as_deref())?,
    })
}
