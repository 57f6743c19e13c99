//! UDP at every address that is routed to a pod: the answer comes from the address that was
//! asked, and names it. So one pod stands for as many endpoints as a benchmark wants.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt::Ipv4PacketInfo,
};

/// A socket that learns at which address it was asked.
pub(crate) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    setsockopt(&socket, Ipv4PacketInfo, &true)?;
    Ok(socket)
}

/// Answers for ever, with the address, a line feed, and what was sent.
pub(crate) fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // Errors are those of earlier answers (port unreachable); the next one is new.
        let _ = answer_one(socket, &mut buffer);
    }
}

fn answer_one(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<()> {
    let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
    let (length, from, asked) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        (received.bytes, received.address, asked)
    };
    let (Some(from), Some(mut asked)) = (from, asked) else {
        return Ok(());
    };
    let name = std::net::Ipv4Addr::from(asked.ipi_addr.s_addr.to_ne_bytes());
    asked.ipi_spec_dst = asked.ipi_addr;
    asked.ipi_ifindex = 0;
    let name = format!("{name}\n");
    let answer = [
        IoSlice::new(name.as_bytes()),
        IoSlice::new(&buffer[..length]),
    ];
    let source = [ControlMessage::Ipv4PacketInfo(&asked)];
    sendmsg(
        socket.as_raw_fd(),
        &answer,
        &source,
        MsgFlags::empty(),
        Some(&from),
    )?;
    Ok(())
}
