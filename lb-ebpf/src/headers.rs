//! What a packet's headers say: written by the parser, read by everything after it.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use lb_common::{Addr, Hook, Port, Protocol, Tuple, Verdict, flow::tcp_flag};

use crate::packet;

/// What precedes the payload.
///
/// It stands in scratch memory, of which the verifier knows nothing: however a packet's
/// headers were found, the paths go on from here as one. Offsets are bounded anew
/// wherever they are read.
#[repr(C)]
pub struct Headers {
    /// Addresses, ports and protocol; ports are 0 where `payload` is not
    /// [`Payload::Ports`], and in later fragments.
    pub tuple: Tuple,
    /// Of an ICMP error: the packet that it is about, as it quotes it.
    pub quoted: Tuple,
    l3: u32,
    l4: u32,
    quoted_l3: u32,
    quoted_l4: u32,
    /// Length of network header and payload.
    pub ip_len: u32,
    /// What all fragments of one packet have in common, beside addresses and protocol.
    pub fragment_id: u32,
    /// Length of the transport header: 20 to 60 for TCP, 8 for UDP.
    pub transport_len: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// TCP flags, see [`lb_common::flow::tcp_flag`]; 0 for others.
    pub tcp_flags: u8,
    /// What follows the network header.
    pub payload: Payload,
    /// Whether the packet is a part of one.
    pub fragment: Fragment,
    /// Whether routers must not cut it.
    pub whole: bool,
    pad: u8,
    /// Room for what [`crate::frame::Frame::rewrite`] makes of some of them.
    pub words: [u32; NETWORK + TRANSPORT],
}

/// Words of a network header that may be rewritten, to its last fixed one: all but the first of
/// IPv6's.
pub const NETWORK: usize = 9;
/// Words of a transport header that may be: all of TCP's without options.
pub const TRANSPORT: usize = 5;

/// What follows the network header. Zero is one of them, as in memory never written.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// A protocol that is not balanced.
    Other = 0,
    /// TCP, UDP or SCTP, with ports.
    Ports = 1,
    /// An ICMP or ICMPv6 echo request.
    Echo = 2,
    /// An ICMP or ICMPv6 error about a packet with ports.
    Error = 3,
    /// Neighbour discovery (RFC 4861): the host's own business, but for claimed addresses.
    Neighbour = 4,
    /// A TCP header whose length cannot be.
    BadTcp = 5,
    /// A UDP length that cannot be.
    BadUdp = 6,
    /// The packet ends within its transport header.
    Short = 7,
}

/// Whether a packet is a part of one.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// It is not.
    No = 0,
    /// It is the part with the transport header.
    First = 1,
    /// It is another part.
    Later = 2,
}

#[btf_map]
static HEADERS: PerCpuArray<Headers, { Hook::ALL.len() }> = PerCpuArray::new();

impl Headers {
    /// The scratch memory of `hook` on this CPU; its contents are of an earlier packet.
    #[inline(always)]
    pub fn of(hook: Hook) -> Result<&'static mut Self, Verdict> {
        let headers = HEADERS
            .get_ptr_mut(hook as u32)
            .ok_or(Verdict::EmitFailed)?;
        // SAFETY: this CPU's copy, taken once a run, and runs of one hook do not nest. It
        // holds what an earlier run wrote, or zeros, which are valid for every field.
        Ok(unsafe { &mut *headers })
    }

    /// The same headers, of which the compiler knows no more than the verifier.
    #[inline(always)]
    pub fn sealed(&mut self) -> &mut Self {
        packet::sealed(self)
    }

    /// Begins anew for a packet with a network header at `l3` and a payload at `l4`.
    #[inline(always)]
    pub fn begin(&mut self, src: Addr, dst: Addr, protocol: u8, l3: usize, l4: usize) {
        self.tuple = Tuple::new(src, Port::default(), dst, Port::default(), protocol);
        self.l3 = l3 as u32;
        self.l4 = l4 as u32;
        self.transport_len = 0;
        self.tcp_flags = 0;
        self.payload = Payload::Other;
        self.fragment = Fragment::No;
        self.fragment_id = 0;
    }

    /// Records the packet that an ICMP error quotes, its headers at these offsets.
    #[inline(always)]
    pub fn quote(&mut self, tuple: Tuple, l3: usize, l4: usize) {
        self.quoted = tuple;
        self.quoted_l3 = l3 as u32;
        self.quoted_l4 = l4 as u32;
        self.payload = Payload::Error;
    }

    /// Offset of the network header: the length of the link header, tags included.
    #[inline(always)]
    pub const fn l3(&self) -> usize {
        (self.l3 & 0x1f) as usize
    }

    /// Offset of the transport header.
    #[inline(always)]
    pub const fn l4(&self) -> usize {
        (self.l4 & 0x1ff) as usize
    }

    /// Offset of the quoted packet's network header.
    #[inline(always)]
    pub const fn quoted_l3(&self) -> usize {
        (self.quoted_l3 & 0x1ff) as usize
    }

    /// Offset of the quoted packet's transport header.
    #[inline(always)]
    pub const fn quoted_l4(&self) -> usize {
        (self.quoted_l4 & 0x3ff) as usize
    }

    /// Offset of the end of the packet, padding of the frame left out.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        self.l3() + self.ip_len as usize
    }

    /// Whether the frame has a VLAN tag.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.l3() != crate::parse::ETH_LEN
    }

    /// Whether the packet is TCP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.tuple.protocol == Protocol::Tcp as u8
    }

    /// Whether the packet opens a connection (SYN without ACK).
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// Bytes of the frame as the counters count them, without padding.
    #[inline(always)]
    pub const fn frame_len(&self) -> u64 {
        self.end() as u64
    }

    /// The key under which fragments of one packet find each other: a tuple with the
    /// identification in place of the ports.
    #[inline(always)]
    pub const fn fragment_key(&self) -> Tuple {
        let id = self.fragment_id;
        Tuple::new(
            self.tuple.src,
            Port::from_word(id as u16),
            self.tuple.dst,
            Port::from_word((id >> 16) as u16),
            self.tuple.protocol,
        )
    }
}
