//! Packets as their parts. `bytes` computes every checksum from scratch.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header,
    Ipv4Options, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
    icmpv4, icmpv6,
};

pub(crate) const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x65];
pub(crate) const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const REMOTE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// An Ethernet frame with TCP, UDP or SCTP over IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) eth_src: [u8; 6],
    pub(crate) eth_dst: [u8; 6],
    /// VLAN ids, the outermost first.
    pub(crate) tags: Vec<u16>,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) ttl: u8,
    /// IPv4 options.
    pub(crate) options: Vec<u8>,
    /// Whether routers must not cut it.
    pub(crate) whole: bool,
    /// IPv6 extension headers: hop-by-hop and destination options of eight bytes each.
    pub(crate) extensions: bool,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
    },
    Udp {
        checksum: bool,
    },
    /// Its checksum is whatever stands there.
    Sctp,
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A TCP segment from a client on the LAN.
pub(crate) fn tcp(src: &str, dst: &str, flags: u8) -> Packet {
    Packet {
        eth_src: CLIENT_MAC,
        eth_dst: NODE_MAC,
        src: addr(src),
        dst: addr(dst),
        tags: Vec::new(),
        ttl: 64,
        options: Vec::new(),
        whole: true,
        extensions: false,
        transport: Transport::Tcp {
            flags,
            seq: 0x0102_0304,
            ack: if flags & ACK == 0 { 0 } else { 0x0a0b_0c0d },
            window: 64_240,
        },
        payload: Vec::new(),
    }
}

/// A UDP datagram from a client on the LAN.
pub(crate) fn udp(src: &str, dst: &str, payload: &[u8]) -> Packet {
    Packet {
        transport: Transport::Udp { checksum: true },
        payload: payload.to_vec(),
        ..tcp(src, dst, 0)
    }
}

/// An SCTP packet from a client on the LAN.
pub(crate) fn sctp(src: &str, dst: &str, payload: &[u8]) -> Packet {
    Packet {
        transport: Transport::Sctp,
        payload: payload.to_vec(),
        ..tcp(src, dst, 0)
    }
}

impl Packet {
    pub(crate) fn tagged(mut self, tags: &[u16]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    pub(crate) fn extended(mut self) -> Self {
        self.extensions = true;
        self
    }

    pub(crate) fn may_be_cut(mut self) -> Self {
        self.whole = false;
        self
    }

    /// Where the network header begins.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    fn network(&self) -> IpHeaders {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (src, dst) = (src.octets(), dst.octets());
                let mut header =
                    Ipv4Header::new(0, self.ttl, IpNumber::TCP, src, dst).expect("a short packet");
                header.dont_fragment = self.whole;
                header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber::TCP,
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                // Padding (RFC 8200 section 4.2).
                let options = || {
                    let header = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]);
                    self.extensions.then(|| header.unwrap())
                };
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: options(),
                    destination_options: options(),
                    ..Ipv6Extensions::default()
                };
                IpHeaders::Ipv6(header, extensions)
            }
            (src, dst) => panic!("{src} and {dst} in one header"),
        }
    }

    pub(crate) fn from(mut self, src: &str) -> Self {
        self.src = addr(src);
        self
    }

    pub(crate) fn to(mut self, dst: &str) -> Self {
        self.dst = addr(dst);
        self
    }

    pub(crate) fn link(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.eth_src, self.eth_dst) = (src, dst);
        self
    }

    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub(crate) fn without_checksum(mut self) -> Self {
        self.transport = Transport::Udp { checksum: false };
        self
    }

    pub(crate) fn numbers(mut self, new_seq: u32, new_ack: u32, new_window: u16) -> Self {
        if let Transport::Tcp {
            seq, ack, window, ..
        } = &mut self.transport
        {
            (*seq, *ack, *window) = (new_seq, new_ack, new_window);
        }
        self
    }

    pub(crate) fn flags(mut self, new: u8) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = new;
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2(self.eth_src, self.eth_dst).ip(self.network());
        let mut bytes = Vec::new();
        match self.transport {
            Transport::Tcp {
                flags,
                seq,
                ack,
                window,
            } => {
                let mut tcp = ip.tcp(self.src.port(), self.dst.port(), seq, window);
                if flags & ACK != 0 {
                    tcp = tcp.ack(ack);
                }
                for (flag, set) in [
                    (FIN, etherparse_fin as Setter),
                    (SYN, etherparse_syn),
                    (RST, etherparse_rst),
                    (PSH, etherparse_psh),
                ] {
                    if flags & flag != 0 {
                        tcp = set(tcp);
                    }
                }
                tcp.write(&mut bytes, &self.payload).unwrap();
                if flags & ACK == 0 && ack != 0 {
                    panic!("an acknowledgement number without ACK");
                }
            }
            Transport::Udp { checksum } => {
                ip.udp(self.src.port(), self.dst.port())
                    .write(&mut bytes, &self.payload)
                    .unwrap();
                if !checksum {
                    let at = 14 + 20 + self.options.len() + 6;
                    bytes[at..at + 2].fill(0);
                }
            }
            Transport::Sctp => {
                let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()];
                let message = [
                    &ports.concat()[..],
                    &[1, 2, 3, 4, 5, 6, 7, 8],
                    &self.payload,
                ];
                ip.write(&mut bytes, IpNumber::SCTP, &message.concat())
                    .unwrap();
            }
        }
        for tag in self.tags.iter().rev() {
            let [high, low] = tag.to_be_bytes();
            bytes.splice(12..12, [0x81, 0x00, high, low]);
        }
        bytes
    }
}

