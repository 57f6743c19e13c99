//! Addresses that are answered for on the LAN: ARP and neighbour discovery.

use crate::Addr;

/// Key of map `CLAIMS`, 20 bytes: an address, and an interface on which it is claimed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The address.
    pub addr: Addr,
    /// Index of the interface.
    pub ifindex: u32,
}

/// Value of map `CLAIMS`, 16 bytes: what became of questions for the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimCount {
    /// Questions for the address.
    pub requests: u64,
    /// Answers to those.
    pub responses: u64,
}
