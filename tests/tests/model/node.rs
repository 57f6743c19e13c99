//! The node under test as the model knows it: interfaces, neighbours and routes. The
//! kernel gets the same by `ip`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use naru_tests::ip;

/// An interface of the node. Its addresses have prefixes of 24 and 64 bits.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: usize,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// Whether Naru is attached to it.
    pub(crate) attached: bool,
    /// Whether XDP runs in its driver: it rewrites packets and may be redirected to.
    pub(crate) native: bool,
    /// Whether the kernel forwards what comes in there.
    pub(crate) forwards: bool,
    /// Whether Naru was given an IPv6 address of it as source of `nat` flows.
    pub(crate) snat_v6: bool,
}

const fn device(name: &'static str, number: u8, net: [u8; 3], host: u8, net6: u16) -> Device {
    Device {
        name,
        mac: [0x02, 0, 0, 0, number, 0x65],
        mtu: 1500,
        v4: Ipv4Addr::new(net[0], net[1], net[2], host),
        v6: Ipv6Addr::new(0xfd00, net6, 0, 0, 0, 0, 0, 0x100 + host as u16),
        attached: true,
        native: true,
        forwards: true,
        snat_v6: true,
    }
}

/// All interfaces but `lo`; clients are on the first.
pub(crate) const DEVICES: &[Device] = &[
    device("uplink", 0, [192, 168, 56], 101, 0),
    Device {
        snat_v6: false,
        ..device("east", 7, [10, 7, 0], 1, 7)
    },
    Device {
        native: false,
        ..device("slow", 6, [10, 6, 0], 1, 6)
    },
    Device {
        mtu: 1280,
        ..device("narrow", 5, [10, 5, 0], 1, 5)
    },
    Device {
        forwards: false,
        ..device("still", 8, [10, 8, 0], 1, 8)
    },
    Device {
        attached: false,
        native: false,
        ..device("side", 9, [10, 9, 0], 1, 9)
    },
    Device {
        attached: false,
        native: false,
        ..device("pods", 1, [10, 244, 1], 1, 1)
    },
];

/// Neighbours whose link address the kernel knows, by the last byte of their address.
const KNOWN: [u8; 4] = [1, 2, 9, 102];

/// Pods of this node, by the last byte of their address.
pub(crate) const PODS: std::ops::RangeInclusive<u8> = 2..=7;

/// Where a packet leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) device: &'static Device,
    /// The next hop's link address, if the kernel knows it.
    pub(crate) neighbour: Option<[u8; 6]>,
}

/// Why a packet is not routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// The kernel does not forward on the interface that it came in by.
    ForwardingOff,
    /// There is no route, or one to the host itself.
    NoRoute,
}

pub(crate) fn find(name: &str) -> &'static Device {
    let mut devices = DEVICES.iter();
    devices
        .find(|device| device.name == name)
        .unwrap_or_else(|| panic!("no interface {name}"))
}

pub(crate) fn is_host(ip: IpAddr) -> bool {
    DEVICES
        .iter()
        .any(|device| ip == IpAddr::V4(device.v4) || ip == IpAddr::V6(device.v6))
}

/// Whether an address is a pod's of this node.
pub(crate) fn is_pod(ip: IpAddr) -> bool {
    PODS.clone().any(|n| {
        let pods = find("pods");
        ip == host_of(pods, n, false) || ip == host_of(pods, n, true)
    })
}

/// The node that an address elsewhere is on, with its own address on a LAN of this one: in
/// half of the networks the host 9 of that, else one on the uplink. Nobody knows where
/// 192.168.56.103 is, and one node answers no ARP.
pub(crate) fn peer_of(ip: IpAddr) -> Option<(&'static str, IpAddr)> {
    let within = |name: &str| ip == host_of(find(name), 9, ip.is_ipv6());
    let near = ["east", "slow", "narrow"];
    if let Some(name) = near.into_iter().find(|name| within(name)) {
        return Some((name, host_of(find(name), 9, false)));
    }
    let uplink = find("uplink");
    let on_uplink = |n: u8| ip == host_of(uplink, n, ip.is_ipv6());
    if on_uplink(103) {
        None
    } else if on_uplink(102) {
        Some(("nuc02", host_of(uplink, 102, false)))
    } else {
        Some(("silent", host_of(uplink, 250, false)))
    }
}

