//! One watch for each kind, and what they tell as changes of what is [`Kept`].

use std::sync::Arc;

use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, select_all},
};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;

use super::kept::{Kept, Name, Table};
use crate::source::{
    Origin,
    kubernetes::{Slice, Sourced},
    metallb::types::{IpAddressPool, L2Advertisement},
};

/// What a watch told.
pub(super) type Change = Box<dyn FnOnce(&mut Kept) + Send>;

/// After so many seconds a watch ends and is begun anew where it was: sooner than the client takes
/// the silence of an API server for its end.
const WATCH: u32 = 25;
/// Slices of headless Services lead nowhere, and what another proxy serves is not ours
/// (`service.kubernetes.io/service-proxy-name`).
const SERVED: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// The changes of all kinds.
pub(super) fn all(client: &Client) -> impl Stream<Item = Change> + Unpin + use<> {
    let every = || Config::default().timeout(WATCH);
    select_all([
        kind(client, every(), |it| &mut it.services, |it: Service| it),
        kind(
            client,
            every().labels(SERVED),
            |it| &mut it.slices,
            |it: EndpointSlice| Slice::from(it),
        ),
        kind(client, every(), |it| &mut it.nodes, small),
        kind(client, every(), |it| &mut it.namespaces, |it: Namespace| it),
        kind(client, every(), |it| &mut it.pools, |it: IpAddressPool| it),
        kind(
            client,
            every(),
            |it| &mut it.advertisements,
            |it: L2Advertisement| it,
        ),
    ])
}

/// A Node without the names of all images that it has, which are most of it.
fn small(mut node: Node) -> Node {
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
    }
    node
}

fn kind<K, T>(
    client: &Client,
    config: Config,
    table: fn(&mut Kept) -> &mut Table<T>,
    read: fn(K) -> T,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    T: Send + Sync + 'static,
{
    let sourced = move |mut object: K| {
        let metadata = object.meta_mut();
        // Who wrote what and when: as much again as the object.
        metadata.managed_fields = None;
        let name = name(metadata);
        let object = Sourced {
            origin: Origin::Cluster,
            object: read(object),
        };
        (name, Arc::new(object))
    };
    watcher::watcher(Api::<K>::all(client.clone()), config)
        .backoff(DefaultBackoff::default())
        .map(move |told| {
            let told = told.map(|event| match event {
                Event::Init => Event::Init,
                Event::InitApply(object) => Event::InitApply(sourced(object)),
                Event::InitDone => Event::InitDone,
                Event::Apply(object) => Event::Apply(sourced(object)),
                Event::Delete(object) => Event::Delete(sourced(object)),
            });
            Box::new(move |kept: &mut Kept| table(kept).take(told)) as Change
        })
        .boxed()
}

fn name(metadata: &ObjectMeta) -> Name {
    Name {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
