//! Backends and the devices that lead to them.

use crate::{Addr, Port};

/// Names one backend for as long as any flow may remember it: index and generation.
///
/// Bits 0–19 are the index in map `BACKENDS`, bits 20–29 a generation that counts
/// up whenever the index is given to another backend, so that a flow of the old
/// one never matches the new one. Zero names none: index 0 is never used.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

impl BackendId {
    /// No backend.
    pub const NONE: Self = Self(0);
    /// Stands in flows for the node that had the VIP before this one: what began there
    /// is given back to it (map `FORMERS`). No entry of map `BACKENDS` has this id.
    pub const FORMER: Self = Self(1 << Self::INDEX_BITS);
    /// Number of bits of the index.
    pub const INDEX_BITS: u32 = 20;
    /// Generations before the count starts anew.
    pub const GENERATIONS: u32 = 1 << 10;

    /// The id of `index` in its `generation` (taken modulo [`Self::GENERATIONS`]).
    #[inline(always)]
    pub const fn new(index: u32, generation: u32) -> Self {
        let index = index & ((1 << Self::INDEX_BITS) - 1);
        Self(index | (generation % Self::GENERATIONS) << Self::INDEX_BITS)
    }

    /// Whether it names no backend.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Index in map `BACKENDS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }

    /// How often the index was given out before, modulo [`Self::GENERATIONS`].
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 >> Self::INDEX_BITS & (Self::GENERATIONS - 1)
    }
}

impl core::fmt::Debug for BackendId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// `index.generation`, as the CLI shows it.
impl core::fmt::Display for BackendId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// How packets reach a backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// On this node: destination rewritten, the stack delivers, TC egress restores the VIP.
    #[default]
    Local = 0,
    /// Anywhere: destination and source rewritten, the reply comes back to this node.
    Nat = 1,
    /// On a peer, a node on the same LAN that runs Naru too: the frame is handed over to
    /// it with the packet as it is, and the reply goes straight to the client.
    Dsr = 2,
}

impl Mode {
    /// The name in tables: `local`, `nat`, `dsr`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Nat => "nat",
            Self::Dsr => "dsr",
        }
    }
}

impl core::fmt::Display for Mode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Value of map `BACKENDS` (key: [`BackendId::index`]), 64 bytes.
///
/// Several words: the agent therefore writes an entry only while no slot names
/// it (but for `alive`, `open` and `restored`, one word each), and takes a removed backend's index
/// again only after a grace period.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port: Port,
    /// IANA protocol number, see [`crate::Protocol`].
    pub protocol: u8,
    /// A [`Mode`] as its number.
    pub mode: u8,
    /// The full id, by which an old flow tells that the index was given away.
    pub id: BackendId,
    /// [`Self::ALIVE`], [`Self::FAILED`] or, once it is gone, 0.
    pub alive: u32,
    /// 1 while some slot names it: it takes new flows.
    pub open: u32,
    /// 1 where its replies are restored by map `PRIMARIES`: it is local, and has been there
    /// for so long that connections which did not come by a frontend are known.
    pub restored: u32,
    /// The peer's own address on the LAN in `dsr` mode, else unspecified.
    pub via: Addr,
    pad: [u32; 3],
}

const _: () = assert!(size_of::<Backend>() == 64, "a line of the cache");

impl Backend {
    /// [`Self::alive`] of a backend that exists.
    pub const ALIVE: u32 = 1;
    /// [`Self::alive`] of one that exists and, as far as is known, does not answer: its
    /// connections are left to it, and whatever may go elsewhere does.
    pub const FAILED: u32 = 2;

    /// A live backend with its padding zeroed.
    pub const fn new(id: BackendId, addr: Addr, port: Port, protocol: u8, mode: Mode) -> Self {
        Self {
            addr,
            port,
            protocol,
            mode: mode as u8,
            id,
            alive: Self::ALIVE,
            open: 0,
            restored: 0,
            via: Addr::UNSPECIFIED,
            pad: [0; 3],
        }
    }

    /// The same backend, on the peer that has the address `via`.
    #[must_use]
    pub const fn on_peer(self, via: Addr) -> Self {
        Self { via, ..self }
    }

    /// The same backend once it is gone: its entry keeps the generation.
    #[must_use]
    pub const fn retired(&self) -> Self {
        Self {
            alive: 0,
            open: 0,
            ..*self
        }
    }

    /// How packets reach it.
    #[inline(always)]
    pub const fn mode(&self) -> Mode {
        if self.mode == Mode::Nat as u8 {
            Mode::Nat
        } else if self.mode == Mode::Dsr as u8 {
            Mode::Dsr
        } else {
            Mode::Local
        }
    }

    /// Whether flows of `id` may still be sent here.
    #[inline(always)]
    pub const fn serves(&self, id: BackendId) -> bool {
        self.alive != 0 && self.is(id)
    }

    /// Whether flows of `id` that could as well go elsewhere may still be sent here.
    #[inline(always)]
    pub const fn answers(&self, id: BackendId) -> bool {
        self.alive == Self::ALIVE && self.is(id)
    }

    /// Whether this is the backend `id`, alive or gone: its index has not been given to
    /// another one since.
    #[inline(always)]
    pub const fn is(&self, id: BackendId) -> bool {
        self.id.0 == id.0
    }
}
