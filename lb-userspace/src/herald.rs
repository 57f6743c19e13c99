//! Tells a cluster which Services this node announces: by a ServiceL2Status for each, as MetalLB's
//! speaker does, and by an event where an address has come here.
//!
//! What cannot be told is tried again, and disturbs nobody: no packet depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        utils::Backoff,
        watcher::DefaultBackoff,
    },
};
use lb_common::hash;
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    desired::BalancerName,
    source::{
        cluster::{Cluster, answers::is_gone},
        metallb::types::{AnnouncedInterface, AnnouncedStatus, ServiceL2Status},
    },
};

/// Who writes, as objects and events name it.
const WRITER: &str = "naru-agent";
/// MetalLB's labels of the objects.
const NODE: &str = "metallb.io/node";
const SERVICE: &str = "metallb.io/service-name";
const NAMESPACE: &str = "metallb.io/service-namespace";
/// How often what stands there is compared with what should: another node that was slow to hear of
/// a change may have taken it away.
const REFRESH: Duration = Duration::from_secs(60);
/// The longest pause before what has failed is tried again.
const LONGEST: Duration = Duration::from_secs(30);

/// The Services whose addresses this node announces, with the interfaces that it does so on; none
/// of them: on all that it is attached to.
pub type Announced = BTreeMap<BalancerName, BTreeSet<String>>;

/// Tells on, in a task of its own, until it is dropped.
#[derive(Debug)]
pub struct Herald(watch::Sender<Option<Announced>>);

impl Herald {
    /// Begins for a node. Needs a running tokio runtime.
    pub fn start(cluster: Cluster, node: String) -> Self {
        let (sender, wanted) = watch::channel(None);
        tokio::spawn(run(cluster, node, wanted));
        Self(sender)
    }

    /// What is announced from now on.
    pub fn tell(&self, announced: Announced) {
        self.0.send_if_modified(|it| {
            let news = it.as_ref() != Some(&announced);
            *it = Some(announced);
            news
        });
    }
}

