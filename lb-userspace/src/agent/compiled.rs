//! What was compiled, of what, and what there was no room for.

use std::time::{Duration, Instant};

use super::state::State;
use crate::{
    compile::{self, CompileError, Fit, image::MapImage},
    desired::{Desired, Surroundings},
    source::Source,
};

/// After so long what had no room is tried again: what was given up has rested by then.
const AGAIN: Duration = Duration::from_secs(10);

/// What was compiled, and when.
pub(super) struct Compiled {
    wanted: Desired,
    pub(super) surroundings: Surroundings,
    /// As much of it as there was room for.
    pub(super) fit: Fit,
    since: Instant,
}

impl Compiled {
    pub(super) fn now(wanted: Desired, surroundings: Surroundings, fit: Fit) -> Self {
        Self {
            wanted,
            surroundings,
            fit,
            since: Instant::now(),
        }
    }
}

impl State {
    /// Whether that is what is in force.
    pub(super) fn is_compiled(&self, wanted: &Desired, surroundings: &Surroundings) -> bool {
        let same = |it: &Compiled| it.wanted == *wanted && it.surroundings == *surroundings;
        self.compiled.as_ref().is_some_and(same)
    }

    /// Of what a cluster wants as much as there is room for, since it has many authors; else all or
    /// nothing.
    pub(super) fn compile(
        &mut self,
        before: Option<&Compiled>,
        wanted: &Desired,
        surroundings: &Surroundings,
    ) -> Result<(MapImage, Fit), CompileError> {
        let in_use = self.datapath.in_use();
        let before = before.map(|it| ((&it.fit, &it.surroundings), &self.image));
        let now = (wanted, surroundings);
        if matches!(self.options.source, Source::Cluster(_)) {
            let (image, fit) = compile::compile_fitting(before, now, &in_use, &mut self.tables)?;
            for (name, what) in &fit.lacking {
                if self.lacking.get(name) != Some(what) {
                    tracing::warn!("{what}");
                }
            }
            self.lacking.clone_from(&fit.lacking);
            return Ok((image, fit));
        }
        let image = match before {
            Some(((fit, around), image)) => {
                let before = ((&fit.desired, around), image);
                compile::compile_again(before, now, &in_use, &mut self.tables)?
            }
            None => compile::compile_with(wanted, surroundings, &in_use, &mut self.tables)?,
        };
        Ok((image, Fit::whole(wanted)))
    }

    /// Whether there may be room by now for what had none; all is compiled anew then.
    pub(super) fn may_have_room(&mut self) -> bool {
        let lacks = |it: &mut Compiled| !it.fit.lacking.is_empty() && it.since.elapsed() > AGAIN;
        self.compiled.take_if(lacks).is_some()
    }
}
