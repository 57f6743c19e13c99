//! Every way out of the kernel program, each with a counter. The list is the
//! operator's documentation: each text says what happened and what to do.

/// Where a packet met the program.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// XDP on an interface, for what comes in.
    Xdp = 0,
    /// TC ingress, for what XDP could not emit itself.
    TcIngress = 1,
    /// TC egress, for the replies of local backends.
    TcEgress = 2,
}

impl Hook {
    /// All hooks, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::TcIngress, Self::TcEgress];

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "tc-ingress",
            Self::TcEgress => "tc-egress",
        }
    }
}

/// What becomes of the packet, whatever the hook calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the stack.
    Pass,
    /// Rewritten and sent on its way.
    Forward,
    /// Answered by the program itself: RST, ICMP, ARP or neighbour discovery.
    Refuse,
    /// Dropped.
    Drop,
}

impl Fate {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Forward => "forward",
            Self::Refuse => "refuse",
            Self::Drop => "drop",
        }
    }
}

macro_rules! verdicts {
    ($($variant:ident = $name:literal, $fate:ident, $text:literal;)*) => {
        /// A way out of the kernel program.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verdict {
            $(#[doc = $text] $variant,)*
        }

        impl Verdict {
            /// All verdicts, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics, tables and `naru explain`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Self::$variant => Fate::$fate,)* }
            }

            /// What it means and what to do about it.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

verdicts! {
    NotOurs = "not_ours", Pass, "The packet concerns no service; the stack handles it. The host's ordinary traffic.";
    NotIp = "not_ip", Pass, "Neither IPv4 nor IPv6, nor an ARP request for a claimed address; the stack handles it.";
    Unparsed = "unparsed", Pass, "More headers than the program reads (over two VLAN tags, over four IPv6 extension headers or 256 bytes of them), or an IPv4 address in an IPv6 header; the stack handles it.";
    Truncated = "truncated", Pass, "The frame ends before its network header does; left to the stack, which drops it. A steady rate points to a broken sender.";
    BadHeader = "bad_header", Pass, "A wrong version in the network header, or a header length below 20; left to the stack, which drops it. A steady rate points to a broken sender.";
    BadLength = "bad_length", Pass, "The network header claims more bytes than the frame has, or fewer than the header itself; left to the stack, which drops it. A steady rate points to a broken sender.";
    OtherHost = "other_host", Pass, "A frame for another machine's hardware address (a switch that floods, a promiscuous interface); the stack drops it.";
    HostPort = "host_port", Pass, "To a VIP that is the host's own address, on a port of no service; the host handles it.";
    TtlExpired = "ttl_expired", Pass, "TTL of 1 or less; left to the stack, which answers with ICMP time exceeded. Traceroute, or a routing loop.";
    LeftToTc = "left_to_tc", Pass, "XDP could not emit it (no neighbour known yet, or a device without native XDP); the same code at TC ingress forwards it. Some at the start of traffic are normal.";
    ForwardLocal = "forward_local", Forward, "Sent to a backend on this node.";
    ForwardNat = "forward_nat", Forward, "Sent to a backend elsewhere, with a source address of this node.";
    ForwardDsr = "forward_dsr", Forward, "Handed over to the node of its backend, as it is; that node answers the client itself.";
    Returned = "returned", Forward, "Of a connection that this node does not know, which had begun before the VIP came here; handed over to the node that had it then.";
    ReplyLocal = "reply_local", Forward, "A local backend's reply, sent to the client from the VIP.";
    ReplyNat = "reply_nat", Forward, "A remote backend's reply, sent to the client from the VIP.";
    RefusedReset = "refused_reset", Refuse, "TCP refused with RST: no usable backend, or a connection that neither this node remembers nor the one that had the VIP before. Check the endpoints of the service (`naru backends`).";
    RefusedUnreachable = "refused_unreachable", Refuse, "UDP or SCTP refused with ICMP port unreachable: no usable backend. Check the endpoints of the service (`naru backends`).";
    EchoReply = "echo_reply", Refuse, "A ping of a VIP that has backends, answered.";
    ArpAnswered = "arp_answered", Refuse, "An ARP request for an address that is claimed on the interface, answered.";
    NdpAnswered = "ndp_answered", Refuse, "A neighbour solicitation for an address that is claimed on the interface, answered.";
    ClaimExpired = "claim_expired", Pass, "A question for a claimed address that the agent vouches for no more: it was stopped, died or hangs. Nobody answers; check that the agent runs.";
    ErrorLocal = "error_local", Forward, "An ICMP error about a reply, given to the backend on this node that had sent it. Path MTU discovery needs these.";
    ErrorNat = "error_nat", Forward, "An ICMP error about a reply, sent on to the backend elsewhere that had sent it.";
    ErrorDsr = "error_dsr", Forward, "An ICMP error about a reply, handed over to the node of the backend that had sent it.";
    ErrorReply = "error_reply", Forward, "An ICMP error about a client's packet, from a backend or on the way to it, sent to the client as the VIP's.";
    RefusalLimited = "refusal_limited", Drop, "A refusal over the rate limit; dropped silently. A flood towards a service without backends.";
    RefusalSuppressed = "refusal_suppressed", Drop, "A packet that must not be answered: it is itself an RST or an ICMP error, a later fragment, comes from a multicast, broadcast or loopback source, or has more than 128 bytes of network headers.";
    VipPort = "vip_port", Drop, "To a VIP on a port of no service. Check the port, or the service's ports.";
    SourceDenied = "source_denied", Drop, "From an address outside the service's loadBalancerSourceRanges.";
    VipProtocol = "vip_protocol", Drop, "To a VIP by a protocol that is not balanced (GRE, for instance).";
    VipEcho = "vip_echo", Drop, "A ping of a VIP none of whose services has a usable backend. Check the endpoints (`naru backends`).";
    VipError = "vip_error", Drop, "An ICMP error to a VIP about no flow that is known: late, or forged.";
    VipFragment = "vip_fragment", Drop, "A later fragment to a VIP whose first was not seen, or not forwarded. Fragments out of order; a smaller MTU at the sender avoids them.";
    BadTcp = "bad_tcp", Drop, "To a VIP, with a TCP header length below 20 or beyond the packet's end. A broken sender, or a scan.";
    BadUdp = "bad_udp", Drop, "To a VIP, with a UDP length below 8 or beyond the packet's end. A broken sender, or a scan.";
    Short = "short", Drop, "To a VIP, ending within its transport header. A broken sender, or a scan.";
    NoRoute = "no_route", Drop, "This node has no route to the backend, or to the client of a reply. Check `ip route get`.";
    ForwardingOff = "forwarding_off", Drop, "The kernel does not forward on the interface the packet came in by. Set sysctl net.ipv4.conf.INTERFACE.forwarding=1 (IPv6: net.ipv6.conf.all.forwarding=1).";
    NoPeer = "no_peer", Drop, "The node of the backend does not answer ARP or neighbour discovery. Check that it is up, and on the LAN that its Node object names.";
    NotHere = "not_here", Drop, "A peer handed it over, but no backend of the service that takes new flows is on this node. Some during changes are normal; a steady rate means that the nodes do not see the same endpoints.";
    NoDevice = "no_device", Drop, "The backend is reached through an interface that Naru is not attached to or that has no address. Add it with --interface.";
    TooBig = "too_big", Refuse, "Larger than the MTU on its way on; its sender was told by ICMP and sends smaller ones. A few for every new path are normal.";
    Uncut = "uncut", Drop, "Larger than the MTU on its way on, and of a sender that expects routers to cut it, which Naru leaves to tunnels (VXLAN, Geneve). Raise the MTU of the egress interface.";
    PortsExhausted = "ports_exhausted", Drop, "No free SNAT port towards the backend. Too many connections from this node to one backend.";
    TupleClash = "tuple_clash", Drop, "The client uses one source port for two frontends, and every backend tried already serves that port: its retry takes another port. Rarely, two CPUs met the first packets of one flow, or a flood left no room for its replies; then the retry is served.";
    TableFull = "table_full", Drop, "The flow was not recorded: other CPUs were recording flows at the same place. The client tries again; a steady rate is a defect, please report it.";
    EmitFailed = "emit_failed", Drop, "A kernel helper failed to rewrite or send the packet. A defect: please report it.";
}

impl Verdict {
    /// Number of verdicts.
    pub const COUNT: usize = Self::ALL.len();
    /// Entries of map `VERDICTS`.
    pub const COUNTERS: usize = Self::COUNT * Hook::ALL.len();

    /// Index of the verdict's counter at `hook` in map `VERDICTS`.
    #[inline(always)]
    pub const fn counter(self, hook: Hook) -> u32 {
        hook as u32 * Self::COUNT as u32 + self as u32
    }

    /// The verdict with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The verdict of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.name() == name)
    }
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
