//! What was measured, as rows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::plot::{Bar, Chart, Whose};
use crate::measure::stats::percentile;
use crate::measure::{Output, markdown, table};

/// From file to packet, ms at p99.
const PROPAGATION: f64 = 20.0;
/// Memory of an agent with 1,000 services, MiB.
const MEMORY: f64 = 40.0;

/// What the page says before the tables.
const INTRODUCTION: &str = "## Changes of endpoints

A change counts from the moment in which its file is moved to its place to the first answer of
the pod that it names, seen by a client that asks every 0.2 ms. At a size (services × backends
of each) it takes away the endpoint that the client's flow has. Under load a part of the
endpoints stays in the list; connections to those are covered by the promise that a flow keeps
its backend while that lives. The others come, drain and go at random, and serve all the time.
Connections to those are reset when they go, as `--gone-flows reset` has it.

";

/// One case, with its values by name; a name ends in its unit.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    bench: &'static str,
    candidate: &'static str,
    case: String,
    #[serde(flatten)]
    values: BTreeMap<String, f64>,
}

// === impl Row ===

impl Row {
    pub(super) fn new(case: impl Into<String>) -> Self {
        Self {
            bench: "update",
            candidate: "Naru",
            case: case.into(),
            values: BTreeMap::new(),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.values.insert(name.into(), value);
        self
    }

    #[must_use]
    pub(super) fn with_all(mut self, values: [(&str, f64); 3]) -> Self {
        let values = values.map(|(name, value)| (name.to_owned(), value));
        self.values.extend(values);
        self
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// In one line, while others are still being measured.
    pub(super) fn line(&self) -> String {
        let values = self.values.iter();
        let values = values.map(|(name, value)| format!("{name} {}", number(*value)));
        format!("{}: {}", self.case, values.collect::<Vec<_>>().join(", "))
    }
}

/// Median, 99th percentile and maximum of times in µs.
pub(super) fn quantiles(times: &[f64]) -> [(&'static str, f64); 3] {
    [("p50_us", 0.5), ("p99_us", 0.99), ("max_us", 1.0)]
        .map(|(name, share)| (name, percentile(times, share)))
}

/// A table of the rows that have the first of its values.
struct Section {
    title: &'static str,
    /// Names of values, and what stands above them.
    columns: &'static [(&'static str, &'static str)],
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
    },
    Section {
        title: "Building a table of 65,537 slots",
        columns: &[
            ("slots", "slots"),
            ("p50_us", "p50, ms"),
            ("p99_us", "p99, ms"),
        ],
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
    },
];

impl Section {
    /// Whether the row belongs here: the sections' cases have different values.
    fn has(&self, row: &Row) -> bool {
        let own = match self.columns[0].0 {
            "changes" => row.get("start_ms").is_none() && row.get("requests").is_none(),
            _ => true,
        };
        own && row.get(self.columns[0].0).is_some()
    }

    fn head(&self) -> Vec<&str> {
        let names = self.columns.iter().map(|(_, title)| *title);
        std::iter::once("case").chain(names).collect()
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let values = self.columns.iter().map(|(name, _)| match row.get(name) {
            Some(value) if name.ends_with("_us") => format!("{:.2}", value / 1e3),
            Some(value) => number(value),
            None => "-".to_owned(),
        });
        std::iter::once(row.case.clone()).chain(values).collect()
    }
}

/// Prints the rows, and writes what was asked for.
pub(super) fn tell(rows: &[Row], output: &Output) -> anyhow::Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for section in &SECTIONS {
        let shown: Vec<&Row> = rows.iter().filter(|row| section.has(row)).collect();
        if shown.is_empty() {
            continue;
        }
        let (title, head) = (section.title, section.head());
        let cells = || shown.iter().map(|row| section.cells(row));
        println!("\n{title}\n{}", table(&head, cells()));
        page.push_str(&format!("### {title}\n\n{}\n", markdown(&head, cells())));
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
    for (what, kept) in judged(rows) {
        let line = format!("{}: {what}", if kept { "kept" } else { "MISSED" });
        println!("{line}");
        page.push_str(&format!("- {line}\n"));
    }
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

/// Counts in full, and three digits of others.
fn number(value: f64) -> String {
    match value.fract() == 0.0 || value >= 1_000.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_section() {
        let flip = Row::new("a").with("changes", 1.0).with("p99_us", 30_000.0);
        let scale = flip.clone().with("start_ms", 1.0);
        let build = Row::new("b").with("slots", 65_537.0);
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
