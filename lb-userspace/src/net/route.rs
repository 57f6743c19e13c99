//! Where the kernel would send a packet, and what that says about an endpoint.

use std::{collections::BTreeSet, net::IpAddr};

use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};

/// The kernel's answer for one destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// What happens to the packet.
    pub kind: RouteKind,
    /// Index of the interface it leaves by; loopback for local ones.
    pub egress: Option<u32>,
    /// The next router; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would use.
    pub preferred_source: Option<IpAddr>,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Delivered on this host.
    Local,
    /// Sent on.
    Unicast,
    /// No route, or one that refuses (unreachable, prohibit, blackhole).
    Unreachable,
    /// Broadcast, multicast and what else there is; no endpoint is behind it.
    Other,
}

/// Whether an endpoint is on this node, judged by the route to it.
///
/// `attached` are the interfaces that Naru takes packets from: what is behind one
/// of those is on the LAN. Behind any other, an endpoint without a router in between
/// is a pod of this node (a bridge such as cni0, or a host-side veth); behind a
/// router it is on another node.
pub fn is_local_endpoint(route: &Route, attached: &BTreeSet<u32>) -> bool {
    match route.kind {
        RouteKind::Local => true,
        RouteKind::Unreachable | RouteKind::Other => false,
        RouteKind::Unicast => {
            let by_lan = route.egress.is_some_and(|index| attached.contains(&index));
            !by_lan && route.gateway.is_none()
        }
    }
}

// === impl Route ===

impl Route {
    /// The answer where there is none.
    pub(super) const UNREACHABLE: Self = Self {
        kind: RouteKind::Unreachable,
        egress: None,
        gateway: None,
        preferred_source: None,
    };

    /// Whether this error of the kernel is how it says "no way there": no route,
    /// routes of type unreachable, prohibit and blackhole, in this order, and none of a family that
    /// it does not know (`ipv6.disable=1`).
    pub(super) fn is_refusal(errno: Errno) -> bool {
        matches!(
            errno,
            Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::EACCES
                | Errno::EINVAL
                | Errno::EOPNOTSUPP
        )
    }

    /// The question for one destination.
    pub(super) fn request(destination: IpAddr) -> RouteMessage {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        message
    }
}

impl From<RouteMessage> for Route {
    fn from(message: RouteMessage) -> Self {
        let kind = match message.header.kind {
            RouteType::Local => RouteKind::Local,
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Unreachable | RouteType::Prohibit | RouteType::BlackHole => {
                RouteKind::Unreachable
            }
            _ => RouteKind::Other,
        };
        let mut route = Self {
            kind,
            ..Self::UNREACHABLE
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.egress = Some(index),
                RouteAttribute::Gateway(addr) => route.gateway = to_ip(&addr),
                // An IPv4 destination behind an IPv6 router.
                RouteAttribute::Via(RouteVia::Inet(addr)) => route.gateway = Some(addr.into()),
                RouteAttribute::Via(RouteVia::Inet6(addr)) => route.gateway = Some(addr.into()),
                RouteAttribute::PrefSource(addr) => route.preferred_source = to_ip(&addr),
                _ => {}
            }
        }
        route
    }
}

fn to_ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_endpoint_is() {
        let attached = BTreeSet::from([2]);
        let router = Some(IpAddr::from([192, 168, 56, 1]));
        let cases = [
            (
                "an address of the host",
                RouteKind::Local,
                Some(1),
                None,
                true,
            ),
            ("a pod behind cni0", RouteKind::Unicast, Some(5), None, true),
            (
                "a host on the LAN",
                RouteKind::Unicast,
                Some(2),
                None,
                false,
            ),
            (
                "a pod of another node, routed",
                RouteKind::Unicast,
                Some(2),
                router,
                false,
            ),
            (
                "a pod of another node, by a tunnel",
                RouteKind::Unicast,
                Some(6),
                router,
                false,
            ),
            ("nowhere", RouteKind::Unreachable, None, None, false),
            ("a group", RouteKind::Other, Some(5), None, false),
        ];
        for (what, kind, egress, gateway, local) in cases {
            let route = Route {
                kind,
                egress,
                gateway,
                preferred_source: None,
            };
            assert_eq!(is_local_endpoint(&route, &attached), local, "{what}");
        }
    }

    #[test]
    fn reads_the_kernel_s_answer() {
        let mut message = Route::request(IpAddr::from([10, 244, 2, 9]));
        message.header.kind = RouteType::Unicast;
        message.attributes.extend([
            RouteAttribute::Oif(3),
            RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
            RouteAttribute::PrefSource(IpAddr::from([10, 0, 0, 1]).into()),
        ]);
        assert_eq!(
            Route::from(message),
            Route {
                kind: RouteKind::Unicast,
                egress: Some(3),
                gateway: Some("fe80::1".parse().unwrap()),
                preferred_source: Some(IpAddr::from([10, 0, 0, 1])),
            }
        );
    }
}