async fn run(cluster: Cluster, node: String, mut wanted: watch::Receiver<Option<Announced>>) {
    let mut backoff = DefaultBackoff::default();
    let mut voice: Option<Voice> = None;
    let mut failure = None;
    if wanted.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let announced = wanted.borrow_and_update().clone().unwrap_or_default();
        if voice.is_none()
            && let Ok(client) = cluster.client().await
        {
            voice = Some(Voice::new(client, &node));
        }
        let told = match &mut voice {
            Some(voice) => voice.tell(&announced).await.map_err(|it| it.to_string()),
            // Whoever follows the cluster says why.
            None => Err("nothing says how to reach it".to_owned()),
        };
        let pause = match &told {
            Ok(()) => {
                backoff.reset();
                REFRESH
            }
            Err(_) => backoff.next().unwrap_or(LONGEST),
        };
        let now = told.err();
        if let Some(error) = now.as_ref().filter(|it| failure.as_ref() != Some(*it)) {
            tracing::warn!("the cluster cannot be told what this node announces: {error}");
        }
        failure = now;
        tokio::select! {
            () = sleep(pause) => {
                if let Some(voice) = &mut voice {
                    voice.told = None;
                }
            }
            changed = wanted.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// What objects say; of one whose status was never written nothing.
type Told = BTreeMap<BalancerName, Option<BTreeSet<String>>>;

/// What was told, and by what means.
struct Voice {
    client: Client,
    node: String,
    api: Api<ServiceL2Status>,
    /// None where that is to be looked up: an earlier agent of this node may have told anything.
    told: Option<Told>,
    /// Of which an event has told.
    known: BTreeSet<BalancerName>,
}

impl Voice {
    fn new(client: Client, node: &str) -> Self {
        Self {
            api: Api::default_namespaced(client.clone()),
            client,
            node: node.to_owned(),
            told: None,
            known: BTreeSet::new(),
        }
    }

    async fn tell(&mut self, announced: &Announced) -> kube::Result<()> {
        let told = match self.told.take() {
            Some(told) => told,
            None => match self.earlier().await {
                Ok(earlier) => earlier,
                // The kind is not installed.
                Err(error) if is_gone(&error) => Told::new(),
                Err(error) => return Err(error),
            },
        };
        self.known.extend(told.keys().cloned());
        self.known.retain(|it| announced.contains_key(it));
        let (mut now, mut outcome) = (told.clone(), Ok(()));
        let gone = told.keys().filter(|it| !announced.contains_key(*it));
        for name in gone {
            match self.retract(name).await {
                Ok(()) => drop(now.remove(name)),
                Err(error) => outcome = Err(error),
            }
        }
        for (name, interfaces) in announced {
            if told.get(name).and_then(Option::as_ref) == Some(interfaces) {
                continue;
            }
            match self
                .announce(name, interfaces, !self.known.contains(name))
                .await
            {
                Ok(()) => {
                    self.known.insert(name.clone());
                    now.insert(name.clone(), Some(interfaces.clone()));
                }
                Err(error) => outcome = Err(error),
            }
        }
        self.told = Some(now);
        outcome
    }

    /// What the objects of this node say, which an earlier agent may have written.
    async fn earlier(&self) -> kube::Result<Told> {
        let ours = ListParams::default().labels(&format!("{NODE}={}", self.node));
        let objects = self.api.list(&ours).await?;
        let told = objects.items.into_iter().filter_map(|it| {
            let labels = it.metadata.labels?;
            let (namespace, service) = (labels.get(NAMESPACE)?, labels.get(SERVICE)?);
            let status = it.status.map(serde_json::from_value::<AnnouncedStatus>);
            let interfaces = status.and_then(Result::ok).map(|it| it.interfaces);
            let interfaces = interfaces.map(|it| it.into_iter().map(|it| it.name).collect());
            Some((BalancerName(format!("{namespace}/{service}")), interfaces))
        });
        Ok(told.collect())
    }

    async fn announce(
        &self,
        name: &BalancerName,
        interfaces: &BTreeSet<String>,
        new: bool,
    ) -> kube::Result<()> {
        let Some((namespace, service)) = name.0.split_once('/') else {
            return Ok(());
        };
        let object = self.object(name);
        let status = AnnouncedStatus {
            node: self.node.clone(),
            service_name: service.to_owned(),
            service_namespace: namespace.to_owned(),
            interfaces: interfaces
                .iter()
                .map(|name| AnnouncedInterface { name: name.clone() })
                .collect(),
        };
        let labels = json!({ NODE: self.node, SERVICE: service, NAMESPACE: namespace });
        let (version, kind) = (
            ServiceL2Status::api_version(&()),
            ServiceL2Status::kind(&()),
        );
        let whole = Patch::Apply(json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": { "name": object, "labels": labels },
            "spec": {},
        }));
        let status = Patch::Apply(json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": { "name": object },
            "status": status,
        }));
        let params = PatchParams::apply(WRITER).force();
        match self.api.patch(&object, &params, &whole).await {
            Ok(_) => {
                self.api.patch_status(&object, &params, &status).await?;
                self.supersede(namespace, service).await?;
            }
            // The kind is not installed.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        if new {
            self.event(namespace, service).await?;
        }
        Ok(())
    }

    /// Takes away what another node said of a Service: one that died cannot do so itself.
    async fn supersede(&self, namespace: &str, service: &str) -> kube::Result<()> {
        let of = format!(
            "{SERVICE}={service},{NAMESPACE}={namespace},{NODE}!={}",
            self.node
        );
        let others = self.api.list(&ListParams::default().labels(&of)).await?;
        for other in others.items {
            self.delete(&other.metadata.name.unwrap_or_default())
                .await?;
        }
        Ok(())
    }

    async fn retract(&self, name: &BalancerName) -> kube::Result<()> {
        self.delete(&self.object(name)).await
    }

    async fn delete(&self, object: &str) -> kube::Result<()> {
        match self.api.delete(object, &DeleteParams::default()).await {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Says of a Service that this node announces it.
    async fn event(&self, namespace: &str, service: &str) -> kube::Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let Some(service) = services.get_opt(service).await? else {
            return Ok(());
        };
        let reporter = Reporter {
            controller: WRITER.to_owned(),
            instance: Some(self.node.clone()),
        };
        let note = format!(
            "announcing from node {:?} with protocol \"layer2\"",
            self.node
        );
        let event = Event {
            type_: EventType::Normal,
            reason: "nodeAssigned".to_owned(),
            note: Some(note),
            action: "Announce".to_owned(),
            secondary: None,
        };
        let recorder = Recorder::new(self.client.clone(), reporter);
        recorder.publish(&event, &service.object_ref(&())).await
    }

    /// The name of the object for a Service.
    fn object(&self, name: &BalancerName) -> String {
        let of = format!("{}/{}", self.node, name.0);
        format!("l2-{:016x}", hash::bytes_hash(of.as_bytes(), 0))
    }
}
