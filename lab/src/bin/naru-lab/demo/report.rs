//! What the demo prints: headings, pictures, and what was expected and seen.

use std::collections::BTreeMap;
use std::fmt::Display;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, Color, ContentArrangement, Table};
use naru_lab::{Answer, Tally, Topology};

/// What was expected of the balancer, and what it did.
#[derive(Default)]
pub(super) struct Report(Vec<Expectation>);

struct Expectation {
    what: String,
    expected: String,
    seen: String,
    held: bool,
}

impl Report {
    /// Records and prints one expectation.
    pub(super) fn expect(
        &mut self,
        what: impl Display,
        expected: impl Display,
        seen: impl Display,
        held: bool,
    ) {
        println!("   {} {what}: {seen}", if held { "✓" } else { "✗" });
        if !held {
            println!("     expected: {expected}");
        }
        self.0.push(Expectation {
            what: what.to_string(),
            expected: expected.to_string(),
            // The rest, such as a log, has been printed above.
            seen: seen
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            held,
        });
    }

    /// Records that these requests were all answered; tells of the failures.
    pub(super) fn expect_all_answered(&mut self, what: &str, tally: &Tally) {
        let seen = format!("{} answered, {} failed", tally.ok, tally.failed);
        self.expect(
            what,
            "every one answered",
            seen,
            tally.failed == 0 && tally.ok > 0,
        );
        for failure in &tally.failures {
            println!("     {failure}");
        }
    }

    /// Whether every expectation held.
    pub(super) fn held(&self) -> bool {
        self.0.iter().all(|expectation| expectation.held)
    }

    /// The table that the demo ends with, and a line on what did not hold.
    pub(super) fn print(&self) {
        let mut shown = table(&["", "what", "expected", "seen"]);
        for Expectation {
            what,
            expected,
            seen,
            held,
        } in &self.0
        {
            let mark = match held {
                true => Cell::new("ok").fg(Color::Green),
                false => Cell::new("NO").fg(Color::Red),
            };
            shown.add_row([mark, what.into(), expected.into(), seen.into()]);
        }
        let failed: Vec<&str> = self
            .0
            .iter()
            .filter(|one| !one.held)
            .map(|one| one.what.as_str())
            .collect();
        if !failed.is_empty() {
            println!("\nDid not hold: {}", failed.join("; "));
        }
        println!("\n{shown}");
    }
}

/// A table in the demo's style.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.iter());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// The heading of a step.
pub(super) fn heading(number: u32, text: &str) {
    println!(
        "\n━━ {number}  {text} {}",
        "━".repeat(70usize.saturating_sub(text.len()))
    );
}

/// Machines side by side on their LAN, each with its pods below it.
pub(super) fn picture(topology: &Topology) -> String {
    const WIDTH: usize = 21;
    let mut columns: Vec<[String; 2]> = Vec::new();
    let mut below: Vec<Vec<String>> = Vec::new();
    for client in &topology.clients {
        columns.push([client.name.clone(), client.address.to_string()]);
        below.push(Vec::new());
    }
    for node in &topology.nodes {
        columns.push([node.name.clone(), node.address.to_string()]);
        let pods = topology.pods.iter().filter(|pod| pod.node == node.name);
        below.push(
            [node.pod_net.to_string()]
                .into_iter()
                .chain(pods.map(|pod| pod.name.clone()))
                .collect(),
        );
    }
    let row = |cells: Vec<&str>| {
        let padded: String = cells.iter().map(|cell| format!("{cell:<WIDTH$}")).collect();
        format!("   {}\n", padded.trim_end())
    };
    let cell = |line: usize| {
        columns
            .iter()
            .map(|column| column[line].as_str())
            .collect::<Vec<_>>()
    };
    let wire: String = columns
        .iter()
        .map(|_| format!("──┴{}", "─".repeat(WIDTH - 3)))
        .collect();
    let mut drawn = row(cell(0)) + &row(cell(1)) + &row(vec!["  │"; columns.len()]);
    drawn += &format!("   {wire} {}\n", topology.lan);
    for line in 0..below.iter().map(Vec::len).max().unwrap_or(0) {
        drawn += &row(below
            .iter()
            .map(|pods| pods.get(line).map_or("", String::as_str))
            .collect());
    }
    drawn
}

/// Counts by pod, one column a tally.
pub(super) fn counts(topology: &Topology, tallies: &[(&str, &Tally)]) -> Table {
    let names = tallies.iter().map(|(name, _)| *name);
    let mut shown = table(&["pod", "node"].into_iter().chain(names).collect::<Vec<_>>());
    for pod in &topology.pods {
        let mut row = vec![pod.name.clone(), pod.node.clone()];
        row.extend(
            tallies
                .iter()
                .map(|(_, tally)| of(&tally.by_pod, &pod.name).to_string()),
        );
        shown.add_row(row);
    }
    shown
}

/// How many a pod has.
pub(super) fn of(by_pod: &BTreeMap<String, u64>, pod: &str) -> u64 {
    by_pod.get(pod).copied().unwrap_or(0)
}

/// The answers as a list of pods; what was not answered as why.
pub(super) fn in_order(answers: &[naru_lab::Result<Answer>]) -> Vec<String> {
    let text = |answer: &naru_lab::Result<Answer>| match answer {
        Ok(answer) => answer.body.clone(),
        Err(error) => error.to_string(),
    };
    answers.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_every_machine_and_pod() {
        let nuc = Topology::nuc();
        let drawn = picture(&nuc);
        assert!(
            nuc.nodes
                .iter()
                .all(|node| drawn.contains(&node.address.to_string())),
            "{drawn}"
        );
        assert!(
            nuc.pods.iter().all(|pod| drawn.contains(&pod.name)),
            "{drawn}"
        );
    }
}
