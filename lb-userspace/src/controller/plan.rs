//! What is to be written into a cluster's objects, so that they say who has which address.
//!
//! Pure: from what the objects say, and who was given what. An object that says so already is not
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, ObjectReference, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde_json::{Value, json};

use crate::{
    desired::{BalancerName, Family},
    ipam::{self, Assignment, PoolUse, Refusal},
    source::{
        Note,
        cluster::Scene,
        kubernetes::{self, Sourced},
        metallb::{
            FROM_POOL,
            types::{IpAddressPool, IpAddressPoolStatus},
        },
    },
};

/// How kube-proxy, and whoever does its work, treats an address: as one of the node's own, which
/// pods reach without leaving it.
const MODE: &str = "VIP";

/// A change of an object's status, by a merge patch that holds only for the version that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) patch: Value,
    /// To be told of the object once it is written.
    pub(super) event: Option<Event>,
}

/// Something to tell of an object; of a Service's address as MetalLB tells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) of: ObjectReference,
    pub(super) reason: &'static str,
    pub(super) warning: bool,
    pub(super) note: String,
}

/// The addresses of Services of type LoadBalancer that are none of `ours`, as they say.
pub(super) fn foreign<'a>(
    services: impl Iterator<Item = &'a Service>,
    ours: impl Fn(&BalancerName) -> bool,
) -> BTreeMap<IpAddr, BalancerName> {
    let others = services.filter_map(|service| {
        let name = name_of(&service.metadata);
        let typed = service.spec.as_ref()?.type_.as_deref() == Some("LoadBalancer");
        (typed && !ours(&name)).then_some((name, service))
    });
    let addresses = others.flat_map(|(name, service)| {
        let ips = kubernetes::ingress(service)
            .iter()
            .filter_map(|it| it.ip.as_deref()?.parse().ok());
        ips.map(move |ip| (ip, name.clone())).collect::<Vec<_>>()
    });
    addresses.collect()
}

/// What the Services are to say.
pub(super) fn services<'a>(
    services: impl Iterator<Item = &'a Service>,
    assignment: &Assignment,
) -> Vec<Write> {
    let writes = services.filter_map(|service| {
        let name = name_of(&service.metadata);
        if assignment.desired.balancers.contains_key(&name) {
            let given = assignment.addresses.get(&name);
            let pool = assignment.ledger.get(&name).map(|it| it.pool.as_str());
            return write(service, given.zip(pool));
        }
        // One of another class may have its address of somebody else.
        let of = service.spec.as_ref().and_then(|it| it.type_.as_deref());
        let gone = of != Some("LoadBalancer") && annotation(service).is_some();
        gone.then(|| write(service, None)).flatten()
    });
    writes.collect()
}

/// What a Service is to say of the addresses that it was given; none where it says so.
fn write(service: &Service, given: Option<(&BTreeSet<IpAddr>, &str)>) -> Option<Write> {
    let ingress = given.map_or_else(Vec::new, |(addresses, _)| ingress(service, addresses));
    let pool = given.map(|(_, pool)| pool);
    let before = kubernetes::ingress(service);
    // What we did not give, somebody else may have given.
    let theirs = given.is_none() && annotation(service).is_none();
    if theirs || before == ingress && annotation(service) == pool {
        return None;
    }
    let ips = |at: &[LoadBalancerIngress]| -> BTreeSet<String> {
        at.iter().filter_map(|it| it.ip.clone()).collect()
    };
    let (had, gets) = (ips(before), ips(&ingress));
    let event = (had != gets && !gets.is_empty()).then(|| Event {
        of: service.object_ref(&()),
        reason: "IPAllocated",
        warning: false,
        note: format!("Assigned IP {gets:?}"),
    });
    let ingress = Some(ingress).filter(|it| !it.is_empty());
    let metadata = &service.metadata;
    Some(Write {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        patch: json!({
            "metadata": {
                "resourceVersion": metadata.resource_version,
                "annotations": { FROM_POOL: pool },
            },
            "status": { "loadBalancer": { "ingress": ingress } },
        }),
        event,
    })
}

