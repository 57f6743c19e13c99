//! Destroying sockets of the node's processes and pods (`SOCK_DESTROY` of sock_diag(7)), in
//! whichever network namespace they are.
//!
//! A UDP socket that is connected keeps its address whatever becomes of who had it. One
//! that is destroyed tells its owner so, who then makes another one: by ECONNABORTED where
//! he waits for an answer, by EDESTADDRREQ where he sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    thread,
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_UDP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG},
};

/// Connected UDP sockets: the kernel's number of each (`SO_COOKIE`), which no other socket
/// of any namespace has, and whom it is connected to.
pub type Connected = BTreeSet<(u64, SocketAddr)>;

/// Destroys those of `sockets` that still are, and gives how many those were. Blocks.
///
/// Enters the network namespace of every process that /proc shows, on a thread of its
/// own, which takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// Where a namespace cannot be entered, or the kernel does not destroy sockets
/// (`CONFIG_INET_DIAG_DESTROY`).
pub fn destroy(sockets: &Connected) -> io::Result<usize> {
    if sockets.is_empty() {
        return Ok(0);
    }
    let all = || -> io::Result<usize> {
        let counts = namespaces()?.into_iter().map(|path| {
            // Who has ended meanwhile has no sockets.
            let Ok(namespace) = File::open(path) else {
                return Ok(0);
            };
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            destroy_here(sockets)
        });
        // All are tried, whatever became of the first.
        let counts: Vec<io::Result<usize>> = counts.collect();
        counts.into_iter().sum()
    };
    thread::scope(|scope| {
        let ended = scope.spawn(all).join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// The network namespaces that processes are in, each once.
fn namespaces() -> io::Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("ns/net");
        // An error: it is no process, or none any more.
        if let Ok(file) = fs::metadata(&path) {
            found.entry(file.ino()).or_insert(path);
        }
    }
    Ok(found.into_values().collect())
}

fn destroy_here(sockets: &Connected) -> io::Result<usize> {
    let mut destroyed = 0;
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        for id in connected(family, any)? {
            // A socket of IPv6 names addresses of IPv4 in its own way.
            let peer = id.destination_address.to_canonical();
            let peer = SocketAddr::new(peer, id.destination_port);
            if sockets.contains(&(number(id.cookie), peer)) {
                destroyed += usize::from(destroy_one(family, id)?);
            }
        }
    }
    Ok(destroyed)
}

/// The connected UDP sockets of this namespace.
fn connected(family: u8, any: SocketId) -> io::Result<Vec<SocketId>> {
    let request = SockDiagMessage::InetRequest(request(family, any));
    let answers = ask(NLM_F_REQUEST | NLM_F_DUMP, request)?;
    let ids = answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => Some(response.header.socket_id),
        _ => None,
    });
    Ok(ids.collect())
}

/// Whether the socket was there to be destroyed.
fn destroy_one(family: u8, id: SocketId) -> io::Result<bool> {
    let request = SockDiagMessage::InetRequest(request(family, id));
    match ask(NLM_F_REQUEST | NLM_F_ACK, SockDiagDestroy::new(request)) {
        Ok(_) => Ok(true),
        // Closed by its owner, or for another peer by now.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

fn request(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    }
}

/// A cookie is two words, the lower one first.
fn number(cookie: [u8; 8]) -> u64 {
    let [a, b, c, d, e, f, g, h] = cookie;
    let (low, high) = ([a, b, c, d], [e, f, g, h]);
    u64::from(u32::from_ne_bytes(low)) | u64::from(u32::from_ne_bytes(high)) << 32
}

/// Sends a message and gathers the answers to it.
fn ask<M>(flags: u16, message: M) -> io::Result<Vec<SockDiagMessage>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (answer.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}
