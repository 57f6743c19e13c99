//! What the benchmark's generator of frames is told, and what its sink tells.

/// Value of map `PLAN`, 132 bytes: which frames to make.
///
/// A frame is the template with other addresses and another port in it. Those of flow `n` are
/// the first ones plus `n`, 32,768 ports to an address; or what [`Seen`] says, turned round.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many flows there are, less one: a power of two less one.
    pub mask: u32,
    /// [`Self::RANDOM`], [`Self::IN_TURN`] or [`Self::REPLIES`].
    pub order: u32,
    /// How many frames were made, unless at random.
    pub made: u32,
    /// Bytes of the template that count, a multiple of four.
    pub len: u32,
    /// Offset of the source address's last four bytes.
    pub source: u32,
    /// Offset of the destination address's last four bytes.
    pub destination: u32,
    /// Offset of the client's port: the source's, and in replies the destination's.
    pub port: u32,
    /// Offset of the IPv4 header's checksum; 0: there is none.
    pub ip_checksum: u32,
    /// The sum of that header without addresses, of 16-bit words in memory order.
    pub ip_sum: u32,
    /// Offset of the TCP header's checksum.
    pub tcp_checksum: u32,
    /// The sum that it covers, without the last four bytes of addresses and the port.
    pub tcp_sum: u32,
    /// The last four bytes of the first source address, as a number.
    pub first_source: u32,
    /// The first source port, as a number.
    pub first_port: u32,
    /// The last four bytes of the first destination address, as a number.
    pub first_destination: u32,
    /// How many destination addresses there are, at least one.
    pub destinations: u32,
    /// All headers of a frame, in memory order.
    pub template: [u32; Plan::WORDS],
}

impl Plan {
    /// Words of a template: Ethernet, IPv6 and TCP.
    pub const WORDS: usize = 19;
    /// Flows that share a source address.
    pub const PORTS: u32 = 1 << 15;
    /// [`Self::order`]: any flow at any time.
    pub const RANDOM: u32 = 0;
    /// [`Self::order`]: each flow in its turn.
    pub const IN_TURN: u32 = 1;
    /// [`Self::order`]: replies, in the order of map `SEEN`.
    pub const REPLIES: u32 = 2;

    /// The last four bytes of source and destination address, and the source port, of flow
    /// `n`, as numbers.
    #[inline(always)]
    pub const fn ends(&self, n: u32) -> (u32, u32, u16) {
        let destination = match self.destinations {
            0 | 1 => self.first_destination,
            several => self.first_destination + n % several,
        };
        let port = (self.first_port + n % Self::PORTS) as u16;
        (self.first_source + n / Self::PORTS, destination, port)
    }
}

/// Value of map `SEEN`, 12 bytes: the ends of a frame that arrived at the sink.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The source address's last four bytes, in memory order.
    pub source: u32,
    /// The destination address's last four bytes, in memory order.
    pub destination: u32,
    /// The client's port, in memory order.
    pub port: u16,
    /// Always 1 in frames that were seen.
    pub there: u16,
}

/// Value of map `WATCH`, 16 bytes: what the sink takes down, besides counting.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// [`Self::NOTHING`], [`Self::EACH`] or [`Self::LAST`].
    pub what: u32,
    /// How many frames were taken down.
    pub taken: u32,
    /// How many flows there are, less one.
    pub mask: u32,
    /// 1 where they are replies: the client's port is the destination's.
    pub replies: u32,
}

impl Watch {
    /// [`Self::what`]: it counts only.
    pub const NOTHING: u32 = 0;
    /// [`Self::what`]: every frame, scattered over `SEEN`.
    pub const EACH: u32 = 1;
    /// [`Self::what`]: the last frame, in `LAST`.
    pub const LAST: u32 = 2;

    /// Where in `SEEN` the next frame goes: far from the one before, so that replies in the
    /// order of that map meet the flow table in no order. An odd factor hits each index once.
    #[inline(always)]
    pub const fn place(&self) -> u32 {
        self.taken.wrapping_mul(0x9e37_79b1) & self.mask
    }
}
