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
        tally: style.into(),
        took: started.elapsed(),
    };
    let started = Instant::now();
    let unit = Tier::Unit.run(&[]).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        Count::FAILED.into()
    });
    let unit = Line {
        name: "unit",
        tally: unit,
        took: started.elapsed(),
    };
    Ok(test::account(&[style, unit]))
}
