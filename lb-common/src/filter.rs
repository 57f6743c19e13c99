//! Which addresses a hook need not look up: a Bloom filter with one hash, small enough for the
//! innermost cache.

use crate::{Addr, Hook, hash::addr_hash};

/// Words that a hook has in map `FILTER`.
const WORDS: u32 = 1 << 10;
/// Entries of map `FILTER`, which is one value (index: word; entry: 64 bits, one for each hash of
/// an address).
///
/// At XDP the bits are of all that map `ADDRESSES` holds, for destinations; at TC ingress of
/// those but the ones that local backends alone have, since XDP has dealt with packets to them;
/// at TC egress of what map `PRIMARIES` holds, for sources. A bit that is not set says for sure
/// that the packet is none of the program's.
pub const LEN: usize = Hook::ALL.len() * WORDS as usize;

/// Where the bit of an address stands at a hook: index of the word, and the word with that bit
/// alone.
#[inline(always)]
pub const fn place(hook: Hook, addr: &Addr) -> (u32, u64) {
    let hash = addr_hash(addr);
    (
        hook as u32 * WORDS + (hash >> 54) as u32,
        1 << (hash >> 48 & 63),
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;

    #[test]
    fn neighbouring_addresses_have_bits_of_their_own() {
        let v4 = (0..=255).map(|n| IpAddr::from([192, 168, 56, n]));
        let v6 = (0..=255).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
        let places: BTreeSet<_> = v4
            .chain(v6)
            .map(|ip| place(Hook::TcIngress, &ip.into()))
            .collect();
        assert!(places.len() > 500, "{}", places.len());
        let words = WORDS..2 * WORDS;
        assert!(places.iter().all(|(word, _)| words.contains(word)));
        assert!(places.iter().all(|(_, bit)| bit.count_ones() == 1));
    }
}
