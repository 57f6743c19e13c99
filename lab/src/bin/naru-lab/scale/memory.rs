//! What an agent keeps in memory, and its maps in the kernel, by number of services.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::bench::Bench;
use crate::measure::cases::Row;
use crate::update::scale::{Size, fill, memory, without};
use crate::update::scene::Scene;

/// Between two changes, and after the last one: longer than the agent takes.
const PAUSE: Duration = Duration::from_millis(300);

/// An agent at each size, looked at when it has begun and after some changes.
pub(super) fn run(
    naru: &Path,
    bench: &Bench,
    sizes: &[Size],
    changes: usize,
) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::build(0)?;
    let mut rows = Vec::new();
    for size in sizes {
        let row = one(&scene, naru, bench, *size, changes)?;
        println!("  {}", row.line());
        rows.push(row);
    }
    scene.lab.teardown()?;
    Ok(rows)
}

fn one(
    scene: &Scene,
    naru: &Path,
    bench: &Bench,
    size: Size,
    changes: usize,
) -> anyhow::Result<Row> {
    let manifests = fill(scene, size)?;
    let (agent, start) = scene.agent(naru, &manifests, size.services)?;
    let resting = memory(&agent)?;
    for number in 0..changes {
        without(&manifests, size, number)?;
        sleep(PAUSE);
    }
    let changed = memory(&agent)?;
    let held = bench.maps(&agent)?;
    agent.detach()?;
    Ok(Row::new("scale", size.to_string())
        .with("services", size.services as f64)
        .with("backends_each", size.backends as f64)
        .with("start_ms", start.as_secs_f64() * 1e3)
        .with("changes", changes as f64)
        .with("rss_anon_start_mib", resting.anonymous)
        .with("rss_anon_mib", changed.anonymous)
        .with("rss_peak_mib", changed.peak)
        .with("maps_mib", held.mib()))
}
