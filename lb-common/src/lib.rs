//! What the kernel program and the agent share: map keys and values, the flow
//! hash, Maglev tables, checksum arithmetic, verdicts.
//!
//! No I/O, no allocation, no dependency: the crate is compiled for the kernel
//! (`bpfel-unknown-none`) and for the host alike, so what it defines has one
//! layout and one meaning on both sides.
//!
//! Byte order is carried by types: [`Addr`] and [`Port`] hold what stands on the
//! wire and only hand out host values through named accessors.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod backend;
pub mod bench;
pub mod cell;
pub mod checksum;
pub mod claim;
pub mod config;
pub mod device;
pub mod direct;
pub mod exceptions;
pub mod filter;
pub mod flow;
pub mod hash;
pub mod hop;
pub mod maglev;
pub mod near;
#[cfg(feature = "user")]
mod pod;
pub mod primary;
pub mod service;
pub mod slot;
pub mod socket;
pub mod stats;
pub mod trace;
pub mod verdict;

pub use addr::{Addr, Family, Port, Protocol, Tuple};
pub use backend::{Backend, BackendId, Mode};
pub use cell::{Bucket, Cell, Ends, Reply, ReplyBucket};
pub use claim::{Claim, ClaimCount};
pub use device::{Device, Near, SnatSource};
pub use direct::Direct;
pub use flow::{Flow, FlowState};
pub use hop::{ClientHop, Hop};
pub use near::NearFrontend;
pub use primary::Primary;
pub use service::{AddressUse, Affinity, Algorithm, Client, Entry, Frontend, SlotTable};
pub use slot::Slot;
pub use socket::{Peer, Socket};
pub use stats::{Stats, VerdictCount};
pub use trace::Trace;
pub use verdict::{Hook, Verdict};

/// Version of the layout and meaning of every pinned map.
///
/// Maps are pinned below a directory that carries this number; contents written
/// under another number are never reused. Raise it with every change of a type in
/// this crate that stands in a map.
pub const ABI_VERSION: u32 = 10;