type Tcp = etherparse::PacketBuilderStep<etherparse::TcpHeader>;
type Setter = fn(Tcp) -> Tcp;

fn etherparse_fin(tcp: Tcp) -> Tcp {
    tcp.fin()
}
fn etherparse_syn(tcp: Tcp) -> Tcp {
    tcp.syn()
}
fn etherparse_rst(tcp: Tcp) -> Tcp {
    tcp.rst()
}
fn etherparse_psh(tcp: Tcp) -> Tcp {
    tcp.psh()
}

/// An ICMP error between two addresses; its type decides the family.
pub(crate) fn icmp(src: &str, dst: &str, kind: Icmp, quote: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let link = PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC);
    match (kind, src.parse().unwrap(), dst.parse().unwrap()) {
        (Icmp::V4(kind), IpAddr::V4(src), IpAddr::V4(dst)) => link
            .ipv4(src.octets(), dst.octets(), 64)
            .icmpv4(kind)
            .write(&mut bytes, quote),
        (Icmp::V6(kind), IpAddr::V6(src), IpAddr::V6(dst)) => link
            .ipv6(src.octets(), dst.octets(), 64)
            .icmpv6(kind)
            .write(&mut bytes, quote),
        other => panic!("{other:?}"),
    }
    .unwrap();
    bytes
}

/// A message of either family's control protocol.
#[derive(Clone, Debug)]
pub(crate) enum Icmp {
    V4(Icmpv4Type),
    V6(Icmpv6Type),
}

/// Port unreachable that quotes the start of a frame's packet, sent back to the client.
pub(crate) fn port_unreachable(refused: &Packet, quoted: usize) -> Vec<u8> {
    let kind = if refused.src.is_ipv4() {
        let kind = icmpv4::DestUnreachableHeader::Port;
        Icmp::V4(Icmpv4Type::DestinationUnreachable(kind))
    } else {
        Icmp::V6(Icmpv6Type::DestinationUnreachable(
            icmpv6::DestUnreachableCode::Port,
        ))
    };
    about(refused, kind, quoted)
}

/// An error about a client's packet, sent back to the client by whom it was for.
pub(crate) fn about(packet: &Packet, kind: Icmp, quoted: usize) -> Vec<u8> {
    let l3 = packet.l3();
    let quote = packet.bytes()[l3..l3 + quoted].to_vec();
    let (src, dst) = (packet.dst.ip().to_string(), packet.src.ip().to_string());
    let mut bytes = relinked(icmp(&src, &dst, kind, &quote), NODE_MAC, CLIENT_MAC);
    for tag in packet.tags.iter().rev() {
        let [high, low] = tag.to_be_bytes();
        bytes.splice(12..12, [0x81, 0x00, high, low]);
    }
    bytes
}

/// The frame between other stations.
pub(crate) fn relinked(mut frame: Vec<u8>, src: [u8; 6], dst: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame
}

/// An echo request.
pub(crate) fn ping(src: &str, dst: &str) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 1, seq: 7 };
    let kind = match src.parse().unwrap() {
        IpAddr::V4(_) => Icmp::V4(Icmpv4Type::EchoRequest(echo)),
        IpAddr::V6(_) => Icmp::V6(Icmpv6Type::EchoRequest(echo)),
    };
    icmp(src, dst, kind, b"ping")
}

/// The reply to it.
pub(crate) fn pong(src: &str, dst: &str) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 1, seq: 7 };
    let kind = match src.parse().unwrap() {
        IpAddr::V4(_) => Icmp::V4(Icmpv4Type::EchoReply(echo)),
        IpAddr::V6(_) => Icmp::V6(Icmpv6Type::EchoReply(echo)),
    };
    relinked(icmp(src, dst, kind, b"ping"), NODE_MAC, CLIENT_MAC)
}

/// What differs between two frames, for people.
pub(crate) fn difference(expected: &[u8], seen: &[u8]) -> String {
    let show = |bytes: &[u8]| match etherparse::SlicedPacket::from_ethernet(bytes) {
        Ok(packet) => format!(
            "{:?}\n   {:?}\n   {:02x?}",
            packet.net, packet.transport, bytes
        ),
        Err(error) => format!("{error}: {bytes:02x?}"),
    };
    format!("expected {}\nseen     {}", show(expected), show(seen))
}
