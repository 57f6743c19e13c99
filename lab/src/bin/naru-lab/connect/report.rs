//! The turns of all rounds as rows, and the rows for people.

use serde::Serialize;

use super::Turn;
use super::candidate::{Balancer, Candidate, Way};
use super::wrk::{Sample, Use};
use crate::measure::plot::{Bar, Chart, Whose};
use crate::measure::stats::{self, Interval};
use crate::measure::{Output, markdown, table};

/// What keep-alive requests through Naru are to reach of those without a balancer: the
/// lower end of the interval.
const BOUND: f64 = 0.95;

/// What the page says before the tables.
const INTRODUCTION: &str = "## Connections and requests

wrk asks nginx in two pods, through one balancer after the other, each on a node of its own;
all uplinks have the same offloads. Without a balancer the node is a router that spreads
connections over the pods. Rates and times are medians of all rounds; spread is the middle half
of the rounds. *× none* is against no balancer over the same way in the same round, with the
interval in which it lies by 95 %. CPU is the processor time of a request, of client, pods,
proxy and kernel together: where all cores are busy, the rate is its inverse. Times are from the
first byte of a request to the last of its answer.

";

/// What one candidate reached over one way, by one use of connections.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    bench: &'static str,
    candidate: &'static str,
    way: &'static str,
    /// `keep-alive`, or `connection` for one request a connection.
    connections: &'static str,
    rounds: usize,
    /// Medians of all rounds.
    requests_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// The middle half of the rounds' rates, as a share of the median.
    spread: f64,
    /// Against no balancer over the same way in the same round; the geometric mean, and the
    /// interval in which it lies by 95 %.
    ratio_to_none: f64,
    ratio_low: f64,
    /// None where one round leaves it open.
    ratio_high: Option<f64>,
    /// Processor time of a request: the client's, the pods' and the kernel's together.
    cpu_us: f64,
    /// Against no balancer, as above; lower is better.
    cpu_ratio_to_none: f64,
    cpu_ratio_low: f64,
    cpu_ratio_high: Option<f64>,
    errors: u64,
    #[serde(skip)]
    of: Candidate,
    /// Of each round.
    #[serde(skip)]
    rates: Vec<f64>,
}

/// A row for each candidate and use, in the candidates' order.
pub(super) fn rows(candidates: &[Candidate], turns: &[Turn]) -> Vec<Row> {
    let of = |candidate: Candidate, how: Use| -> Vec<&Turn> {
        let same = |it: &&Turn| it.candidate == candidate && it.how == how;
        let mut same: Vec<&Turn> = turns.iter().filter(same).collect();
        same.sort_by_key(|it| it.round);
        same
    };
    let uses = [(Use::KeepAlive, "keep-alive"), (Use::Once, "connection")];
    let all = uses
        .into_iter()
        .flat_map(|it| candidates.iter().map(move |candidate| (it, *candidate)));
    all.map(|((how, name), candidate)| {
        let none = Candidate {
            balancer: Balancer::None,
            ..candidate
        };
        row(candidate, name, &of(candidate, how), &of(none, how))
    })
    .collect()
}

/// The ratio of a value in each round.
fn ratio(turns: &[&Turn], base: &[&Turn], field: fn(&Turn) -> f64) -> Interval {
    let rounds = turns.iter().zip(base);
    let ratios: Vec<f64> = rounds.map(|(it, base)| field(it) / field(base)).collect();
    stats::ratio(&ratios)
}

fn row(candidate: Candidate, connections: &'static str, turns: &[&Turn], base: &[&Turn]) -> Row {
    let samples: Vec<Sample> = turns.iter().map(|it| it.sample).collect();
    let costs: Vec<f64> = turns.iter().map(|it| it.cost).collect();
    let cost = ratio(turns, base, |it| it.cost);
    let ratio = ratio(turns, base, |it| it.sample.rate);
    let values = |field: fn(&Sample) -> f64| samples.iter().map(field).collect::<Vec<_>>();
    let rates = values(|it| it.rate);
    Row {
        bench: "connect",
        candidate: candidate.balancer.name(),
        way: candidate.way.name(),
        connections,
        rounds: samples.len(),
        requests_per_second: stats::median(&rates),
        p50_us: stats::median(&values(|it| it.p50)),
        p99_us: stats::median(&values(|it| it.p99)),
        spread: stats::spread(&rates),
        ratio_to_none: ratio.middle,
        ratio_low: ratio.low,
        ratio_high: ratio.high.is_finite().then_some(ratio.high),
        cpu_us: stats::median(&costs),
        cpu_ratio_to_none: cost.middle,
        cpu_ratio_low: cost.low,
        cpu_ratio_high: cost.high.is_finite().then_some(cost.high),
        errors: samples.iter().map(|it| it.errors).sum(),
        of: candidate,
        rates,
    }
}

