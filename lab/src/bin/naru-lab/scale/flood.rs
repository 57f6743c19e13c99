//! A flood of SYNs, each of another client, while connections work.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use naru_lab::{LoadOptions, UPLINK};

use super::asking::{Asked, Asking};
use super::bench::Bench;
use super::case::{Case, Condition};
use super::site::{NARU, Served, Site, VIP};
use crate::measure::cases::{Row, quantiles};

/// How often a new connection is tried meanwhile.
const NEW: Duration = Duration::from_millis(100);
/// How long connections go on after the flood: what it has broken shows by then.
const AFTER: Duration = Duration::from_secs(2);
/// How many of those that broke are told of.
const TOLD: usize = 5;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) connections: usize,
    /// Before the flood.
    pub(super) quiet: Duration,
    pub(super) flood: Duration,
}

/// All cases, one after the other.
pub(super) fn run(
    naru: &Path,
    bench: &Bench,
    cases: &[Case],
    plan: Plan,
) -> anyhow::Result<Vec<Row>> {
    let site = Site::build()?;
    let mut rows = Vec::new();
    for &case in cases {
        let served = site.serve(naru, case)?;
        let row = one(&site, &served, bench, case, plan)?;
        served.end()?;
        println!("  {}", row.line());
        rows.push(row);
    }
    site.lab.teardown()?;
    Ok(rows)
}

fn one(
    site: &Site,
    served: &Served<'_>,
    bench: &Bench,
    case: Case,
    plan: Plan,
) -> anyhow::Result<Row> {
    let client = site.lab.node("client");
    // Whoever looked whether the service answers may have left a record.
    let before = records(bench, served)?;
    let asking = Asking::start(client, SocketAddr::V4(VIP), plan.connections)?;
    let quiet = Instant::now();
    sleep(plan.quiet);
    let steady = records(bench, served)?;
    if case.condition == Condition::Drain {
        served.change()?;
    }
    let load = LoadOptions {
        connections: 1,
        pause: NEW,
        limit: plan.flood,
        ..LoadOptions::default()
    };
    let flooded = Instant::now();
    let (program, mac) = served.uplink()?;
    let before_flood = served.begun()?;
    let new = site.lab.client().load(&format!("http://{VIP}/"), load);
    let flood = bench.flood(
        site.lab.node(NARU),
        [
            ("--device", UPLINK.to_owned()),
            ("--program", program.to_string()),
            ("--mac", mac),
            ("--vip", VIP.to_string()),
            ("--seconds", plan.flood.as_secs().to_string()),
        ],
    )?;
    let over = Instant::now();
    let begun = served.begun()? - before_flood;
    let after = records(bench, served)?;
    let new = new.stop()?;
    sleep(AFTER);
    let all = asking.stop()?;
    tell_broken(&all);
    let lost = all.iter().filter(|it| it.broken.is_some()).count();
    let requests: usize = all.iter().map(|it| it.answers.len()).sum();
    let times = |from: Instant, to: Instant| -> Vec<f64> {
        let answers = all.iter().flat_map(|it| &it.answers);
        let within = answers.filter(|(sent, _)| (from..to).contains(sent));
        within.map(|(_, took)| took.as_secs_f64() * 1e6).collect()
    };
    let (calm, wild) = (times(quiet, flooded), times(flooded, over));
    let named = |when: &str, times: &[f64]| {
        quantiles(times).map(|(name, value)| (format!("{when}_{name}"), value))
    };
    Ok(Row::new("scale", case.words())
        .of(case.candidate())
        .with("connections", plan.connections as f64)
        // The last one of whoever broke was asked as well.
        .with("requests", (requests + lost) as f64)
        .with("requests_in_flood", wild.len() as f64)
        .with("connections_lost", lost as f64)
        .with_all(named("quiet", &calm))
        .with_all(named("flood", &wild))
        .with("flood_kpps", flood.packets / flood.seconds / 1e3)
        // Of what never arrives, or is refused, no flow begins.
        .with("begun_kpps", begun / flood.seconds / 1e3)
        .with("new_connections", (new.ok + new.failed) as f64)
        .with("new_connections_failed", new.failed as f64)
        .with("records_before", before)
        .with("records_steady", steady)
        .with("records_after", after))
}

/// Records of flows and replies, of all agents together.
fn records(bench: &Bench, served: &Served<'_>) -> anyhow::Result<f64> {
    let agents = served.agents.iter();
    agents.map(|agent| Ok(bench.maps(agent)?.records())).sum()
}

fn tell_broken(all: &[Asked]) {
    let broken = all
        .iter()
        .filter_map(|it| Some((it.from, it.broken.as_ref()?)));
    for (from, why) in broken.take(TOLD) {
        let from = from.map_or(String::new(), |it| it.to_string());
        println!("    broken: {from}: {why}");
    }
}
