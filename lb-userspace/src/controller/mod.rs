//! The controller: gives addresses to a cluster's Services of type LoadBalancer, and writes them
//! down where everybody looks for them.
//!
//! Of several controllers one works, the one that holds the [`lease`]. It begins by listing all
//! objects, so that it knows what was given before; what Services say that they have counts, and
//! stays with them. From then on each change is worked out as a whole, and what the objects are
//! to say is compared with what they say. A write holds only for the version that was read: what
//! somebody else wrote meanwhile comes by the watch, and is worked out again.

mod lease;
mod plan;
mod settled;
mod write;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::Context;
use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::sleep,
};

use self::{
    lease::{Candidate, Seat},
    plan::Event,
    settled::Settled,
    write::Writer,
};
use crate::{
    desired::BalancerName,
    ipam::{self, Authority, Ledger, Refusal},
    metrics::{self, ControllerPage},
    source::{
        Note, Outcome,
        cluster::{Cluster, Scene},
    },
};

/// The name of the Lease.
const LEASE: &str = "naru-controller";
/// The longest pause before what has failed is tried again.
const LONGEST: Duration = Duration::from_secs(30);

/// What the controller is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster.
    pub cluster: Cluster,
    /// Where the Lease is; none: the namespace of its service account, or of its kubeconfig.
    pub namespace: Option<String>,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// What this controller is called; no two may have the same name.
    pub identity: String,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Where nothing says how to reach the cluster. An API server that does not answer is asked again.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let client = options.cluster.client().await?;
    let namespace = options.namespace.clone();
    let seat = Seat {
        namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
        name: LEASE.to_owned(),
        identity: options.identity.clone(),
    };
    let writer = Writer::new(client.clone(), options.identity);
    let (page, seen) = watch::channel(ControllerPage::default());
    if let Some(address) = options.metrics {
        let page = move || std::future::ready(Some(seen.borrow().clone()));
        let served = metrics::serve(address, page).await;
        served.with_context(|| format!("--metrics {address}"))?;
    }
    let candidate = Candidate::stand(client, seat);
    let work = async {
        loop {
            candidate.elected().await;
            tracing::info!("giving out addresses");
            tokio::select! {
                ended = lead(&options.cluster, &writer, &candidate, &page) => return ended,
                () = candidate.deposed() => tracing::warn!("another controller may take over"),
            }
            page.send_replace(ControllerPage::default());
        }
    };
    let ended = tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    candidate.resign().await;
    ended
}

/// Works for as long as this is the one that may.
async fn lead(
    cluster: &Cluster,
    writer: &Writer,
    candidate: &Candidate,
    page: &watch::Sender<ControllerPage>,
) -> anyhow::Result<()> {
    let (sender, mut scenes) = mpsc::channel(1);
    let followed = cluster.clone().scenes(sender);
    let mut office = Office::default();
    let worked = async {
        let mut backoff = DefaultBackoff::default();
        let mut scene = scenes.recv().await;
        while let Some(now) = &scene {
            // One that was held up may hold the lease no more.
            candidate.elected().await;
            let failed = office.work(&now.what, writer).await;
            page.send_replace(office.page.clone());
            let pause = match failed {
                true => backoff.next().unwrap_or(LONGEST),
                false => {
                    backoff.reset();
                    Duration::MAX
                }
            };
            tokio::select! {
                next = scenes.recv() => scene = next,
                () = sleep(pause) => {}
            }
        }
    };
    tokio::select! {
        () = followed => {}
        () = worked => {}
    }
    anyhow::bail!("the watches of the cluster ended unexpectedly")
}

/// What one who gives addresses out knows.
#[derive(Default)]
struct Office {
    ledger: Ledger,
    refused: BTreeMap<BalancerName, Refusal>,
    /// What there was to know of the source.
    notes: Vec<Note>,
    /// Events that could not be written yet.
    untold: Vec<Event>,
    /// What was said of the source last.
    told: Vec<String>,
    failures: Vec<String>,
    /// What was worked out last; none where not all of it is written down.
    settled: Option<Settled>,
    page: ControllerPage,
}

impl Office {
    /// Gives, takes back and writes down; says whether something is to be tried again.
    async fn work(&mut self, scene: &Scene, writer: &Writer) -> bool {
        if self.settled.as_mut().is_some_and(|it| it.holds(scene)) {
            return false;
        }
        self.settled = None;
        self.tell(&scene.outcome);
        self.page.leads = true;
        // Nothing that was valid is in force before the first time.
        self.page.config = match &scene.outcome {
            Ok(loaded) => Some(!loaded.is_stale()),
            Err(_) => self.page.config.map(|_| false),
        };
        let Ok(loaded) = &scene.outcome else {
            return false;
        };
        let mut desired = loaded.desired.clone();
        let services = || scene.services.iter().map(|it| &it.object);
        desired.foreign = plan::foreign(services(), |it| desired.balancers.contains_key(it));
        let assignment = ipam::assign(&desired, &self.ledger, Authority::This);
        for change in &assignment.changes {
            tracing::info!("{change}");
        }
        self.ledger = assignment.ledger.clone();
        let refused = plan::refused(&assignment);
        self.page.pools = ipam::usage(&assignment);
        self.page.without_address = refused.len();
        let mut events = plan::refusals(services(), &refused, &self.refused);
        for event in &events {
            tracing::warn!("{}", event.note);
        }
        events.extend(plan::invalid(scene, &loaded.notes, &self.notes));
        (self.refused, self.notes) = (refused, loaded.notes.clone());
        // But for those that something newer is to be told of.
        for event in std::mem::take(&mut self.untold) {
            let same = |it: &Event| it.of == event.of && it.reason == event.reason;
            if !events.iter().any(same) {
                events.push(event);
            }
        }
        let pools = plan::pools(scene.pools.iter().map(|it| &it.object), &assignment);
        let mut failures = writer
            .services(plan::services(services(), &assignment))
            .await;
        failures.extend(writer.pools(pools).await);
        for (event, failure) in writer.tell(events).await {
            self.untold.push(event);
            failures.push(failure);
        }
        for failure in failures.iter().filter(|it| !self.failures.contains(it)) {
            tracing::warn!("{failure}; trying again");
        }
        self.failures = failures;
        if self.failures.is_empty() {
            let scene = scene.clone();
            self.settled = Some(Settled::new(scene, assignment));
        }
        !self.failures.is_empty()
    }

    /// Says what there is to know of the source, once.
    fn tell(&mut self, outcome: &Outcome) {
        let before = std::mem::take(&mut self.told);
        let mut tell = |what: String, tell: fn(&str)| {
            if !before.contains(&what) {
                tell(&what);
            }
            self.told.push(what);
        };
        match outcome {
            Ok(loaded) => {
                for note in &loaded.notes {
                    tell(
                        note.to_string(),
                        match note.refused {
                            true => |it| tracing::warn!("{it}"),
                            false => |it| tracing::info!("{it}"),
                        },
                    );
                }
            }
            Err(rejected) => tell(rejected.to_string(), |it| tracing::error!("{it}")),
        }
    }
}
