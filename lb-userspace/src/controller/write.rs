//! Writing into a cluster's objects.

use futures_util::{StreamExt, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Service};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::events::{self, EventType, Recorder, Reporter},
};
use serde::de::DeserializeOwned;

use super::plan::{Event, Write};
use crate::source::{
    cluster::answers::{is_conflict, is_gone, is_refused},
    metallb::types::IpAddressPool,
};

/// Bytes of what an event may say; the API server refuses a longer one.
const MOST_SAID: usize = 1024;
/// Who writes, as events name it.
const REPORTER: &str = "naru-controller";
/// So many writes are under way at a time.
const AT_ONCE: usize = 8;

/// Writes what is planned.
pub(super) struct Writer {
    client: Client,
    reporter: Reporter,
}

impl Writer {
    pub(super) fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(identity),
        };
        Self { client, reporter }
    }

    /// Writes into Services, and tells of it; gives what is to be tried again.
    pub(super) async fn services(&self, writes: Vec<Write>) -> Vec<String> {
        self.write::<Service>(writes).await
    }

    /// The same for pools.
    pub(super) async fn pools(&self, writes: Vec<Write>) -> Vec<String> {
        self.write::<IpAddressPool>(writes).await
    }

    /// Tells of objects; gives what could not be told, and why.
    pub(super) async fn tell(&self, events: Vec<Event>) -> Vec<(Event, String)> {
        let told = stream::iter(events).map(|it| async {
            let failure = self.publish(it.clone()).await.err()?;
            Some((it, failure))
        });
        told.buffer_unordered(AT_ONCE)
            .filter_map(|it| async { it })
            .collect()
            .await
    }

    async fn write<K>(&self, writes: Vec<Write>) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let written = stream::iter(writes).map(|it| self.one::<K>(it));
        written
            .buffer_unordered(AT_ONCE)
            .filter_map(|it| async { it.err() })
            .collect()
            .await
    }

    async fn one<K>(&self, write: Write) -> Result<(), String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let Write {
            namespace,
            name,
            patch,
            event,
        } = write;
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match api.patch_status(&name, &params, &patch).await {
            Ok(_) => {}
            // Its watch tells what it is now, or that it is no more.
            Err(error) if is_conflict(&error) || is_gone(&error) => return Ok(()),
            Err(error) => {
                let kind = K::kind(&());
                return Err(format!(
                    "{kind} {namespace}/{name} cannot be written: {error}"
                ));
            }
        }
        match event {
            // What is not told now is not told: the object says it.
            Some(event) => self.publish(event).await.or_else(|error| {
                tracing::warn!("{error}");
                Ok(())
            }),
            None => Ok(()),
        }
    }

    /// Tells of an object. Each time anew: what counts those that are alike takes no note of what
    /// they say.
    async fn publish(&self, event: Event) -> Result<(), String> {
        let Event {
            of,
            reason,
            warning,
            mut note,
        } = event;
        note.truncate(note.floor_char_boundary(MOST_SAID));
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let published = events::Event {
            type_: match warning {
                true => EventType::Warning,
                false => EventType::Normal,
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let Err(error) = recorder.publish(&published, &of).await else {
            return Ok(());
        };
        let kind = of.kind.unwrap_or_default();
        let name = of.name.unwrap_or_default();
        let what = format!("event {reason} of {kind} {name} cannot be written: {error}");
        // Such as a namespace that is going, or that may have no more events: not sooner than that
        // of the others would it be told, again and again.
        if is_refused(&error) {
            tracing::warn!("{what}");
            return Ok(());
        }
        Err(what)
    }
}
