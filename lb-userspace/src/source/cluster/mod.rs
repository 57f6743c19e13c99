//! A cluster's API server as the source: its Services, EndpointSlices, Nodes and Namespaces, and
//! MetalLB's kinds where they are installed.
//!
//! Watches tell of every change; what they have told is put together and worked out as a whole, as
//! a directory of manifests is. Where a directory with a mistake is refused whole, a cluster has
//! many authors: an object that is not valid counts as it was when it was last, or not at all, and
//! all others go on (see [`kept`]). An API server that is away changes nothing: what it said last
//! stays in force, and a note says so.

pub(crate) mod answers;
mod bare;
mod follow;
mod kept;
mod table;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::{follow::Change, kept::Kept};
use super::{
    Loaded, News, Origin, Outcome, Problem, Rejected,
    kubernetes::{self, Sourced, Terms, same},
    metallb::types::{IpAddressPool, L2Advertisement},
    watch::PATIENCE,
};

/// How long the first complete answer may take; what has failed by then is told.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long after one change the next one of a burst may come: objects come as a whole, unlike a
/// file that is being written.
const GATHERING: Duration = Duration::from_millis(2);
/// After so long a file that says how to reach it is read again, where it could not be.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may be silent. A watch ends sooner, and is begun anew.
const SILENCE: Duration = Duration::from_secs(30);

/// How to reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// As `kubectl` is told; none: `KUBECONFIG`, `~/.kube/config`, or what a pod finds.
    pub kubeconfig: Option<PathBuf>,
    /// See [`Terms::class`].
    pub class: Option<String>,
    /// See [`Terms::beside_kube_proxy`].
    pub beside_kube_proxy: bool,
}

/// What there is in a cluster, and what that comes to.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What is wanted.
    pub outcome: Outcome,
    /// All Services as they are, with what was written into them.
    pub services: Vec<Arc<Sourced<Service>>>,
    /// All pools as they are.
    pub pools: Vec<Arc<Sourced<IpAddressPool>>>,
    /// And advertisements.
    pub advertisements: Vec<Arc<Sourced<L2Advertisement>>>,
}

impl Scene {
    /// Whether the objects are the very same: those that were read anew may be others.
    pub fn is_of_same_objects(&self, other: &Self) -> bool {
        same(&self.services, &other.services)
            && same(&self.pools, &other.pools)
            && same(&self.advertisements, &other.advertisements)
    }
}

impl PartialEq for Scene {
    fn eq(&self, other: &Self) -> bool {
        self.is_of_same_objects(other) && self.outcome == other.outcome
    }
}

