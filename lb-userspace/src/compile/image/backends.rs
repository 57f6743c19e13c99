//! The entries of map `BACKENDS`, as they are looked for.

use imbl::{OrdMap, OrdSet};
use lb_common::{Backend, Frontend, config::MAX_BACKENDS};

use super::{place, spread};

/// The lowest index of a backend: 0 is none.
const FIRST_INDEX: u32 = 1;

/// Entries of map `BACKENDS`, by index and by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// By [`lb_common::BackendId::index`].
    all: OrdMap<u32, Backend>,
    /// The lowest index of each place where one is.
    places: OrdMap<Frontend, u32>,
    /// The others of such a place, which have been reached in another way; hardly ever any.
    further: OrdSet<(Frontend, u32)>,
    /// The indices of those that are dead.
    dead: OrdSet<u32>,
    /// How many indices from the lowest on have an entry without a gap.
    known: u32,
}

impl Backends {
    /// The one of this index.
    pub fn get(&self, index: u32) -> Option<&Backend> {
        self.all.get(&index)
    }

    /// All, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.all.values()
    }

    /// Those of this address, port and protocol, in the order of their indices.
    pub fn at(&self, place: Frontend) -> impl Iterator<Item = &Backend> {
        let first = self.places.get(&place).copied();
        let further = first
            .and_then(|_| self.further(place))
            .into_iter()
            .flatten();
        let there = first.into_iter().chain(further);
        there.filter_map(|index| self.get(index))
    }

    /// All, by index.
    pub fn by_index(&self) -> &OrdMap<u32, Backend> {
        &self.all
    }

    /// The indices of those that are dead, in ascending order.
    pub fn dead(&self) -> impl Iterator<Item = u32> {
        self.dead.iter().copied()
    }

    /// The indices that never were a backend's, in ascending order.
    pub fn unknown(&self) -> impl Iterator<Item = u32> {
        let indices = FIRST_INDEX + self.known..MAX_BACKENDS as u32;
        indices.filter(|index| !self.all.contains_key(index))
    }

    /// Puts one in the place of whichever had its index.
    pub fn insert(&mut self, backend: Backend) {
        let index = backend.id.index();
        let before = self.all.insert(index, backend);
        if let Some(before) = before.filter(|it| place(it) != place(&backend)) {
            self.leave(place(&before), index);
        }
        self.occupy(place(&backend), index);
        if backend.alive == 0 {
            self.dead.insert(index);
        } else if before.is_some_and(|before| before.alive == 0) {
            self.dead.remove(&index);
        }
        if before.is_none() {
            while self.all.contains_key(&(FIRST_INDEX + self.known)) {
                self.known += 1;
            }
        }
    }

    fn occupy(&mut self, place: Frontend, index: u32) {
        let first = self.places.get(&place).copied().unwrap_or(index);
        self.places.insert(place, first.min(index));
        if first != index {
            self.further.insert((place, first.max(index)));
        }
    }

    fn leave(&mut self, place: Frontend, index: u32) {
        if self.places.get(&place) != Some(&index) {
            self.further.remove(&(place, index));
            return;
        }
        match self.further(place).and_then(|mut it| it.next()) {
            Some(next) => {
                self.further.remove(&(place, next));
                self.places.insert(place, next);
            }
            None => drop(self.places.remove(&place)),
        }
    }

    fn further(&self, place: Frontend) -> Option<impl Iterator<Item = u32>> {
        let there = || self.further.range((place, 0)..=(place, u32::MAX));
        (!self.further.is_empty()).then(|| there().map(|(_, index)| *index))
    }
}

/// Of backends in the order of their indices, no two of which have the same.
impl FromIterator<Backend> for Backends {
    fn from_iter<I: IntoIterator<Item = Backend>>(backends: I) -> Self {
        let mut all = Self::default();
        spread(backends).for_each(|it| all.insert(it));
        all
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Addr, BackendId, Mode, Port};

    use super::*;

    #[test]
    fn backends_are_found_where_they_are_now() {
        let backend = |index, last, mode| {
            let (id, addr) = (
                BackendId::new(index, 0),
                Addr::from(std::net::Ipv4Addr::new(10, 0, 0, last)),
            );
            Backend::new(id, addr, Port::new(80), 6, mode)
        };
        let found = |all: &Backends, last| -> Vec<u32> {
            let there = all.at(place(&backend(0, last, Mode::Nat)));
            there.map(|it| it.id.index()).collect()
        };
        let mut all: Backends = [
            backend(7, 1, Mode::Nat),
            backend(3, 1, Mode::Local),
            backend(5, 2, Mode::Nat),
        ]
        .into_iter()
        .collect();
        assert_eq!((found(&all, 1), found(&all, 2)), (vec![3, 7], vec![5]));
        all.insert(backend(3, 2, Mode::Nat));
        assert_eq!((found(&all, 1), found(&all, 2)), (vec![7], vec![3, 5]));
        all.insert(backend(3, 2, Mode::Local));
        assert_eq!(found(&all, 2), [3, 5], "once");
        assert!(found(&all, 3).is_empty());
    }

    #[test]
    fn indices_that_nobody_had_are_told_from_those_of_dead_ones() {
        let addr = Addr::from(std::net::Ipv4Addr::LOCALHOST);
        let backend = |index, alive| {
            let id = BackendId::new(index, 0);
            let mut backend = Backend::new(id, addr, Port::new(80), 6, Mode::Nat);
            backend.alive = alive;
            backend
        };
        let mut all = Backends::default();
        let free = |all: &Backends| -> (Vec<u32>, Vec<u32>) {
            (all.dead().collect(), all.unknown().take(3).collect())
        };
        assert_eq!(free(&all), (vec![], vec![1, 2, 3]));
        for index in [1, 4, 2] {
            all.insert(backend(index, Backend::ALIVE));
        }
        assert_eq!(free(&all), (vec![], vec![3, 5, 6]));
        all.insert(backend(3, 0));
        assert_eq!(free(&all), (vec![3], vec![5, 6, 7]));
        all.insert(backend(1, 0));
        all.insert(backend(3, Backend::FAILED));
        assert_eq!(free(&all), (vec![1], vec![5, 6, 7]));
    }
}
