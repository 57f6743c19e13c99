//! Nodes → their names, addresses and labels.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::Node;

use super::Sourced;
use crate::{
    desired,
    source::{Findings, Origin},
};

/// What each node is known by in the cluster, by its name.
pub(super) fn read<'a>(
    nodes: impl Iterator<Item = &'a Sourced<Node>>,
    findings: &mut Findings,
) -> BTreeMap<String, desired::Node> {
    let mut read = BTreeMap::new();
    let mut origins: BTreeMap<&str, &Origin> = BTreeMap::new();
    for Sourced { origin, object } in nodes {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let label = format!("Node {name}");
        if name.is_empty() {
            let what = "metadata.name is missing";
            findings.problem(origin, "Node ?", what, "give the object a name");
            continue;
        }
        match origins.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(origin);
            }
            Entry::Occupied(entry) => {
                let what = format!("it is already defined at {}", entry.get());
                findings.problem(origin, &label, what, "remove one of the two, or rename it");
                continue;
            }
        }
        let status = object.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let internal = addresses
            .into_iter()
            .flatten()
            .filter(|address| address.type_ == "InternalIP");
        let mut known: BTreeSet<IpAddr> = BTreeSet::new();
        for address in internal {
            match address.address.parse() {
                Ok(ip) => {
                    known.insert(ip);
                }
                Err(_) => {
                    let what = format!("its InternalIP `{}` is not an IP address", address.address);
                    findings.problem(origin, &label, what, "write one such as 192.168.56.101");
                }
            }
        }
        if known.is_empty() {
            let what = "no InternalIP among status.addresses: nothing can be handed over to it";
            findings.note(origin, &label, what);
        }
        let mut conditions = status
            .into_iter()
            .flat_map(|it| it.conditions.iter().flatten());
        let node = desired::Node {
            addresses: known,
            labels: object.metadata.labels.clone().unwrap_or_default(),
            network_unavailable: conditions
                .any(|it| it.type_ == "NetworkUnavailable" && it.status == "True"),
        };
        read.insert(name.to_owned(), node);
    }
    read
}
