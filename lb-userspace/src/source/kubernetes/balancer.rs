//! What a Service of type LoadBalancer asks of a load balancer: addresses, a pool, company.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use lb_common::Protocol;

use super::{Key, Sourced, policies::Policies};
use crate::{
    desired::{Balancer, Family, Labels, ServiceName, TrafficPolicy},
    source::{Findings, rules},
};

/// MetalLB's annotations; the deprecated prefix is still read, and the other one wins.
const PREFIXES: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];
const ADDRESSES: &str = "loadBalancerIPs";
const POOL: &str = "address-pool";
const SHARING: &str = "allow-shared-ip";

/// Whether an annotation says what its author wants of Naru, and may say it wrongly: of a pool, and
/// of company, any text is one.
pub(in crate::source) fn is_wish(annotation: &str) -> bool {
    let mut prefixes = PREFIXES.iter();
    annotation.starts_with(super::annotations::PREFIX)
        || prefixes.any(|it| annotation.strip_prefix(it) == Some(ADDRESSES))
}

/// What it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Addresses; none: any.
    pub(super) requested: Vec<IpAddr>,
    /// The addresses that it was given already.
    pub(super) given: Vec<IpAddr>,
    pub(super) pool: Option<String>,
    pub(super) sharing_key: Option<String>,
    /// See [`Balancer::families`].
    pub(super) families: BTreeSet<Family>,
}

impl Wish {
    /// The addresses that it has where there are no pools.
    pub(super) fn without_pools(&self) -> BTreeSet<IpAddr> {
        let has = match self.requested.as_slice() {
            [] => &self.given,
            _ => &self.requested,
        };
        has.iter().copied().collect()
    }

    /// The Service as a load balancer has it; `ports` are those that it serves.
    pub(super) fn balancer(
        self,
        key: &Key,
        service: &Service,
        spec: &ServiceSpec,
        policies: &Policies,
        ports: BTreeMap<ServiceName, (u16, Protocol)>,
    ) -> Balancer {
        let backend_key = match policies.external {
            TrafficPolicy::Cluster => String::new(),
            TrafficPolicy::Local => {
                let selector = spec.selector.iter().flatten();
                let selector: Vec<_> = selector.map(|(key, it)| format!("{key}={it}")).collect();
                selector.join(",")
            }
        };
        Balancer {
            namespace: key.namespace.clone(),
            namespace_labels: Labels::new(),
            labels: service.metadata.labels.clone().unwrap_or_default(),
            requested: self.requested,
            pool: self.pool,
            given: self.given,
            families: self.families,
            one_family_will_do: spec.ip_family_policy.as_deref() == Some("PreferDualStack"),
            sharing_key: self.sharing_key,
            backend_key,
            external_policy: policies.external,
            ports,
        }
    }
}

/// Reads it. Where there are pools, addresses of its status that cannot be are passed over:
/// they are no wish of its author.
pub(super) fn wish(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    pooled: bool,
    findings: &mut Findings,
) -> Wish {
    let origin = &service.origin;
    let annotations = service.object.metadata.annotations.as_ref();
    let annotated = |name: &str| {
        PREFIXES.iter().find_map(|prefix| {
            let key = format!("{prefix}{name}");
            let value = annotations?.get(&key)?.trim();
            Some((key, value)).filter(|(_, value)| !value.is_empty())
        })
    };
    let value = |name: &str| annotated(name).map(|(_, value)| value.to_owned());
    let field = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty());
    let asked: Vec<&str> = match (field, annotated(ADDRESSES)) {
        (Some(_), Some((key, _))) => {
            let what = format!("both spec.loadBalancerIP and annotation {key} ask for an address");
            findings.problem(origin, object, what, "keep one of them");
            Vec::new()
        }
        (Some(ip), None) => vec![ip],
        (None, Some((_, list))) => list.split(',').map(str::trim).collect(),
        (None, None) => Vec::new(),
    };
    let mut requested = Vec::new();
    for text in &asked {
        match rules::vip(text) {
            Ok(ip) if requested.contains(&ip) => {}
            Ok(ip) => requested.push(ip),
            Err(objection) => findings.problem(origin, object, objection.what, objection.remedy),
        }
    }
    let mut given = Vec::new();
    let ingress = ingress(&service.object).iter();
    for text in ingress.filter_map(|it| it.ip.as_deref()) {
        match rules::vip(text) {
            Ok(ip) => given.push(ip),
            Err(objection) if !pooled && asked.is_empty() => {
                findings.problem(origin, object, objection.what, objection.remedy);
            }
            Err(_) => {}
        }
    }
    let pool = value(POOL);
    if let Some(pool) = pool.as_ref().filter(|_| !pooled) {
        let what = format!("it asks for pool {pool}, but no pool is defined");
        findings.note(origin, object, what);
    }
    Wish {
        requested,
        given,
        pool,
        sharing_key: value(SHARING),
        families: BTreeSet::new(),
    }
}

/// What a Service says that it was given.
pub(crate) fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let ingress = status.and_then(|it| it.load_balancer.as_ref()?.ingress.as_deref());
    ingress.unwrap_or_default()
}

/// The addresses that another load balancer gave, as far as whoever proxies serves them: as
/// kube-proxy has it, all but those of `ipMode: Proxy`.
pub(super) fn served_elsewhere(service: &Service) -> BTreeSet<IpAddr> {
    let all = ingress(service).iter();
    let served = all.filter(|it| it.ip_mode.as_deref() != Some("Proxy"));
    served
        .filter_map(|it| rules::vip(it.ip.as_deref()?).ok())
        .collect()
}

/// The families that it needs addresses of: those that it declares, less those that the
/// cluster gave it no cluster IP of where it merely prefers both.
pub(super) fn families(
    declared: &BTreeSet<Family>,
    spec: &ServiceSpec,
    wish: &Wish,
) -> BTreeSet<Family> {
    let cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let cluster = cluster.filter_map(|ip| ip.parse::<IpAddr>().ok());
    let cluster: BTreeSet<_> = cluster.map(Family::of).collect();
    let prefers = spec.ip_family_policy.as_deref() == Some("PreferDualStack");
    match (declared.is_empty(), cluster.is_empty()) {
        (false, false) if prefers => cluster,
        (false, _) => declared.clone(),
        (true, _) if !wish.requested.is_empty() => {
            wish.requested.iter().copied().map(Family::of).collect()
        }
        (true, _) => cluster,
    }
}
