//! Services, EndpointSlices, Endpoints, Nodes and MetalLB's kinds → [`Desired`], whoever read
//! the objects.
//!
//! Manifests hand their objects in today; a cluster's watches can hand in the same
//! kinds. Follows kube-proxy where Kubernetes leaves a choice.

mod addresses;
mod annotations;
mod balancer;
mod endpoints;
mod nodes;
mod policies;
mod service;

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Namespace, Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Findings, Origin, Outcome,
    metallb::{
        self,
        types::{IpAddressPool, L2Advertisement},
    },
};
use crate::desired::{BalancerName, Desired};

/// The [`Service::spec`]'s `loadBalancerClass` that names naru.
pub const LOAD_BALANCER_CLASS: &str = "naru.dev/naru";

/// An object and where it was read.
#[derive(Clone, Debug)]
pub struct Sourced<T> {
    /// For messages.
    pub origin: Origin,
    /// The object.
    pub object: T,
}

/// All objects that count, of one moment.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// `v1` Service.
    pub services: Vec<Sourced<Service>>,
    /// `v1` Endpoints; consulted where a Service has no EndpointSlice.
    pub endpoints: Vec<Sourced<Endpoints>>,
    /// `discovery.k8s.io/v1` EndpointSlice.
    pub slices: Vec<Sourced<EndpointSlice>>,
    /// `v1` Node.
    pub nodes: Vec<Sourced<Node>>,
    /// `v1` Namespace, for its labels.
    pub namespaces: Vec<Sourced<Namespace>>,
    /// `metallb.io/v1beta1` IPAddressPool. Where there is any, Services of type LoadBalancer
    /// have their addresses from pools alone.
    pub pools: Vec<Sourced<IpAddressPool>>,
    /// `metallb.io/v1beta1` L2Advertisement.
    pub advertisements: Vec<Sourced<L2Advertisement>>,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    name: String,
}

impl Key {
    /// Without a namespace an object is in `default`, as `kubectl apply` has it.
    fn of(metadata: &ObjectMeta) -> Self {
        let namespace = metadata.namespace.as_deref().filter(|n| !n.is_empty());
        Self {
            namespace: namespace.unwrap_or("default").to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Works out what the objects ask for.
pub fn translate(objects: &Objects) -> Outcome {
    let mut findings = Findings::default();
    let services = index(
        "Service",
        &objects.services,
        |object| &object.metadata,
        &mut findings,
    );
    let slices = index(
        "EndpointSlice",
        &objects.slices,
        |object| &object.metadata,
        &mut findings,
    );
    let endpoints = index(
        "Endpoints",
        &objects.endpoints,
        |object| &object.metadata,
        &mut findings,
    );
    let endpoints = endpoints::Index::new(slices, endpoints, &services, &mut findings);

    let lan = metallb::read(
        &objects.pools,
        &objects.advertisements,
        &objects.namespaces,
        &mut findings,
    );
    let mut desired = Desired {
        nodes: nodes::read(&objects.nodes, &mut findings),
        ..Desired::default()
    };
    let mut owners: BTreeMap<String, (String, &Origin)> = BTreeMap::new();
    for (key, service) in &services {
        let object = format!("Service {key}");
        let pooled = lan.has_pools();
        let found = service::ports(key, &object, service, &endpoints, pooled, &mut findings);
        if let Some(mut balancer) = found.balancer {
            balancer.namespace_labels = lan.namespace_labels(&key.namespace);
            let name = BalancerName(key.to_string());
            desired.balancers.insert(name, balancer);
        }
        for (name, port) in found.ports {
            // An external IP may be the cluster IP of the same Service.
            let frontends: BTreeSet<_> = port.named().collect();
            let frontends = frontends.into_iter().map(|it| format!("frontend {it}"));
            for frontend in frontends.chain(port.node_port.iter().map(ToString::to_string)) {
                match owners.entry(frontend) {
                    Entry::Vacant(entry) => {
                        entry.insert((object.clone(), &service.origin));
                    }
                    Entry::Occupied(entry) => {
                        let (other, origin) = entry.get();
                        findings.problem(
                            &service.origin,
                            &object,
                            format!("{} is already taken by {other} ({origin})", entry.key()),
                            "give one of the two another address or port",
                        );
                    }
                }
            }
            desired.services.insert(name, port);
        }
    }
    desired.pools = lan.pools;
    desired.advertisements = lan.advertisements;
    findings.outcome(desired)
}

/// The objects of one kind by name, so that equal input gives equal order.
fn index<'a, T>(
    kind: &str,
    objects: &'a [Sourced<T>],
    metadata: impl Fn(&T) -> &ObjectMeta,
    findings: &mut Findings,
) -> BTreeMap<Key, &'a Sourced<T>> {
    let mut index: BTreeMap<Key, &Sourced<T>> = BTreeMap::new();
    for sourced in objects {
        let key = Key::of(metadata(&sourced.object));
        if key.name.is_empty() {
            let object = format!("{kind} {}/?", key.namespace);
            let what = "metadata.name is missing";
            findings.problem(&sourced.origin, &object, what, "give the object a name");
            continue;
        }
        let object = format!("{kind} {key}");
        if !(is_name(&key.namespace) && is_name(&key.name)) {
            let what = "its name or namespace is none that Kubernetes takes";
            let remedy = "use lower-case letters, digits, `-` and `.`";
            findings.problem(&sourced.origin, &object, what, remedy);
            continue;
        }
        match index.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(sourced);
            }
            Entry::Occupied(entry) => findings.problem(
                &sourced.origin,
                &object,
                format!("it is already defined at {}", entry.get().origin),
                "remove one of the two, or rename it",
            ),
        }
    }
    index
}

/// Whether Kubernetes would take it as a name, as far as naru depends on it: without
/// `/` and `:`, `namespace/name:port` names one port only.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}
