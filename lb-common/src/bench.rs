//! What the benchmark's generator of frames is told.

/// Value of map `PLAN`, 108 bytes: which frames to make.
///
/// A frame is the template with another source address and port in it: those of flow `n` are
/// the template's plus `n`, 32,768 ports to an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many flows there are, less one: a power of two less one.
    pub mask: u32,
    /// 1: each flow in turn; 0: any of them, at random.
    pub in_turn: u32,
    /// How many frames were made, where they are made in turn.
    pub made: u32,
    /// Offset of the source address's last four bytes, in bytes.
    pub source: u32,
    /// Offset of the source port.
    pub port: u32,
    /// Bytes of the template that count, a multiple of four.
    pub len: u32,
    /// The first source address's last four bytes, as a number.
    pub first_source: u32,
    /// The first source port, as a number.
    pub first_port: u32,
    /// All headers of a frame, in memory order.
    pub template: [u32; Plan::WORDS],
}

impl Plan {
    /// Words of a template: Ethernet, IPv6 and TCP.
    pub const WORDS: usize = 19;
    /// Flows that share a source address.
    pub const PORTS: u32 = 1 << 15;

    /// Source address (its last four bytes) and port of flow `n`, as numbers.
    #[inline(always)]
    pub const fn source_of(&self, n: u32) -> (u32, u16) {
        let address = self.first_source + n / Self::PORTS;
        (address, (self.first_port + n % Self::PORTS) as u16)
    }
}
