//! Maglev tables, and those that were built the last time.
//!
//! A table is a function of its endpoints with their weights, the seed and its size, and
//! takes longer to build than all else about a service. Which ones are at hand decides how
//! long compiling takes, never what comes of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use lb_common::maglev::{self, Cursor};

/// Maglev tables that need not be built again.
#[derive(Debug, Default)]
pub struct Tables {
    /// Those that a compile before this one has used.
    before: BTreeMap<Input, Turns>,
    /// Those that this one has.
    now: BTreeMap<Input, Turns>,
    /// Those that the last compile of a part has had to build.
    of_part: BTreeMap<Input, Turns>,
    is_part: bool,
}

/// By slot, whose it is among a service's endpoints.
pub(super) type Turns = Arc<[u32]>;

/// All that a table depends on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    /// By address.
    endpoints: Vec<(SocketAddr, u32)>,
    seed: u64,
    slots: u32,
}

impl Tables {
    /// Begins another compile: what the last one did not use is forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.before.append(&mut self.of_part);
        self.is_part = false;
    }

    /// Begins one that needs some of the tables only: all others stay at hand.
    pub(super) fn begin_part(&mut self) {
        self.of_part.clear();
        self.is_part = true;
    }

    /// The table of some endpoints with weights above 0, sorted by address.
    pub(super) fn of(&mut self, endpoints: Vec<(SocketAddr, u32)>, seed: u64, slots: u32) -> Turns {
        let input = Input {
            endpoints,
            seed,
            slots,
        };
        let found = self.now.get(&input).or_else(|| self.of_part.get(&input));
        if let Some(turns) = found {
            return Arc::clone(turns);
        }
        let known = self.before.remove(&input);
        let turns = known.unwrap_or_else(|| build(&input.endpoints, seed, slots));
        let known = match self.is_part {
            true => &mut self.of_part,
            false => &mut self.now,
        };
        known.insert(input, Arc::clone(&turns));
        turns
    }
}

/// Builds a table, the endpoints named by `address:port`, so that every node computes the
/// same.
fn build(endpoints: &[(SocketAddr, u32)], seed: u64, slots: u32) -> Turns {
    // The permutations need a prime of at least three; no other size comes this far.
    if endpoints.is_empty() || !maglev::LADDER.contains(&slots) {
        return Turns::default();
    }
    let mut cursors: Vec<_> = endpoints
        .iter()
        .map(|(addr, weight)| Cursor::new(addr.to_string().as_bytes(), *weight, seed, slots))
        .collect();
    let mut table = vec![maglev::EMPTY; slots as usize];
    maglev::populate(&mut table, &mut cursors);
    table.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_built_once_for_as_long_as_it_is_used() {
        let endpoints = |n: u8| -> Vec<(SocketAddr, u32)> {
            let addr = |i| SocketAddr::from(([10, 0, 0, i], 80));
            (1..=n).map(|i| (addr(i), 1 + u32::from(i % 2))).collect()
        };
        let mut tables = Tables::default();
        let mut compile = |wanted: &[(u8, u64)]| -> Vec<Turns> {
            tables.begin();
            let wanted = wanted.iter();
            wanted
                .map(|&(n, seed)| {
                    let table = tables.of(endpoints(n), seed, 1_021);
                    assert_eq!(table, build(&endpoints(n), seed, 1_021));
                    table
                })
                .collect()
        };
        let first = compile(&[(3, 1), (4, 1), (3, 1)]);
        assert!(Arc::ptr_eq(&first[0], &first[2]), "of two services");
        let second = compile(&[(3, 1), (3, 2)]);
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        assert_ne!(second[0], second[1], "another seed");
        let third = compile(&[(4, 1)]);
        assert!(!Arc::ptr_eq(&first[1], &third[0]), "it was not kept");
        let mut heavier = endpoints(4);
        heavier[0].1 = 9;
        let table = tables.of(heavier.clone(), 1, 1_021);
        assert_eq!(table, build(&heavier, 1, 1_021));
        assert_ne!(table, third[0], "another weight");
    }
}
