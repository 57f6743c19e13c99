//! What a hook must offer: XDP and TC differ in how they change and send a packet,
//! and in nothing else.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use lb_common::{Hook, Tuple, Verdict};

use crate::{
    packet::{View, Wire},
    parse::Headers,
};

/// The facts of a program run that the shared stages need.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The context as helpers take it.
    pub raw: *mut c_void,
    /// Index of the interface that the packet came in by (TC egress: leaves by).
    pub ifindex: u32,
    /// Which hook runs.
    pub hook: Hook,
    /// The packet's bytes.
    pub view: View<'a>,
    /// TC only: the frame has a VLAN tag that the device took out of it.
    pub vlan: bool,
    /// TC only: the stack found the frame to be addressed to this host.
    pub host_frame: bool,
}

/// A packet at a hook.
pub trait Frame {
    /// Which hook.
    const HOOK: Hook;
    /// The action that leaves the packet to the stack.
    const PASS: i32;
    /// The action that drops it.
    const DROP: i32;

    /// The context for log lines.
    fn logger(&self) -> &impl EbpfContext;

    /// Facts and bytes; ends with the next change of the frame.
    fn context(&self) -> Context<'_>;

    /// Writes `value` in memory order at `offset`.
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict>;

    /// Adds `head` bytes in front, then cuts or pads the frame to `len` bytes.
    fn reshape(&mut self, head: usize, len: usize) -> Result<(), Verdict>;

    /// Rewrites addresses and ports from `headers.tuple` to `to`, checksums included,
    /// and counts the TTL down where `hop` says so.
    fn rewrite(&mut self, headers: &Headers, to: &Tuple, hop: bool) -> Result<(), Verdict>;

    /// Sends the rewritten packet out by the interface `egress`, to the link addresses
    /// `link` (destination, source) where the hook writes them itself; gives the action.
    fn send(&mut self, egress: u32, link: [[u8; 6]; 2]) -> Result<i32, Verdict>;

    /// Sends the frame out by the interface it came in by, link header as it stands.
    fn send_back(&mut self) -> i32;
}

/// Offset of the checksum field in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;
/// Offset of the TTL, followed by the protocol, in an IPv4 header.
pub const IPV4_TTL: usize = 8;

/// Offsets of source and destination address in the network header.
#[inline(always)]
pub const fn address_offsets(family: lb_common::Family) -> (usize, usize) {
    match family {
        lb_common::Family::V4 => (12, 16),
        lb_common::Family::V6 => (8, 24),
    }
}

/// Offset of the checksum field in the transport header.
#[inline(always)]
pub const fn transport_checksum(headers: &Headers) -> usize {
    if headers.is_tcp() { 16 } else { 6 }
}
