//! The rows that a benchmark is told in.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What one candidate cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// `path`: from the generator to where frames end; `program`: the program alone; `fresh`:
    /// as `path`, of flows' first packets.
    pub(crate) bench: &'static str,
    /// What was measured.
    pub(crate) candidate: String,
    /// `forward` or `reply`.
    pub(crate) direction: &'static str,
    /// Where the program runs: `xdp`, `tc-ingress` or `tc-egress`; `program` only.
    pub(crate) hook: Option<&'static str>,
    /// Bytes of a frame on the wire, with its check sequence. Where headers alone take more
    /// (IPv6 with TCP: 80), frames are that long.
    pub(crate) size: usize,
    pub(crate) flows: u32,
    /// Of which ten at most are asked.
    pub(crate) services: u32,
    /// Of each service.
    pub(crate) backends: u32,
    /// 4 or 6.
    pub(crate) family: u8,
    /// The median of all rounds. `path`: with the generator; `program`: over what a stub costs
    /// in its place.
    pub(crate) ns_per_packet: f64,
    /// Millions of packets a second on one core, with the generator.
    pub(crate) mpps: f64,
    /// `path`: against a bare `XDP_TX` in the same round. `program`: with the generator, against
    /// the generator and a stub.
    pub(crate) ratio_to_xdp_tx: f64,
    /// Against kube-proxy's rules for nftables in the same round; `path` only.
    pub(crate) ratio_to_nftables: Option<f64>,
    /// Against plain forwarding in the same round; `path` only.
    pub(crate) ratio_to_kernel: Option<f64>,
    /// Against the same candidate at the first of several sizes in the same round.
    pub(crate) ratio_to_first: Option<f64>,
    /// The middle half of all rounds, in nanoseconds.
    pub(crate) spread: f64,
    /// Of the kernel's own kind, in the whole program; `program` only.
    pub(crate) instructions: Option<u32>,
    /// For a packet, one after the other, that go by a hash, a prefix or a route; `program`
    /// only.
    pub(crate) lookups: Option<u32>,
    /// What its maps take, in MiB, where there are several sizes.
    pub(crate) maps_mib: Option<f64>,
}

#[cfg(test)]
impl Row {
    /// A row of the whole path: 1.25 times a bare `XDP_TX`.
    pub(crate) fn example(candidate: &str, flows: u32) -> Self {
        Self {
            bench: "path",
            candidate: candidate.to_owned(),
            direction: "forward",
            hook: None,
            size: 64,
            flows,
            services: 1,
            backends: 100,
            family: 4,
            ns_per_packet: 100.0,
            mpps: 10.0,
            ratio_to_xdp_tx: 1.25,
            ratio_to_nftables: Some(0.2),
            ratio_to_kernel: None,
            ratio_to_first: None,
            spread: 2.0,
            instructions: None,
            lookups: None,
            maps_mib: None,
        }
    }
}

/// The median, and how far the middle half lies apart.
pub(crate) fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    // Between two values, both count by how near they are.
    let at = |share: f64| {
        let place = last * share;
        let value = |index: f64| values.get(index as usize).copied().unwrap_or_default();
        let (low, high) = (value(place.floor()), value(place.ceil()));
        low + (high - low) * place.fract()
    };
    (at(0.5), at(0.75) - at(0.25))
}

/// The median of what each round's value is to the other's of the same round.
pub(crate) fn ratio(values: &[f64], to: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = values
        .iter()
        .zip(to)
        .map(|(value, to)| value / to)
        .collect();
    (!ratios.is_empty()).then(|| median(ratios).0)
}

/// The rows for people.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "BENCH",
        "IP",
        "DIRECTION",
        "HOOK",
        "SIZE",
        "FLOWS",
        "SERVICES",
        "BACKENDS",
        "CANDIDATE",
        "NS",
        "SPREAD",
        "× XDP_TX",
        "× NFT",
        "× KERNEL",
        "× FIRST",
        "INSNS",
        "LOOKUPS",
    ]);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 3 && index != 8 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let two = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
    for row in rows {
        table.add_row([
            row.bench.to_owned(),
            row.family.to_string(),
            row.direction.to_owned(),
            row.hook.unwrap_or_default().to_owned(),
            row.size.to_string(),
            row.flows.to_string(),
            row.services.to_string(),
            row.backends.to_string(),
            row.candidate.clone(),
            format!("{:.0}", row.ns_per_packet),
            format!("{:.0}", row.spread),
            two(Some(row.ratio_to_xdp_tx)),
            two(row.ratio_to_nftables),
            two(row.ratio_to_kernel),
            two(row.ratio_to_first),
            row.instructions.map_or(String::new(), |it| it.to_string()),
            row.lookups.map_or(String::new(), |it| it.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_and_its_spread_around_it() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0, 100.0]), (3.0, 2.0));
        assert_eq!(median(vec![1.0, 2.0]), (1.5, 0.5));
        assert_eq!(median(vec![7.0]), (7.0, 0.0));
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        // Everything took twice as long in the second one.
        assert_eq!(ratio(&[100.0, 200.0], &[50.0, 100.0]), Some(2.0));
        assert_eq!(ratio(&[], &[1.0]), None);
    }
}
