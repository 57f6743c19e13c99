//! Sockets of the node itself, whose calls are translated.

use crate::{Addr, BackendId, Port};

/// Key of map `SOCKETS`: a socket and an address that it speaks to, 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Socket {
    /// The kernel's number of the socket, never given twice (`SO_COOKIE`).
    pub cookie: u64,
    /// The address: a backend's, or the frontend that the caller names.
    pub addr: Addr,
    /// Its port.
    pub port: Port,
    pad: [u16; 3],
}

impl Socket {
    /// A key with its padding zeroed.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr, port: Port) -> Self {
        Self {
            cookie,
            addr,
            port,
            pad: [0; 3],
        }
    }
}

/// Value of map `SOCKETS`: the frontend that the caller named, and who serves it, 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The frontend's address.
    pub addr: Addr,
    /// Its port.
    pub port: Port,
    pad: u16,
    /// The backend.
    pub backend: BackendId,
}

impl Peer {
    /// A value with its padding zeroed.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, backend: BackendId) -> Self {
        Self {
            addr,
            port,
            pad: 0,
            backend,
        }
    }
}
