//! How long a Maglev table takes to build.

use std::hint::black_box;
use std::time::Instant;

use lb_common::maglev::{Cursor, DEFAULT_SLOTS, EMPTY, populate};

use super::report::row;
use crate::measure::cases::{Row, quantiles};

/// Tables of 65,537 slots for so many backends, each built so often.
pub(super) fn run(times: usize) -> Vec<Row> {
    [100, 1_000, 10_000]
        .map(|backends| {
            let row = one(backends, times);
            println!("  {}", row.line());
            row
        })
        .into()
}

fn one(backends: u32, times: usize) -> Row {
    let names: Vec<String> = (0..backends).map(|it| format!("backend-{it:05}")).collect();
    let mut table = vec![EMPTY; DEFAULT_SLOTS as usize];
    let mut build = || {
        let began = Instant::now();
        let cursors = names.iter();
        let cursors = cursors.map(|name| Cursor::new(name.as_bytes(), 1, 1, DEFAULT_SLOTS));
        populate(&mut table, &mut cursors.collect::<Vec<_>>());
        black_box(&table);
        began.elapsed().as_secs_f64() * 1e6
    };
    // The first one also pays for pages that are touched for the first time.
    build();
    let measured: Vec<f64> = (0..times).map(|_| build()).collect();
    row(format!("Maglev table, {backends} backends"))
        .with("slots", f64::from(DEFAULT_SLOTS))
        .with("backends_each", f64::from(backends))
        .with_all(quantiles(&measured))
}
