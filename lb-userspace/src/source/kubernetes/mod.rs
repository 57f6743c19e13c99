//! Services, EndpointSlices, Endpoints, Nodes and MetalLB's kinds → [`Desired`], whoever read
//! the objects.
//!
//! Manifests and a cluster's watches hand in the same kinds. Follows kube-proxy where Kubernetes leaves a choice.

mod addresses;
mod again;
mod annotations;
mod balancer;
mod endpoints;
mod known;
mod nodes;
mod policies;
mod service;
mod slice;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Endpoints, Namespace, Node, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lb_common::Protocol;

pub(crate) use self::balancer::ingress;
pub(super) use self::{again::same, balancer::is_wish, policies::is_guarded};
pub use self::{known::Known, slice::Slice};
use super::{
    Findings, Origin, Outcome,
    metallb::{
        self,
        legacy::Legacy,
        types::{IpAddressPool, L2Advertisement},
    },
};
use crate::desired::{BalancerName, Desired, Frontend, Labels};

/// The [`Service::spec`]'s `loadBalancerClass` that names naru.
pub const LOAD_BALANCER_CLASS: &str = "naru.dev/naru";

/// How Services are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The `loadBalancerClass` of those that are ours; none: [`LOAD_BALANCER_CLASS`], and those
    /// without one.
    pub class: Option<String>,
    /// Whether addresses are from pools alone, also where there is no pool.
    pub pooled: bool,
    /// Whether cluster IPs and node ports are left to kube-proxy.
    pub beside_kube_proxy: bool,
}

/// An object and where it was read.
#[derive(Clone, Debug)]
pub struct Sourced<T> {
    /// For messages.
    pub origin: Origin,
    /// The object.
    pub object: T,
}

/// Objects that count. Those that Services depend on are told apart by where they are: one
/// that has changed is another one.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// `v1` Service.
    pub services: Vec<Arc<Sourced<Service>>>,
    /// `v1` Endpoints; consulted where a Service has no EndpointSlice.
    pub endpoints: Vec<Arc<Sourced<Endpoints>>>,
    /// `discovery.k8s.io/v1` EndpointSlice.
    pub slices: Vec<Arc<Sourced<Slice>>>,
    /// `v1` Node.
    pub nodes: Vec<Arc<Sourced<Node>>>,
    /// `v1` Namespace, for its labels.
    pub namespaces: Vec<Arc<Sourced<Namespace>>>,
    /// `metallb.io/v1beta1` IPAddressPool. Where there is any, Services of type LoadBalancer
    /// have their addresses from pools alone.
    pub pools: Vec<Arc<Sourced<IpAddressPool>>>,
    /// `metallb.io/v1beta1` L2Advertisement.
    pub advertisements: Vec<Arc<Sourced<L2Advertisement>>>,
    /// The ConfigMap that those two replaced.
    pub legacy: Vec<Arc<Sourced<Legacy>>>,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::source) struct Key {
    pub(in crate::source) namespace: String,
    pub(in crate::source) name: String,
}

impl Objects {
    /// Those of several sources together.
    pub fn gathered<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut gathered = Self::default();
        for of in all {
            gathered.services.extend_from_slice(&of.services);
            gathered.endpoints.extend_from_slice(&of.endpoints);
            gathered.slices.extend_from_slice(&of.slices);
            gathered.nodes.extend_from_slice(&of.nodes);
            gathered.namespaces.extend_from_slice(&of.namespaces);
            gathered.pools.extend_from_slice(&of.pools);
            gathered
                .advertisements
                .extend_from_slice(&of.advertisements);
            gathered.legacy.extend_from_slice(&of.legacy);
        }
        gathered
    }
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

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Works out what the objects of one moment ask for. `known` is what this found the last
/// time, so that the same Services are not worked out again: of
/// the same terms.
pub fn translate(objects: Objects, terms: &Terms, known: &mut Known) -> Outcome {
    if let Some(loaded) = known.again(&objects, terms) {
        return Ok(loaded);
    }
    let loaded = translate_all(&objects, terms, known)?;
    known.keep(objects, &loaded);
    Ok(loaded)
}

