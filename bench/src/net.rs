//! The addresses of a measured node, of its service, and of those it speaks with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::Family;

/// How many backends a service has unless told otherwise, and how many hosts there are where
/// packets for no service go.
pub(crate) const BACKENDS: u32 = 100;
/// The link address of the node's devices.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// That of the router to the clients, and of all pods.
pub(crate) const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// That of the other node: not the router's, or nothing would be handed over to it, since its
/// answers to such a client would not have to leave it.
pub(crate) const PEER: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// The service's port, and that of its backends.
pub(crate) const PORT: u16 = 80;
/// See [`PORT`].
pub(crate) const POD_PORT: u16 = 3000;

/// A network of either family, whose hosts differ in the last four bytes of their address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

/// Behind the uplink's router.
pub(crate) const CLIENTS: Net = Net::new([10, 64, 0, 0], [0xfd00, 0x64]);
/// The uplink's own.
pub(crate) const LAN: Net = Net::new([192, 168, 56, 0], [0xfd00, 0x56]);
/// This node's pods, which are backends.
pub(crate) const PODS: Net = Net::new([10, 244, 1, 0], [0xfd00, 0x2441]);
/// Pods of this node that no service has.
pub(crate) const STRANGERS: Net = Net::new([10, 245, 1, 0], [0xfd00, 0x2451]);
/// Another node's pods, which are backends.
pub(crate) const FAR_PODS: Net = Net::new([10, 192, 0, 0], [0xfd00, 0x2442]);
/// The addresses of services that nobody asks.
pub(crate) const IDLE: Net = Net::new([10, 96, 0, 0], [0xfd00, 0x96]);

// === impl Net ===

impl Net {
    const fn new(v4: [u8; 4], v6: [u16; 2]) -> Self {
        let [a, b, c, d] = v4;
        Self {
            v4: Ipv4Addr::new(a, b, c, d),
            v6: Ipv6Addr::new(v6[0], v6[1], 0, 0, 0, 0, 0, 0),
        }
    }

    /// Its host of this number.
    pub(crate) fn host(self, family: Family, n: u32) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from(u32::from(self.v4) + n).into(),
            Family::V6 => Ipv6Addr::from(u128::from(self.v6) + u128::from(n)).into(),
        }
    }

    /// The first backend, or the first host that stands for one.
    pub(crate) fn first(self, family: Family) -> IpAddr {
        self.host(family, 2)
    }

    /// Whether an address with this end is one of its first so many backends.
    pub(crate) fn has_backend(self, family: Family, tail: u32, backends: u32) -> bool {
        let first = self::tail(self.first(family));
        (first..first + backends).contains(&tail)
    }
}

/// The service's address, or the first one's of those that are asked.
pub(crate) fn vip(family: Family) -> IpAddr {
    vip_of(family, 0)
}

/// The address of one of the services that are asked, by its number.
pub(crate) fn vip_of(family: Family, number: u32) -> IpAddr {
    LAN.host(family, 11 + number)
}

/// Whether an address with this end is a service's, of so many that are asked.
pub(crate) fn is_vip(family: Family, tail: u32, asked: u32) -> bool {
    let first = self::tail(vip(family));
    (first..first + asked).contains(&tail)
}

/// The node's own address.
pub(crate) fn node(family: Family) -> IpAddr {
    LAN.host(family, 101)
}

/// The way to the clients.
pub(crate) fn router(family: Family) -> IpAddr {
    LAN.host(family, 1)
}

/// The other node.
pub(crate) fn peer(family: Family) -> IpAddr {
    LAN.host(family, 102)
}

/// The address that flows in mode `nat` come from, which is for nothing else.
pub(crate) fn snat(family: Family) -> IpAddr {
    LAN.host(family, 250)
}

/// The last four bytes of an address, as a number.
pub(crate) fn tail(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr),
        IpAddr::V6(addr) => u128::from(addr) as u32,
    }
}
