//! A node to measure: a namespace with an uplink, and Naru's programs with one service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lb_common::{Algorithm, Hook, Mode, Protocol, config::DEFAULT_SNAT_PORTS, maglev};
use naru::{
    compile::compile,
    datapath::{self, Datapath, Options},
    desired::{
        Condition, Desired, DeviceFacts, Endpoint, Frontend, Service, ServiceName, Snat,
        Surroundings,
    },
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

/// How many backends the service has.
const BACKENDS: u8 = 100;
/// The uplink's link address.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// That of all others on the LAN.
pub(crate) const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The service's address, and its port.
pub(crate) const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 168, 56, 11), 80);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 101);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 102);
const UPLINK: &str = "uplink";

/// Enters a network namespace of its own and makes its interfaces; gives the uplink's index.
pub(crate) fn build() -> Result<u32> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own; run as root")?;
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (mac, other) = (text(MAC), text(OTHER));
    let script = format!(
        "link set lo up
         link add {UPLINK} address {mac} type veth peer name far address {other}
         link add pods type veth peer name pods-far
         addr add {NODE}/24 dev {UPLINK}
         addr add 10.244.1.1/24 dev pods
         link set {UPLINK} up
         link set far up
         link set pods up
         link set pods-far up
         neigh add {PEER} lladdr {other} dev {UPLINK} nud permanent
         route add 10.0.0.0/8 via {PEER}
         route add 10.244.2.0/24 via {PEER}"
    );
    for line in script.lines() {
        let output = Command::new("ip").args(line.split_whitespace()).output();
        let output = output.context("ip: install iproute2")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "ip {}: {error}", line.trim());
    }
    for name in ["all", UPLINK] {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
        std::fs::write(&path, "1").context(path)?;
    }
    Ok(if_nametoindex(UPLINK)?)
}

/// Naru with one service, loaded and not attached to anything.
pub(crate) struct Node {
    pub(crate) datapath: Datapath,
    pins: PathBuf,
}

impl Node {
    pub(crate) fn new(
        ifindex: u32,
        algorithm: Algorithm,
        mode: Mode,
        max_flows: u32,
    ) -> Result<Self> {
        let name = format!("naru-bench-{}-{}", std::process::id(), mode.name());
        let pins = Path::new("/sys/fs/bpf").join(format!("{name}-{}", algorithm.name()));
        datapath::preflight(&pins)?;
        let mut datapath = Datapath::open(Options {
            pin_dir: pins.clone(),
            max_flows,
            ..Options::default()
        })?;
        let desired = Desired {
            services: BTreeMap::from([(
                ServiceName("bench/web:80".to_owned()),
                service(algorithm, mode),
            )]),
            ..Desired::default()
        };
        let image = compile(&desired, &surroundings(ifindex), &datapath.in_use())?;
        datapath.apply(&image)?;
        Ok(Self { datapath, pins })
    }

    /// The program at XDP.
    pub(crate) fn xdp(&mut self) -> Result<aya::programs::ProgramFd> {
        Ok(self.datapath.descriptor(Hook::Xdp)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What stays of it is told by the next one that would be in the way.
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

fn service(algorithm: Algorithm, mode: Mode) -> Service {
    let local = mode == Mode::Local;
    let endpoints = (0..BACKENDS).map(|n| {
        let ip = Ipv4Addr::new(10, 244, if local { 1 } else { 2 }, 2 + n);
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: Some(if local { "nuc01" } else { "nuc02" }.to_owned()),
            name: None,
        };
        (SocketAddr::new(ip.into(), 3000), endpoint)
    });
    Service {
        frontends: BTreeSet::from([Frontend {
            addr: SocketAddr::new(VIP.0.into(), VIP.1),
            protocol: Protocol::Tcp,
        }]),
        algorithm,
        maglev_slots: maglev::DEFAULT_SLOTS,
        endpoints: endpoints.collect(),
        elsewhere: if mode == Mode::Dsr { Mode::Dsr } else { Mode::Nat },
        ..Service::default()
    }
}

fn surroundings(ifindex: u32) -> Surroundings {
    let uplink = DeviceFacts {
        name: UPLINK.to_owned(),
        snat_v4: Some(Snat::shared(NODE.into(), DEFAULT_SNAT_PORTS)),
        mac: MAC,
        xdp_redirect: true,
        ..DeviceFacts::default()
    };
    Surroundings {
        node: "nuc01".to_owned(),
        host_addresses: BTreeSet::from([IpAddr::from(NODE)]),
        peers: BTreeMap::from([("nuc02".to_owned(), IpAddr::from(PEER))]),
        devices: BTreeMap::from([(ifindex, uplink)]),
        ..Surroundings::default()
    }
}
