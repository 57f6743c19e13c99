//! The live table: what the agent counts, a second at a time.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use naru_lab::{Agent, Catch, Load};
use serde_json::Value;

use super::report::table;

const COUNTERS: [&str; 4] = ["packets_in", "bytes_in", "packets_out", "bytes_out"];
const RATES: [&str; 4] = ["packets/s in", "bytes/s in", "packets/s out", "bytes/s out"];

/// Redraws services and backends each second, until Ctrl-C.
pub(super) fn show(agent: &Agent, load: &Load, until: &Catch) -> anyhow::Result<()> {
    let mut before = Counts::default();
    loop {
        let services = agent.json(&["services"])?;
        let backends = agent.json(&["backends"])?;
        let now = Counts::of(&services, &backends);
        let tally = load.tally();
        let shown = [
            "naru, live — Ctrl-C ends\n".to_owned(),
            draw(
                &services,
                &["name", "frontends", "algorithm", "backends", "flows"],
                &now,
                &before,
            ),
            draw(
                &backends,
                &["name", "address", "node", "mode", "condition"],
                &now,
                &before,
            ),
            format!(
                "requests of the client: {} answered, {} failed",
                tally.ok, tally.failed
            ),
        ];
        // Home, then clear what is below: less flicker than clearing first.
        println!("\x1b[H\x1b[J{}", shown.join("\n"));
        std::io::stdout().flush()?;
        before = now;
        if until.wait(Duration::from_secs(1)) {
            println!();
            return Ok(());
        }
    }
}

/// The counters of everything, by name.
struct Counts {
    at: Instant,
    of: HashMap<String, [u64; 4]>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            of: HashMap::new(),
        }
    }
}

impl Counts {
    fn of(services: &Value, backends: &Value) -> Self {
        let of = rows(services).chain(rows(backends)).map(|row| {
            (
                key(row),
                COUNTERS.map(|name| row[name].as_u64().unwrap_or(0)),
            )
        });
        Self {
            at: Instant::now(),
            of: of.collect(),
        }
    }

    /// What came in since, by the second.
    fn rates(&self, before: &Self, key: &str) -> Option<[f64; 4]> {
        let (now, then) = (self.of.get(key)?, before.of.get(key)?);
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        Some(std::array::from_fn(|index| {
            now[index].saturating_sub(then[index]) as f64 / seconds
        }))
    }
}

fn draw(listed: &Value, fields: &[&str], now: &Counts, before: &Counts) -> String {
    let mut shown = table(&[fields, &RATES].concat());
    for row in rows(listed) {
        let mut cells: Vec<String> = fields.iter().map(|field| text(&row[*field])).collect();
        let rates = now.rates(before, &key(row)).unwrap_or_default();
        cells.extend(rates.map(|rate| format!("{rate:.0}")));
        shown.add_row(cells);
    }
    shown.to_string()
}

fn rows(listed: &Value) -> impl Iterator<Item = &Value> {
    listed.as_array().into_iter().flatten()
}

/// A service has no address of its own, a backend has; a pod may be in two services.
fn key(row: &Value) -> String {
    ["service", "name", "address"]
        .map(|field| text(&row[field]))
        .join(" ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
