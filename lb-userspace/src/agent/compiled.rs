//! What was compiled, of what, and what there was no room for.

use std::time::{Duration, Instant};

use super::state::State;
use crate::{
    compile::{self, CompileError, Fit, image::MapImage},
    desired::{Desired, Surroundings},
    source::Source,
};

/// After so long what had no room is tried again: what was given up has rested by then.
const AGAIN: Duration = Duration::from_secs(60);

/// What was compiled.
pub(super) struct Compiled {
    pub(super) surroundings: Surroundings,
    /// As much of it as there was room for.
    pub(super) fit: Fit,
    /// When it was looked for last what has room.
    tried: Instant,
}

impl State {
    /// Whether that is what is in force.
    pub(super) fn is_compiled(&self, wanted: &Desired, surroundings: &Surroundings) -> bool {
        let same = |it: &Compiled| it.fit.wanted == *wanted && it.surroundings == *surroundings;
        self.compiled.as_ref().is_some_and(same)
    }

    /// Whether endpoints are others than in what is in force, and nothing else is.
    pub(super) fn differs_by_endpoints(
        &self,
        wanted: &Desired,
        surroundings: &Surroundings,
    ) -> bool {
        self.compiled.as_ref().is_some_and(|it| {
            it.surroundings.is_but_for_endpoints(surroundings)
                && wanted
                    .endpoint_changes(&it.fit.wanted)
                    .is_some_and(|it| !it.is_empty())
        })
    }

    /// Of what a cluster wants as much as there is room for, since it has many authors; else all or
    /// nothing.
    pub(super) fn compile(
        &mut self,
        wanted: &Desired,
        surroundings: Surroundings,
    ) -> Result<(MapImage, Compiled), CompileError> {
        // Where applying fails, what is in use is neither this nor what was before.
        let before = self.compiled.take();
        let tried = before.as_ref().map(|it| it.tried);
        let in_use = self.datapath.in_use();
        let before = before
            .as_ref()
            .map(|it| ((&it.fit, &it.surroundings), &self.image));
        let now = (wanted, &surroundings);
        let (image, fit) = if matches!(self.options.source, Source::Cluster(_)) {
            compile::compile_fitting(before, now, &in_use, &mut self.memo)?
        } else {
            let image = match before {
                Some(((fit, around), image)) => {
                    let before = ((&fit.desired, around), image);
                    compile::compile_again(before, now, &in_use, &mut self.memo)?
                }
                None => compile::compile_with(wanted, &surroundings, &in_use, &mut self.memo)?,
            };
            (image, Fit::whole(wanted))
        };
        for (name, lack) in &fit.lacking {
            if self.lacking.get(name) != Some(&lack.what) {
                tracing::warn!("{}", lack.what);
            }
        }
        let lacking = fit.lacking.iter();
        self.lacking = lacking
            .map(|(name, lack)| (name.clone(), lack.what.clone()))
            .collect();
        let tried = tried.filter(|_| fit.carried).unwrap_or_else(Instant::now);
        let compiled = Compiled {
            surroundings,
            fit,
            tried,
        };
        Ok((image, compiled))
    }

    /// Whether there may be room by now for what had none; all is compiled anew then.
    pub(super) fn may_have_room(&mut self) -> bool {
        let lacks = |it: &mut Compiled| !it.fit.lacking.is_empty() && it.tried.elapsed() > AGAIN;
        self.compiled.take_if(lacks).is_some()
    }
}