impl Cluster {
    /// A client of its API server.
    ///
    /// # Errors
    /// Where nothing says how to reach it, or that cannot be read.
    pub async fn client(&self) -> Result<Client, Rejected> {
        let mut config = match &self.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file);
                let options = KubeConfigOptions::default();
                match read {
                    Ok(read) => Config::from_custom_kubeconfig(read, &options).await,
                    Err(error) => Err(error),
                }
                .map_err(|error| refused(format!("{}: {error}", file.display())))?
            }
            None => Config::infer()
                .await
                .map_err(|error| refused(error.to_string()))?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        // What fails is told at once, and tried again by whoever follows.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| refused(error.to_string()))
    }

    /// Reads it once. Blocks until it has answered.
    pub(super) fn load(&self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| refused(error.to_string()))?;
        runtime.block_on(async {
            let (sender, mut receiver) = mpsc::channel(1);
            let followed = self.clone().follow(sender, |outcome, _| outcome);
            tokio::select! {
                Some(news) = receiver.recv() => news.what,
                () = followed => Err(refused("its watches have ended".to_owned())),
            }
        })
    }

    /// Sends what it says, now and after every change, until nobody listens any more.
    pub(super) async fn outcomes(self, sender: mpsc::Sender<News<Outcome>>) {
        self.follow(sender, |outcome, _| outcome).await;
    }

    /// The same with the objects that whoever gives addresses out writes into, or tells of.
    pub async fn scenes(self, sender: mpsc::Sender<News<Scene>>) {
        let scene = |outcome, kept: Option<&Kept>| Scene {
            outcome,
            services: kept.map_or_else(Vec::new, |it| it.services.all().cloned().collect()),
            pools: kept.map_or_else(Vec::new, |it| it.pools.all().cloned().collect()),
            advertisements: kept
                .map_or_else(Vec::new, |it| it.advertisements.all().cloned().collect()),
        };
        self.follow(sender, scene).await;
    }

    async fn follow<T: Clone + PartialEq>(
        self,
        sender: mpsc::Sender<News<T>>,
        view: impl Fn(Outcome, Option<&Kept>) -> T,
    ) {
        let terms = Terms {
            class: self.class.clone(),
            pooled: true,
            beside_kube_proxy: self.beside_kube_proxy,
        };
        let refused = |rejected| view(Err(rejected), None);
        let Some(client) = self.reach(&sender, refused).await else {
            return;
        };
        let mut changes = follow::all(&client);
        let mut kept = Kept::new(terms);
        let mut known = kubernetes::Known::default();
        let mut last: Option<T> = None;
        let mut since = Instant::now();
        let deadline = since + FIRST_ANSWER;
        loop {
            let outcome = if kept.is_complete() {
                Some(kept.outcome(&mut known))
            } else if Instant::now() >= deadline {
                Some(Err(kept.unreachable()))
            } else {
                None
            };
            let news = outcome.map(|it| view(it, Some(&kept)));
            if let Some(news) = news.filter(|it| last.as_ref() != Some(it)) {
                last = Some(news.clone());
                if sender.send(News { what: news, since }).await.is_err() {
                    return;
                }
            }
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = sleep_until(deadline), if last.is_none() && Instant::now() < deadline => {
                        break;
                    }
                    change = changes.next() => {
                        let Some(change) = change else { return };
                        if change(&mut kept) {
                            since = Instant::now();
                            settle(&mut changes, &mut kept).await;
                            break;
                        }
                    }
                }
            }
        }
    }

    /// A client as soon as something says how to reach the API server; none where nobody waits for
    /// it any more.
    async fn reach<T>(
        &self,
        sender: &mpsc::Sender<News<T>>,
        refused: impl Fn(Rejected) -> T,
    ) -> Option<Client> {
        let mut told = None;
        loop {
            let rejected = match self.client().await {
                Ok(client) => return Some(client),
                Err(rejected) => rejected,
            };
            if told.as_ref() != Some(&rejected) {
                told = Some(rejected.clone());
                sender.send(News::now(refused(rejected))).await.ok()?;
            }
            tokio::select! {
                () = sender.closed() => return None,
                () = sleep(AGAIN) => {}
            }
        }
    }
}

/// Takes what else comes in a burst whose first change has just come: an endpoint that moves from
/// one slice to another leaves the one first, and its connections are not to end for that.
async fn settle(changes: &mut (impl futures_util::Stream<Item = Change> + Unpin), kept: &mut Kept) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let end = (Instant::now() + GATHERING).min(patience);
        match timeout_at(end, changes.next()).await {
            Ok(Some(change)) => {
                change(kept);
            }
            _ => return,
        }
        if Instant::now() >= patience {
            return;
        }
    }
}

fn refused(what: String) -> Rejected {
    Rejected {
        problems: vec![Problem {
            origin: Origin::Cluster,
            object: String::new(),
            against: String::new(),
            what: format!("the API server cannot be asked: {what}"),
            remedy:
                "give a --kubeconfig that `kubectl get nodes` works with, or run in a pod whose \
                     service account may list them"
                    .to_owned(),
        }],
    }
}

/// What a cluster came to, with what there is to know of it.
fn loaded(mut loaded: Loaded, notes: impl IntoIterator<Item = super::Note>) -> Outcome {
    loaded.notes.extend(notes);
    loaded.notes.sort();
    loaded.notes.dedup();
    Ok(loaded)
}
