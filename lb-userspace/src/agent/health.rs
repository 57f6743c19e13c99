//! The health checks as the agent's state has them.

use std::{collections::BTreeMap, time::Instant};

use super::{memory::Remembered, state::State};
use crate::{desired::Desired, health::Observation};

impl State {
    /// Checks whom `desired` wants checked, and forgets the others.
    pub(super) fn follow_health(&mut self, desired: &Desired) {
        let remembered = self.memory.health.iter();
        let remembered: BTreeMap<_, _> = remembered
            .map(|it| ((it.service.clone(), it.endpoint), it.healthy))
            .collect();
        let now = Instant::now();
        self.ledger
            .follow(desired, |key| remembered.get(key).copied(), now);
        self.checker.follow(desired);
        self.remember_health();
    }

    /// Counts what the checks have found, and brings it into force where it matters.
    pub(super) async fn observed(&mut self, found: Vec<Observation>) {
        let (mut known, mut changed) = (false, false);
        for observation in found {
            // Of a check that was given up since.
            let Some(check) = self.checker.check(&observation) else {
                continue;
            };
            let key = observation.key;
            let before = self.ledger.get(&key).is_some_and(|it| it.healthy);
            known |= self
                .ledger
                .note(&key, check, observation.outcome, Instant::now());
            let Some(vitals) = self.ledger.get(&key) else {
                continue;
            };
            if vitals.healthy != before {
                changed = true;
                let (service, endpoint) = &key;
                match &vitals.error {
                    None => tracing::info!("{service}: {endpoint} is healthy again"),
                    Some(error) => tracing::warn!("{service}: {endpoint} is unhealthy: {error}"),
                }
            }
        }
        if changed {
            self.reconcile().await;
        }
        if known {
            self.remember_health();
        }
    }

    /// Writes down who is healthy, for the next agent. Without it that one finds out.
    fn remember_health(&mut self) {
        let health = self.ledger.proven();
        let health: Vec<_> = health
            .map(|((service, endpoint), healthy)| Remembered {
                service: service.clone(),
                endpoint: *endpoint,
                healthy,
            })
            .collect();
        if health != self.memory.health {
            self.memory.health = health;
            if let Err(error) = self.memory.save(&self.options.state_dir) {
                tracing::warn!("the next agent will not know who is healthy: {error}");
            }
        }
    }
}
