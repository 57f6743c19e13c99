//! Notices that links, addresses, routes or neighbours changed.
//!
//! Only the type of each message is read: a notice says what to look at again, and
//! the next [`super::Network::snapshot`] says what is there. So a message that an
//! older library cannot parse, or one that was lost, never hides a change.

use std::{future::poll_fn, io, ops::BitOrAssign, time::Duration};

use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkBuffer,
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::time::{Instant, timeout_at};

use super::NetError;

/// How long notices are gathered after the first one: an interface that comes up
/// causes a dozen messages within a few milliseconds.
const GATHER: Duration = Duration::from_millis(20);
/// The kernel's largest netlink datagram.
const DATAGRAM: usize = 32 * 1024;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
    MulticastGroup::Neigh,
];

/// Which kinds of things changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Links came, went or changed.
    pub links: bool,
    /// Addresses, of both families.
    pub addresses: bool,
    /// Routes, routing rules or the next hops that routes name, of both families.
    pub routes: bool,
    /// Neighbours' link addresses, of both families.
    pub neighbours: bool,
}

/// A subscription; the kernel's socket buffer is its queue, so it holds no memory
/// however many changes nobody reads.
pub struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// What was heard but not yet handed out, and when it is to be.
    pending: Option<(Changes, Instant)>,
}

// === impl Changes ===

impl Changes {
    /// For when notices were lost: anything may have changed.
    pub const ALL: Self = Self {
        links: true,
        addresses: true,
        routes: true,
        neighbours: true,
    };

    /// Whether there is anything in it that a snapshot shows.
    pub const fn in_snapshot(self) -> bool {
        self.links || self.addresses || self.routes
    }

    /// By the type of a message, rtnetlink(7).
    fn of_message(kind: u16) -> Self {
        let mut changes = Self::default();
        match kind {
            16 | 17 => changes.links = true,
            20 | 21 => changes.addresses = true,
            // RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE, RTM_NEWNEXTHOP, RTM_DELNEXTHOP
            24 | 25 | 32 | 33 | 104 | 105 => changes.routes = true,
            // RTM_NEWNEIGH, RTM_DELNEIGH
            28 | 29 => changes.neighbours = true,
            _ => {}
        }
        changes
    }

    fn of_datagram(mut datagram: &[u8]) -> Self {
        let mut changes = Self::default();
        while !datagram.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
                // Cut off: something was said that we did not get.
                return Self::ALL;
            };
            changes |= Self::of_message(message.message_type());
            // Messages are padded to four bytes, netlink(7).
            let length = (message.length() as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
        }
        changes
    }

    fn any(self) -> bool {
        self.in_snapshot() || self.neighbours
    }
}

impl BitOrAssign for Changes {
    fn bitor_assign(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.neighbours |= other.neighbours;
    }
}

// === impl Events ===

impl Events {
    pub(super) fn open() -> Result<Self, NetError> {
        let groups = GROUPS
            .iter()
            .fold(0, |mask, &group| mask | 1 << (group as u32 - 1));
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(NetError::Socket)?;
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, groups))
            .map_err(NetError::Socket)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            pending: None,
        })
    }

    /// Waits until something has changed, and says what, at most about 20 ms late.
    /// Cancel safe: nothing that was heard is lost when the future is dropped.
    ///
    /// # Errors
    /// Where the socket fails; open another then.
    pub async fn next(&mut self) -> Result<Changes, NetError> {
        loop {
            let heard = match self.pending {
                None => self.read().await?,
                Some((changes, due)) => match timeout_at(due, self.read()).await {
                    Ok(heard) => heard?,
                    Err(_elapsed) => {
                        self.pending = None;
                        return Ok(changes);
                    }
                },
            };
            if !heard.any() {
                continue;
            }
            let (changes, _) = self
                .pending
                .get_or_insert((Changes::default(), Instant::now() + GATHER));
            *changes |= heard;
        }
    }

    async fn read(&mut self) -> Result<Changes, NetError> {
        self.buffer.clear();
        match poll_fn(|cx| self.socket.poll_recv(cx, &mut self.buffer)).await {
            Ok(()) => Ok(Changes::of_datagram(&self.buffer)),
            Err(error) if is_overrun(&error) => Ok(Changes::ALL),
            Err(error) => Err(NetError::Socket(error)),
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, payload: usize) -> Vec<u8> {
        let length = 16 + payload;
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn reads_the_types_of_all_messages_in_a_datagram() {
        let routes = Changes {
            routes: true,
            ..Changes::default()
        };
        assert_eq!(Changes::of_datagram(&message(24, 12)), routes);
        assert_eq!(Changes::of_datagram(&message(3, 0)), Changes::default());

        let mut two = message(16, 5);
        two.extend(message(21, 8));
        assert_eq!(
            Changes::of_datagram(&two),
            Changes {
                links: true,
                addresses: true,
                ..Changes::default()
            }
        );
    }

    #[test]
    fn a_datagram_cut_off_means_anything() {
        let bytes = message(24, 12);
        assert_eq!(Changes::of_datagram(&bytes[..20]), Changes::ALL);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Changes::of_datagram(&bytes);
        }
    }
}
