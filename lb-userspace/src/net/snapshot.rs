//! What the kernel said about links and addresses at one moment. Pure data.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use super::{Mac, NetError};
use crate::desired::{DeviceFacts, Snat, Surroundings};

/// The links and addresses of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// In the kernel's order, which is the order in which it prefers them.
    pub addresses: Vec<Address>,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in this namespace while it exists.
    pub index: u32,
    /// Its name; may change while the index stays.
    pub name: String,
    /// Its Ethernet address; `None` for devices that are not Ethernet (tunnels).
    pub mac: Option<Mac>,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// The cable is in (IFF_LOWER_UP).
    pub carrier: bool,
    /// How often the carrier came or went: tells a flap that was over before
    /// anyone looked.
    pub carrier_changes: u32,
    /// Can send to all stations (IFF_BROADCAST).
    pub broadcast: bool,
    /// Can send to groups of stations (IFF_MULTICAST).
    pub multicast: bool,
    /// Does not resolve addresses (IFF_NOARP).
    pub noarp: bool,
    /// The loopback device.
    pub loopback: bool,
    /// What it is made of.
    pub kind: LinkKind,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
}

/// What `nat` flows shall come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatChoice {
    /// Addresses that are for nothing else, of the networks that they serve.
    pub addresses: Vec<IpAddr>,
    /// The ports of the host's own addresses that flows may take elsewhere.
    pub ports: RangeInclusive<u16>,
}

impl Default for SnatChoice {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            ports: lb_common::config::DEFAULT_SNAT_PORTS,
        }
    }
}

/// What an interface is made of, as far as that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// A network card, or anything else.
    #[default]
    Other,
    /// One end of a virtual cable: what the other end sends may be merged from several
    /// packets, its checksums left to a device that is not there.
    Veth,
    /// Several interfaces in the place of one.
    Bond,
    /// Puts packets into others, which are cut where they are too large: VXLAN, Geneve.
    Tunnel,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The host's own address, not the peer's.
    pub addr: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_len: u8,
    /// Scope global: reachable from other networks, as far as the kernel knows.
    pub global: bool,
    /// Secondary (IPv4), or temporary (IPv6): a primary one is preferred.
    pub secondary: bool,
    /// May be used as the source of new flows: not deprecated, and not waiting
    /// for or failed at duplicate address detection.
    pub usable: bool,
}

// === impl Snapshot ===

