//! One Kubernetes Service → a service for each of its ports.

use std::{collections::BTreeSet, net::SocketAddr};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use lb_common::Protocol;

use super::{Key, LOAD_BALANCER_CLASS, Sourced, annotations, endpoints};
use crate::{
    desired::{self, Frontend, ServiceName},
    source::{Findings, rules},
};

/// A Service's request for addresses; the deprecated prefix is still read.
const ADDRESS_ANNOTATIONS: [&str; 2] = [
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];

/// One port of a Service, as its endpoints are looked up by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Empty where the port has no name.
    pub(super) name: String,
    pub(super) number: u16,
    /// `targetPort` where it is a number.
    pub(super) target: Option<u16>,
    pub(super) protocol: Protocol,
}

/// The services that one Kubernetes Service makes; none where it has no address.
pub(super) fn ports(
    key: &Key,
    object: &str,
    service: &Sourced<Service>,
    endpoints: &endpoints::Index<'_>,
    findings: &mut Findings,
) -> Vec<(ServiceName, desired::Service)> {
    let origin = &service.origin;
    let metadata = &service.object.metadata;
    let Some(spec) = &service.object.spec else {
        findings.problem(
            origin,
            object,
            "spec is missing",
            "write its ports and type",
        );
        return Vec::new();
    };
    let choices = annotations::choices(metadata.annotations.as_ref(), origin, object, findings);
    let addresses = addresses(object, service, spec, findings);
    if addresses.is_empty() {
        return Vec::new();
    }
    if spec
        .load_balancer_source_ranges
        .as_ref()
        .is_some_and(|ranges| !ranges.is_empty())
    {
        // Serving it all the same would open to everybody what shall be closed.
        findings.problem(
            origin,
            object,
            "spec.loadBalancerSourceRanges is not enforced yet",
            "remove it, or keep the Service from naru by another loadBalancerClass",
        );
    }
    not_honoured(object, service, spec, findings);

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
    for port in ports {
        let port = match read_port(port) {
            Ok(port) => port,
            Err(objection) => {
                findings.problem(origin, object, objection.what, objection.remedy);
                continue;
            }
        };
        if !named.insert(port.name.clone()) {
            let what = if port.name.is_empty() {
                "several ports and not all have a name".to_owned()
            } else {
                format!("two ports are called {}", port.name)
            };
            findings.problem(origin, object, what, "give each port a name of its own");
            continue;
        }
        let frontends: BTreeSet<_> = addresses
            .iter()
            .map(|&ip| Frontend {
                addr: SocketAddr::new(ip, port.number),
                protocol: port.protocol,
            })
            .collect();
        let found = endpoints.of(key, object, &port, &choices.weights, origin, findings);
        for frontend in &frontends {
            for &endpoint in found.keys() {
                if let Err(objection) = rules::not_itself(endpoint, frontend) {
                    findings.problem(origin, object, objection.what, objection.remedy);
                }
            }
        }
        let label = if port.name.is_empty() {
            port.number.to_string()
        } else {
            port.name
        };
        let service = desired::Service {
            frontends,
            algorithm: choices.algorithm,
            maglev_slots: choices.maglev_slots,
            endpoints: found,
        };
        services.push((ServiceName(format!("{key}:{label}")), service));
    }
    services
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
        protocol: rules::protocol(port.protocol.as_deref())?,
    })
}

/// The addresses under which clients reach the Service.
fn addresses(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    findings: &mut Findings,
) -> BTreeSet<std::net::IpAddr> {
    let origin = &service.origin;
    let mut texts: Vec<&str> = Vec::new();
    match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "LoadBalancer" => match spec.load_balancer_class.as_deref() {
            None | Some(LOAD_BALANCER_CLASS) => {
                texts = load_balancer_addresses(object, service, spec, findings);
                if texts.is_empty() {
                    let what = "no address (pools are not supported yet): set spec.loadBalancerIP";
                    findings.note(origin, object, what);
                }
            }
            Some(other) => {
                let what = format!(
                    "left to the load balancer of class {other} (naru's is {LOAD_BALANCER_CLASS})"
                );
                findings.note(origin, object, what);
                return BTreeSet::new();
            }
        },
        kind @ ("ClusterIP" | "NodePort") => {
            if spec.external_ips.as_ref().is_none_or(Vec::is_empty) {
                let what = format!("type {kind} is not served yet");
                findings.note(origin, object, what);
            }
        }
        "ExternalName" => {
            let what = "type ExternalName is a matter of DNS, there is nothing to balance";
            findings.note(origin, object, what);
            return BTreeSet::new();
        }
        other => {
            let what = format!("spec.type `{other}` does not exist");
            findings.problem(origin, object, what, "write LoadBalancer");
        }
    }
    texts.extend(spec.external_ips.iter().flatten().map(String::as_str));
    let mut addresses = BTreeSet::new();
    for text in texts {
        match rules::vip(text) {
            Ok(ip) => {
                addresses.insert(ip);
            }
            Err(objection) => findings.problem(origin, object, objection.what, objection.remedy),
        }
    }
    addresses
}

/// What a Service of type LoadBalancer asks for or, failing that, was given already.
fn load_balancer_addresses<'a>(
    object: &str,
    service: &'a Sourced<Service>,
    spec: &'a ServiceSpec,
    findings: &mut Findings,
) -> Vec<&'a str> {
    let annotations = service.object.metadata.annotations.as_ref();
    let annotated = ADDRESS_ANNOTATIONS
        .iter()
        .find_map(|&key| Some((key, annotations?.get(key)?)));
    let field = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty());
    match (field, annotated) {
        (Some(_), Some((key, _))) => {
            findings.problem(
                &service.origin,
                object,
                format!("both spec.loadBalancerIP and annotation {key} ask for an address"),
                "keep one of them",
            );
            Vec::new()
        }
        (Some(ip), None) => vec![ip],
        (None, Some((_, list))) => list.split(',').map(str::trim).collect(),
        (None, None) => service
            .object
            .status
            .iter()
            .filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref())
            .flatten()
            .filter_map(|ingress| ingress.ip.as_deref())
            .collect(),
    }
}

/// Says which wishes have no effect yet.
fn not_honoured(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    findings: &mut Findings,
) {
    let mut say = |what: &str| findings.note(&service.origin, object, what);
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        say("sessionAffinity: ClientIP is not honoured yet");
    }
    if spec.external_traffic_policy.as_deref() == Some("Local") {
        say("externalTrafficPolicy: Local is not honoured yet, endpoints of all nodes are used");
    }
    let ports = spec.ports.iter().flatten();
    if ports
        .clone()
        .any(|port| port.node_port.is_some_and(|p| p > 0))
    {
        say("node ports are not served yet");
    }
}
