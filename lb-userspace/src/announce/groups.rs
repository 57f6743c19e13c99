//! Multicast groups on one interface: while it is a member, the network card takes in
//! what is sent to them, and MLD (RFC 3810) tells the switches.

use std::{collections::BTreeSet, io, net::Ipv6Addr};

use socket2::{Domain, Socket, Type};

/// Memberships by one socket at most: the kernel charges them to the socket's memory,
/// `net.core.optmem_max`, which is 20 KiB on older ones.
const PER_SOCKET: usize = 128;

/// The groups that an interface is in, for as long as this lives.
pub(super) struct Groups {
    index: u32,
    sockets: Vec<Member>,
    joined: BTreeSet<Ipv6Addr>,
}

/// A socket that is nothing but a member.
struct Member {
    socket: Socket,
    groups: BTreeSet<Ipv6Addr>,
}

impl Groups {
    /// None yet, on the interface of this index.
    pub(super) fn new(index: u32) -> Self {
        Self {
            index,
            sockets: Vec::new(),
            joined: BTreeSet::new(),
        }
    }

    /// Joins and leaves, so that the interface is in these groups. The socket is made in
    /// the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where one cannot be joined: IPv6 is off on the interface, or it is gone.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        let left: Vec<Ipv6Addr> = self.joined.difference(wanted).copied().collect();
        for group in left {
            self.leave(group);
        }
        let missing: Vec<Ipv6Addr> = wanted.difference(&self.joined).copied().collect();
        for group in missing {
            self.join(group)?;
        }
        Ok(())
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let full = |member: &Member| member.groups.len() >= PER_SOCKET;
        let room = self.sockets.iter().position(|member| !full(member));
        let at = match room {
            Some(at) => at,
            None => {
                self.sockets.push(Member {
                    socket: Socket::new(Domain::IPV6, Type::DGRAM, None)?,
                    groups: BTreeSet::new(),
                });
                self.sockets.len() - 1
            }
        };
        let member = &mut self.sockets[at];
        member.socket.join_multicast_v6(&group, self.index)?;
        member.groups.insert(group);
        self.joined.insert(group);
        Ok(())
    }

    /// A membership that is gone already, as with its interface, needs no leaving.
    fn leave(&mut self, group: Ipv6Addr) {
        for member in &mut self.sockets {
            if member.groups.remove(&group)
                && let Err(error) = member.socket.leave_multicast_v6(&group, self.index)
            {
                tracing::debug!(%group, %error, "leaving a multicast group");
            }
        }
        self.sockets.retain(|member| !member.groups.is_empty());
        self.joined.remove(&group);
    }
}
