//! Whole Ethernet frames on one interface, through packet(7).

use std::{io, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind, recvfrom},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

/// PACKET_OTHERHOST of packet(7): for another station, or of a VLAN that this host
/// does not know.
const OTHER_HOST: u8 = 3;

/// A socket that sends and receives on one interface only.
pub(super) struct LinkSocket {
    fd: AsyncFd<Socket>,
    index: u32,
}

impl LinkSocket {
    /// Opens it in the network namespace of the calling thread, for frames of one
    /// Ethernet type (host order) that pass the filter, if there is one, on the interface
    /// of that name and index. Needs CAP_NET_RAW.
    pub(super) fn open(
        name: &str,
        index: u32,
        ether_type: u16,
        filter: &[SockFilter],
    ) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ether_type.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        // The protocol in this address is 0: bind keeps the socket's own.
        bind(socket.as_raw_fd(), &link_addr(name, index)?)?;
        // Its successor is `unsafe`, for types that may change their descriptor in use;
        // a Socket does not.
        #[allow(deprecated)]
        let fd = AsyncFd::new(socket)?;
        Ok(Self { fd, index })
    }

    /// Waits for the next frame that was meant for this host and came in by this
    /// interface; what does not fit the buffer is cut off. Cancel safe.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            let received = ready
                .try_io(|fd| recvfrom::<LinkAddr>(fd.as_raw_fd(), buffer).map_err(io::Error::from));
            let (length, from) = match received {
                Ok(received) => received?,
                Err(_would_block) => continue,
            };
            // Until bind() the socket took frames from every interface.
            if from.is_some_and(|a| a.ifindex() == self.index as usize && a.pkttype() != OTHER_HOST)
            {
                return Ok(length);
            }
        }
    }

    /// Sends a whole frame now, or fails with `WouldBlock` where the queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.fd.get_ref().send(frame) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// The interface's packet address. A list that the library makes, since building
/// one from a number takes `unsafe`.
fn link_addr(name: &str, index: u32) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .filter_map(|entry| entry.address?.as_link_addr().copied())
        .find(|address| address.ifindex() == index as usize)
        .ok_or_else(|| Errno::ENODEV.into())
}
