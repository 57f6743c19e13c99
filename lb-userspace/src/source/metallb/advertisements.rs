//! L2Advertisements → [`Advertisement`]s, with their pools by name.

use std::collections::{BTreeMap, BTreeSet};

use kube_core::SelectorExt;

use super::{
    Named, selector, selectors,
    types::{L2Advertisement, L2AdvertisementSpec},
};
use crate::{
    desired::{Advertisement, Pool},
    source::Findings,
};

/// Reads them.
pub(super) fn read(
    objects: &BTreeMap<String, Named<'_, L2Advertisement>>,
    pools: &BTreeMap<String, Pool>,
    findings: &mut Findings,
) -> BTreeMap<String, Advertisement> {
    let mut advertisements = BTreeMap::new();
    for (name, object) in objects {
        let Named { origin, label, .. } = object;
        let spec = &object.object.spec;
        let at = (*origin, label.as_str());
        let advertisement = Advertisement {
            pools: chosen(object, pools, findings),
            node_selectors: selectors("nodeSelectors", spec.node_selectors.as_ref(), at, findings),
            interfaces: spec.interfaces.iter().flatten().cloned().collect(),
            service_selectors: selectors(
                "serviceSelectors",
                spec.service_selectors.as_ref(),
                at,
                findings,
            ),
            preferences: preferences(object, findings),
        };
        advertisements.insert(name.clone(), advertisement);
    }
    advertisements
}

/// The pools that it names, or that have labels it asks for; all where it does neither.
fn chosen(
    object: &Named<'_, L2Advertisement>,
    pools: &BTreeMap<String, Pool>,
    findings: &mut Findings,
) -> BTreeSet<String> {
    let Named { origin, label, .. } = object;
    let L2AdvertisementSpec {
        ip_address_pools,
        ip_address_pool_selectors,
        ..
    } = &object.object.spec;
    let named: Vec<&String> = ip_address_pools.iter().flatten().collect();
    let of_labels = selectors(
        "ipAddressPoolSelectors",
        ip_address_pool_selectors.as_ref(),
        (origin, label),
        findings,
    );
    let mut written = ip_address_pool_selectors.iter().flatten();
    if named.is_empty() && written.next().is_none() {
        return pools.keys().cloned().collect();
    }
    for name in &named {
        if !pools.contains_key(*name) {
            // Pools may be added later, and MetalLB takes it meanwhile.
            let what = format!("spec.ipAddressPools names {name}, which does not exist");
            findings.note(origin, label, what);
        }
    }
    let chosen = pools.iter().filter(|(name, pool)| {
        named.contains(name) || of_labels.iter().any(|it| it.matches(&pool.labels))
    });
    chosen.map(|(name, _)| name.clone()).collect()
}

fn preferences(
    object: &Named<'_, L2Advertisement>,
    findings: &mut Findings,
) -> Vec<(u32, kube_core::Selector)> {
    let Named { origin, label, .. } = object;
    let mut preferences = Vec::new();
    let written = &object.object.spec.preferred_node_selectors;
    for (i, written) in written.iter().flatten().enumerate() {
        let field = format!("spec.preferredNodeSelectors[{i}]");
        let weight = u32::try_from(written.weight).ok();
        let Some(weight) = weight.filter(|weight| (1..=100).contains(weight)) else {
            let what = format!("{field}: weight {} cannot be", written.weight);
            findings.problem(origin, label, what, "use a number from 1 to 100");
            continue;
        };
        match selector(&written.preference) {
            Ok(selector) => preferences.push((weight, selector)),
            Err(what) => {
                let what = format!("{field}.preference: {what}");
                findings.problem(origin, label, what, "write it as Kubernetes' labelSelector");
            }
        }
    }
    preferences
}
