//! What a hook must offer: XDP and TC differ in how they change and send a packet,
//! and in nothing else.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, bindings::__sk_buff, helpers::generated::bpf_xdp_get_buff_len};
use lb_common::{Family, Hook, Protocol, Tuple, Verdict};

use crate::{
    headers::{Fragment, Headers},
    packet::{View, Wire},
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

    /// Writes `value` in memory order at `offset`, where a checksum written as well makes
    /// up for it, or into a frame that is made anew.
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict>;

    /// The same for bytes that no checksum of the IP or transport header makes up for.
    fn overwrite<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict>;

    /// Adds `head` bytes in front, then cuts or pads the frame to `len` bytes.
    fn reshape(&mut self, head: usize, len: usize) -> Result<(), Verdict>;

    /// Rewrites addresses and ports from `headers.tuple` to `to`, checksums included,
    /// and counts the TTL down where `hop` says so.
    fn rewrite(&mut self, headers: &mut Headers, to: &Tuple, hop: bool) -> Result<(), Verdict>;

    /// Takes off the VLAN tags of a frame that leaves by another device than it came by.
    fn untag(&mut self, headers: &Headers) -> Result<(), Verdict>;

    /// Sends the rewritten packet out by the interface `egress`, to the link addresses
    /// `link` (destination, source) where the hook writes them itself; gives the action.
    fn send(&mut self, egress: u32, link: [[u8; 6]; 2]) -> Result<i32, Verdict>;

    /// Sends the packet as it is to the link addresses `link` (destination, source) by the
    /// interface `egress`; gives the action.
    fn hand_over(&mut self, egress: u32, link: &[[u8; 6]; 2]) -> Result<i32, Verdict>;

    /// Sends the frame out by the interface it came in by, link header as it stands.
    fn send_back(&mut self) -> i32;
}

// === impl Context ===

impl Context<'_> {
    /// Bytes of the frame, also those that are not in its linear part.
    #[inline(always)]
    pub fn frame_len(&self) -> usize {
        match self.hook {
            // SAFETY: a helper on this run's context.
            Hook::Xdp => unsafe { bpf_xdp_get_buff_len(self.raw.cast()) as usize },
            // SAFETY: a field of this run's context.
            Hook::TcIngress | Hook::TcEgress => unsafe {
                (*self.raw.cast::<__sk_buff>()).len as usize
            },
        }
    }

    /// Length of the packets that this one leaves as, network header included: the stack
    /// puts several together (GRO), which the device parts again. 0 where that cannot be
    /// known, which the kernel takes for a packet that fits.
    #[inline(always)]
    pub fn packet_len(&self, headers: &Headers) -> u32 {
        if self.hook == Hook::Xdp {
            return headers.ip_len;
        }
        // SAFETY: a field of this run's context.
        let segment = unsafe { (*self.raw.cast::<__sk_buff>()).gso_size };
        if segment == 0 {
            return headers.ip_len;
        }
        if segment == BY_FRAGS {
            return 0;
        }
        (headers.l4() - headers.l3()) as u32 + u32::from(headers.transport_len) + segment
    }
}

/// `GSO_BY_FRAGS`, in place of a size: each packet has its own, as SCTP's do.
const BY_FRAGS: u32 = 0xffff;

/// Offset of the checksum field in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;
/// Offset of the TTL, followed by the protocol, in an IPv4 header.
pub const IPV4_TTL: usize = 8;
/// Offset of the hop limit in an IPv6 header.
pub const IPV6_HOPS: usize = 7;

/// Offsets of source and destination address in the network header.
#[inline(always)]
pub const fn address_offsets(family: Family) -> (usize, usize) {
    match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    }
}

/// Offset of the checksum field in a transport header that covers addresses and ports;
/// SCTP's does not cover the addresses, and its ports stay as they are.
#[inline(always)]
pub const fn transport_checksum(protocol: u8) -> Option<usize> {
    if protocol == Protocol::Tcp as u8 {
        Some(16)
    } else if protocol == Protocol::Udp as u8 {
        Some(6)
    } else {
        None
    }
}

/// Offset of the transport checksum of a packet, if it has one.
#[inline(always)]
pub fn checksum_at(headers: &Headers) -> Option<usize> {
    let offset = transport_checksum(headers.tuple.protocol)?;
    Some(headers.l4() + offset)
}

/// Whether the packet has its transport header in it.
#[inline(always)]
pub fn has_transport(headers: &Headers) -> bool {
    headers.fragment != Fragment::Later
}