/// Prints them, and writes what was asked for.
pub(super) fn tell(rows: &[Row], output: &Output) -> anyhow::Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for (connections, title, what) in [
        (
            "keep-alive",
            "Requests over connections that are kept",
            "requests",
        ),
        (
            "connection",
            "Requests over connections of their own",
            "connections",
        ),
    ] {
        let head = [
            "candidate",
            &format!("{what}/s"),
            "spread",
            "p50, µs",
            "p99, µs",
            "× none",
            "95 %",
            "CPU, µs",
            "× none",
            "95 %",
            "errors",
        ];
        for way in Way::ALL {
            let same = |it: &&Row| it.of.way == way && it.connections == connections;
            let shown: Vec<&Row> = rows.iter().filter(same).collect();
            if shown.is_empty() {
                continue;
            }
            let cells = || shown.iter().map(|row| row.cells());
            println!("\n{title}: {}\n{}", way.words(), table(&head, cells()));
            let text = markdown(&head, cells());
            page.push_str(&format!("### {title}: {}\n\n{text}\n", way.words()));
        }
        let bars: Vec<Bar> = rows
            .iter()
            .filter(|it| it.connections == connections)
            .map(Row::bar)
            .collect();
        let name = format!("connect-{connections}.svg");
        let chart = Chart {
            title,
            axis: &format!("{what} a second, against no balancer over the same way"),
            bound: Some(if connections == "keep-alive" {
                BOUND
            } else {
                1.0
            }),
            bars: &bars,
            logarithmic: false,
        };
        output.write_plot(&name, &chart)?;
        page.push_str(&format!("![{title}]({name})\n\n"));
    }
    for line in verdicts(rows) {
        println!("{line}");
        page.push_str(&format!("- {line}\n"));
    }
    output.write_json(&rows)?;
    output.write_page("connect", &page)
}

/// Whether every bound is kept.
pub(super) fn verdict(rows: &[Row]) -> bool {
    judged(rows).iter().all(|(_, kept)| *kept)
}

fn verdicts(rows: &[Row]) -> Vec<String> {
    let judged = judged(rows).into_iter();
    judged
        .map(|(what, kept)| format!("{}: {what}", if kept { "kept" } else { "MISSED" }))
        .collect()
}

/// The bounds, each with whether it is kept.
fn judged(rows: &[Row]) -> Vec<(String, bool)> {
    let naru = rows
        .iter()
        .filter(|it| matches!(it.of.balancer, Balancer::Naru(_)));
    let mut all = Vec::new();
    for row in naru {
        let who = format!("{} over {}", row.candidate, row.way);
        if row.connections == "keep-alive" {
            let what = format!(
                "{who}, kept connections: at least {:.3} × no balancer, wanted {BOUND}",
                row.ratio_low
            );
            all.push((what, row.ratio_low >= BOUND));
            continue;
        }
        let rivals = rows.iter().filter(|it| {
            matches!(it.of.balancer, Balancer::Nftables | Balancer::Haproxy)
                && it.connections == row.connections
                // What answers past the balancer is compared with what cannot.
                && it.of.way.is_local() == row.of.way.is_local()
        });
        for rival in rivals {
            let rounds = row.rates.iter().zip(&rival.rates);
            let ratios: Vec<f64> = rounds.map(|(mine, theirs)| mine / theirs).collect();
            let ratio = stats::ratio(&ratios);
            let what = format!(
                "{who}, new connections: {:.2} × {} ({:.2}–{:.2})",
                ratio.middle, rival.candidate, ratio.low, ratio.high
            );
            all.push((what, ratio.middle > 1.0));
        }
    }
    all
}

// === impl Row ===

impl Row {
    fn cells(&self) -> Vec<String> {
        let interval = |low: f64, high: Option<f64>| match high {
            Some(high) => format!("{low:.3}–{high:.3}"),
            None => "-".to_owned(),
        };
        vec![
            self.candidate.to_owned(),
            format!("{:.0}", self.requests_per_second),
            format!("{:.1} %", self.spread * 100.0),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
            format!("{:.3}", self.ratio_to_none),
            interval(self.ratio_low, self.ratio_high),
            format!("{:.1}", self.cpu_us),
            format!("{:.3}", self.cpu_ratio_to_none),
            interval(self.cpu_ratio_low, self.cpu_ratio_high),
            self.errors.to_string(),
        ]
    }

    fn bar(&self) -> Bar {
        Bar {
            label: format!("{}: {}", self.way, self.candidate),
            whose: match self.of.balancer {
                Balancer::None | Balancer::Passing => Whose::Base,
                Balancer::Nftables | Balancer::Haproxy => Whose::Other,
                Balancer::Naru(_) => Whose::Naru,
            },
            value: self.ratio_to_none,
            low: self.ratio_low,
            high: self.ratio_high.unwrap_or(f64::INFINITY),
        }
    }
}
