//! Frontends, slot tables and slots: how a VIP:port finds its backends.

use crate::{Addr, BackendId, Port, config::MAX_SERVICES};

/// Key of maps `FRONTENDS` and `INTERNAL`: the address, port and protocol that clients
/// speak to, 20 bytes.
///
/// The value in `FRONTENDS`, for packets that come in, is an [`Entry`]; in `INTERNAL`, for
/// the node's own sockets, the service's index alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The virtual IP.
    pub addr: Addr,
    /// The port.
    pub port: Port,
    /// IANA protocol number, see [`crate::Protocol`].
    pub protocol: u8,
    pad: u8,
}

impl Frontend {
    /// A frontend with its padding zeroed, as a map key needs it.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, protocol: u8) -> Self {
        Self {
            addr,
            port,
            protocol,
            pad: 0,
        }
    }
}

/// Value of map `FRONTENDS`, one word: the service's index in `SERVICES`, fixed while the
/// frontend exists, in bit 31 whether only clients in map `SOURCES` may use it, in bit 30
/// whether each of its flows is recorded, since it is not what replies are restored to, and in
/// bit 29 whether its address is a source of `nat` flows as well.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(pub u32);

impl Entry {
    const GUARDED: u32 = 1 << 31;
    const RECORDED: u32 = 1 << 30;
    const SOURCE: u32 = 1 << 29;

    /// The way to the service with this index.
    #[inline(always)]
    pub const fn new(service: u32, guarded: bool) -> Self {
        Self(service | if guarded { Self::GUARDED } else { 0 })
    }

    /// The same, with or without a record of each flow.
    #[inline(always)]
    #[must_use]
    pub const fn recorded(self, recorded: bool) -> Self {
        Self(self.0 & !Self::RECORDED | if recorded { Self::RECORDED } else { 0 })
    }

    /// Index of the service.
    #[inline(always)]
    pub const fn service(self) -> u32 {
        self.0 & !(Self::GUARDED | Self::RECORDED | Self::SOURCE)
    }

    /// Whether each of its flows is recorded, with its reply.
    #[inline(always)]
    pub const fn is_recorded(self) -> bool {
        self.0 & Self::RECORDED != 0
    }

    /// The same, whose address is a source of `nat` flows or is not.
    #[inline(always)]
    #[must_use]
    pub const fn source(self, source: bool) -> Self {
        Self(self.0 & !Self::SOURCE | if source { Self::SOURCE } else { 0 })
    }

    /// Whether all clients may use it, and no packets to it are replies: the service is all that
    /// needs to be known.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::GUARDED | Self::SOURCE) == 0
    }

    /// Whether only certain clients may use it.
    #[inline(always)]
    pub const fn is_guarded(self) -> bool {
        self.0 & Self::GUARDED != 0
    }
}

/// A client of a service, 20 bytes: key of map `AFFINITY`, and behind a prefix length of
/// map `SOURCES`, where the prefix is the service's 32 bits and those of the network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The service's index.
    pub service: u32,
    /// The client's address.
    pub addr: Addr,
}

impl Client {
    /// Bits of a key of map `SOURCES` that names one client of one service.
    pub const BITS: u32 = 32 + 128;
    /// Bits before those of an IPv4 network: the service's, and the mapped prefix.
    pub const V4_BITS: u32 = 32 + 96;
    /// Bits before those of an IPv6 network.
    pub const V6_BITS: u32 = 32;
}

/// Value of map `AFFINITY`: where a client's next flow goes, one word.
///
/// Bits 0–31 are the backend, 32–63 the last [`crate::flow::tick`] that counts.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity(pub u64);

impl Affinity {
    /// To `backend` until `expires`.
    #[inline(always)]
    pub const fn new(backend: BackendId, expires: u32) -> Self {
        Self(backend.0 as u64 | (expires as u64) << 32)
    }

    /// The backend.
    #[inline(always)]
    pub const fn backend(self) -> BackendId {
        BackendId(self.0 as u32)
    }

