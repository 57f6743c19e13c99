//! MetalLB's kinds → pools and advertisements of [`desired`](crate::desired).
//!
//! [`types`] and [`bgp`] hold the kinds of `metallb.io` as they are written; [`legacy`] is
//! the ConfigMap that they replaced, and [`convert`] turns it into them.

mod advertisements;
pub mod bgp;
pub mod convert;
pub mod crd;
pub mod legacy;
mod pools;
mod range;
pub mod types;

use std::collections::{BTreeMap, btree_map::Entry};

use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube_core::Selector;

use self::types::{IpAddressPool, L2Advertisement};
use super::{Findings, Origin, kubernetes::Sourced};
use crate::desired::{Advertisement, Labels, Pool};

/// MetalLB's annotation of a Service that says which pool its address is of.
pub(crate) const FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";

/// Where MetalLB's objects are unless they say otherwise.
pub const NAMESPACE: &str = "metallb-system";
/// What becomes of the kinds that are about BGP.
pub(super) const NO_BGP: &str = "not used: Naru speaks no BGP";
/// Every namespace has its name as a label, whether or not its object is written so.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What the objects say of the LAN.
#[derive(Debug, Default)]
pub(super) struct Lan {
    pub(super) pools: BTreeMap<String, Pool>,
    pub(super) advertisements: BTreeMap<String, Advertisement>,
    /// Labels of the namespaces that have an object.
    namespaces: BTreeMap<String, Labels>,
}

impl Lan {
    /// Whether addresses come from pools.
    pub(super) fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    /// The labels of a namespace, as far as they are known.
    pub(super) fn namespace_labels(&self, namespace: &str) -> Labels {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        let name = || namespace.to_owned();
        labels.entry(NAME_LABEL.to_owned()).or_insert_with(name);
        labels
    }
}

/// Reads all of them.
pub(super) fn read<'a>(
    pools: impl IntoIterator<Item = &'a Sourced<IpAddressPool>>,
    advertisements: impl IntoIterator<Item = &'a Sourced<L2Advertisement>>,
    namespaces: impl IntoIterator<Item = &'a Sourced<Namespace>>,
    findings: &mut Findings,
) -> Lan {
    let namespaces = namespaces.into_iter().filter_map(|it| {
        let metadata = &it.object.metadata;
        let labels = metadata.labels.clone().unwrap_or_default();
        Some((metadata.name.clone()?, labels))
    });
    let namespaces: BTreeMap<_, _> = namespaces.collect();
    let objects = named("IPAddressPool", pools, |it| &it.metadata, findings);
    let advertisements = named(
        "L2Advertisement",
        advertisements,
        |it| &it.metadata,
        findings,
    );
    let known = pools::read(&objects, !namespaces.is_empty(), findings);
    let advertisements = advertisements::read(&advertisements, &known, findings);
    unannounced(&objects, &known, &advertisements, findings);
    Lan {
        pools: known,
        advertisements,
        namespaces,
    }
}

/// An object with what it is called in messages.
struct Named<'a, T> {
    origin: &'a Origin,
    label: String,
    object: &'a T,
}

/// The objects of one kind by name: MetalLB knows one namespace only.
fn named<'a, T: 'a>(
    kind: &str,
    objects: impl IntoIterator<Item = &'a Sourced<T>>,
    metadata: impl Fn(&T) -> &ObjectMeta,
    findings: &mut Findings,
) -> BTreeMap<String, Named<'a, T>> {
    let mut index: BTreeMap<String, Named<'a, T>> = BTreeMap::new();
    for Sourced { origin, object } in objects {
        let metadata = metadata(object);
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let name = metadata.name.clone().unwrap_or_default();
        let label = format!(
            "{kind} {namespace}/{}",
            if name.is_empty() { "?" } else { &name }
        );
        if !super::kubernetes::is_name(&name) {
            let what = "metadata.name is missing, or none that Kubernetes takes";
            let remedy = "use lower-case letters, digits, `-` and `.`";
            findings.problem(origin, &label, what, remedy);
            continue;
        }
        match index.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(Named {
                    origin,
                    label,
                    object,
                });
            }
            Entry::Occupied(entry) => {
                let what = format!(
                    "one of this name is already defined at {}",
                    entry.get().origin
                );
                let remedy = "remove one of the two, or rename it";
                findings.conflict(origin, &label, &entry.get().label, what, remedy);
            }
        }
    }
    index
}

/// Reads label selectors; each that cannot be is a problem.
fn selectors(
    field: &str,
    written: Option<&Vec<LabelSelector>>,
    (origin, label): (&Origin, &str),
    findings: &mut Findings,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (i, selector) in written.into_iter().flatten().enumerate() {
        match self::selector(selector) {
            Ok(selector) => selectors.push(selector),
            Err(what) => {
                let what = format!("spec.{field}[{i}]: {what}");
                findings.problem(origin, label, what, "write it as Kubernetes' labelSelector");
            }
        }
    }
    selectors
}

fn selector(written: &LabelSelector) -> Result<Selector, String> {
    for requirement in written.match_expressions.iter().flatten() {
        let operator = requirement.operator.as_str();
        let values = requirement.values.as_ref().map_or(0, Vec::len);
        match (operator, values) {
            ("In" | "NotIn", 1..) | ("Exists" | "DoesNotExist", 0) => {}
            ("In" | "NotIn", 0) => return Err(format!("operator {operator} asks for values")),
            ("Exists" | "DoesNotExist", _) => {
                return Err(format!("operator {operator} takes no values"));
            }
            _ => {
                return Err(format!(
                    "operator `{operator}` does not exist: there are In, NotIn, Exists and \
                     DoesNotExist"
                ));
            }
        }
    }
    Selector::try_from(written.clone()).map_err(|error| error.to_string())
}

/// Notes the pools whose addresses nobody would claim on the LAN.
fn unannounced(
    pools: &BTreeMap<String, Named<'_, IpAddressPool>>,
    known: &BTreeMap<String, Pool>,
    advertisements: &BTreeMap<String, Advertisement>,
    findings: &mut Findings,
) {
    for (name, Named { origin, label, .. }) in pools {
        let mut all = advertisements.values();
        if known.contains_key(name) && !all.any(|it| it.pools.contains(name)) {
            let what = "no L2Advertisement names it: its addresses are given out and served, but \
                        not announced";
            findings.note(origin, label, what);
        }
    }
}

#[cfg(test)]
mod tests;
