//! What is laid over the source before it is compiled: who is not healthy, whom the
//! operator has taken out.

use anyhow::Context;

use super::{
    drain::{self, Target},
    state::State,
};
use crate::{control::Drained, desired::Desired, health};

impl State {
    /// What the source wants, with the addresses that were given, less who is not healthy
    /// or on a lost node, and whom the operator has taken out.
    pub(super) fn effective(&self) -> Option<Desired> {
        let mut desired = self.addresses.assignment.as_ref()?.desired.clone();
        health::apply(&mut desired, &self.ledger);
        self.without_lost(&mut desired);
        drain::apply(&mut desired, &self.memory.drained);
        Some(desired)
    }

    /// Takes a backend out by hand, or back in.
    pub(super) async fn drain(&mut self, backend: &str, undo: bool) -> anyhow::Result<Drained> {
        let Ok(target) = backend.parse::<Target>();
        let mut memory = self.memory.clone();
        let target = if undo {
            for entry in target.taken_back(&memory.drained)? {
                memory.drained.remove(&entry);
            }
            target
        } else {
            let wanted = self.wanted.as_ref();
            let target = target.settle(wanted.context(
                "no valid configuration is in force, so backends are not known; see `naru status`",
            )?)?;
            memory.drained.insert(target.clone());
            target
        };
        if memory != self.memory {
            // Written first: what is in force must not be forgotten.
            memory.save(&self.options.state_dir)?;
            self.memory = memory;
            tracing::info!("{}: {target}", if undo { "taken back" } else { "drained" });
            self.reconcile().await;
            if self.wanted.is_some() && self.effective().as_ref() != Some(&self.desired) {
                anyhow::bail!("noted, but not in force yet: {}", self.failures.join("; "));
            }
        }
        let (backends, without) = drain::effect(&self.desired, &target);
        Ok(Drained {
            target: target.to_string(),
            undone: undo,
            backends,
            without,
        })
    }

    /// Who is drained and not there: what was forgotten would surprise later.
    pub(super) fn drained_and_gone(&self) -> impl Iterator<Item = String> {
        let gone = self.memory.drained.iter();
        let gone = gone.filter(|target| !target.is_known(&self.desired));
        gone.map(|target| {
            format!(
                "{target} is drained, but no such backend is there now: should it come back, it \
                 takes no new flows; forget it with `naru drain {target} --undo`"
            )
        })
    }
}
