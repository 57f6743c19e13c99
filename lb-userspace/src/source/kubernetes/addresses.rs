//! Where clients reach a Service: its addresses, their families, its node ports, its
//! cluster IPs.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{
    LOAD_BALANCER_CLASS, Sourced, Terms,
    balancer::{self, Wish},
    policies,
    service::Port,
};
use crate::{
    desired::Family,
    source::{Findings, Origin, rules},
};

/// In the place of a cluster IP: clients find the endpoints by DNS.
const HEADLESS: &str = "None";

/// Where clients reach a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Given to this Service, to be claimed on the LAN.
    pub(super) load_balancer: BTreeSet<IpAddr>,
    /// What it asks of a load balancer, if naru is that.
    pub(super) wish: Option<Wish>,
    /// Whether its addresses on the LAN come from a pool, later.
    pub(super) pooled: bool,
    /// `spec.externalIPs`, and what another load balancer gave: somebody else brings their packets
    /// to the node.
    pub(super) external: BTreeSet<IpAddr>,
    /// `spec.clusterIPs`: for sockets of the node and its pods alone.
    pub(super) cluster: BTreeSet<IpAddr>,
    /// Whether node ports that are written are served.
    pub(super) node_ports: bool,
    /// Whether each port should have a node port.
    pub(super) wants_node_ports: bool,
    /// The families that it is of, as far as it says; empty where nothing tells.
    pub(super) families: BTreeSet<Family>,
}

impl Addresses {
    /// Whether there is a way to a port.
    pub(super) fn reach(&self, port: &Port) -> bool {
        !self.cluster.is_empty() || self.take_packets(port)
    }

    /// Whether there is a way in to a port from outside.
    pub(super) fn take_packets(&self, port: &Port) -> bool {
        let named = !self.load_balancer.is_empty() || !self.external.is_empty();
        named || self.pooled || self.node_ports && port.on_node.is_some()
    }
}

impl Terms {
    /// Whether a Service of type LoadBalancer is for this load balancer.
    pub(crate) fn is_ours(&self, spec: &ServiceSpec) -> bool {
        let of = spec.load_balancer_class.as_deref();
        match self.class.as_deref() {
            Some(class) => of == Some(class),
            None => of.is_none_or(|of| of == LOAD_BALANCER_CLASS),
        }
    }
}

/// Reads them; `None` for a Service that is not to be served, or that nobody reaches.
pub(super) fn read(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    terms: &Terms,
    findings: &mut Findings,
) -> Option<Addresses> {
    let origin = &service.origin;
    let pooled = terms.pooled;
    let mut found = Addresses::default();
    let declared = declared(object, origin, spec, findings);
    let mut external = spec.external_ips.as_deref().unwrap_or_default();
    let cluster = cluster_addresses(spec);
    match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "LoadBalancer" if terms.is_ours(spec) => {
            let wish = balancer::wish(object, service, spec, pooled, findings);
            found.pooled = pooled;
            if !pooled {
                found.load_balancer = wish.without_pools();
                if found.load_balancer.is_empty() {
                    let what = "no address, and no pool to take one from: set \
                                spec.loadBalancerIP, or define an IPAddressPool";
                    findings.note(origin, object, what);
                }
            }
            found.wish = Some(wish);
            found.node_ports = true;
        }
        "LoadBalancer" => {
            let other = spec.load_balancer_class.as_deref();
            let other = other.map_or("no class".to_owned(), |it| format!("class {it}"));
            let own = terms.class.as_deref().unwrap_or(LOAD_BALANCER_CLASS);
            let what = format!(
                "its addresses are a matter of the load balancer of {other} (naru's is {own})"
            );
            findings.note(origin, object, what);
            // Where that one sends packets on, or to whom it gives an address that is the nodes' own
            // to serve.
            if terms.beside_kube_proxy {
                external = &[];
            } else {
                found.node_ports = true;
                // Only addresses that Naru gives are guarded.
                if !policies::has_ranges(&service.object, spec) {
                    found.external = balancer::served_elsewhere(&service.object);
                }
            }
        }
        "NodePort" => {
            found.node_ports = true;
            found.wants_node_ports = true;
        }
        "ClusterIP" => {
            if external.is_empty() && cluster.is_empty() && !is_headless(spec) {
                let what = "no cluster IP, and none is allocated: set spec.clusterIP";
                findings.note(origin, object, what);
            }
        }
        "ExternalName" => {
            let what = "type ExternalName is a matter of DNS, there is nothing to balance";
            findings.note(origin, object, what);
            return None;
        }
        other => {
            let what = format!("spec.type `{other}` does not exist");
            findings.problem(
                origin,
                object,
                what,
                "write LoadBalancer, NodePort or ClusterIP",
            );
        }
    }
    let ips = |texts: &[&str], findings: &mut Findings| -> BTreeSet<IpAddr> {
        let mut ips = BTreeSet::new();
        for text in texts {
            match rules::vip(text) {
                Ok(ip) => ips.extend([ip]),
                Err(objection) => {
                    findings.problem(origin, object, objection.what, objection.remedy);
                }
            }
        }
        ips
    };
    let texts: Vec<&str> = external.iter().map(String::as_str).collect();
    found.external.extend(ips(&texts, findings));
    found
        .external
        .retain(|ip| !found.load_balancer.contains(ip));
    found.cluster = ips(&cluster, findings);

    let undeclared = |ip: &&IpAddr| !declared.is_empty() && !declared.contains(&Family::of(**ip));
    let asked = found.wish.iter().flat_map(|wish| &wish.requested);
    for ip in asked.chain(&found.load_balancer).filter(undeclared) {
        let what = format!("{ip} is of a family that spec.ipFamilies does not name");
        let remedy = "name both families there, with ipFamilyPolicy PreferDualStack, or remove it";
        findings.problem(origin, object, what, remedy);
    }
    // As kube-proxy does: the field is older than families.
    let skipped: Vec<IpAddr> = found.external.iter().filter(undeclared).copied().collect();
    for ip in skipped {
        found.external.remove(&ip);
        let what = format!("external IP {ip} is of a family that spec.ipFamilies does not name");
        findings.note(origin, object, what);
    }
    if let Some(wish) = &mut found.wish {
        wish.families = balancer::families(&declared, spec, wish);
    }
    found.families = families(declared, spec, &found);
    if terms.beside_kube_proxy {
        found.cluster.clear();
        (found.node_ports, found.wants_node_ports) = (false, false);
    }
    let on_node = found.wants_node_ports || found.node_ports && writes_node_ports(spec);
    let named = [&found.load_balancer, &found.external, &found.cluster];
    let reachable = on_node || found.pooled || named.iter().any(|addresses| !addresses.is_empty());
    reachable.then_some(found)
}

