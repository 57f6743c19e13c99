//! What the compiler is told of services and of the node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{Mode, Protocol, maglev};
use naru::desired::{self, Condition, DeviceFacts, Endpoint, Frontend, Snat, Surroundings};

use crate::{
    node::{self, DEVICES},
    reference::{
        slots::SEED,
        state::{FIRST_PORT, LAST_PORT},
    },
    scene::{Service, Share},
};

/// A service as the compiler takes it.
pub(crate) fn desired(service: &Service) -> desired::Service {
    let protocol = Protocol::from_number(service.protocol).expect("a balanced protocol");
    let frontends = service
        .frontends
        .iter()
        .map(|&addr| Frontend { addr, protocol });
    let endpoint = |backend: &crate::scene::Backend| -> (SocketAddr, Endpoint) {
        let endpoint = Endpoint {
            weight: match backend.share {
                Share::Weight(weight) => weight,
                Share::Drain | Share::Failed => 1,
            },
            condition: match backend.share {
                Share::Weight(_) => Condition::Ready,
                Share::Drain => Condition::Draining,
                Share::Failed => Condition::Unhealthy,
            },
            node: node_of(backend.addr.ip()).map(str::to_owned),
            name: None,
        };
        (backend.addr, endpoint)
    };
    let endpoints = service.backends.iter().map(endpoint);
    desired::Service {
        frontends: frontends.collect(),
        algorithm: service.algorithm,
        // The smallest: what stands in the table is not the program's doing.
        maglev_slots: maglev::LADDER[0],
        elsewhere: if service.dsr { Mode::Dsr } else { Mode::Nat },
        affinity: service.sticky.map(Duration::from_secs),
        source_ranges: service
            .sources
            .iter()
            .map(|(ip, len)| format!("{ip}/{len}").parse().expect("a network"))
            .collect(),
        endpoints: endpoints.collect(),
        ..desired::Service::default()
    }
}

/// The node that an endpoint is on; None where nobody says so.
fn node_of(ip: IpAddr) -> Option<&'static str> {
    if node::is_host(ip) || node::is_pod(ip) {
        return None;
    }
    node::peer_of(ip).map(|(name, _)| name)
}

pub(crate) fn surroundings(indices: &BTreeMap<&'static str, u32>) -> Surroundings {
    let pods = node::find("pods");
    let hosts = DEVICES
        .iter()
        .flat_map(|device| [device.v4.into(), device.v6.into()]);
    let locals = node::PODS.flat_map(|n| [false, true].map(|v6| node::host_of(pods, n, v6)));
    let attached = DEVICES.iter().filter(|device| device.attached);
    let of = |name: &str, n: u8| node::peer_of(node::host_of(node::find(name), n, false));
    let peers = [
        of("uplink", 102),
        of("uplink", 9),
        of("east", 9),
        of("slow", 9),
        of("narrow", 9),
    ];
    let peers = peers.into_iter().flatten();
    let peers = peers.map(|(name, addr)| (name.to_owned(), addr));
    let own = |addr: IpAddr| Snat::shared(addr, FIRST_PORT..=LAST_PORT);
    Surroundings {
        node: "nuc01".into(),
        host_addresses: hosts.collect(),
        peers: peers.collect(),
        local_endpoints: locals.collect(),
        seed: SEED,
        devices: attached
            .map(|device| {
                let facts = DeviceFacts {
                    name: device.name.into(),
                    snat_v4: Some(own(device.v4.into())),
                    snat_v6: device.snat_v6.then(|| own(device.v6.into())),
                    mac: device.mac,
                    xdp_redirect: device.native,
                    tunnel: false,
                };
                (indices[device.name], facts)
            })
            .collect(),
        ..Surroundings::default()
    }
}
