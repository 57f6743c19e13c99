//! What was measured, as rows and for people.

use serde_json::Value;

use super::case::Case;
use super::packets::{self, Packets};
use crate::measure::Output;
use crate::measure::cases::{Row, Section, tell_bounds};
use crate::measure::plot::{Bar, Chart, Whose};

/// Memory of an agent with 1,000 services, MiB: it was 40 before what is free was given back.
const MEMORY: f64 = 30.0;

/// What the page says before the tables.
const INTRODUCTION: &str = "## Many services, backends and flows, and a flood

A size is services × backends of each, none of which two share. Packets go to ten services, by
the candidate's algorithm; others are only there, by turns. A cell is the median of all rounds,
half the distance between its quartiles, and in brackets how many times the first size that is:
the median of each round's ratio. First packets are those of flows that nobody knows yet.

Under a flood connections ask every 100 ms each, from before until after it. It comes in by the
balancer's uplink as fast as one core makes it and the program and the stack take it, all SYNs
to the same service, from two thousand million clients. A connection is lost where it is reset,
closed, or silent for 10 s; new ones are tried one after the other, and fail after 3 s. Records
are cells of `FLOWS` and `REPLIES`; a drain window that is open was opened by a backend that
came just before the flood; where conntrack is loaded the nodes drop what is invalid to it.

";

const SECTIONS: [Section; 2] = [
    Section {
        title: "Services × backends each: an agent's own memory, and its maps",
        columns: &[
            ("rss_anon_start_mib", "RssAnon at start, MiB"),
            ("changes", "changes"),
            ("rss_anon_mib", "RssAnon after, MiB"),
            ("rss_peak_mib", "peak RSS, MiB"),
            ("maps_mib", "maps, MiB"),
        ],
        without: &[],
    },
    Section {
        title: "Established connections under a flood of SYNs",
        columns: &[
            ("connections", "connections"),
            ("connections_lost", "lost"),
            ("requests", "requests"),
            ("quiet_p50_us", "quiet p50, ms"),
            ("quiet_p99_us", "p99, ms"),
            ("quiet_max_us", "max, ms"),
            ("flood_p50_us", "flood p50, ms"),
            ("flood_p99_us", "p99, ms"),
            ("flood_max_us", "max, ms"),
            ("flood_kpps", "flood, thousands/s"),
            ("begun_kpps", "flows begun, thousands/s"),
            ("new_connections", "new ones"),
            ("new_connections_failed", "failed"),
            ("records_steady", "records before"),
            ("records_after", "after"),
        ],
        without: &[],
    },
];

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) packets: Vec<Packets>,
    /// Of agents and of floods.
    pub(super) rows: Vec<Row>,
}

/// Prints it, and writes what was asked for.
pub(super) fn tell(found: &Found, output: &Output) -> anyhow::Result<()> {
    let mut page = INTRODUCTION.to_owned();
    page.push_str(&packets::tell(&found.packets));
    for section in &SECTIONS {
        page.push_str(&section.tell(&found.rows));
    }
    let charts = [
        (
            "scale-services.svg",
            "A packet to one of ten services out of 10,000",
            "against ten services alone; the middle half of all rounds",
            Some(packets::BOUND),
            packets::bars(&found.packets),
        ),
        (
            "scale-flood.svg",
            "Requests over established connections under a flood of SYNs",
            "milliseconds: the median, and from there to the 99th percentile",
            None,
            found.rows.iter().filter_map(bar).collect(),
        ),
    ];
    for (name, title, axis, bound, bars) in charts {
        if bars.is_empty() {
            continue;
        }
        let chart = Chart {
            title,
            axis,
            bound,
            bars: &bars,
            logarithmic: bound.is_none(),
        };
        output.write_plot(name, &chart)?;
        page.push_str(&format!("![{title}]({name})\n\n"));
    }
    page.push_str(&tell_bounds(&judged(found)));
    let packets = found.packets.iter().map(|it| it.row.clone());
    let rows = found.rows.iter().map(serde_json::to_value);
    let rows: Vec<Value> = packets.map(Ok).chain(rows).collect::<Result<_, _>>()?;
    output.write_json(&rows)?;
    output.write_page("scale", &page)
}

/// Whether every bound is kept.
pub(super) fn verdict(found: &Found) -> bool {
    judged(found).iter().all(|(_, kept)| *kept)
}

/// The bounds, each with whether it is kept.
fn judged(found: &Found) -> Vec<(String, bool)> {
    let mut all = packets::judged(&found.packets);
    for row in &found.rows {
        let case = &row.case;
        if row.get("services") == Some(1_000.0)
            && let Some(memory) = row.get("rss_anon_mib")
        {
            let what = format!("{case}: RssAnon {memory:.1} MiB, wanted {MEMORY} at most");
            all.push((what, memory <= MEMORY));
        }
        if let (Some(lost), Some(of)) = (row.get("connections_lost"), row.get("connections")) {
            let what = format!("{case}: {lost} of {of} connections lost under a flood");
            all.push((what, lost == 0.0));
        }
        let steady = row.get("records_steady").zip(row.get("records_before"));
        if let Some((records, before)) = steady.filter(|_| goes_without_records(row)) {
            let own = records - before;
            let what = format!("{case}: {own} records of established connections");
            all.push((what, own <= 0.0));
        }
    }
    all
}

/// Whether the connections of a row's case need none.
fn goes_without_records(row: &Row) -> bool {
    let cases = Case::all();
    let case = cases.iter().find(|case| case.words() == row.case);
    case.is_some_and(|case| case.goes_without_records())
}

fn bar(row: &Row) -> Option<Bar> {
    let (value, high) = (
        row.get("flood_p50_us")? / 1e3,
        row.get("flood_p99_us")? / 1e3,
    );
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
    fn a_lost_connection_and_a_record_too_many_are_missed_bounds() {
        let case = Case::all()[0];
        let row = |lost, steady| {
            Row::new("scale", case.words())
                .with("connections", 1_000.0)
                .with("connections_lost", lost)
                .with("records_before", 2.0)
                .with("records_steady", steady)
        };
        let kept = |row: Row| {
            verdict(&Found {
                rows: vec![row],
                ..Found::default()
            })
        };
        assert!(case.goes_without_records() && kept(row(0.0, 2.0)));
        assert!(!kept(row(1.0, 2.0)) && !kept(row(0.0, 3.0)));
        let memory = |mib| {
            Row::new("scale", "1000x10")
                .with("services", 1_000.0)
                .with("rss_anon_mib", mib)
        };
        assert!(kept(memory(30.0)) && !kept(memory(30.1)));
    }
}