fn translate_all(objects: &Objects, terms: &Terms, known: &mut Known) -> Outcome {
    let mut findings = Findings::default();
    let key = |it: &Service| Key::of(&it.metadata);
    let services = index("Service", &objects.services, key, &mut findings);
    let key = |it: &Slice| it.key.clone();
    let slices = index("EndpointSlice", &objects.slices, key, &mut findings);
    let key = |it: &Endpoints| Key::of(&it.metadata);
    let endpoints = index("Endpoints", &objects.endpoints, key, &mut findings);
    let endpoints = endpoints::Index::new(slices, endpoints, &services, &mut findings);

    let legacy = || objects.legacy.iter().map(|it| &it.object);
    for it in legacy() {
        findings.add(it.findings());
    }
    let pools = objects.pools.iter().map(|it| &**it);
    let advertisements = objects.advertisements.iter().map(|it| &**it);
    let lan = metallb::read(
        pools.chain(legacy().flat_map(Legacy::pools)),
        advertisements.chain(legacy().flat_map(Legacy::advertisements)),
        objects.namespaces.iter().map(|it| &**it),
        &mut findings,
    );
    let nodes = objects.nodes.iter().map(|it| &**it);
    let nodes = nodes::read(nodes, &mut findings);
    let mut labels: BTreeMap<String, Labels> = BTreeMap::new();
    let mut owners: BTreeMap<Taken, (Key, &Origin)> = BTreeMap::new();
    let (mut ports, mut balancers) = (Vec::new(), Vec::new());
    let mut before = known.begin();
    let terms = &Terms {
        pooled: terms.pooled || lan.has_pools(),
        ..terms.clone()
    };
    for (key, service) in services {
        let input = endpoints.input(&key, service, terms.pooled);
        let entry = known.renew(&mut before, key.clone(), input, |key, input, findings| {
            service::ports(key, &format!("Service {key}"), input, terms, findings)
        });
        findings.add(&entry.findings);
        if let Some(balancer) = &mut entry.found.balancer {
            let of = |namespace: &String| lan.namespace_labels(namespace);
            let labels = labels.entry(key.namespace.clone()).or_insert_with_key(of);
            if balancer.namespace_labels != *labels {
                Arc::make_mut(balancer).namespace_labels = labels.clone();
            }
            balancers.push((BalancerName(key.to_string()), Arc::clone(balancer)));
        }
        for (name, port) in &entry.found.ports {
            // An external IP may be the cluster IP of the same Service.
            let frontends: BTreeSet<_> = port.named().map(|it| Taken::Frontend(*it)).collect();
            let on_node = port.node_port.as_ref();
            let on_node = on_node.map(|it| Taken::NodePort(it.port, it.protocol));
            let checked = port.health_check_port.map(Taken::HealthCheck);
            for frontend in frontends.into_iter().chain(on_node).chain(checked) {
                match owners.entry(frontend) {
                    Entry::Vacant(entry) => {
                        entry.insert((key.clone(), &service.origin));
                    }
                    // All ports of a Service have the same.
                    Entry::Occupied(entry)
                        if entry.get().0 == key && entry.key().is_of_all_ports() => {}
                    Entry::Occupied(entry) => {
                        let (other, origin) = entry.get();
                        findings.conflict(
                            &service.origin,
                            &format!("Service {key}"),
                            &format!("Service {other}"),
                            format!(
                                "{} is already taken by Service {other} ({origin})",
                                entry.key()
                            ),
                            "give one of the two another address or port",
                        );
                    }
                }
            }
            ports.push((name.clone(), Arc::clone(port)));
        }
    }
    findings.outcome(Desired {
        services: ports.into_iter().collect(),
        nodes,
        balancers: balancers.into_iter().collect(),
        pools: lan.pools,
        advertisements: lan.advertisements,
        foreign: BTreeMap::new(),
    })
}

/// What only one Service can have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    Frontend(Frontend),
    NodePort(u16, Protocol),
    HealthCheck(u16),
}

impl Taken {
    fn is_of_all_ports(&self) -> bool {
        matches!(self, Self::HealthCheck(_))
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(frontend) => write!(f, "frontend {frontend}"),
            Self::NodePort(port, protocol) => write!(f, "node port {port}/{protocol}"),
            Self::HealthCheck(port) => write!(f, "health check node port {port}"),
        }
    }
}

/// The objects of one kind by name, so that equal input gives equal order.
fn index<'a, T>(
    kind: &str,
    objects: &'a [Arc<Sourced<T>>],
    key: impl Fn(&T) -> Key,
    findings: &mut Findings,
) -> BTreeMap<Key, &'a Arc<Sourced<T>>> {
    let mut index: BTreeMap<Key, &Arc<Sourced<T>>> = BTreeMap::new();
    for sourced in objects {
        let key = key(&sourced.object);
        if key.name.is_empty() {
            let object = format!("{kind} {}/?", key.namespace);
            let what = "metadata.name is missing";
            findings.problem(&sourced.origin, &object, what, "give the object a name");
            continue;
        }
        if !(is_name(&key.namespace) && is_name(&key.name)) {
            let object = format!("{kind} {key}");
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
                &format!("{kind} {}", entry.key()),
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
