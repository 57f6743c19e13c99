//! What is left of an object without that in it which may be wrong: what counts where there is
//! nothing that it was before, as after a start.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::Service;

use crate::source::{
    kubernetes::{self, Sourced, Terms, ingress},
    metallb::{
        FROM_POOL,
        types::{IpAddressPool, IpAddressPoolSpec},
    },
};

/// A Service without its wishes: nobody is asked for a cluster IP. None where that is all of it.
pub(super) fn service(sourced: &Sourced<Service>, terms: &Terms) -> Option<Service> {
    let service = &sourced.object;
    let mut bare = service.clone();
    if let Some(annotations) = &mut bare.metadata.annotations {
        annotations.retain(|key, _| !kubernetes::is_wish(key));
    }
    let spec = bare.spec.as_mut()?;
    spec.load_balancer_ip = None;
    spec.external_ips = None;
    // What another load balancer gave is not its author's mistake, but may be at odds with something.
    if spec.type_.as_deref() == Some("LoadBalancer") && !terms.is_ours(spec) {
        spec.type_ = Some("ClusterIP".to_owned());
    }
    // Who has an address keeps it where it is known who may use it; and who has none gets none that
    // it did not mean.
    let keeps = !ingress(service).is_empty() && kubernetes::is_guarded(sourced);
    if spec.type_.as_deref() == Some("LoadBalancer") && !keeps {
        let mut ports = spec.ports.iter().flatten();
        let numbered = ports.all(|it| it.node_port.is_some_and(|number| number != 0));
        let without = if numbered { "NodePort" } else { "ClusterIP" };
        spec.type_ = Some(without.to_owned());
    }
    (bare != *service).then_some(bare)
}

/// A pool of what Services say that they were given out of it, and of nothing else; none where no
/// Service has anything of it.
pub(super) fn pool<'a>(
    pool: &IpAddressPool,
    services: impl Iterator<Item = &'a Arc<Sourced<Service>>>,
) -> Option<IpAddressPool> {
    let name = pool.metadata.name.as_ref()?;
    let theirs = services.filter(|it| {
        let annotations = it.object.metadata.annotations.as_ref();
        annotations.and_then(|it| it.get(FROM_POOL)) == Some(name)
    });
    let given: BTreeSet<IpAddr> = theirs
        .flat_map(|it| ingress(&it.object))
        .filter_map(|it| it.ip.as_deref()?.parse().ok())
        .collect();
    if given.is_empty() {
        return None;
    }
    let mut bare = pool.clone();
    bare.spec = IpAddressPoolSpec {
        addresses: given.iter().map(|ip| format!("{ip}-{ip}")).collect(),
        auto_assign: Some(false),
        ..IpAddressPoolSpec::default()
    };
    Some(bare)
}
