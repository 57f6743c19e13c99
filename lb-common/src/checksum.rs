//! Internet checksum arithmetic: RFC 1071, incremental updates by RFC 1624.
//!
//! Sums are kept in native byte order: the one's complement sum does not depend on
//! it as long as words are read and written alike (RFC 1071 section 2(B)).

use crate::{Addr, Port};

/// The sum of changes to be applied to one or more checksums.
///
/// Every changed word adds the complement of its old value and its new value
/// (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// Adds a changed 16-bit word of the covered data.
    #[inline(always)]
    #[must_use]
    pub const fn word16(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Adds a changed 32-bit word of the covered data, at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn word32(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Adds a changed address. Equal words, such as the prefix of two IPv4-mapped
    /// addresses, add nothing, so the family does not matter.
    #[inline(always)]
    #[must_use]
    pub const fn addr(self, old: &Addr, new: &Addr) -> Self {
        let (old, new) = (old.words(), new.words());
        self.word32(old[0], new[0])
            .word32(old[1], new[1])
            .word32(old[2], new[2])
            .word32(old[3], new[3])
    }

    /// Adds a changed port.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, old: Port, new: Port) -> Self {
        self.word16(old.word(), new.word())
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The changes as one 16-bit sum.
    #[inline(always)]
    pub const fn sum(self) -> u16 {
        fold(self.0)
    }

    /// Whether no sum is another by it.
    #[inline(always)]
    pub const fn is_neutral(self) -> bool {
        matches!(self.sum(), 0 | 0xffff)
    }

    /// Whether a field that this change of addresses has brought from `before` to `after` is one that
    /// the device is still to complete (`CHECKSUM_PARTIAL`): the sum of the pseudo header, to which a
    /// change is added, and not its complement, from which it is taken. Of a neutral change both are
    /// true.
    #[inline(always)]
    pub const fn is_pending(self, before: u16, after: u16) -> bool {
        Self(self.0 + before as u64 + (!after) as u64).is_neutral()
    }

    /// The checksum field after the changes, from the field before them.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + (!checksum) as u64)
    }

    /// As [`Self::apply`] for UDP, where a field of 0 means "none" and stays, and a
    /// sum of 0 is sent as all ones (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Folds a sum of 16- or 32-bit words to 16 bits, end-around carry included.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field of data whose words (native order, field as 0) add up to `sum`.
#[inline(always)]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, byte by byte, for comparison.
    fn full(data: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let sum = data
            .chunks(2)
            .map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(u16::from_be(fold(sum)), 0xddf2);
        assert_eq!(u16::from_be(finish(sum)), full(&data));
    }

    proptest! {
        #[test]
        fn what_a_device_is_to_complete_is_told_from_a_checksum(
            before in any::<u16>(), old in any::<[u8; 16]>(), new in any::<[u8; 16]>(),
        ) {
            let addr = |bytes: [u8; 16]| std::net::Ipv6Addr::from(bytes).into();
            let change = Delta::NONE.addr(&addr(old), &addr(new));
            let pending = fold(u64::from(before) + u64::from(change.sum()));
            prop_assert!(change.is_pending(before, pending));
            prop_assert_eq!(change.is_pending(before, change.apply(before)), change.is_neutral());
        }

        #[test]
        fn a_delta_equals_a_full_recomputation(
            mut data in prop::collection::vec(any::<u8>(), 40..400),
            old_addr in any::<[u8; 4]>(), new_addr in any::<[u8; 4]>(),
            old_port in any::<u16>(), new_port in any::<u16>(),
        ) {
            data[4..8].copy_from_slice(&old_addr);
            data[8..10].copy_from_slice(&old_port.to_be_bytes());
            let before = full(&data);
            data[4..8].copy_from_slice(&new_addr);
            data[8..10].copy_from_slice(&new_port.to_be_bytes());
            let after = full(&data);

            let delta = Delta::NONE
                .addr(&std::net::Ipv4Addr::from(old_addr).into(), &std::net::Ipv4Addr::from(new_addr).into())
                .port(Port::new(old_port), Port::new(new_port));
            let updated = u16::from_be(delta.apply(before.to_be()));
            // 0x0000 and 0xffff are the same number in one's complement.
            prop_assert_eq!(updated % 0xffff, after % 0xffff);
        }

        #[test]
        fn an_ipv6_delta_equals_a_full_recomputation(
            mut data in prop::collection::vec(any::<u8>(), 40..400),
            old in any::<[u8; 16]>(), new in any::<[u8; 16]>(),
        ) {
            data[8..24].copy_from_slice(&old);
            let before = full(&data);
            data[8..24].copy_from_slice(&new);
            let after = full(&data);
            let delta = Delta::NONE
                .addr(&std::net::Ipv6Addr::from(old).into(), &std::net::Ipv6Addr::from(new).into());
            prop_assert_eq!(u16::from_be(delta.apply(before.to_be())) % 0xffff, after % 0xffff);
        }

        #[test]
        fn udp_never_turns_into_none(checksum in 1_u16.., old in any::<u32>(), new in any::<u32>()) {
            prop_assert_ne!(Delta::NONE.word32(old, new).apply_udp(checksum), 0);
            prop_assert_eq!(Delta::NONE.word32(old, new).apply_udp(0), 0);
        }
    }
}