/// The cluster IPs that a Service was given; none where it is headless.
fn cluster_addresses(spec: &ServiceSpec) -> Vec<&str> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    // The older field names the first of them, or stands alone in older manifests.
    let listed = match listed {
        [] => spec.cluster_ip.as_slice(),
        listed => listed,
    };
    let texts = listed.iter().map(String::as_str);
    texts
        .filter(|text| !matches!(*text, "" | HEADLESS))
        .collect()
}

fn is_headless(spec: &ServiceSpec) -> bool {
    let mut all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.any(|text| text == HEADLESS)
}

fn writes_node_ports(spec: &ServiceSpec) -> bool {
    let mut ports = spec.ports.iter().flatten();
    ports.any(|port| port.node_port.is_some_and(|number| number != 0))
}

/// The families that `spec.ipFamilies` and `spec.ipFamilyPolicy` name.
fn declared(
    object: &str,
    origin: &Origin,
    spec: &ServiceSpec,
    findings: &mut Findings,
) -> BTreeSet<Family> {
    let mut families = BTreeSet::new();
    for text in spec.ip_families.iter().flatten() {
        let family = [Family::V4, Family::V6]
            .into_iter()
            .find(|family| family.name() == text);
        match family {
            Some(family) if families.insert(family) => {}
            Some(_) => {
                let what = format!("spec.ipFamilies names {text} twice");
                findings.problem(origin, object, what, "name it once");
            }
            None => {
                let what = format!("spec.ipFamilies: `{text}` is not a family");
                findings.problem(origin, object, what, "write IPv4 or IPv6");
            }
        }
    }
    match spec.ip_family_policy.as_deref() {
        None | Some("") => {}
        Some("SingleStack") if families.len() > 1 => {
            let what = "ipFamilyPolicy is SingleStack, but spec.ipFamilies names two";
            let remedy = "write PreferDualStack, or name one family";
            findings.problem(origin, object, what, remedy);
        }
        Some("SingleStack") => {}
        Some("PreferDualStack" | "RequireDualStack") => {
            families.extend([Family::V4, Family::V6]);
        }
        Some(other) => {
            let what = format!("spec.ipFamilyPolicy `{other}` does not exist");
            let remedy = "write SingleStack, PreferDualStack or RequireDualStack";
            findings.problem(origin, object, what, remedy);
        }
    }
    families
}

/// The families that a Service is of: those it names, else those of its addresses.
fn families(
    declared: BTreeSet<Family>,
    spec: &ServiceSpec,
    addresses: &Addresses,
) -> BTreeSet<Family> {
    if !declared.is_empty() {
        return declared;
    }
    let cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let cluster = cluster.filter_map(|ip| ip.parse::<IpAddr>().ok());
    let given = addresses.load_balancer.union(&addresses.external).copied();
    given.chain(cluster).map(Family::of).collect()
}