/// The addresses, those of the Service's first family first.
fn ingress(service: &Service, addresses: &BTreeSet<IpAddr>) -> Vec<LoadBalancerIngress> {
    let spec = service.spec.as_ref();
    let first = spec.and_then(|it| it.ip_families.as_ref()?.first());
    let mut addresses: Vec<IpAddr> = addresses.iter().copied().collect();
    addresses.sort_by_key(|ip| first.is_some_and(|it| it != Family::of(*ip).name()));
    let ingress = addresses.into_iter().map(|ip| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some(MODE.to_owned()),
        ..LoadBalancerIngress::default()
    });
    ingress.collect()
}

/// What is to be told of Services that are refused an address now, or for another reason than
/// before.
pub(super) fn refusals<'a>(
    services: impl Iterator<Item = &'a Service>,
    refused: &BTreeMap<BalancerName, Refusal>,
    before: &BTreeMap<BalancerName, Refusal>,
) -> Vec<Event> {
    let events = services.filter_map(|service| {
        let name = name_of(&service.metadata);
        let why = refused.get(&name)?;
        (before.get(&name) != Some(why)).then(|| Event {
            of: service.object_ref(&()),
            reason: "AllocationFailed",
            warning: true,
            note: format!("Failed to allocate IP for {name}: {why}"),
        })
    });
    events.collect()
}

/// What is to be told of Services, pools and advertisements that do not count as they are, unless
/// the notes of `before` say so, too.
pub(super) fn invalid(scene: &Scene, notes: &[Note], before: &[Note]) -> Vec<Event> {
    let new: Vec<&Note> = notes
        .iter()
        .filter(|it| it.refused && !before.contains(it))
        .collect();
    if new.is_empty() {
        return Vec::new();
    }
    fn named<K>(objects: &[Arc<Sourced<K>>]) -> impl Iterator<Item = (String, ObjectReference)>
    where
        K: Resource<DynamicType = ()>,
    {
        objects.iter().map(|it| {
            let name = name_of(it.object.meta());
            let label = format!("{} {name}", K::kind(&()));
            (label, it.object.object_ref(&()))
        })
    }
    let objects: BTreeMap<String, ObjectReference> = named(&scene.services)
        .chain(named(&scene.pools))
        .chain(named(&scene.advertisements))
        .collect();
    let events = new.into_iter().filter_map(|note| {
        Some(Event {
            of: objects.get(&note.object)?.clone(),
            reason: "Invalid",
            warning: true,
            note: note.what.clone(),
        })
    });
    events.collect()
}

/// Who has no address, and why: also where there is no pool at all.
pub(super) fn refused(assignment: &Assignment) -> BTreeMap<BalancerName, Refusal> {
    let all = assignment.desired.balancers.keys();
    let without = all.filter(|it| !assignment.addresses.contains_key(*it));
    let refused = without.map(|name| {
        let why = assignment.refused.get(name).cloned();
        (name.clone(), why.unwrap_or(Refusal::NoPools))
    });
    refused.collect()
}

/// What the pools are to say of how full they are.
pub(super) fn pools<'a>(
    pools: impl Iterator<Item = &'a IpAddressPool>,
    assignment: &Assignment,
) -> Vec<Write> {
    let usage = ipam::usage(assignment);
    let usage: BTreeMap<&str, &PoolUse> = usage.iter().map(|it| (it.name.as_str(), it)).collect();
    let writes = pools.filter_map(|pool| {
        let metadata = &pool.metadata;
        let PoolUse { in_use, free, .. } = usage.get(metadata.name.as_deref()?)?;
        // As far as a number of the API goes.
        let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        let status = json!(IpAddressPoolStatus {
            assigned_v4: number(in_use.v4),
            assigned_v6: number(in_use.v6),
            available_v4: number(free.v4),
            available_v6: number(free.v6),
        });
        (pool.status.as_ref() != Some(&status)).then(|| Write {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            patch: json!({ "status": status }),
            event: None,
        })
    });
    writes.collect()
}

fn name_of(metadata: &ObjectMeta) -> BalancerName {
    let part = |it: &Option<String>| it.clone().unwrap_or_default();
    BalancerName(format!(
        "{}/{}",
        part(&metadata.namespace),
        part(&metadata.name)
    ))
}

/// The pool that a Service says that its address is of.
fn annotation(service: &Service) -> Option<&str> {
    let annotations = service.metadata.annotations.as_ref()?;
    annotations.get(FROM_POOL).map(String::as_str)
}

#[cfg(test)]
mod tests;
