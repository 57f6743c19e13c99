//! What a packet costs, as `naru-bench` has measured it: a line a candidate, a column a size.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::bench::Bench;
use crate::measure::plot::{Bar, Whose};
use crate::measure::{markdown, table};

/// Services of which ten are asked cost at most so much more than those ten alone.
pub(super) const BOUND: f64 = 1.1;
/// Where that is to hold.
const MANY: u32 = 10_000;

/// A row of `naru-bench`.
#[derive(Clone, Debug)]
pub(super) struct Packets {
    /// As it came.
    pub(super) row: Value,
    of: Of,
}

/// What is told of it.
#[derive(Clone, Debug, Deserialize)]
struct Of {
    bench: String,
    candidate: String,
    direction: String,
    flows: u32,
    services: u32,
    backends: u32,
    family: u8,
    ns_per_packet: f64,
    mpps: f64,
    ratio_to_first: Option<f64>,
    spread: f64,
}

/// Has them measured.
pub(super) fn run(bench: &Bench, args: &[String]) -> anyhow::Result<Vec<Packets>> {
    let rows = bench.scale(args)?.into_iter();
    rows.map(|row| {
        let of = Of::deserialize(&row).context("a row of naru-bench")?;
        Ok(Packets { row, of })
    })
    .collect()
}

/// Prints them, and gives them as a part of a page.
pub(super) fn tell(rows: &[Packets]) -> String {
    let mut page = String::new();
    for title in distinct(rows.iter().map(|it| it.of.title())) {
        let of: Vec<&Of> = rows.iter().map(|it| &it.of).collect();
        let of: Vec<&Of> = of.into_iter().filter(|it| it.title() == title).collect();
        let sizes = distinct(of.iter().map(|it| it.size()));
        let names = distinct(of.iter().map(|it| it.candidate.clone()));
        let cells = || {
            names.iter().map(|name| {
                let cells = sizes.iter().map(|size| {
                    let same = |it: &&&Of| it.candidate == *name && it.size() == *size;
                    of.iter().find(same).map_or(String::new(), |it| it.cell())
                });
                std::iter::once(name.clone()).chain(cells).collect()
            })
        };
        let head: Vec<&str> = std::iter::once("candidate")
            .chain(sizes.iter().map(String::as_str))
            .collect();
        println!("\n{title}\n{}", table(&head, cells()));
        page.push_str(&format!("### {title}\n\n{}\n", markdown(&head, cells())));
    }
    page
}

/// The bounds, each with whether it is kept.
pub(super) fn judged(rows: &[Packets]) -> Vec<(String, bool)> {
    let bounded = rows.iter().filter_map(|it| it.of.bounded());
    bounded.collect()
}

/// Many services against few, as bars.
pub(super) fn bars(rows: &[Packets]) -> Vec<Bar> {
    let many = rows.iter().map(|it| &it.of).filter(|it| it.is_bounded());
    many.filter_map(|it| {
        let value = it.ratio_to_first?;
        let half = it.spread / it.ns_per_packet / 2.0 * value;
        Some(Bar {
            label: format!("{}, {} flows", it.candidate, it.flows),
            whose: Whose::Naru,
            value,
            low: value - half,
            high: value + half,
        })
    })
    .collect()
}

/// Each once, in the order in which they came.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

// === impl Of ===

impl Of {
    fn title(&self) -> String {
        let what = match (self.bench.as_str(), self.direction.as_str()) {
            ("fresh", _) => "First packets of flows, in millions a second",
            ("program", _) => "The program alone at xdp, in ns a packet",
            (_, "reply") => "Replies, in ns a packet",
            _ => "Packets to backends, in ns",
        };
        format!("{what}: IPv{}, {} flows", self.family, self.flows)
    }

    fn size(&self) -> String {
        format!("{}x{}", self.services, self.backends)
    }

    fn cell(&self) -> String {
        let value = match self.bench.as_str() {
            "fresh" => format!("{:.2}", self.mpps),
            _ => format!("{:.0} ± {:.0}", self.ns_per_packet, self.spread / 2.0),
        };
        match self.ratio_to_first {
            Some(ratio) => format!("{value} ({ratio:.2})"),
            None => value,
        }
    }

    fn is_bounded(&self) -> bool {
        self.services == MANY && self.bench == "path" && self.direction == "forward"
    }

    fn bounded(&self) -> Option<(String, bool)> {
        let ratio = self.ratio_to_first.filter(|_| self.is_bounded())?;
        let what = format!(
            "{}, IPv{}, {} flows: {MANY} services cost {ratio:.2} × the first size, wanted {BOUND} \
             at most",
            self.candidate, self.family, self.flows
        );
        Some((what, ratio <= BOUND))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_columns_and_many_services_have_a_bound() {
        let row = |services: u32, ratio: f64| {
            let row = serde_json::json!({
                "bench": "path", "candidate": "naru-maglev-dsr", "direction": "forward",
                "flows": 1024, "services": services, "backends": 10, "family": 4,
                "ns_per_packet": 500.0, "mpps": 2.0, "ratio_to_first": ratio, "spread": 10.0,
            });
            let of = Of::deserialize(&row).unwrap();
            Packets { row, of }
        };
        let rows = [row(10, 1.0), row(10_000, 1.2)];
        let expected = "### Packets to backends, in ns: IPv4, 1024 flows\n\n\
            | candidate | 10x10 | 10000x10 |\n|---|--:|--:|\n\
            | naru-maglev-dsr | 500 ± 5 (1.00) | 500 ± 5 (1.20) |\n\n";
        assert_eq!(tell(&rows), expected);
        let [(_, kept)] = &judged(&rows)[..] else {
            panic!("one bound")
        };
        assert!(!kept && judged(&[row(10_000, 1.1)])[0].1);
        assert_eq!(bars(&rows).len(), 1);
    }
}
