//! Packets as their parts. `bytes` computes every checksum from scratch.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Ipv4Options, PacketBuilder, icmpv4};

pub(crate) const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x65];
pub(crate) const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const REMOTE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// An Ethernet frame with TCP or UDP over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) eth_src: [u8; 6],
    pub(crate) eth_dst: [u8; 6],
    pub(crate) src: SocketAddrV4,
    pub(crate) dst: SocketAddrV4,
    pub(crate) ttl: u8,
    pub(crate) options: Vec<u8>,
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
}

pub(crate) fn addr(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A TCP segment from a client on the LAN.
pub(crate) fn tcp(src: &str, dst: &str, flags: u8) -> Packet {
    Packet {
        eth_src: CLIENT_MAC,
        eth_dst: NODE_MAC,
        src: addr(src),
        dst: addr(dst),
        ttl: 64,
        options: Vec::new(),
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

impl Packet {
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
        let mut header = etherparse::Ipv4Header::new(
            0,
            self.ttl,
            etherparse::IpNumber::TCP,
            self.src.ip().octets(),
            self.dst.ip().octets(),
        )
        .unwrap();
        header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
        let ip = PacketBuilder::ethernet2(self.eth_src, self.eth_dst).ip(
            etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()),
        );
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

/// ICMP port unreachable from `src` to `dst` that quotes the start of a frame's packet.
pub(crate) fn port_unreachable(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    refused: &[u8],
    quoted: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(NODE_MAC, CLIENT_MAC)
        .ipv4(src.octets(), dst.octets(), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(
            icmpv4::DestUnreachableHeader::Port,
        ))
        .write(&mut bytes, &refused[14..14 + quoted])
        .unwrap();
    bytes
}

/// An echo request.
pub(crate) fn ping(src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC)
        .ipv4(src.octets(), dst.octets(), 64)
        .icmpv4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 }))
        .write(&mut bytes, b"ping")
        .unwrap();
    bytes
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
