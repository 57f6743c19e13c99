//! From a changed EndpointSlice to the first packet that follows it: a service with one
//! endpoint, which becomes another one.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use naru_lab::{Algorithm, Endpoint, Protocol, ServiceSpec};

use super::probe::{From, Prober};
use super::report::row;
use super::scene::{Draft, Scene, slice_file};
use crate::measure::cases::{Row, quantiles};

/// How often the client asks.
const PERIOD: Duration = Duration::from_micros(200);
/// How long a change may take at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many changes, one after the other.
pub(super) fn run(scene: &Scene, naru: &Path, changes: usize) -> anyhow::Result<Vec<Row>> {
    [Algorithm::RoundRobin, Algorithm::Maglev]
        .into_iter()
        .map(|algorithm| {
            let row = one(scene, naru, changes, algorithm)?;
            println!("  {}", row.line());
            Ok(row)
        })
        .collect()
}

fn one(scene: &Scene, naru: &Path, changes: usize, algorithm: Algorithm) -> anyhow::Result<Row> {
    let manifests = scene.manifests(&format!("flip-{}", algorithm.name()))?;
    let service = ServiceSpec::nest_server().over(Protocol::Udp).by(algorithm);
    let kept = scene.kept();
    let file = slice_file(&service, 1);
    let slice = |index: usize| {
        let pod = Endpoint::from(&kept[index % 2]);
        service.endpoints_yaml(&[pod])
    };
    manifests.service(&service)?;
    manifests.write(&file, &slice(0))?;
    let (agent, _) = scene.agent(naru, &manifests, 1)?;
    let client = scene.lab.node("client");
    let to = (service.address, service.port).into();
    let prober = Prober::start(client, to, From::Fresh, PERIOD);
    ensure!(
        prober.next(PATIENCE)?.pod == kept[0].name,
        "another pod answers"
    );
    let mut times = Vec::with_capacity(changes);
    for index in 1..=changes {
        // Not in step with anything that the agent does at regular times.
        sleep(Duration::from_micros(fastrand::u64(50_000..100_000)));
        let began = Draft::write(&manifests, &file, &slice(index))?.publish()?;
        let follows = prober.first(&kept[index % 2].name, began, PATIENCE)?;
        times.push((follows - began).as_secs_f64() * 1e6);
    }
    let lost = prober.stop()?;
    agent.detach()?;
    Ok(row(format!("file to packet, {}", algorithm.name()))
        .with("services", 1.0)
        .with("backends_each", 1.0)
        .with("changes", changes as f64)
        .with_all(quantiles(&times))
        .with("datagrams_lost", lost as f64))
}
