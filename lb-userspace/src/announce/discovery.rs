//! What claiming an address on a link takes beside answering for it, whatever the
//! protocol: ARP (RFC 826) does it for IPv4, neighbour discovery (RFC 4861) for IPv6.

use std::{
    fmt::Debug,
    net::{IpAddr, Ipv6Addr},
};

use socket2::SockFilter;

use super::SkipReason;
use crate::net::{Link, Mac};

/// A protocol that finds the station behind an address.
///
/// Pure: whole Ethernet frames in, whole Ethernet frames out. Sockets, timing and
/// what is claimed belong to [`super::speaker`].
pub(super) trait Discovery: Copy + Send + Sync + 'static {
    /// What it calls itself in logs.
    const NAME: &'static str;
    /// The Ethernet type of its frames, in host order.
    const ETHER_TYPE: u16;
    /// Which frames of that type are its own, for packet(7); all where it is empty.
    const FILTER: &'static [SockFilter];
    /// The addresses that it finds.
    type Addr: Copy + PartialEq + Debug + Into<IpAddr> + Send + Sync;

    /// For an interface with this address.
    fn new(mac: Mac) -> Self;

    /// The address in this protocol's family, or `None` for the other one.
    fn own_family(vip: IpAddr) -> Option<Self::Addr>;

    /// Why it cannot work on this interface, beyond what holds for all protocols.
    fn refuses(link: &Link) -> Option<SkipReason>;

    /// The group that questions for the address are sent to, which the interface has to
    /// join; `None` where they go to all stations.
    fn group(vip: Self::Addr) -> Option<Ipv6Addr>;

    /// Reads a frame. `None` for what is none of its frames, malformed, or sent to
    /// another station, and for one that says of no address whose it is.
    fn hear(&self, frame: &[u8]) -> Option<Heard<Self::Addr>>;

    /// The frames of one round in which the address is announced, unasked.
    fn announcement(&self, vip: Self::Addr) -> Vec<Vec<u8>>;
}

/// What one frame of another station says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard<A> {
    /// The station that speaks, by what the protocol says, not the Ethernet header.
    pub(super) sender: Mac,
    /// The address that it says is its own.
    pub(super) sender_addr: A,
}
