//! What tells replies that have no record from those that may have one, at the cost of a byte.

/// Bytes in the one value of map `EXCEPTIONS`, each for all replies with the same [`place`]: 0
/// where none of them has a record in map `REPLIES` or `DIRECT`, else the round in which one was
/// noted last (map `ROUND`).
///
/// The agent begins a round, looks at all records a moment later, and clears the bytes of
/// earlier rounds that no record needs.
pub const LEN: usize = 1 << 16;

/// The byte of a reply by the [`crate::hash::tuple_hash`] of its tuple.
#[inline(always)]
pub const fn place(hash: u64) -> usize {
    // The upper half says which slot a tuple falls on, where it is a client's.
    (hash as usize) & (LEN - 1)
}

/// What a byte says of a round, of which the lowest eight bits count: never 0.
#[inline(always)]
pub const fn noted(round: u8) -> u8 {
    round | 1
}

/// The round after `round`.
#[inline(always)]
pub const fn next(round: u8) -> u8 {
    noted(round).wrapping_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_differ_from_those_before_and_from_none() {
        let mut round = 0;
        for _ in 0..1000 {
            let after = next(round);
            assert_ne!(noted(after), noted(round));
            assert_ne!(noted(after), 0);
            round = after;
        }
    }
}
