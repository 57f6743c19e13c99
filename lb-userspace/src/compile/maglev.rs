//! Maglev tables, and those that were built the last time.
//!
//! A table is a function of its endpoints with their weights, the seed and its size, and
//! takes longer to build than all else about a service. Which ones are at hand decides how
//! long compiling takes, never what comes of it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::maglev::{self, Cursor};

/// Maglev tables that need not be built again.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Those that are at hand.
    known: BTreeMap<Input, Turns>,
    /// The one that each service has, by its table's index.
    used: BTreeMap<u32, Turns>,
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
    /// Begins a compile of all services: none has a table yet, and those of before are at hand.
    pub(super) fn begin(&mut self) {
        self.begin_part();
        self.used.clear();
    }

    /// Begins one of some services: the others keep theirs. What nobody has is forgotten.
    pub(super) fn begin_part(&mut self) {
        // One reference is the map's own.
        self.known.retain(|_, turns| Arc::strong_count(turns) > 1);
    }

    /// The table of some endpoints with weights above 0, sorted by address, for the service whose
    /// table has this index.
    pub(super) fn of(
        &mut self,
        index: u32,
        endpoints: Vec<(SocketAddr, u32)>,
        seed: u64,
        slots: u32,
    ) -> Turns {
        let input = Input {
            endpoints,
            seed,
            slots,
        };
        let turns = match self.known.entry(input) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let Input {
                    endpoints,
                    seed,
                    slots,
                } = entry.key();
                let turns = build(endpoints, *seed, *slots);
                Arc::clone(entry.insert(turns))
            }
        };
        self.used.insert(index, Arc::clone(&turns));
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

    fn endpoints(n: u8) -> Vec<(SocketAddr, u32)> {
        let addr = |i| SocketAddr::from(([10, 0, 0, i], 80));
        (1..=n).map(|i| (addr(i), 1 + u32::from(i % 2))).collect()
    }

    /// Has tables for services of so many endpoints, each with its seed.
    fn have(tables: &mut Tables, wanted: &[(u32, u8, u64)]) -> Vec<Turns> {
        let wanted = wanted.iter();
        wanted
            .map(|&(index, n, seed)| {
                let table = tables.of(index, endpoints(n), seed, 1_021);
                assert_eq!(table, build(&endpoints(n), seed, 1_021));
                table
            })
            .collect()
    }

    /// By where they are, as no test is to keep one alive.
    fn places(tables: &[Turns]) -> Vec<*const u32> {
        tables.iter().map(|it| it.as_ptr()).collect()
    }

    #[test]
    fn a_table_is_built_once_for_as_long_as_it_is_used() {
        let mut tables = Tables::default();
        let mut compile = |wanted: &[(u32, u8, u64)]| {
            tables.begin();
            places(&have(&mut tables, wanted))
        };
        let first = compile(&[(0, 3, 1), (1, 4, 1), (2, 3, 1)]);
        assert_eq!(first[0], first[2], "of two services");
        let second = compile(&[(0, 3, 1), (1, 3, 2)]);
        assert_eq!(first[0], second[0]);
        assert_ne!(second[0], second[1], "another seed");
        compile(&[]);
        compile(&[]);
        assert!(tables.known.is_empty(), "nobody has any");
    }

    #[test]
    fn where_some_services_are_compiled_the_others_keep_their_tables_and_no_others_stay() {
        let mut tables = Tables::default();
        tables.begin();
        let whole = places(&have(&mut tables, &[(0, 3, 1), (1, 4, 1)]));
        // Of one service, again and again.
        for n in 5..9 {
            tables.begin_part();
            have(&mut tables, &[(1, n, 1)]);
        }
        tables.begin_part();
        assert_eq!(tables.known.len(), 2);
        let last = places(&have(&mut tables, &[(1, 8, 1)]));
        tables.begin();
        let again = places(&have(&mut tables, &[(0, 3, 1), (1, 8, 1)]));
        assert_eq!(again, [whole[0], last[0]], "nothing is built");
    }

    #[test]
    fn another_weight_is_another_table() {
        let mut tables = Tables::default();
        let light = have(&mut tables, &[(0, 4, 1)]);
        let mut heavier = endpoints(4);
        heavier[0].1 = 9;
        let table = tables.of(0, heavier.clone(), 1, 1_021);
        assert_eq!(table, build(&heavier, 1, 1_021));
        assert_ne!(table, light[0]);
    }
}
