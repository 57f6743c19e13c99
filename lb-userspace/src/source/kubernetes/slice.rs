//! What naru goes by of an EndpointSlice.
//!
//! A cluster's endpoints are most of what its manifests say, and Kubernetes' type has room
//! for five times as much: what is kept until the next change is kept in this form.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{self, EndpointConditions, EndpointSlice};

use super::{Key, Sourced};
use crate::desired::Condition;

/// Ties an EndpointSlice to its Service (discovery/v1, `LabelServiceName`).
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Clone, Debug)]
pub struct Slice {
    pub(super) key: Key,
    /// The Service that its label names.
    pub(super) service: Option<Key>,
    pub(super) address_type: Box<str>,
    pub(super) ports: Box<[Port]>,
    pub(super) endpoints: Box<[Endpoint]>,
}

/// One of its ports.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: Option<Box<str>>,
    pub(super) protocol: Option<Box<str>>,
    pub(super) number: Option<i32>,
}

/// One of its endpoints.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The first one of its addresses.
    pub(super) address: Option<Box<str>>,
    /// Whether there are others, which have no meaning.
    pub(super) has_others: bool,
    /// `None`: not to be used at all.
    pub(super) condition: Option<Condition>,
    pub(super) node: Option<Arc<str>>,
    /// Of its pod.
    pub(super) name: Option<Box<str>>,
}

impl From<Sourced<EndpointSlice>> for Sourced<Slice> {
    fn from(slice: Sourced<EndpointSlice>) -> Self {
        Self {
            origin: slice.origin,
            object: slice.object.into(),
        }
    }
}

impl From<EndpointSlice> for Slice {
    fn from(slice: EndpointSlice) -> Self {
        let key = Key::of(&slice.metadata);
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_LABEL));
        let ports = slice.ports.into_iter().flatten().map(|port| Port {
            name: port.name.map(Into::into),
            protocol: port.protocol.map(Into::into),
            number: port.port,
        });
        let mut node = None;
        let endpoints = slice.endpoints.into_iter().flatten();
        let endpoints = endpoints.map(|it| Endpoint::new(it, &mut node));
        Self {
            service: service.map(|name| Key {
                namespace: key.namespace.clone(),
                name: name.clone(),
            }),
            key,
            address_type: slice.address_type.into(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

impl Endpoint {
    /// `node` is the one of the endpoint before it: they often are on the same.
    fn new(endpoint: v1::Endpoint, node: &mut Option<Arc<str>>) -> Self {
        let name = endpoint.node_name.as_deref();
        if node.as_deref() != name {
            *node = name.map(Arc::from);
        }
        let mut addresses = endpoint.addresses.into_iter();
        Self {
            address: addresses.next().map(Into::into),
            has_others: addresses.next().is_some(),
            condition: condition(endpoint.conditions.as_ref()),
            node: node.clone(),
            name: endpoint.target_ref.and_then(|it| it.name).map(Into::into),
        }
    }
}

/// What an endpoint's conditions allow (discovery/v1, EndpointConditions).
fn condition(conditions: Option<&EndpointConditions>) -> Option<Condition> {
    let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    let serving = conditions.and_then(|it| it.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
    if ready {
        Some(Condition::Ready)
    } else if serving && terminating {
        Some(Condition::Draining)
    } else {
        None
    }
}
