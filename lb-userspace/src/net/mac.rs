//! Ethernet addresses.

use std::fmt;

/// A 48-bit Ethernet address, in the order in which it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`, all stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which ARP uses for "not known".
    pub const ZERO: Self = Self([0; 6]);

    /// Whether one station can own it: not zero, and the group bit is clear.
    pub fn is_station(self) -> bool {
        self != Self::ZERO && self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl serde::Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_people_write_it() {
        assert_eq!(
            Mac([0x02, 0, 0x5e, 0x10, 0, 0xff]).to_string(),
            "02:00:5e:10:00:ff"
        );
    }

    #[test]
    fn groups_and_zero_are_no_stations() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_station());
        assert!(!Mac::BROADCAST.is_station());
        assert!(!Mac([0x33, 0x33, 0, 0, 0, 1]).is_station());
        assert!(!Mac::ZERO.is_station());
    }
}
