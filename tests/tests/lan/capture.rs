//! What is seen on a machine's interface, packet by packet.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use naru_lab::{NetNs, UPLINK};
use nix::{ifaddrs::getifaddrs, sys::socket::bind};
use socket2::{Domain, Protocol, Socket, Type};

const ETH_P_ALL: u16 = 3;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Records the frames of a machine, in both directions, until told to stop.
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Records its eth0 from now on.
    pub fn start(machine: &NetNs) -> Self {
        // Segments that the receiver has put together have no checksum any more.
        machine
            .run("ethtool", &["-K", UPLINK, "gro", "off"])
            .unwrap();
        Self::on(machine, UPLINK)
    }

    /// Records a device as it is from now on: what XDP sends back from the other end of its
    /// cable, too, which that end itself never shows.
    pub fn on(machine: &NetNs, device: &str) -> Self {
        let open = || {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
            let link = getifaddrs()
                .unwrap()
                .filter(|it| it.interface_name == device)
                .find_map(|it| it.address?.as_link_addr().copied());
            bind(socket.as_raw_fd(), &link.expect("an uplink")).unwrap();
            socket.set_recv_buffer_size(8 << 20).unwrap();
            let pause = Some(Duration::from_millis(20));
            socket.set_read_timeout(pause).unwrap();
            socket
        };
        let mut socket = machine.enter(open).unwrap();
        let (frames, stop) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let reader = thread::spawn({
            let (frames, stop) = (Arc::clone(&frames), Arc::clone(&stop));
            move || {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    // What has arrived before the stop is read before the end.
                    let last = stop.load(Ordering::Relaxed);
                    while let Ok(length) = socket.read(&mut buffer) {
                        frames.lock().unwrap().push(buffer[..length].to_vec());
                    }
                    if last {
                        return;
                    }
                }
            }
        });
        Self {
            frames,
            stop,
            reader: Some(reader),
        }
    }

    /// The ARP frames so far.
    pub fn arp(&self) -> Vec<Arp> {
        self.frames
            .lock()
            .unwrap()
            .iter()
            .filter_map(|it| Arp::parse(it))
            .collect()
    }

    /// Ends it; gives the IPv4 packets.
    pub fn packets(mut self) -> Vec<Packet> {
        self.end();
        let frames = self.frames.lock().unwrap();
        frames
            .iter()
            .filter_map(|frame| Packet::parse(frame))
            .collect()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// An ARP frame.
#[derive(Clone, Debug)]
pub struct Arp {
    pub to: [u8; 6],
    pub sender: [u8; 6],
    pub sender_ip: Ipv4Addr,
    pub target_ip: Ipv4Addr,
}

impl Arp {
    fn parse(frame: &[u8]) -> Option<Self> {
        let at = |from: usize| Some(Ipv4Addr::from(*frame.get(from..)?.first_chunk::<4>()?));
        (frame.get(12..14)? == [0x08, 0x06]).then_some(())?;
        Some(Self {
            to: *frame.first_chunk()?,
            sender: *frame.get(22..)?.first_chunk()?,
            sender_ip: at(28)?,
            target_ip: at(38)?,
        })
    }

    /// Whether it tells all of the LAN where an address is.
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip && self.to == [0xff; 6]
    }
}

/// An IPv4 packet over Ethernet.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub protocol: u8,
    pub ttl: u8,
    /// Whether the checksums of both headers are right.
    pub sound: bool,
}

impl Packet {
    fn parse(frame: &[u8]) -> Option<Self> {
        (frame.get(12..14)? == [0x08, 0x00]).then_some(())?;
        let packet = &frame[14..];
        let head = usize::from(packet.first()? & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let (header, payload) = packet.get(..length)?.split_at_checked(head)?;
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let protocol = header[9];
        let ports = matches!(protocol, TCP | UDP) && payload.len() >= 8;
        let port = |at: usize| match ports {
            true => u16::from_be_bytes([payload[at], payload[at + 1]]),
            false => 0,
        };
        let pseudo = [
            &header[12..20],
            &[0, protocol],
            &(payload.len() as u16).to_be_bytes(),
        ]
        .concat();
        let transport = match protocol {
            // Zero says that there is none.
            UDP if payload.get(6..8) == Some(&[0, 0]) => true,
            TCP | UDP => sum(&[&pseudo, payload]) == 0xffff,
            _ => sum(&[payload]) == 0xffff,
        };
        Some(Self {
            src: SocketAddrV4::new(address(12), port(0)),
            dst: SocketAddrV4::new(address(16), port(2)),
            protocol,
            ttl: header[8],
            sound: sum(&[header]) == 0xffff && transport,
        })
    }
}

/// The ones' complement sum (RFC 1071); each part but the last is of even length.
fn sum(parts: &[&[u8]]) -> u32 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
