//! IPAddressPools → [`Pool`]s, no two of which share an address.

use std::collections::BTreeMap;

use super::{
    Named, range, selectors,
    types::{IpAddressPool, IpAddressPoolSpec, ServiceAllocationSpec},
};
use crate::{
    desired::{AddressRange, Pool, ServiceAllocation},
    source::Findings,
};

/// Reads them; those with problems are there too, so that what names them finds them.
pub(super) fn read(
    objects: &BTreeMap<String, Named<'_, IpAddressPool>>,
    namespaces_known: bool,
    findings: &mut Findings,
) -> BTreeMap<String, Pool> {
    let mut pools = BTreeMap::new();
    for (name, object) in objects {
        let IpAddressPoolSpec {
            addresses,
            auto_assign,
            avoid_buggy_ips,
            service_allocation,
        } = &object.object.spec;
        let allocation = service_allocation
            .as_ref()
            .map(|it| allocation(object, it, namespaces_known, findings));
        let pool = Pool {
            ranges: ranges(object, addresses, findings),
            auto_assign: auto_assign.unwrap_or(true),
            avoid_buggy_ips: avoid_buggy_ips.unwrap_or(false),
            allocation,
            labels: object.object.metadata.labels.clone().unwrap_or_default(),
        };
        pools.insert(name.clone(), pool);
    }
    overlaps(objects, &pools, findings);
    pools
}

fn ranges(
    object: &Named<'_, IpAddressPool>,
    addresses: &[String],
    findings: &mut Findings,
) -> Vec<AddressRange> {
    let Named { origin, label, .. } = object;
    if addresses.is_empty() {
        let what = "spec.addresses is empty";
        let remedy = "name at least one range, such as 192.168.56.11-192.168.56.13";
        findings.problem(origin, label, what, remedy);
    }
    let mut ranges = Vec::new();
    for text in addresses {
        match range::parse(text) {
            Ok((range, truncated)) => {
                if let Some(network) = truncated {
                    let what = format!("`{text}` names a host: all of {network} is in the pool");
                    findings.note(origin, label, what);
                }
                ranges.push(range);
            }
            Err(objection) => {
                let what = format!("spec.addresses: {}", objection.what);
                findings.problem(origin, label, what, objection.remedy);
            }
        }
    }
    ranges
}

fn allocation(
    object: &Named<'_, IpAddressPool>,
    spec: &ServiceAllocationSpec,
    namespaces_known: bool,
    findings: &mut Findings,
) -> ServiceAllocation {
    let Named { origin, label, .. } = object;
    let priority = spec.priority.unwrap_or(0);
    let at = (*origin, label.as_str());
    let mut of = |field: &str, written| {
        let field = format!("serviceAllocation.{field}");
        selectors(&field, written, at, findings)
    };
    let namespace_selectors = of("namespaceSelectors", spec.namespace_selectors.as_ref());
    let service_selectors = of("serviceSelectors", spec.service_selectors.as_ref());
    if !namespace_selectors.is_empty() && !namespaces_known {
        let what = "serviceAllocation.namespaceSelectors: no Namespace object is there, so no \
                    labels but the names of namespaces are known";
        findings.note(origin, label, what);
    }
    let priority = u32::try_from(priority).unwrap_or_else(|_| {
        let what = format!("serviceAllocation.priority {priority} cannot be");
        let remedy = "write 1 for the first pool, larger numbers for later ones, 0 for the last";
        findings.problem(origin, label, what, remedy);
        0
    });
    ServiceAllocation {
        priority,
        namespaces: spec.namespaces.iter().flatten().cloned().collect(),
        namespace_selectors,
        service_selectors,
    }
}

/// Tells of every two neighbouring ranges that have addresses in common.
fn overlaps(
    objects: &BTreeMap<String, Named<'_, IpAddressPool>>,
    pools: &BTreeMap<String, Pool>,
    findings: &mut Findings,
) {
    let mut all: Vec<(AddressRange, &String)> = pools
        .iter()
        .flat_map(|(name, pool)| pool.ranges.iter().map(move |range| (*range, name)))
        .collect();
    all.sort();
    // The one that reaches furthest so far: a long one may hold several later ones.
    let mut furthest: Option<(AddressRange, &String)> = None;
    for (range, name) in all {
        if let Some((other, of)) = furthest
            && range::overlap(&range, &other)
            && let Some(object) = objects.get(name)
        {
            let another = objects.get(of).filter(|_| of != name);
            let (whose, against) = match another {
                Some(Named { label, origin, .. }) => {
                    (format!("of {label} ({origin})"), label.as_str())
                }
                None => ("of the same pool".to_owned(), ""),
            };
            let what = format!("its addresses {range} overlap {other} {whose}");
            let remedy = "give each address to one pool, once";
            findings.conflict(object.origin, &object.label, against, what, remedy);
        }
        if furthest.is_none_or(|(other, _)| range.last > other.last) {
            furthest = Some((range, name));
        }
    }
}
