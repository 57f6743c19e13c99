//! What the cases about unrecorded flows share: both families' addresses, and Maglev services.

use lb_common::{Algorithm, Mode};
use naru::desired::{Condition, Service};

use crate::{
    frames::{NODE_MAC, Packet, addr, tcp},
    world::{World, service},
};

/// Flows of a case: enough to fall on slots of every backend.
pub(crate) const FLOWS: u16 = 24;
/// The sender's address of what nuc02 hands over.
pub(crate) const FROM_PEER: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x66];

/// One family's addresses.
pub(crate) struct Side {
    client: &'static str,
    pub(crate) vip: &'static str,
    /// A further frontend.
    pub(crate) second: &'static str,
    /// Here.
    pub(crate) pods: [&'static str; 3],
    /// On nuc02.
    pub(crate) there: [&'static str; 2],
}

pub(crate) const V4: Side = Side {
    client: "192.168.56.1",
    vip: "192.168.56.11:80",
    second: "192.168.56.11:8080",
    pods: ["10.244.1.2:3000", "10.244.1.3:3000", "10.244.1.4:3000"],
    there: ["10.244.2.2:3000", "10.244.2.3:3000"],
};

pub(crate) const V6: Side = Side {
    client: "[fd00::1]",
    vip: "[fd00::11]:80",
    second: "[fd00::11]:8080",
    pods: ["[fd00:1::2]:3000", "[fd00:1::3]:3000", "[fd00:1::4]:3000"],
    there: ["[fd00:2::2]:3000", "[fd00:2::3]:3000"],
};

impl Side {
    pub(crate) fn client(&self, n: u16) -> String {
        format!("{}:{}", self.client, 10_000 + n)
    }

    /// A segment of flow `n` to the VIP.
    pub(crate) fn segment(&self, n: u16, flags: u8) -> Packet {
        tcp(&self.client(n), self.vip, flags)
    }
}

/// A Maglev service in mode `dsr`. Backends with an exclamation mark only keep what they have,
/// and those with a question mark do not answer.
pub(crate) fn maglev(frontends: &[&str], backends: &[&str]) -> Service {
    let bare = |it: &&str| it.trim_end_matches(['!', '?']).to_owned();
    let addresses: Vec<_> = backends.iter().map(bare).collect();
    let addresses: Vec<_> = addresses.iter().map(|it| &it[..]).collect();
    let mut service = Service {
        algorithm: Algorithm::Maglev,
        maglev_slots: 1021,
        elsewhere: Mode::Dsr,
        ..service(frontends, &addresses)
    };
    for (backend, address) in backends.iter().zip(addresses) {
        let endpoint = service.endpoints.get_mut(&addr(address)).unwrap();
        endpoint.condition = match backend.as_bytes().last() {
            Some(b'!') => Condition::Draining,
            Some(b'?') => Condition::Unhealthy,
            _ => Condition::Ready,
        };
        let here = V4.pods.contains(&address) || V6.pods.contains(&address);
        endpoint.node = Some(if here { "nuc01" } else { "nuc02" }.to_owned());
    }
    service
}

/// Where a segment of every flow goes to.
#[track_caller]
pub(crate) fn all(world: &mut World, side: &Side, flags: u8) -> Vec<String> {
    let served = |n| world.served(&side.segment(n, flags));
    (0..FLOWS).map(served).collect()
}

/// The same packet as nuc02 hands it over.
pub(crate) fn handed(packet: Packet) -> Packet {
    packet.link(FROM_PEER, NODE_MAC)
}

/// The address of an endpoint.
pub(crate) fn addr_of(endpoint: &str) -> String {
    addr(endpoint).ip().to_string()
}
