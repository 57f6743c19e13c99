//! Raw frames in a namespace: what a station there hears and says.

use std::{
    io::Read,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, MsgFlags, sendto},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Netns;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// Frames with the time of their arrival.
pub type Heard = Vec<(Instant, Vec<u8>)>;

/// Records the frames of one kind that arrive in a namespace, and sends others.
struct Tap {
    socket: Arc<Socket>,
    interface: LinkAddr,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// Records the ARP frames that arrive in a namespace, and sends others.
pub struct ArpTap(Tap);

/// The same for IPv6, of which neighbour discovery is looked at.
pub struct NdpTap(Tap);

impl ArpTap {
    /// Listens in that namespace; sends by that interface.
    pub fn open(namespace: &Netns, interface: &str) -> Self {
        Self(Tap::open(namespace, interface, ETH_P_ARP))
    }

    /// The Ethernet address of the interface that it sends by.
    pub fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }

    /// What was heard since the last call.
    pub fn take(&self) -> Heard {
        std::mem::take(&mut self.0.heard.lock().unwrap())
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame);
    }
}

impl NdpTap {
    /// Listens in that namespace; sends by that interface.
    pub fn open(namespace: &Netns, interface: &str) -> Self {
        Self(Tap::open(namespace, interface, ETH_P_IPV6))
    }

    /// The Ethernet address of the interface that it sends by.
    pub fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }

    /// The advertisements for an address that were heard so far.
    pub fn advertisements_of(&self, vip: std::net::Ipv6Addr) -> Vec<Vec<u8>> {
        let heard = self.0.heard.lock().unwrap();
        let frames = heard.iter().map(|(_, frame)| frame);
        let of_vip = |frame: &&Vec<u8>| {
            frame.len() >= 78
                && frame[20] == 58
                && frame[54] == 136
                && frame[62..78] == vip.octets()
        };
        frames.filter(of_vip).cloned().collect()
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame);
    }
}

impl Tap {
    fn open(namespace: &Netns, interface: &str, ether_type: u16) -> Self {
        let (socket, interface) = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                namespace.enter();
                let protocol = Protocol::from(i32::from(ether_type.to_be()));
                let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
                let timeout = Duration::from_millis(20);
                socket.set_read_timeout(Some(timeout)).unwrap();
                let address = getifaddrs()
                    .unwrap()
                    .filter(|entry| entry.interface_name == interface)
                    .find_map(|entry| entry.address?.as_link_addr().copied())
                    .expect("no such interface");
                (Arc::new(socket), address)
            });
            inside.join().unwrap()
        });
        let heard = Arc::new(Mutex::new(Heard::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let (socket, heard, stop) = (socket.clone(), heard.clone(), stop.clone());
            move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(length) = (&*socket).read(&mut buffer) {
                        let frame = (Instant::now(), buffer[..length].to_vec());
                        heard.lock().unwrap().push(frame);
                    }
                }
            }
        });
        Self {
            socket,
            interface,
            heard,
            stop,
            reader: Some(reader),
        }
    }

    fn mac(&self) -> [u8; 6] {
        self.interface.addr().unwrap()
    }

    fn send(&self, frame: &[u8]) {
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.interface,
            MsgFlags::empty(),
        );
        assert_eq!(sent, Ok(frame.len()));
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// An ARP frame for IPv4 over Ethernet (RFC 826), by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// Ethernet destination.
    pub to: [u8; 6],
    /// Ethernet source.
    pub from: [u8; 6],
    /// 1 is a request, 2 a reply.
    pub operation: u8,
    /// Sender's hardware address.
    pub sender: [u8; 6],
    /// Sender's protocol address.
    pub sender_ip: [u8; 4],
    /// Target's hardware address.
    pub target: [u8; 6],
    /// Target's protocol address.
    pub target_ip: [u8; 4],
}

impl ArpFrame {
    /// As it is on the wire, without padding.
    pub fn bytes(&self) -> Vec<u8> {
        [
            &self.to[..],
            &self.from,
            &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, self.operation],
            &self.sender,
            &self.sender_ip,
            &self.target,
            &self.target_ip,
        ]
        .concat()
    }
}
