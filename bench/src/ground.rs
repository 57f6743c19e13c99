//! Where a candidate runs: a network namespace of its own with a node's devices.

use std::{fmt::Write, fs::File};

use anyhow::{Context, Result};
use lb_common::Family;
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    net::{self, BACKENDS, CLIENTS, FAR_PODS, MAC, OTHER, PEER, PODS, STRANGERS},
    tool::feed,
};

/// The device to the LAN.
pub(crate) const UPLINK: &str = "uplink";

/// A namespace and its devices, by index. It goes with the last who is in it.
pub(crate) struct Ground {
    namespace: File,
    /// The device to the LAN.
    pub(crate) uplink: u32,
    /// The device to the pods.
    pub(crate) pods: u32,
    /// The other ends of both, where frames end.
    pub(crate) sinks: [u32; 2],
}

/// What is set in the namespace, and why.
const SETTINGS: [(&str, &str); 8] = [
    ("net/ipv4/conf/all/forwarding", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // Routes are asked for in one direction only, as where clients come from anywhere.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    // A network card has checked the checksum already.
    ("net/netfilter/nf_conntrack_checksum", "0"),
    // Flows rest while others are measured.
    (
        "net/netfilter/nf_conntrack_tcp_timeout_max_retrans",
        "86400",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged",
        "86400",
    ),
];

impl Ground {
    /// Makes a namespace with so many pods, and enters it.
    pub(crate) fn build(pods: u32) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own; run as root")?;
        for (name, value) in SETTINGS {
            let path = format!("/proc/sys/{name}");
            std::fs::write(&path, value).context(path)?;
        }
        feed("ip", &["-batch", "-"], &script(pods)?)?;
        let path = "/proc/thread-self/ns/net";
        let index = |name: &str| if_nametoindex(name).with_context(|| name.to_owned());
        Ok(Self {
            namespace: File::open(path).context(path)?,
            uplink: index(UPLINK)?,
            pods: index("pods")?,
            sinks: [index("far")?, index("pods-far")?],
        })
    }

    /// Goes back into it.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("entering a namespace")
    }
}

fn script(pods: u32) -> Result<String> {
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (mac, other) = (text(MAC), text(OTHER));
    let mut script = "link set lo up\n".to_owned();
    for (near, far) in [(UPLINK, "far"), ("pods", "pods-far")] {
        writeln!(
            script,
            "link add {near} address {mac} type veth peer name {far} address {other}
             link set {near} addrgenmode none up
             link set {far} addrgenmode none up"
        )?;
    }
    for (family, host, wide, narrow) in [(Family::V4, 24, 8, 12), (Family::V6, 64, 32, 32)] {
        // Room for a thousand pods and more.
        let pod_net = if family == Family::V4 { 20 } else { host };
        let node = net::node(family);
        let peer = net::peer(family);
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        writeln!(script, "addr add {node}/{host} dev {UPLINK} {nodad}")?;
        let router = net::router(family);
        for (addr, mac) in [(router, &other), (peer, &text(PEER))] {
            writeln!(
                script,
                "neigh add {addr} lladdr {mac} dev {UPLINK} nud permanent"
            )?;
        }
        for (net, count) in [(PODS, pods), (STRANGERS, BACKENDS)] {
            let own = net.host(family, 1);
            writeln!(script, "addr add {own}/{pod_net} dev pods {nodad}")?;
            for n in 0..count {
                let pod = net.host(family, 2 + n);
                writeln!(
                    script,
                    "neigh add {pod} lladdr {other} dev pods nud permanent"
                )?;
            }
        }
        let clients = if family == Family::V4 {
            "10.0.0.0".parse()?
        } else {
            CLIENTS.host(family, 0)
        };
        let far = FAR_PODS.host(family, 0);
        writeln!(script, "route add {clients}/{wide} via {router}")?;
        writeln!(script, "route add {far}/{narrow} via {peer}")?;
    }
    Ok(script)
}
