//! The order of a service's slots, and the room that all slots share.

use std::collections::BTreeMap;

use lb_common::{Algorithm, config::MAX_SLOTS};

use super::{
    image::InUse,
    maglev::{Tables, Turns},
    parts::{Located, Part},
};
use crate::desired::{Condition, Surroundings};

/// Length of a round-robin table beyond which weights are scaled down.
///
/// Services of very many endpoints may have more: four slots for each.
pub(super) const ROUND_ROBIN_SLOTS: u64 = 4_096;

/// Whose turn it is among the chosen endpoints, by slot of a part's table, which has this index.
pub(super) fn order(
    (part, index): (&Part<'_>, u32),
    chosen: &[&Located<'_>],
    surroundings: &Surroundings,
    tables: &mut Tables,
) -> Turns {
    match part.service.algorithm {
        Algorithm::RoundRobin => {
            let weights: Vec<_> = chosen.iter().map(|it| it.endpoint.weight).collect();
            turns(&weights)
                .into_iter()
                .map(|turn| turn as u32)
                .collect()
        }
        Algorithm::Maglev => {
            let weighted = chosen.iter().map(|it| (it.addr, it.endpoint.weight));
            let (seed, slots) = (surroundings.seed, part.service.maglev_slots);
            tables.of(index, weighted.collect(), seed, slots)
        }
    }
}

/// The endpoints that take new flows, with weights above 0, by address.
///
/// Where none is ready, those that terminate but still serve take them, as
/// kube-proxy has it: a rollout's last pods rather than a refusal. Under the policy
/// Local that goes for the endpoints of this node.
pub(super) fn chosen<'a>(part: &'a Part<'_>) -> Vec<&'a Located<'a>> {
    let of = |condition: Condition| -> Vec<_> {
        part.admitted()
            .filter(|it| it.endpoint.condition == condition && it.endpoint.weight > 0)
            .collect()
    };
    let ready = of(Condition::Ready);
    if ready.is_empty() {
        of(Condition::Draining)
    } else {
        ready
    }
}

/// Whose turn it is, over one round: smooth weighted round robin, as nginx has it.
///
/// In every turn each gains its weight, the richest is taken (the first of equals)
/// and pays the sum. Equal weights give plain turns in order.
pub(super) fn turns(weights: &[u32]) -> Vec<usize> {
    let weights = scaled(weights);
    let sum: i64 = weights.iter().sum();
    if sum == weights.len() as i64 {
        return (0..weights.len()).collect();
    }
    let mut credit = vec![0; weights.len()];
    let mut turns = Vec::with_capacity(sum as usize);
    for _ in 0..sum {
        let mut richest = 0;
        for (i, weight) in weights.iter().enumerate() {
            credit[i] += weight;
            if credit[i] > credit[richest] {
                richest = i;
            }
        }
        credit[richest] -= sum;
        turns.push(richest);
    }
    turns
}

/// The weights in lowest terms, scaled down where their sum would be too long a table.
fn scaled(weights: &[u32]) -> Vec<i64> {
    let n = weights.len() as u64;
    let reduced = reduce(weights.iter().copied().map(u64::from).collect());
    let sum: u64 = reduced.iter().sum();
    let limit = ROUND_ROBIN_SLOTS.max(4 * n);
    let fitting = if sum > limit {
        // One slot for each is set aside, so that none comes to nothing.
        let spare = limit - n;
        reduce(
            reduced
                .iter()
                .map(|weight| 1 + weight * spare / sum)
                .collect(),
        )
    } else {
        reduced
    };
    fitting.into_iter().map(|weight| weight as i64).collect()
}

/// Divides by the greatest common divisor.
fn reduce(mut weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd);
    if divisor > 1 {
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
    weights
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The slots that no table occupies, as gaps: length by first slot.
pub(super) struct Space(BTreeMap<u32, u32>);

impl Space {
    /// What is left beside all tables in use, also those that are about to go, and
    /// beside the ranges that rest.
    pub(super) fn new(in_use: &InUse) -> Self {
        let tables = in_use.services.values();
        let mut occupied: Vec<(u32, u32)> = tables
            .map(|table| (table.offset(), table.len()))
            .chain(
                in_use
                    .resting_slots
                    .iter()
                    .map(|(&first, &len)| (first, len)),
            )
            .filter(|&(_, len)| len > 0)
            .collect();
        occupied.sort_unstable();
        let mut gaps = BTreeMap::new();
        let mut end = 0_u32;
        for (first, len) in occupied {
            if first > end {
                gaps.insert(end, first - end);
            }
            end = end.max(first.saturating_add(len));
        }
        let all = MAX_SLOTS as u32;
        if end < all {
            gaps.insert(end, all - end);
        }
        Self(gaps)
    }

    /// Takes `len` slots from the first gap that has as many.
    pub(super) fn take(&mut self, len: u32) -> Option<u32> {
        let (&first, &room) = self.0.iter().find(|&(_, &room)| room >= len)?;
        self.0.remove(&first);
        if room > len {
            self.0.insert(first + len, room - len);
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letters(weights: &[u32]) -> String {
        let letter = |turn: usize| char::from(b'a' + turn as u8);
        turns(weights).into_iter().map(letter).collect()
    }

    #[test]
    fn the_order_is_the_one_that_is_promised() {
        assert_eq!(letters(&[1, 1, 1, 1, 1]), "abcde");
        assert_eq!(letters(&[7, 7, 7]), "abc");
        assert_eq!(letters(&[5, 1, 1]), "aabacaa");
        assert_eq!(letters(&[3, 1]), "aaba");
        assert_eq!(letters(&[4, 2]), "aba");
        assert_eq!(letters(&[9]), "a");
        assert_eq!(letters(&[]), "");
    }

    #[test]
    fn heavy_weights_are_scaled_and_none_is_lost() {
        let turns = turns(&[1_000, 999, 997, 991, 983, 977, 1]);
        assert!(turns.len() <= ROUND_ROBIN_SLOTS as usize, "{}", turns.len());
        let count = |i| turns.iter().filter(|&&turn| turn == i).count() as f64;
        let ratio = count(0) / count(5);
        assert!((ratio - 1_000.0 / 977.0).abs() < 0.01, "{ratio}");
        assert!(count(6) >= 1.0);
    }

    proptest! {
        #[test]
        fn every_weight_is_served_exactly_and_evenly(
            weights in prop::collection::vec(1_u32..40, 1..20)
        ) {
            let turns = turns(&weights);
            let sum: u32 = weights.iter().sum();
            // One round is the shortest that can hold the ratios exactly.
            let shortest = (1..=sum)
                .find(|&n| weights.iter().all(|w| (w * n) % sum == 0))
                .expect("sum itself");
            prop_assert_eq!(turns.len() as u32, shortest);
            let mut served = vec![0_u32; weights.len()];
            for (before, &turn) in (1_u32..).zip(&turns) {
                served[turn] += 1;
                // Nobody is ever a whole turn ahead of what is due.
                let due = f64::from(before) * f64::from(weights[turn]) / f64::from(sum);
                prop_assert!(f64::from(served[turn]) < due + 1.0);
            }
            for (i, weight) in weights.iter().enumerate() {
                prop_assert_eq!(served[i] * sum, weight * shortest);
            }
        }

        #[test]
        fn of_two_the_heavier_never_waits_for_two_turns(
            heavy in 20_u32..60,
            light in 1_u32..20,
        ) {
            // Of more than two it may: smooth turns bound how early one comes, not
            // how late.
            for weights in [[heavy, light], [light, heavy]] {
                let heavier = usize::from(weights[0] < weights[1]);
                let turns = turns(&weights);
                for pair in turns.windows(2) {
                    prop_assert!(pair.contains(&heavier), "{pair:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn no_gap_is_given_twice(lens in prop::collection::vec(1_u32..70_000, 1..60)) {
            let mut space = Space::new(&InUse::default());
            let mut owners: Vec<Option<usize>> = vec![None; MAX_SLOTS];
            for (i, len) in lens.into_iter().enumerate() {
                let Some(first) = space.take(len) else { continue };
                for slot in &mut owners[first as usize..(first + len) as usize] {
                    prop_assert_eq!(slot.replace(i), None);
                }
            }
        }
    }
}
