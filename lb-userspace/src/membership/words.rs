//! What a member says of itself: as plain data, and as the keys and values that gossip
//! carries.

use std::{collections::BTreeMap, net::IpAddr};

use chitchat::NodeState;

use crate::election::Standing;

const READY: &str = "ready";
const LEAVING: &str = "leaving";
const HELD: &str = "held";
const WITHHELD: &str = "withheld/";
const CLAIM: &str = "claim/";
const ALLOCATION: &str = "allocation/";

/// What a member tells all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// For elections.
    pub standing: Standing,
    /// Addresses given to services, as the ledger writes each; by the one that gives them.
    pub allocations: BTreeMap<String, String>,
}

// === impl Words ===

impl Words {
    /// As keys and values.
    fn pairs(&self) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        if !self.standing.starting {
            pairs.insert(READY.to_owned(), String::new());
        }
        if self.standing.leaving {
            pairs.insert(LEAVING.to_owned(), String::new());
        }
        if self.standing.held_down {
            pairs.insert(HELD.to_owned(), String::new());
        }
        // A key for each address: a value may not be longer than a datagram.
        let withheld = self.standing.withheld.iter();
        pairs.extend(withheld.map(|ip| (format!("{WITHHELD}{ip}"), String::new())));
        let claims = self.standing.claims.iter();
        pairs.extend(claims.map(|ip| (format!("{CLAIM}{ip}"), String::new())));
        let allocations = self.allocations.iter();
        pairs.extend(allocations.map(|(name, it)| (format!("{ALLOCATION}{name}"), it.clone())));
        pairs
    }

    /// Makes `state`, which is the member's own, say this. True where it said something else.
    pub(super) fn write(&self, state: &mut NodeState) -> bool {
        let pairs = self.pairs();
        let before = state.max_version();
        let gone: Vec<String> = state
            .key_values()
            .map(|(key, _)| key.to_owned())
            .filter(|key| !pairs.contains_key(key))
            .collect();
        for key in gone {
            state.delete(&key);
        }
        // Nothing happens where the value is the same.
        for (key, value) in pairs {
            state.set(key, value);
        }
        state.max_version() != before
    }

    /// What the pairs of a member say. Of a later version may come keys that this one does
    /// not know, and values that it cannot read: they say nothing.
    pub(super) fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut words = Self::default();
        words.standing.starting = true;
        for (key, value) in pairs {
            let standing = &mut words.standing;
            match key {
                READY => standing.starting = false,
                LEAVING => standing.leaving = true,
                HELD => standing.held_down = true,
                _ => {
                    if let Some(ip) = key.strip_prefix(CLAIM) {
                        standing.claims.extend(ip.parse::<IpAddr>().ok());
                    } else if let Some(ip) = key.strip_prefix(WITHHELD) {
                        standing.withheld.extend(ip.parse::<IpAddr>().ok());
                    } else if let Some(name) = key.strip_prefix(ALLOCATION) {
                        words.allocations.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn read(words: &Words) -> Words {
        let pairs = words.pairs();
        Words::read(
            pairs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )
    }

    fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
        prop::collection::btree_set(any::<IpAddr>(), 0..6)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            (leaving, held_down, starting) in any::<(bool, bool, bool)>(),
            claims in addresses(),
            withheld in addresses(),
            allocations in prop::collection::btree_map("[a-z]{1,5}/[a-z]{1,5}", ".{0,20}", 0..5),
        ) {
            let standing = Standing { starting, leaving, held_down, withheld, claims };
            let words = Words { standing, allocations };
            prop_assert_eq!(read(&words), words);
        }

        #[test]
        fn whatever_is_said_is_heard_to_an_end(
            pairs in prop::collection::vec(("(claim/|withheld/|allocation/)?.{0,20}", ".{0,40}"), 0..8)
        ) {
            Words::read(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
    }
}
