//! Cases, each with values by name, and the tables that they are told in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stats::percentile;
use super::{markdown, table};

/// One case, with its values by name; a name ends in its unit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    pub(crate) candidate: String,
    pub(crate) case: String,
    #[serde(flatten)]
    values: BTreeMap<String, f64>,
}

/// A table of the rows that have the first of its values.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Names of values, and what stands above them.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Rows that have one of these values belong to others.
    pub(crate) without: &'static [&'static str],
}

// === impl Row ===

impl Row {
    /// A case of Naru without values.
    pub(crate) fn new(bench: &'static str, case: impl Into<String>) -> Self {
        Self {
            bench,
            candidate: "Naru".to_owned(),
            case: case.into(),
            values: BTreeMap::new(),
        }
    }

    /// The same of another candidate.
    #[must_use]
    pub(crate) fn of(mut self, candidate: impl Into<String>) -> Self {
        self.candidate = candidate.into();
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.values.insert(name.into(), value);
        self
    }

    #[must_use]
    pub(crate) fn with_all(
        mut self,
        values: impl IntoIterator<Item = (impl Into<String>, f64)>,
    ) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.into(), value));
        self.values.extend(values);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// In one line, while others are still being measured.
    pub(crate) fn line(&self) -> String {
        let values = self.values.iter();
        let values = values.map(|(name, value)| format!("{name} {}", number(*value)));
        format!("{}: {}", self.case, values.collect::<Vec<_>>().join(", "))
    }
}

// === impl Section ===

impl Section {
    /// Whether the row belongs here: the sections' cases have different values.
    pub(crate) fn has(&self, row: &Row) -> bool {
        let others = self.without.iter().any(|name| row.get(name).is_some());
        let first = self.columns.first();
        !others && first.is_some_and(|(name, _)| row.get(name).is_some())
    }

    /// Prints its rows, and gives them as a part of a page; nothing where it has none.
    pub(crate) fn tell(&self, rows: &[Row]) -> String {
        let shown: Vec<&Row> = rows.iter().filter(|row| self.has(row)).collect();
        if shown.is_empty() {
            return String::new();
        }
        let names = self.columns.iter().map(|(_, title)| *title);
        let head: Vec<&str> = std::iter::once("case").chain(names).collect();
        let cells = || shown.iter().map(|row| self.cells(row));
        println!("\n{}\n{}", self.title, table(&head, cells()));
        format!("### {}\n\n{}\n", self.title, markdown(&head, cells()))
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

/// Prints whether bounds are kept, and gives the same as a part of a page.
pub(crate) fn tell_bounds(judged: &[(String, bool)]) -> String {
    let mut page = String::new();
    for (what, kept) in judged {
        let line = format!("{}: {what}", if *kept { "kept" } else { "MISSED" });
        println!("{line}");
        page.push_str(&format!("- {line}\n"));
    }
    page
}

/// Median, 99th percentile and maximum of times in µs.
pub(crate) fn quantiles(times: &[f64]) -> [(&'static str, f64); 3] {
    [("p50_us", 0.5), ("p99_us", 0.99), ("max_us", 1.0)]
        .map(|(name, share)| (name, percentile(times, share)))
}

/// Counts in full, and three digits of others.
pub(crate) fn number(value: f64) -> String {
    match value.fract() == 0.0 || value >= 1_000.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_belongs_to_the_section_of_its_values() {
        let section = Section {
            title: "times",
            columns: &[("changes", "changes"), ("p50_us", "p50, ms")],
            without: &["start_ms"],
        };
        let row = Row::new("update", "a").with("changes", 2.0);
        let cells = section.cells(&row.clone().with_all([("p50_us", 1_500.0)]));
        assert_eq!(cells, ["a", "2", "1.50"]);
        assert_eq!(section.cells(&row), ["a", "2", "-"]);
        assert!(section.has(&row) && !section.has(&row.with("start_ms", 1.0)));
        assert_eq!(
            [number(3.0), number(0.25), number(1234.5)],
            ["3", "0.2", "1234"]
        );
    }
}
