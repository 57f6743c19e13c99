//! One watch for each kind, and what they tell as changes of what is [`Kept`].

use std::{sync::Arc, time::Duration};

use futures_util::{
    Stream, StreamExt, future,
    stream::{self, BoxStream, select_all},
};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        utils::Backoff,
        watcher::{self, Config, DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::{
    kept::Kept,
    table::{Name, Table},
};
use crate::source::{
    Origin,
    kubernetes::{Slice, Sourced},
    metallb::{
        self,
        legacy::{self, Legacy},
        types::{IpAddressPool, L2Advertisement},
    },
};

/// What a watch told; says whether anything is another now.
pub(super) type Change = Box<dyn FnOnce(&mut Kept) -> bool + Send>;

/// The longest pause before what has failed is tried again.
const LONGEST: Duration = Duration::from_secs(30);
/// After so many seconds a watch ends and is begun anew where it was: sooner than the client takes
/// the silence of an API server for its end.
const WATCH: u32 = 25;
/// What another proxy serves is not ours, as kube-proxy has it.
const OURS: &str = "!service.kubernetes.io/service-proxy-name";
/// Slices of headless Services lead nowhere.
const SERVED: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// The changes of all kinds.
pub(super) fn all(client: &Client) -> impl Stream<Item = Change> + Unpin + use<> {
    let every = || Config::default().timeout(WATCH);
    select_all([
        kind(
            client,
            every().labels(OURS),
            |it| &mut it.services,
            |it: Service| it,
        ),
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
        kind(
            client,
            every().fields(&format!(
                "metadata.namespace={},metadata.name={}",
                metallb::NAMESPACE,
                legacy::CONFIG_MAP
            )),
            |it| &mut it.legacy,
            |it: ConfigMap| Legacy::from(it),
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

/// The changes of one kind. After an error, which a watch that goes on would not take back, all
/// objects are listed anew: after a while, the longer the oftener that fails.
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
    let api = Api::<K>::all(client.clone());
    let begin = move || watcher::watcher(api.clone(), config.clone()).boxed();
    let watch = (begin(), DefaultBackoff::default(), begin);
    stream::unfold(watch, |(mut events, mut backoff, begin)| async move {
        let told = events.next().await?;
        match &told {
            // It is the beginning of an attempt.
            Ok(Event::Init) => {}
            Ok(_) => backoff.reset(),
            Err(_) => {
                let pause = backoff.next().unwrap_or(LONGEST);
                // What was told is passed on at once, and the pause comes before the next one.
                events = stream::once(sleep(pause))
                    .filter_map(|()| future::ready(None))
                    .chain(begin())
                    .boxed();
            }
        }
        Some((told, (events, backoff, begin)))
    })
    .map(move |told| {
        let told = told.map(|event| match event {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(sourced(object, read)),
            Event::InitDone => Event::InitDone,
            Event::Apply(object) => Event::Apply(sourced(object, read)),
            Event::Delete(object) => Event::Delete(sourced(object, read)),
        });
        Box::new(move |kept: &mut Kept| table(kept).take(told)) as Change
    })
    .boxed()
}

/// An object by its name, without who wrote what of it and when: as much again as the object.
fn sourced<K: Resource, T>(mut object: K, read: fn(K) -> T) -> (Name, Arc<Sourced<T>>) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    let name = name(metadata);
    let object = Sourced {
        origin: Origin::Cluster,
        object: read(object),
    };
    (name, Arc::new(object))
}

fn name(metadata: &ObjectMeta) -> Name {
    Name {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
