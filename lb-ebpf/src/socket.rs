//! Clients on the node itself and in its pods: addresses are translated at the socket,
//! once for a connection. Their packets never meet the uplink's programs.
//!
//! A UDP socket that is not connected says an address with every datagram: each goes
//! where the one before went, and what comes back is said to come from the frontend.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use lb_common::{Addr, Algorithm, Backend, Frontend, Peer, Port, Socket, hash};

use crate::{
    client, count, flow,
    maps::{INTERNAL, SOCKETS},
    table,
};

/// Backends tried: one may be taken away after the slot was read.
const BACKEND_TRIES: u32 = 4;
const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The address in a socket call, as the socket's family has it. A socket of IPv6 speaks
/// to IPv4 by mapped addresses, which is how [`Addr`] holds them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

struct Call {
    ctx: SockAddrContext,
    family: Family,
}

#[cgroup_sock_addr(connect4)]
fn naru_connect4(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V4).connect()
}

#[cgroup_sock_addr(connect6)]
fn naru_connect6(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V6).connect()
}

#[cgroup_sock_addr(sendmsg4)]
fn naru_sendmsg4(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V4).send()
}

#[cgroup_sock_addr(sendmsg6)]
fn naru_sendmsg6(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V6).send()
}

#[cgroup_sock_addr(recvmsg4)]
fn naru_recvmsg4(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V4).name_peer()
}

#[cgroup_sock_addr(recvmsg6)]
fn naru_recvmsg6(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V6).name_peer()
}

#[cgroup_sock_addr(getpeername4)]
fn naru_getpeername4(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V4).name_peer()
}

#[cgroup_sock_addr(getpeername6)]
fn naru_getpeername6(ctx: SockAddrContext) -> i32 {
    Call::new(ctx, Family::V6).name_peer()
}

impl Call {
    #[inline(always)]
    const fn new(ctx: SockAddrContext, family: Family) -> Self {
        Self { ctx, family }
    }

    #[inline(always)]
    fn peer(&self) -> (Addr, Port) {
        let call = self.ctx.sock_addr;
        // SAFETY: fields of this run's context, each read as one word.
        unsafe {
            let addr = match self.family {
                Family::V4 => Addr::from_v4_word((*call).user_ip4),
                Family::V6 => Addr::from_words([
                    (*call).user_ip6[0],
                    (*call).user_ip6[1],
                    (*call).user_ip6[2],
                    (*call).user_ip6[3],
                ]),
            };
            (addr, Port::from_word((*call).user_port as u16))
        }
    }

    #[inline(always)]
    fn set_peer(&self, addr: &Addr, port: Port) {
        let call = self.ctx.sock_addr;
        // SAFETY: as in `peer`; the kernel lets these be written word by word, and
        // volatile keeps the compiler from joining the words.
        unsafe {
            match self.family {
                Family::V4 => (&raw mut (*call).user_ip4).write_volatile(addr.v4_word()),
                Family::V6 => {
                    let words = addr.words();
                    (&raw mut (*call).user_ip6[0]).write_volatile(words[0]);
                    (&raw mut (*call).user_ip6[1]).write_volatile(words[1]);
                    (&raw mut (*call).user_ip6[2]).write_volatile(words[2]);
                    (&raw mut (*call).user_ip6[3]).write_volatile(words[3]);
                }
            }
            (&raw mut (*call).user_port).write_volatile(port.word().into());
        }
    }

    #[inline(always)]
    fn socket(&self, addr: Addr, port: Port) -> Socket {
        // SAFETY: a helper on this run's context.
        let cookie = unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) };
        Socket::new(cookie, addr, port)
    }

    /// The service that the call asks for.
    #[inline(always)]
    fn service(&self, addr: &Addr, port: Port) -> Option<u32> {
        // SAFETY: a field of this run's context.
        let protocol = unsafe { (*self.ctx.sock_addr).protocol } as u8;
        // SAFETY: one word.
        unsafe { INTERNAL.get(Frontend::new(*addr, port, protocol)) }.copied()
    }

    /// Picks a backend for a new flow; the client is the network namespace, since the
    /// socket may have no address yet.
    #[inline(always)]
    fn pick(&self, service: u32) -> Option<&'static Backend> {
        let table = table::table(service);
        if table.is_empty() {
            return None;
        }
        // SAFETY: helpers on this run's context or without arguments.
        let (cookie, random) = unsafe {
            (
                bpf_get_netns_cookie(self.ctx.as_ptr()),
                bpf_get_prandom_u32(),
            )
        };
        // No address on a wire begins like this.
        let client = Addr::from_words([u32::MAX, u32::MAX, cookie as u32, (cookie >> 32) as u32]);
        let now = flow::now();
        let mut candidate = client::last_backend(client, service, table, now);
        let mut index = match table.algorithm() {
            _ if candidate.is_some() => 0,
            Algorithm::RoundRobin => table::turn(service, table),
            Algorithm::Maglev => hash::reduce(u64::from(random) << 32, table.len()),
        };
        for _ in 0..BACKEND_TRIES {
            let tried = candidate.take().or_else(|| {
                let backend = flow::backend(table::slot(table, index)?.current());
                index += 1;
                if index >= table.len() {
                    index = 0;
                }
                backend
            });
            if let Some(backend) = tried {
                client::remember(client, service, table, backend, now);
                count::flow(service, backend.id);
                return Some(backend);
            }
        }
        None
    }

    #[inline(always)]
    fn refuse(&self) -> i32 {
        // SAFETY: a helper on a plain number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        DENY
    }

    /// Goes to the backend, and remembers what the caller called it.
    #[inline(always)]
    fn redirect(&self, backend: &Backend, addr: Addr, port: Port) -> i32 {
        let back = self.socket(backend.addr, backend.port);
        // Without room the caller sees the backend's address, and is connected.
        let _ = SOCKETS.insert(&back, &Peer::new(addr, port, backend.id), 0);
        self.set_peer(&backend.addr, backend.port);
        ALLOW
    }

    #[inline(always)]
    fn connect(&self) -> i32 {
        let (addr, port) = self.peer();
        let Some(service) = self.service(&addr, port) else {
            return ALLOW;
        };
        match self.pick(service) {
            Some(backend) => self.redirect(backend, addr, port),
            None => self.refuse(),
        }
    }

    #[inline(always)]
    fn send(&self) -> i32 {
        let (addr, port) = self.peer();
        let Some(service) = self.service(&addr, port) else {
            return ALLOW;
        };
        let forth = self.socket(addr, port);
        // SAFETY: the entry is this socket's own.
        let last = unsafe { SOCKETS.get(&forth) }.map(|peer| peer.backend);
        let last = last
            .and_then(flow::backend)
            .filter(|backend| backend.open != 0);
        let backend = match last {
            Some(backend) => backend,
            None => {
                let Some(backend) = self.pick(service) else {
                    return self.refuse();
                };
                let _ = SOCKETS.insert(&forth, &Peer::new(addr, port, backend.id), 0);
                backend
            }
        };
        self.redirect(backend, addr, port)
    }

    /// Names the frontend where the kernel is about to name the backend behind it.
    #[inline(always)]
    fn name_peer(&self) -> i32 {
        let (addr, port) = self.peer();
        // SAFETY: the entry is this socket's own.
        if let Some(peer) = unsafe { SOCKETS.get(&self.socket(addr, port)) } {
            self.set_peer(&peer.addr, peer.port);
        }
        ALLOW
    }
}
