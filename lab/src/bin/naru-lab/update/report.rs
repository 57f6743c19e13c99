//! What was measured, as rows.

use crate::measure::Output;
use crate::measure::cases::{Row, Section, tell_bounds};
use crate::measure::plot::{Bar, Chart, Whose};

/// From file to packet, ms at p99.
const PROPAGATION: f64 = 20.0;
/// Memory of an agent with 1,000 services, MiB: it was 40 before what is free was given back.
const MEMORY: f64 = 30.0;

/// What the page says before the tables.
const INTRODUCTION: &str = "## Changes of endpoints

A change counts from the moment in which its file is moved to its place to the first answer of
the pod that it names, seen by a client that asks every 0.2 ms. At a size (services × backends
of each) it takes away the endpoint that the client's flow has. Under load a part of the
endpoints stays in the list; connections to those are covered by the promise that a flow keeps
its backend while that lives. The others come, drain and go at random, and serve all the time.
Connections to those are reset when they go, as `--gone-flows reset` has it.

";

/// A case without values.
pub(super) fn row(case: impl Into<String>) -> Row {
    Row::new("update", case)
}

const SECTIONS: [Section; 4] = [
    Section {
        title: "From a changed EndpointSlice to the first packet that follows",
        columns: &[
            ("changes", "changes"),
            ("p50_us", "p50, ms"),
            ("p99_us", "p99, ms"),
            ("max_us", "max, ms"),
            ("datagrams_lost", "datagrams lost"),
        ],
        without: &["start_ms", "requests"],
    },
    Section {
        title: "Services × backends each: the start of an agent, one on the maps of the last, \
                one endpoint changed, and the agent's own memory",
        columns: &[
            ("start_ms", "start, ms"),
            ("restart_ms", "restart, ms"),
            ("changes", "changes"),
            ("p50_us", "change p50, ms"),
            ("p99_us", "change p99, ms"),
            ("rss_anon_start_mib", "RssAnon at start, MiB"),
            ("rss_anon_mib", "RssAnon after, MiB"),
            ("rss_peak_mib", "peak RSS, MiB"),
        ],
        without: &[],
    },
    Section {
        title: "Building a table of 65,537 slots",
        columns: &[
            ("slots", "slots"),
            ("p50_us", "p50, ms"),
            ("p99_us", "p99, ms"),
        ],
        without: &[],
    },
    Section {
        title: "Endpoints that come, drain and go under load",
        columns: &[
            ("changes_per_second", "changes/s"),
            ("datagrams_new_flows", "datagrams of new flows"),
            ("datagrams_new_flows_lost", "lost"),
            ("datagrams_kept_flows", "of flows that go on"),
            ("datagrams_kept_flows_lost", "lost"),
            ("requests", "requests"),
            ("requests_failed", "failed"),
            ("connections_covered", "connections to pods that stay"),
            ("connections_covered_broken", "broken"),
            ("connections_uncovered", "to others"),
            ("connections_uncovered_broken", "broken"),
        ],
        without: &[],
    },
];

/// Prints the rows, and writes what was asked for.
pub(super) fn tell(rows: &[Row], output: &Output) -> anyhow::Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for section in &SECTIONS {
        page.push_str(&section.tell(rows));
    }
    let bars: Vec<Bar> = rows.iter().filter_map(bar).collect();
    if !bars.is_empty() {
        let title = "From a changed EndpointSlice to the first packet that follows";
        let chart = Chart {
            title,
            axis: "milliseconds: the median, and from there to the 99th percentile",
            bound: Some(PROPAGATION),
            bars: &bars,
            logarithmic: true,
        };
        output.write_plot("update.svg", &chart)?;
        page.push_str(&format!("![{title}](update.svg)\n\n"));
    }
    page.push_str(&tell_bounds(&judged(rows)));
    output.write_json(&rows)?;
    output.write_page("update", &page)
}

/// Whether every bound is kept.
pub(super) fn verdict(rows: &[Row]) -> bool {
    judged(rows).iter().all(|(_, kept)| *kept)
}

/// The bounds, each with whether it is kept.
fn judged(rows: &[Row]) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for row in rows {
        let case = &row.case;
        if SECTIONS[0].has(row) {
            let time = row.get("p99_us").unwrap_or(f64::INFINITY) / 1e3;
            let what = format!("{case}: p99 {time:.1} ms, wanted {PROPAGATION} at most");
            all.push((what, time <= PROPAGATION));
        }
        if row.get("services") == Some(1_000.0)
            && let Some(memory) = row.get("rss_anon_mib")
        {
            let what = format!("{case}: RssAnon {memory:.1} MiB, wanted {MEMORY} at most");
            all.push((what, memory <= MEMORY));
        }
        if let Some(broken) = row.get("connections_covered_broken") {
            let what = format!("{case}: {broken} connections broken that the promise covers");
            all.push((what, broken == 0.0));
        }
    }
    all
}

/// Cases in which a packet follows a file.
fn bar(row: &Row) -> Option<Bar> {
    row.get("changes")?;
    let (value, high) = (row.get("p50_us")? / 1e3, row.get("p99_us")? / 1e3);
    Some(Bar {
        label: row.case.clone(),
        whose: Whose::Naru,
        value,
        low: value,
        high,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_section() {
        let flip = row("a").with("changes", 1.0).with("p99_us", 30_000.0);
        let scale = flip.clone().with("start_ms", 1.0);
        let build = row("b").with("slots", 65_537.0);
        let churn = flip
            .clone()
            .with("changes_per_second", 1.0)
            .with("requests", 1.0);
        let of = |row: &Row| -> Vec<usize> {
            let all = SECTIONS.iter().enumerate();
            all.filter(|(_, it)| it.has(row)).map(|it| it.0).collect()
        };
        assert_eq!(
            [of(&flip), of(&scale), of(&build), of(&churn)],
            [[0], [1], [2], [3]]
        );
        assert!(!verdict(&[flip]));
    }
}
