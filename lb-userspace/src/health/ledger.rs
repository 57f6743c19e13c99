//! Who is healthy: counts what the checks find. No I/O; the time is passed in.

use std::{collections::BTreeMap, time::Instant};

use super::Key;
use crate::desired::{Desired, HealthCheck};

/// The state of every endpoint that is checked.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Key, Vitals>,
}

/// The state of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Whether it takes new flows. One that nothing is known of does, until its first
    /// check fails.
    pub healthy: bool,
    /// Whether it was ever checked, by this agent or the one before it.
    pub proven: bool,
    /// Since when.
    pub since: Instant,
    /// Why the last check failed; none where it succeeded.
    pub error: Option<String>,
    /// Checks in a row that speak against the state.
    against: u32,
}

// === impl Ledger ===

impl Ledger {
    /// Keeps an entry for each of the endpoints that `desired` wants checked, and for no
    /// other. `remembered` is what an earlier agent knew of those that are new.
    pub fn follow(
        &mut self,
        desired: &Desired,
        remembered: impl Fn(&Key) -> Option<bool>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.entries);
        for (key, _) in super::wanted(desired) {
            let vitals = before
                .remove(&key)
                .unwrap_or_else(|| Vitals::new(remembered(&key), now));
            self.entries.insert(key, vitals);
        }
    }

    /// Counts the outcome of a check. True where the endpoint's state is another now, or
    /// is known for the first time.
    pub fn note(
        &mut self,
        key: &Key,
        check: &HealthCheck,
        outcome: Result<(), String>,
        now: Instant,
    ) -> bool {
        let vitals = self.entries.get_mut(key);
        vitals.is_some_and(|vitals| vitals.note(check, outcome, now))
    }

    /// The endpoints that take no new flows.
    pub fn unhealthy(&self) -> impl Iterator<Item = &Key> {
        let all = self.entries.iter();
        all.filter(|(_, vitals)| !vitals.healthy)
            .map(|(key, _)| key)
    }

    /// Every endpoint that was checked, and whether it is healthy.
    pub fn proven(&self) -> impl Iterator<Item = (&Key, bool)> {
        let all = self.entries.iter().filter(|(_, vitals)| vitals.proven);
        all.map(|(key, vitals)| (key, vitals.healthy))
    }

    /// The state of an endpoint; none where it is not checked.
    pub fn get(&self, key: &Key) -> Option<&Vitals> {
        self.entries.get(key)
    }
}

// === impl Vitals ===

impl Vitals {
    fn new(remembered: Option<bool>, now: Instant) -> Self {
        Self {
            healthy: remembered.unwrap_or(true),
            proven: remembered.is_some(),
            since: now,
            error: None,
            against: 0,
        }
    }

    fn note(&mut self, check: &HealthCheck, outcome: Result<(), String>, now: Instant) -> bool {
        let good = outcome.is_ok();
        self.error = outcome.err();
        let first = !std::mem::replace(&mut self.proven, true);
        if good == self.healthy {
            self.against = 0;
            return first;
        }
        self.against = self.against.saturating_add(1);
        // Nothing speaks for one that was never seen to live.
        let enough = match self.healthy {
            true if first => 1,
            true => check.fall,
            false => check.rise,
        };
        if self.against < enough {
            return first;
        }
        *self = Self {
            healthy: good,
            since: now,
            against: 0,
            ..self.clone()
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rise: u32, fall: u32) -> HealthCheck {
        HealthCheck {
            rise,
            fall,
            ..HealthCheck::default()
        }
    }

    fn outcome(good: bool) -> Result<(), String> {
        good.then_some(()).ok_or_else(|| "refused".to_owned())
    }

    /// The states after each outcome, `+` healthy.
    fn states(remembered: Option<bool>, check: &HealthCheck, outcomes: &str) -> String {
        let mut vitals = Vitals::new(remembered, Instant::now());
        let mut states = String::new();
        for letter in outcomes.chars() {
            vitals.note(check, outcome(letter == '+'), Instant::now());
            states.push(if vitals.healthy { '+' } else { '-' });
        }
        states
    }

    #[test]
    fn it_falls_and_rises_after_so_many_in_a_row() {
        let check = check(2, 3);
        assert_eq!(states(Some(true), &check, "--+---++"), "+++++--+");
        assert_eq!(states(Some(true), &check, "---+-+++-"), "++----+++");
        assert_eq!(states(Some(false), &check, "+-+++"), "---++");
        // The first look at somebody new decides at once.
        assert_eq!(states(None, &check, "-+++"), "--++");
        assert_eq!(states(None, &check, "+---"), "+++-");
    }

    proptest! {
        #[test]
        fn a_state_changes_exactly_when_a_run_against_it_is_complete(
            rise in 1_u32..5,
            fall in 1_u32..5,
            outcomes in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let check = check(rise, fall);
            let mut vitals = Vitals::new(Some(true), Instant::now());
            let mut last_change = 0;
            for (i, &good) in outcomes.iter().enumerate() {
                let before = vitals.healthy;
                let changed = vitals.note(&check, outcome(good), Instant::now());
                prop_assert_eq!(changed, before != vitals.healthy);
                prop_assert_eq!(vitals.error.is_none(), good);
                let needed = if before { fall } else { rise } as usize;
                let run = outcomes[last_change..=i].iter().rev();
                let run = run.take_while(|&&other| other != before).count();
                prop_assert_eq!(changed, run >= needed);
                if changed {
                    last_change = i + 1;
                }
            }
        }
    }
}