/// The node that had an address before this one, by its own address: one that is there, one
/// that answers no ARP, none.
pub(crate) fn former_of(vip: IpAddr) -> Option<IpAddr> {
    let uplink = find("uplink");
    let is = |n: u8| vip == host_of(uplink, n, vip.is_ipv6());
    if is(12) {
        Some(host_of(uplink, 102, false))
    } else if is_host(vip) {
        Some(host_of(uplink, 250, vip.is_ipv6()))
    } else {
        None
    }
}

/// The link addresses of hosts that may send for others: those of [`peer_of`].
pub(crate) fn peer_macs() -> [[u8; 6]; 4] {
    let of = |name: &str, n: u8| neighbour_mac(find(name), n);
    [
        of("uplink", 102),
        of("east", 9),
        of("slow", 9),
        of("narrow", 9),
    ]
}

/// The host `n` in the network of a device.
pub(crate) fn host_of(device: &Device, n: u8, v6: bool) -> IpAddr {
    if v6 {
        let mut segments = device.v6.segments();
        segments[7] = n.into();
        IpAddr::from(segments)
    } else {
        let [a, b, c, _] = device.v4.octets();
        IpAddr::from([a, b, c, n])
    }
}

/// The link address of host `n` in the network of a device.
fn neighbour_mac(device: &Device, n: u8) -> [u8; 6] {
    [0x02, 0, 0, 1, device.mac[4], n]
}

/// What the kernel's tables say of a packet that came in by `ingress`.
pub(crate) fn route(ingress: &Device, src: IpAddr, dst: IpAddr) -> Result<Route, Unroutable> {
    // Link-local, loopback and multicast IPv6 is no router's (RFC 4291 section 2.5.6).
    let bound = |ip: IpAddr| match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip.is_multicast() || ip == Ipv6Addr::LOCALHOST
        }
    };
    if bound(src) || bound(dst) {
        return Err(Unroutable::NoRoute);
    }
    if !ingress.forwards {
        return Err(Unroutable::ForwardingOff);
    }
    let on_link = |device: &&Device| match dst {
        IpAddr::V4(dst) => {
            let last = dst.octets()[3];
            dst.octets()[..3] == device.v4.octets()[..3] && last != 255
        }
        // Host part 0 is the routers' anycast address, this one's too.
        IpAddr::V6(dst) => {
            dst.segments()[..4] == device.v6.segments()[..4] && dst.segments()[4..] != [0; 4]
        }
    };
    let device = DEVICES
        .iter()
        .find(on_link)
        .filter(|_| !is_host(dst))
        .ok_or(Unroutable::NoRoute)?;
    let known = KNOWN.into_iter().find(|&n| {
        // Pods answer for themselves; nobody else is there.
        device.name != "pods" && dst == host_of(device, n, dst.is_ipv6())
    });
    Ok(Route {
        device,
        neighbour: known.map(|n| neighbour_mac(device, n)),
    })
}

/// Makes the interfaces.
pub(crate) fn build() {
    for device in DEVICES {
        let Device { name, v4, v6, .. } = device;
        let mac = link_text(device.mac);
        let mtu = device.mtu;
        ip(&format!(
            "link add {name} address {mac} mtu {mtu} type veth peer name {name}-far"
        ));
        ip(&format!("addr add {v4}/24 dev {name}"));
        ip(&format!("addr add {v6}/64 dev {name} nodad"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}-far up"));
        let forwards = if device.forwards { "1" } else { "0" };
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
            fs::write(path, forwards).expect("a sysctl");
        }
        if name == &"pods" {
            continue;
        }
        for n in KNOWN {
            let mac = link_text(neighbour_mac(device, n));
            for v6 in [false, true] {
                let host = host_of(device, n, v6);
                if !is_host(host) {
                    ip(&format!(
                        "neigh add {host} lladdr {mac} dev {name} nud permanent"
                    ));
                }
            }
        }
    }
    ip("link set lo up");
}

fn link_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
