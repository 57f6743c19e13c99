//! The tasks that check, one for each endpoint.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Key, probe::probe};
use crate::desired::{Desired, HealthCheck};

/// Checks under way at a time; further ones wait, and their time-out with them.
const AT_A_TIME: usize = 256;
/// Over how long the first checks are spread at most: somebody new should not be taken
/// for well for long.
const SPREAD: Duration = Duration::from_millis(500);
/// What was found and not taken yet.
const WAITING: usize = 1024;

/// Runs the checks. They end with it.
pub struct Checker {
    running: BTreeMap<Key, Running>,
    found: mpsc::Sender<Observation>,
    places: Arc<Semaphore>,
    started: u64,
}

/// What a check found.
#[derive(Debug)]
pub struct Observation {
    /// The endpoint.
    pub key: Key,
    /// Why it is not well.
    pub outcome: Result<(), String>,
    /// Which task says so.
    task: u64,
}

struct Running {
    check: HealthCheck,
    number: u64,
    task: AbortHandle,
}

impl Checker {
    /// One that checks nobody yet, and where what it finds comes out.
    pub fn new() -> (Self, mpsc::Receiver<Observation>) {
        let (found, observations) = mpsc::channel(WAITING);
        let checker = Self {
            running: BTreeMap::new(),
            found,
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            started: 0,
        };
        (checker, observations)
    }

    /// Checks these endpoints from now on. Those that are checked in the same way
    /// already go on undisturbed. Needs a running tokio runtime.
    pub fn follow(&mut self, desired: &Desired) {
        let mut before = std::mem::take(&mut self.running);
        for (key, check) in super::wanted(desired) {
            let running = match before.remove(&key) {
                Some(running) if running.check == *check => running,
                other => {
                    stop(other);
                    self.start(&key, check)
                }
            };
            self.running.insert(key, running);
        }
        before.into_values().for_each(|old| stop(Some(old)));
    }

    /// How the endpoint is checked, if what was observed still counts.
    pub fn check(&self, observation: &Observation) -> Option<&HealthCheck> {
        let running = self.running.get(&observation.key)?;
        (running.number == observation.task).then_some(&running.check)
    }

    fn start(&mut self, key: &Key, check: &HealthCheck) -> Running {
        self.started += 1;
        let number = self.started;
        let task = watch(
            key.clone(),
            check.clone(),
            number,
            Arc::clone(&self.places),
            self.found.clone(),
        );
        Running {
            check: check.clone(),
            number,
            task: tokio::spawn(task).abort_handle(),
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        let running = std::mem::take(&mut self.running);
        running.into_values().for_each(|old| stop(Some(old)));
    }
}

fn stop(running: Option<Running>) {
    if let Some(running) = running {
        running.task.abort();
    }
}

/// Checks one endpoint until nobody listens any more.
async fn watch(
    key: Key,
    check: HealthCheck,
    task: u64,
    places: Arc<Semaphore>,
    found: mpsc::Sender<Observation>,
) {
    let addr: SocketAddr = key.1;
    sleep(delay(&key, SPREAD.min(check.interval))).await;
    let mut ticks = interval(check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(place) = places.acquire().await else {
            return;
        };
        let outcome = probe(&check, addr).await;
        drop(place);
        let observation = Observation {
            key: key.clone(),
            outcome,
            task,
        };
        if found.send(observation).await.is_err() {
            return;
        }
    }
}

/// A delay below `most` that is each endpoint's own, so that not all begin at once.
fn delay(key: &Key, most: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let share = f64::from(hasher.finish() as u32) / f64::from(u32::MAX);
    most.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Condition, Endpoint, Service, ServiceName};

    fn desired(ports: &[u16], interval: u64) -> Desired {
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: None,
            name: None,
        };
        let endpoints = ports.iter().map(|&port| {
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            (addr, endpoint.clone())
        });
        let service = Service {
            health_check: Some(HealthCheck {
                interval: Duration::from_millis(interval),
                ..HealthCheck::default()
            }),
            endpoints: endpoints.collect(),
            ..Service::default()
        };
        let name = ServiceName("-/web:80".to_owned());
        Desired {
            services: [(name, service)].into(),
            ..Desired::default()
        }
    }

    #[test]
    fn what_stays_the_same_is_left_alone_and_what_is_gone_is_not_listened_to() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let (mut checker, mut observations) = Checker::new();
            checker.follow(&desired(&[1, 2], 20));
            let number = |checker: &Checker, port| {
                let mut running = checker.running.iter();
                let found = running.find(|((_, addr), _)| addr.port() == port);
                found.map(|(_, running)| running.number)
            };
            let (one, two) = (number(&checker, 1), number(&checker, 2));
            let first = observations.recv().await.expect("an observation");
            assert!(first.outcome.is_err());
            assert!(checker.check(&first).is_some());

            checker.follow(&desired(&[2, 3], 20));
            assert_eq!(number(&checker, 2), two);
            assert_eq!(number(&checker, 1), None);
            let gone = Observation {
                key: (
                    ServiceName("-/web:80".to_owned()),
                    SocketAddr::from(([127, 0, 0, 1], 1)),
                ),
                outcome: Ok(()),
                task: one.expect("it ran"),
            };
            assert!(checker.check(&gone).is_none());

            // Checked otherwise: it begins anew.
            checker.follow(&desired(&[2], 30));
            assert_ne!(number(&checker, 2), two);
            checker.follow(&Desired::default());
            assert!(checker.running.is_empty());
        });
    }

    #[test]
    fn first_checks_are_spread() {
        let keys = (1..=100_u16).map(|port| {
            let name = ServiceName("-/web:80".to_owned());
            (name, SocketAddr::from(([10, 0, 0, 1], port)))
        });
        let delays: Vec<_> = keys.map(|key| delay(&key, SPREAD)).collect();
        assert!(delays.iter().all(|it| *it <= SPREAD));
        let early = delays.iter().filter(|it| **it < SPREAD / 2).count();
        assert!((30..=70).contains(&early), "{early}");
    }
}
