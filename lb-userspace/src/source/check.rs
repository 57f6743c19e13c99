//! `naru check`: is a source valid, and what is there to know about it?

use std::fmt;

use super::{Outcome, Source};
use crate::{
    compile::{self, CompileError, image},
    desired::{Desired, Surroundings},
};

/// The answer of a check, for people.
#[derive(Clone, Debug)]
pub struct Report {
    /// What reading the source gave.
    pub outcome: Outcome,
    /// Why a valid source does not fit into the kernel's maps, if so.
    pub misfit: Option<CompileError>,
}

/// Reads `source` and compiles it as on an empty machine; the kernel is not touched.
pub fn check(source: &Source) -> Report {
    let outcome = source.load();
    let misfit = outcome.as_ref().ok().and_then(|loaded| {
        let nothing = image::InUse::default();
        compile::compile(&loaded.desired, &Surroundings::default(), &nothing).err()
    });
    Report { outcome, misfit }
}

impl Report {
    /// Whether the agent would take it.
    pub fn is_valid(&self) -> bool {
        self.outcome.is_ok() && self.misfit.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(loaded) => {
                for note in &loaded.notes {
                    writeln!(f, "note: {note}")?;
                }
                if let Some(misfit) = &self.misfit {
                    writeln!(f, "problem: {misfit}")?;
                    return writeln!(f, "refused: 1 problem");
                }
                summary(f, &loaded.desired)
            }
            Err(rejected) => {
                for problem in &rejected.problems {
                    writeln!(f, "problem: {problem}")?;
                }
                let n = rejected.problems.len();
                writeln!(f, "refused: {n} problem{}", plural(n))
            }
        }
    }
}

fn summary(f: &mut fmt::Formatter<'_>, desired: &Desired) -> fmt::Result {
    for (name, service) in &desired.services {
        let frontends: Vec<_> = service.frontends.iter().map(ToString::to_string).collect();
        let n = service.endpoints.len();
        writeln!(
            f,
            "{name}: {} → {n} endpoint{}, {}",
            frontends.join(", "),
            plural(n),
            service.algorithm
        )?;
    }
    let n = desired.services.len();
    writeln!(f, "valid: {n} service{}", plural(n))
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
