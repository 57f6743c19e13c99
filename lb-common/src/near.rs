//! Frontends where one load finds most of them.

use crate::{Entry, Frontend, hash::addr_and_number_hash};

/// Entry of map `NEAR_FRONTENDS` (index: [`Place::index`]), four words: a frontend and what
/// `FRONTENDS` says of it. Of several at one place the first one stands there, and the others are
/// in `FRONTENDS` alone.
///
/// Word 0 is the [`Entry`] (bits 0–31), the tag of whose it is (32–62), and whether others have the
/// same place (63); 0 where nobody stands. Words 1–3 are [`Place::key`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearFrontend(pub [u64; 4]);

/// Where a frontend is looked for, and what stands there if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in map `NEAR_FRONTENDS`.
    pub index: u32,
    /// Never 0. While a place changes hands its key may be another frontend's than its entry; a
    /// tag stands in one word with the entry that is of it.
    tag: u32,
    /// The address, and the port in bits 0–15 and the protocol in 16–23 of the last word.
    key: [u64; 3],
}

/// What there is at a place for the frontend that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its entry.
    Entry(Entry),
    /// Others; it may be in `FRONTENDS` alone.
    Shared,
    /// Nothing: there is no such frontend.
    Nothing,
}

const SHARED: u64 = 1 << 63;

impl Place {
    /// The place of a frontend.
    #[inline(always)]
    pub const fn new(frontend: &Frontend) -> Self {
        let [a, b, c, d] = frontend.addr.words();
        let rest = frontend.port.word() as u64 | (frontend.protocol as u64) << 16;
        let hash = addr_and_number_hash(&frontend.addr, rest);
        Self {
            index: (hash >> 50) as u32,
            tag: (hash >> 18) as u32 >> 1 | 1,
            key: [
                a as u64 | (b as u64) << 32,
                c as u64 | (d as u64) << 32,
                rest,
            ],
        }
    }
}

impl NearFrontend {
    /// Entries of the map.
    pub const LEN: usize = 1 << 14;
    /// Words of 8 bytes in all of them.
    pub const WORDS: usize = Self::LEN * size_of::<Self>() / size_of::<u64>();

    /// What stands here for the frontend with this place.
    #[inline(always)]
    pub const fn find(self, place: &Place) -> Found {
        let Self([lead, a, b, c]) = self;
        let key = place.key;
        if (lead & !SHARED) >> 32 == place.tag as u64 && a == key[0] && b == key[1] && c == key[2] {
            Found::Entry(Entry(lead as u32))
        } else if lead & SHARED != 0 {
            Found::Shared
        } else {
            Found::Nothing
        }
    }

    /// Puts a frontend here, whose place this is; where another one stands, only that there are
    /// several.
    pub const fn add(&mut self, place: &Place, entry: Entry) {
        if self.0[0] == 0 {
            let [a, b, c] = place.key;
            self.0 = [(place.tag as u64) << 32 | entry.0 as u64, a, b, c];
        } else {
            self.0[0] |= SHARED;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{Ipv4Addr, Ipv6Addr},
    };

    use super::*;
    use crate::Port;

    fn frontend(host: u32, port: u16) -> Frontend {
        let addr = Ipv4Addr::from(0xc0a8_3800 + host).into();
        Frontend::new(addr, Port::new(port), 6)
    }

    fn frontend6(network: u16, host: u16, port: u16) -> Frontend {
        let addr = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into();
        Frontend::new(addr, Port::new(port), 6)
    }

    #[test]
    fn neighbouring_frontends_have_places_of_their_own() {
        let mut table = vec![NearFrontend::default(); NearFrontend::LEN];
        let ports = [80, 443, 8080, 8443];
        let v4 = (0..100).flat_map(|host| ports.map(|port| frontend(host, port)));
        let v6 = (0..100).flat_map(|host| [1, 2, 0x100].map(|net| frontend6(net, host, 443)));
        let all: Vec<_> = v4.chain(v6).collect();
        for (service, frontend) in all.iter().enumerate() {
            let place = Place::new(frontend);
            table[place.index as usize].add(&place, Entry::new(service as u32, false));
        }
        let tags: BTreeSet<_> = all
            .iter()
            .map(Place::new)
            .map(|it| (it.index, it.tag))
            .collect();
        assert_eq!(tags.len(), 700, "what shares a place has other tags");
        let mut shared = 0;
        for (service, frontend) in all.iter().enumerate() {
            let place = Place::new(frontend);
            match table[place.index as usize].find(&place) {
                Found::Entry(entry) => assert_eq!(entry.service(), service as u32),
                Found::Shared => shared += 1,
                Found::Nothing => panic!("{frontend:?} is nowhere"),
            }
        }
        // Fifteen are to be expected of 700 in 16,384 places.
        assert!(shared < 35, "{shared} of 700 share a place");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let (here, place) = (frontend(1, 80), Place::new(&frontend(1, 80)));
        let mut near = NearFrontend::default();
        assert_eq!(near.find(&place), Found::Nothing);
        near.add(&place, Entry::new(7, false));
        assert_eq!(near.find(&place), Found::Entry(Entry::new(7, false)));
        let other = Place {
            index: place.index,
            ..Place::new(&frontend(1, 81))
        };
        assert_eq!(near.find(&other), Found::Nothing);
        let mut same_tag = place;
        same_tag.key[2] += 1;
        assert_eq!(near.find(&same_tag), Found::Nothing, "{here:?}");
        near.add(&other, Entry::new(8, false));
        assert_eq!(near.find(&other), Found::Shared);
        let stays = near.find(&place);
        assert_eq!(stays, Found::Entry(Entry::new(7, false)));
    }

    #[test]
    fn a_key_that_is_half_another_ones_is_nobodys() {
        let (old, new) = (Place::new(&frontend(1, 80)), Place::new(&frontend(2, 80)));
        let [mut before, mut after] = [NearFrontend::default(); 2];
        before.add(&old, Entry::new(1, false));
        after.add(&new, Entry::new(2, false));
        // Whoever has read the lead of one and the key of the other.
        let mixed = NearFrontend([after.0[0], before.0[1], before.0[2], before.0[3]]);
        assert_eq!(mixed.find(&old), Found::Nothing);
        assert_eq!(mixed.find(&new), Found::Nothing);
    }
}
