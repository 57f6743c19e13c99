//! What replies of local backends are restored to without a record.

use crate::{Addr, BackendId, Port};

/// Value of map `PRIMARIES` (key: address, port and protocol of a local backend, laid out as a
/// [`crate::Frontend`]), 28 bytes.
///
/// A backend has one primary frontend at most: what leaves from it and has no record comes
/// from there. Flows by its other frontends have records.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Primary {
    /// The frontend's address; unspecified where replies need a record.
    pub addr: Addr,
    /// The frontend's port.
    pub port: Port,
    pad: u16,
    /// The backend.
    pub backend: BackendId,
    /// Index of the frontend's service, for its counters.
    pub service: u32,
}

impl Primary {
    /// A backend whose replies need a record, with the padding zeroed.
    pub const fn none(backend: BackendId) -> Self {
        Self {
            addr: Addr::UNSPECIFIED,
            port: Port::from_word(0),
            pad: 0,
            backend,
            service: 0,
        }
    }

    /// The same backend, whose replies are restored to a frontend of `service`.
    #[must_use]
    pub const fn to(self, addr: Addr, port: Port, service: u32) -> Self {
        Self {
            addr,
            port,
            service,
            ..self
        }
    }

    /// Whether replies need a record.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.addr.is_unspecified()
    }
}
