//! Reconciling at a size: everything at the start, and one endpoint of one service.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use naru_lab::{Agent, Endpoint, Manifests, Protocol, ServiceSpec};

use super::probe::{From, Prober};
use super::report::row;
use super::scene::{Draft, Scene, endpoint, slice_file, wait_services};
use crate::measure::cases::{Row, quantiles};

/// Kubernetes puts no more endpoints into a slice.
const SLICE: usize = 100;
/// Services that share an address, on different ports.
const SHARING: usize = 100;
const PERIOD: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long no more changes are begun at a size.
const LIMIT: Duration = Duration::from_secs(120);

/// So many services with so many backends each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) backends: usize,
}

/// The sizes of the benchmark.
pub(super) const SIZES: [Size; 4] = [
    size(10, 10),
    size(1_000, 10),
    size(10_000, 10),
    size(1, 10_000),
];

const fn size(services: usize, backends: usize) -> Size {
    Size { services, backends }
}

// === impl Size ===

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.services, self.backends)
    }
}

/// Starts the agent at this size, changes an endpoint so often, and starts it again.
pub(super) fn run(scene: &Scene, naru: &Path, size: Size, changes: usize) -> anyhow::Result<Row> {
    let manifests = fill(scene, size)?;
    let (agent, start) = scene.agent(naru, &manifests, size.services)?;
    let resting = memory(&agent)?;
    let (times, lost) = change(scene, &manifests, size, changes)?;
    let changed = memory(&agent)?;
    let began = Instant::now();
    agent.restart()?;
    wait_services(&agent, size.services)?;
    let restart = began.elapsed();
    agent.detach()?;
    Ok(row(size.to_string())
        .with("services", size.services as f64)
        .with("backends_each", size.backends as f64)
        .with("start_ms", start.as_secs_f64() * 1e3)
        .with("restart_ms", restart.as_secs_f64() * 1e3)
        .with("changes", times.len() as f64)
        .with_all(quantiles(&times))
        .with("datagrams_lost", lost as f64)
        .with("rss_anon_start_mib", resting.anonymous)
        .with("rss_anon_mib", changed.anonymous)
        .with("rss_peak_mib", changed.peak))
}

/// A directory with so much in it.
pub(crate) fn fill(scene: &Scene, size: Size) -> anyhow::Result<Manifests> {
    let manifests = scene.manifests(&format!("scale-{}-{}", size.services, size.backends))?;
    for number in 0..size.services {
        let service = service(number);
        manifests.service(&service)?;
        for slice in 0..size.backends.div_ceil(SLICE) {
            let text = slice_text(&service, number, size, slice, None);
            manifests.write(&slice_file(&service, slice), &text)?;
        }
    }
    Ok(manifests)
}

/// Takes an endpoint of the first service away, or puts the last one that was taken back and
/// takes another one.
pub(crate) fn without(manifests: &Manifests, size: Size, number: usize) -> anyhow::Result<()> {
    let service = service(0);
    let gone = endpoint(number % size.backends.min(SLICE)).address;
    let text = slice_text(&service, 0, size, 0, Some(gone));
    Ok(manifests.write(&slice_file(&service, 0), &text)?)
}

/// Takes away the endpoint that the client's flow has, again and again: the next packet that
/// follows is answered by another one. What was taken away comes back with the next change
/// of its slice.
fn change(
    scene: &Scene,
    manifests: &Manifests,
    size: Size,
    changes: usize,
) -> anyhow::Result<(Vec<f64>, u64)> {
    let service = service(0);
    let to = (service.address, service.port).into();
    let prober = Prober::start(scene.lab.node("client"), to, From::One, PERIOD);
    let mut current = prober.next(PATIENCE)?.pod;
    let mut times = Vec::new();
    let began = Instant::now();
    while times.len() < changes && began.elapsed() < LIMIT {
        // Not in step with anything that the agent does at regular times.
        sleep(Duration::from_micros(fastrand::u64(50_000..100_000)));
        if let Some(newer) = prober.newest() {
            current = newer.pod;
        }
        let address: Ipv4Addr = current.parse().context("the answer names no address")?;
        let all = 0..size.backends;
        let index = all.into_iter().find(|it| endpoint(*it).address == address);
        let slice = index.context("nobody's address answers")? / SLICE;
        let text = slice_text(&service, 0, size, slice, Some(address));
        let draft = Draft::write(manifests, &slice_file(&service, slice), &text)?;
        let published = draft.publish()?;
        let change = prober.next(PATIENCE)?;
        times.push((change.at - published).as_secs_f64() * 1e6);
        current = change.pod;
    }
    Ok((times, prober.stop()?))
}

/// The first one is asked over UDP at an address of the LAN; the others are only there.
fn service(number: usize) -> ServiceSpec {
    let name = format!("service-{number:05}");
    if number == 0 {
        return ServiceSpec::new(
            &name,
            Ipv4Addr::new(192, 168, 56, 11),
            80,
            super::scene::PORT,
        )
        .over(Protocol::Udp);
    }
    let base = u32::from(Ipv4Addr::new(10, 96, 0, 0));
    let address = Ipv4Addr::from(base + (number / SHARING) as u32);
    let port = 1000 + (number % SHARING) as u16;
    ServiceSpec::new(&name, address, port, super::scene::PORT)
}

fn slice_text(
    service: &ServiceSpec,
    number: usize,
    size: Size,
    slice: usize,
    without: Option<Ipv4Addr>,
) -> String {
    let indices = (slice * SLICE..size.backends).take(SLICE);
    let endpoints = indices.map(|index| endpoint(number * size.backends + index));
    let endpoints = endpoints.filter(|it| Some(it.address) != without);
    service.slice_yaml(slice + 1, &endpoints.collect::<Vec<Endpoint>>())
}

/// What a process keeps in memory, MiB.
pub(crate) struct Memory {
    /// Its own, `RssAnon`.
    pub(crate) anonymous: f64,
    /// All that it ever had, `VmHWM`.
    pub(crate) peak: f64,
}

pub(crate) fn memory(agent: &Agent) -> anyhow::Result<Memory> {
    let pid = agent.pid().context("the agent has ended")?;
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|it| it.trim().strip_suffix(" kB"));
        let number = number.with_context(|| format!("{path} has no {name}"))?;
        Ok(number.trim().parse::<f64>()? / 1024.0)
    };
    Ok(Memory {
        anonymous: field("RssAnon:")?,
        peak: field("VmHWM:")?,
    })
}