impl Snapshot {
    /// Every address of the host, on whatever interface, loopback included.
    pub fn host_addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().map(|address| address.addr).collect()
    }

    /// The addresses under which others reach the host: the global ones, of these
    /// networks where any are named.
    pub fn global_addresses(&self, networks: &[IpNet]) -> BTreeSet<IpAddr> {
        let within =
            |addr: &IpAddr| networks.is_empty() || networks.iter().any(|net| net.contains(addr));
        let global = self.addresses.iter().filter(|address| address.global);
        global.map(|address| address.addr).filter(within).collect()
    }

    /// The interface's address for new outgoing flows: global and usable, a
    /// primary one before a secondary, else the first.
    pub fn first_global(&self, interface: u32, ipv6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|a| a.interface == interface && a.addr.is_ipv6() == ipv6)
            .filter(|a| a.global && a.usable)
            .min_by_key(|a| a.secondary)
            .map(|a| a.addr)
    }

    /// The source of `nat` flows that leave by an interface: a dedicated address of a
    /// network that the interface is in, else its own.
    fn snat(&self, interface: u32, ipv6: bool, choice: &SnatChoice) -> Option<Snat> {
        let on_link = |ip: &&IpAddr| ip.is_ipv6() == ipv6 && self.on_link(interface, **ip);
        let dedicated = choice.addresses.iter().find(on_link);
        match dedicated {
            Some(&addr) => Some(Snat::dedicated(addr)),
            None => {
                let addr = self.first_global(interface, ipv6)?;
                Some(Snat::shared(addr, choice.ports.clone()))
            }
        }
    }

    /// Whether an address is of a network that the interface is in.
    pub fn on_link(&self, interface: u32, ip: IpAddr) -> bool {
        let mut own = self.addresses.iter().filter(|it| it.interface == interface);
        own.any(|it| {
            let net = IpNet::new(it.addr, it.prefix_len);
            it.global && net.is_ok_and(|net| net.contains(&ip))
        })
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// [`NetError::NoSuchInterface`], which names those that there are.
    pub fn link_named(&self, name: &str) -> Result<&Link, NetError> {
        self.links
            .values()
            .find(|link| link.name == name)
            .ok_or_else(|| NetError::NoSuchInterface {
                name: name.to_owned(),
                known: self.links.values().map(|link| link.name.clone()).collect(),
            })
    }

    /// What `compile` needs to know of this node.
    ///
    /// `attached` has the interfaces that Naru is attached to, with whether XDP may
    /// redirect to each; those that are gone by now are left out. Which of the
    /// endpoints are local is told by [`super::is_local_endpoint`].
    pub fn surroundings(
        &self,
        node: &str,
        attached: &BTreeMap<u32, bool>,
        local_endpoints: BTreeSet<IpAddr>,
        snat: &SnatChoice,
    ) -> Surroundings {
        let devices = attached
            .iter()
            .filter_map(|(&index, &xdp_redirect)| {
                let link = self.links.get(&index)?;
                let facts = DeviceFacts {
                    name: link.name.clone(),
                    mac: link.mac.map_or([0; 6], |mac| mac.0),
                    snat_v4: self.snat(index, false, snat),
                    snat_v6: self.snat(index, true, snat),
                    xdp_redirect,
                    tunnel: link.kind == LinkKind::Tunnel,
                };
                Some((index, facts))
            })
            .collect();
        Surroundings {
            node: node.to_owned(),
            host_addresses: self.host_addresses(),
            local_endpoints,
            devices,
            ..Surroundings::default()
        }
    }
}

// === impl Link ===

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            broadcast: flags.contains(LinkFlags::Broadcast),
            multicast: flags.contains(LinkFlags::Multicast),
            noarp: flags.contains(LinkFlags::Noarp),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) if index != 0 => link.master = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = LinkKind::of(&infos);
                }
                LinkAttribute::CarrierChanges(count) => link.carrier_changes = count,
                LinkAttribute::Address(bytes) if ethernet => {
                    link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac);
                }
                _ => {}
            }
        }
        link
    }
}

// === impl LinkKind ===

impl LinkKind {
    fn of(infos: &[LinkInfo]) -> Self {
        let kind = infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        });
        match kind {
            Some(InfoKind::Veth) => Self::Veth,
            Some(InfoKind::Bond) => Self::Bond,
            Some(InfoKind::Vxlan | InfoKind::Geneve) => Self::Tunnel,
            _ => Self::Other,
        }
    }
}

// === impl Address ===

impl Address {
    /// `None` for entries that carry no address of the host.
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        let (mut local, mut peer, mut wide) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(addr) => local = Some(*addr),
                AddressAttribute::Address(addr) => peer = Some(*addr),
                AddressAttribute::Flags(flags) => wide = Some(*flags),
                _ => {}
            }
        }
        // The header has room for the first eight flags only, all that matter here.
        let flags = wide.unwrap_or(AddressFlags::from_bits_retain(header.flags.bits().into()));
        let unusable = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
        Some(Self {
            interface: header.index,
            // IFA_ADDRESS is the other end on point-to-point links; IPv6 has no
            // IFA_LOCAL elsewhere.
            addr: local.or(peer)?,
            prefix_len: header.prefix_len,
            global: header.scope == AddressScope::Universe,
            secondary: flags.contains(AddressFlags::Secondary),
            usable: !flags.intersects(unusable),
        })
    }
}

#[cfg(test)]
mod tests;
