//! The rows that a benchmark is told in.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What one candidate cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Which benchmark.
    pub(crate) bench: &'static str,
    /// What was measured.
    pub(crate) candidate: String,
    /// `forward` or `reply`.
    pub(crate) direction: &'static str,
    /// Bytes of a frame, without the check sequence.
    pub(crate) size: usize,
    pub(crate) flows: u32,
    /// 4 or 6.
    pub(crate) family: u8,
    /// Over what a stub costs that does nothing; the median of all rounds.
    pub(crate) ns_per_packet: f64,
    /// Of this core, the generator included.
    pub(crate) mpps: f64,
    /// Generator and candidate, against the generator and a bare `XDP_TX`.
    pub(crate) ratio_to_xdp_tx: f64,
    /// The middle half of all rounds, in ns.
    pub(crate) spread: f64,
}

/// The median, and how far the middle half lies apart.
pub(crate) fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (values.len() as f64 * share) as usize;
        values.get(index.min(values.len().saturating_sub(1))).copied()
    };
    let of = |share| at(share).unwrap_or_default();
    (of(0.5), of(0.75) - of(0.25))
}

/// The rows for people.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "CANDIDATE", "FLOWS", "NS/PACKET", "SPREAD", "× XDP_TX",
    ]);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row([
            row.candidate.clone(),
            row.flows.to_string(),
            format!("{:.1}", row.ns_per_packet),
            format!("{:.1}", row.spread),
            format!("{:.2}", row.ratio_to_xdp_tx),
        ]);
    }
    table
}