    /// Whether it counts no more in tick `now`.
    #[inline(always)]
    pub const fn is_expired(self, now: u32) -> bool {
        ((self.0 >> 32) as u32).wrapping_sub(now) > u32::MAX / 2
    }
}

/// Value of map `ADDRESSES` (key: [`Addr`]): what an address means to the program, a bit set.
///
/// The only map that a packet of the host's other traffic looks up.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressUse(pub u32);

impl AddressUse {
    /// The address of at least one frontend.
    pub const VIP: Self = Self(1);
    /// An address of the host itself: only the services' ports of it are taken.
    pub const HOST: Self = Self(1 << 1);
    /// The source of `nat` flows: replies come back to it.
    pub const SNAT: Self = Self(1 << 2);
    /// Backends in `local` mode have it: replies leave from it.
    pub const LOCAL_BACKEND: Self = Self(1 << 3);
    /// The agent claims it on the LAN. The program does not read this: it is kept for
    /// the next agent, which may have to go on without a valid source.
    pub const ANNOUNCED: Self = Self(1 << 16);

    /// A VIP that answers pings: one of its services has a usable backend.
    pub const PINGED: Self = Self(1 << 4);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The union of both.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is left without any of the bits of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How a service picks a slot for a new flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Slots in turn, by a counter that all CPUs share: exact order.
    #[default]
    RoundRobin = 0,
    /// Slots by a hash of the 5-tuple; the table is a Maglev table (NSDI'16).
    Maglev = 1,
}

impl Algorithm {
    /// The name in flags, annotations and tables: `round-robin`, `maglev`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Maglev => "maglev",
        }
    }
}

impl core::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Index in map `SERVICES` of the table for what a peer handed over to this node: only the
/// backends on it are in there. What comes otherwise takes the table at `service` itself.
#[inline(always)]
pub const fn handover_table(service: u32) -> u32 {
    service + MAX_SERVICES as u32
}

/// Index in map `SERVICES` of the Maglev table that a service had before, for as long as flows
/// without a record may be of that time.
#[inline(always)]
pub const fn former_table(service: u32) -> u32 {
    service + 2 * MAX_SERVICES as u32
}

/// Entry of map `SERVICES` (index: the service's, or [`handover_table`] of it): where a
/// service's slots are.
///
/// One word, so that one store switches a service to another table as a whole:
/// bits 0–31 the first slot, 32–55 the number of slots, 56 the [`Algorithm`], 57 whether
/// clients come back to their backend (map `AFFINITY`).
/// A length of zero means that no backend is usable.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotTable(pub u64);

impl SlotTable {
    /// The most slots that a table may have.
    pub const MAX_LEN: u32 = (1 << 24) - 1;

    /// A table of `len` slots (at most [`Self::MAX_LEN`]) from slot `offset` on.
    #[inline(always)]
    pub const fn new(offset: u32, len: u32, algorithm: Algorithm) -> Self {
        debug_assert!(len <= Self::MAX_LEN);
        Self(offset as u64 | (len as u64) << 32 | (algorithm as u64) << 56)
    }

    /// The same, with or without session affinity.
    #[inline(always)]
    #[must_use]
    pub const fn affine(self, affine: bool) -> Self {
        Self(self.0 & !(1 << 57) | (affine as u64) << 57)
    }

    /// Whether a client's next flow goes where its last one went.
    #[inline(always)]
    pub const fn is_affine(self) -> bool {
        self.0 >> 57 & 1 != 0
    }

    /// Index of the first slot in map `SLOTS`.
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// Number of slots.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        (self.0 >> 32) as u32 & Self::MAX_LEN
    }

    /// Whether no backend is usable.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How a slot is picked.
    #[inline(always)]
    pub const fn algorithm(self) -> Algorithm {
        if self.0 >> 56 & 1 == Algorithm::Maglev as u64 {
            Algorithm::Maglev
        } else {
            Algorithm::RoundRobin
        }
    }
}

impl core::fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{}[{}..+{}]",
            self.algorithm(),
            self.offset(),
            self.len()
        )
    }
}
