//! Which of several controllers works: the one that holds a Lease (`coordination.k8s.io/v1`).
//!
//! By the rules of client-go's `leaderelection`, so that the durations mean what people know:
//! a holder says again and again that it is there; when it has been silent for as long as it said
//! it might be, by the clock of whoever watches it, another one takes over. No clocks are compared.
//! No crate that does so goes with this release of the client.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::source::cluster::answers::is_conflict;

/// A holder that was silent for so long holds it no more.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew it for so long stops before another one may begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// From one attempt to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// An attempt that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Lease, and who wants it.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// What this controller is called; no other one may be.
    pub(super) identity: String,
}

/// Wants a Lease, and keeps it, until it is released.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Until when it is held.
    held: watch::Receiver<Option<Instant>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Candidate {
    pub(super) fn stand(client: Client, seat: Seat) -> Self {
        let (held, receiver) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let attempts = Attempts {
            api: Api::namespaced(client, &seat.namespace),
            seat,
            seen: None,
            told: None,
        };
        Self {
            held: receiver,
            stop,
            task: tokio::spawn(attempts.run(held, stopped)),
        }
    }

    /// Whether it is held just now.
    pub(super) fn is_elected(&self) -> bool {
        self.held
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Until it is held.
    pub(super) async fn elected(&self) {
        let mut held = self.held.clone();
        while !self.is_elected() {
            if held.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Until it is not.
    pub(super) async fn deposed(&self) {
        let mut held = self.held.clone();
        loop {
            let Some(until) = *held.borrow_and_update() else {
                return;
            };
            tokio::select! {
                () = sleep_until(until) => return,
                changed = held.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// Gives it up, so that another one need not wait.
    pub(super) async fn resign(self) {
        let _ = self.stop.send(true);
        // A server that is away has it run out.
        let _ = timeout(PATIENCE, self.task).await;
    }
}

/// The Lease as one who wants it sees it.
struct Attempts {
    api: Api<Lease>,
    seat: Seat,
    /// Its version when it changed last, and when that was seen.
    seen: Option<(String, Instant)>,
    /// What was said last.
    told: Option<String>,
}

impl Attempts {
    async fn run(mut self, held: watch::Sender<Option<Instant>>, mut stop: watch::Receiver<bool>) {
        loop {
            let began = Instant::now();
            match timeout(PATIENCE, self.attempt()).await {
                Ok(Ok(Some(true))) => {
                    self.tell(format!("{} holds {}", self.seat.identity, self.label()));
                    held.send_replace(Some(began + DEADLINE));
                }
                Ok(Ok(Some(false))) => {
                    held.send_replace(None);
                }
                // What somebody wrote meanwhile is read the next time; it need be no holder.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.tell(format!("{}: {error}", self.label())),
                Err(_) => self.tell(format!("{}: the API server does not answer", self.label())),
            }
            tokio::select! {
                () = sleep(PERIOD) => {}
                _ = stop.changed() => break,
            }
        }
        if held.send_replace(None).is_some() {
            match self.release().await {
                Ok(()) => self.tell(format!("{} is given up", self.label())),
                Err(error) => self.tell(format!("{} will run out: {error}", self.label())),
            }
        }
    }

    /// Takes it or renews it; says whether it is held, where nobody else wrote at the same time.
    async fn attempt(&mut self) -> kube::Result<Option<bool>> {
        let Some(lease) = self.api.get_opt(&self.seat.name).await? else {
            let lease = self.lease(ObjectMeta::default(), None);
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.seat.identity {
            let silent = spec.lease_duration_seconds.unwrap_or_default();
            let silent = Duration::from_secs(u64::try_from(silent).unwrap_or_default());
            let since = self
                .seen
                .as_ref()
                .map_or(Duration::ZERO, |(_, at)| at.elapsed());
            if since <= silent {
                self.tell(format!("{} is held by {holder}: waiting", self.label()));
                return Ok(Some(false));
            }
        }
        let lease = self.lease(lease.metadata, Some(spec));
        taken(self.replace(&lease).await)
    }

    /// Lets go of it, where it is still ours.
    async fn release(&self) -> kube::Result<()> {
        let mut lease = self.api.get(&self.seat.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.seat.identity) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.replace(&lease).await?;
        }
        Ok(())
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        let params = PostParams::default();
        self.api.replace(&self.seat.name, &params, lease).await
    }

    /// It as it is to be, in place of what it is.
    fn lease(&self, metadata: ObjectMeta, before: Option<LeaseSpec>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.seat.identity);
        let changes = before.lease_transitions.unwrap_or_default();
        Lease {
            metadata: ObjectMeta {
                name: Some(self.seat.name.clone()),
                namespace: Some(self.seat.namespace.clone()),
                ..metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.seat.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: before.acquire_time.filter(|_| ours).or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(changes.saturating_add(i32::from(!ours))),
                ..before
            }),
        }
    }

    fn label(&self) -> String {
        format!("Lease {}/{}", self.seat.namespace, self.seat.name)
    }

    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            tracing::info!("{what}");
            self.told = Some(what);
        }
    }
}

/// What was written is ours; none where somebody else's came between.
fn taken<T>(written: kube::Result<T>) -> kube::Result<Option<bool>> {
    match written {
        Ok(_) => Ok(Some(true)),
        Err(error) if is_conflict(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
