//! Endpoints come, go and drain by the thousand under load: what is lost, what breaks.
//!
//! Some pods stay in the list all the time. Connections to those are covered by the promise:
//! a flow that sends at least once per drain window keeps its backend while that lives. The
//! others come and go at random, each leaving slots to whoever is left and taking them back.
//! They go on serving when they are not listed, so that whatever is lost is the balancer's.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use naru_lab::{
    Algorithm, Connection, Endpoint, HeldOpen, LoadOptions, Manifests, Ports, Prober, ServiceSpec,
    tutorial_services,
};

use super::report::row;
use super::scene::{KEPT, Scene, endpoint};
use crate::measure::cases::Row;

/// Endpoints that come and go; half of them are there at first.
const POOL: usize = 16;
/// A held connection has a line every 100 ms.
const SILENT: Duration = Duration::from_secs(2);
/// Datagrams: one client port each, and flows that go on.
const DATAGRAMS: [(Ports, Duration); 2] = [
    (Ports::Fresh, Duration::from_millis(2)),
    (Ports::Fixed(50), Duration::from_millis(2)),
];

/// What is done to endpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many changes.
    pub(super) changes: usize,
    /// The pause after each.
    pub(super) pause: Duration,
    /// Connections that are held open.
    pub(super) held: usize,
}

/// How an endpoint stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Ready,
    /// Takes nothing new and serves what it has.
    Draining,
}

/// Changes endpoints as planned.
pub(super) fn run(
    scene: &Scene,
    naru: &Path,
    algorithm: Algorithm,
    plan: Plan,
) -> anyhow::Result<Row> {
    let manifests = scene.manifests(&format!("churn-{}", algorithm.name()))?;
    let services = tutorial_services().map(|it| it.by(algorithm));
    let mut pool: Vec<State> = (0..POOL)
        .map(|it| {
            if it % 2 == 0 {
                State::Ready
            } else {
                State::Absent
            }
        })
        .collect();
    for service in &services {
        manifests.service(service)?;
    }
    list(scene, &manifests, &services, &pool)?;
    let (agent, _) = scene.agent(naru, &manifests, services.len())?;

    let client = scene.lab.node("client");
    let to = (services[0].address, services[0].port).into();
    let held = HeldOpen::open(client, to, plan.held)?;
    let began = Instant::now();
    let probers = DATAGRAMS.map(|(ports, period)| Prober::start(client, to, period, ports, began));
    let load = LoadOptions {
        connections: 2,
        limit: Duration::from_secs(3600),
        ..LoadOptions::default()
    };
    let load = scene.lab.client().load(&services[0].url("/"), load);
    for number in 1..=plan.changes {
        let state = &mut pool[fastrand::usize(..POOL)];
        *state = next(*state);
        list(scene, &manifests, &services, &pool)?;
        sleep(plan.pause);
        if number % 1000 == 0 {
            println!("  {number} of {} changes", plan.changes);
        }
    }
    let changing = began.elapsed();
    // What broke at the end shows by its silence.
    sleep(SILENT);
    let connections = held.close()?;
    let tally = load.stop()?;
    for failure in &tally.failures {
        println!("    a request failed {failure}");
    }
    let mut row = row(format!(
        "{} changes under load, {}",
        plan.changes,
        algorithm.name()
    ))
    .with("changes", plan.changes as f64)
    .with(
        "changes_per_second",
        plan.changes as f64 / changing.as_secs_f64(),
    );
    for (prober, name) in probers.into_iter().zip(["new_flows", "kept_flows"]) {
        let requests = prober.stop()?;
        row = row
            .with(format!("datagrams_{name}"), requests.0.len() as f64)
            .with(format!("datagrams_{name}_lost"), requests.lost() as f64);
    }
    agent.detach()?;
    let (covered, others): (Vec<&Connection>, Vec<_>) =
        connections.iter().partition(|it| it.pod.starts_with(KEPT));
    for connection in covered.iter().filter(|it| is_broken(it)) {
        let why = connection.ended.as_deref().unwrap_or("silent");
        println!(
            "    broken: {} to {}: {why}",
            connection.from, connection.pod
        );
    }
    let broken = |all: &[&Connection]| all.iter().filter(|it| is_broken(it)).count() as f64;
    Ok(row
        .with("requests", tally.ok as f64 + tally.failed as f64)
        .with("requests_failed", tally.failed as f64)
        .with("connections_covered", covered.len() as f64)
        .with("connections_covered_broken", broken(&covered))
        .with("connections_uncovered", others.len() as f64)
        .with("connections_uncovered_broken", broken(&others)))
}

fn is_broken(connection: &Connection) -> bool {
    !connection.is_alive(SILENT)
}

/// An addition, a drain or a removal.
fn next(state: State) -> State {
    match (state, fastrand::bool()) {
        (State::Absent, _) | (State::Draining, false) => State::Ready,
        (State::Ready, false) => State::Draining,
        (State::Ready | State::Draining, true) => State::Absent,
    }
}

/// Writes who is there, for all services.
fn list(
    scene: &Scene,
    manifests: &Manifests,
    services: &[ServiceSpec],
    pool: &[State],
) -> anyhow::Result<()> {
    let kept = scene.kept();
    let kept = kept.iter().map(Endpoint::from);
    let pool = pool.iter().enumerate();
    let pool = pool.filter(|(_, state)| **state != State::Absent);
    let pool = pool.map(|(number, state)| Endpoint {
        ready: *state == State::Ready,
        terminating: *state == State::Draining,
        ..endpoint(number)
    });
    let all: Vec<Endpoint> = kept.chain(pool).collect();
    for service in services {
        manifests.endpoints(service, all.clone())?;
    }
    Ok(())
}
