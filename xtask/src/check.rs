//! `cargo xtask check`: the fast inner loop.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{
    setup::{self, Need},
    test::{self, Count, Line, Tier, lint},
};

/// Format and clippy, then the unit tests, with the same account as `test` gives.
pub(crate) fn run() -> Result<ExitCode> {
    let needs = [Need::Build, Need::Style];
    setup::quietly(&needs)?.demand(&needs)?;
    let started = Instant::now();
    let style = lint::style();
    let style = Line {
        name: "style",
        count: style,
        took: started.elapsed(),
    };
    let started = Instant::now();
    let unit = Tier::Unit.run(&[]).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        Count::FAILED
    });
    let unit = Line {
        name: "unit",
        count: unit,
        took: started.elapsed(),
    };
    Ok(test::account(&[style, unit]))
}
