//! The way of Flannel's backend `vxlan` between nodes: a device on each, and by hand all
//! that says who is behind which address. Nothing is learned, nothing is asked for.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::error::Result;
use crate::lab::Lab;
use crate::tool::{feed, tool};
use crate::topology::{Node, TUNNEL, UPLINK};

/// What is left of the LAN's 1,500 bytes: the outer headers take 50.
const MTU: u32 = 1450;
/// Linux's port for VXLAN, which Flannel keeps.
const PORT: u16 = 8472;

/// Makes the devices, and has nodes and pods use them.
pub(crate) fn make(lab: &Lab) -> Result<()> {
    let nodes = &lab.topology().nodes;
    nodes.iter().try_for_each(|node| make_device(lab, node))?;
    // CNI gives both ends of a pod's cable the MTU of the way between nodes.
    for (index, pod) in lab.topology().pods.iter().enumerate() {
        lab.node(&pod.name)
            .ip(&format!("link set eth0 mtu {MTU}\n"))?;
        lab.node(&pod.node)
            .ip(&format!("link set veth{index} mtu {MTU}\n"))?;
    }
    Ok(())
}

fn make_device(lab: &Lab, node: &Node) -> Result<()> {
    let (own, mac) = (address(node), mac(node));
    let mut lines = format!(
        "link add {TUNNEL} mtu {MTU} address {mac} type vxlan id 1 local {} dev {UPLINK} \
         dstport {PORT} nolearning\n\
         address add {own}/32 dev {TUNNEL}\n\
         link set {TUNNEL} up\n",
        node.address
    );
    let mut forwarding = String::new();
    for other in lab.topology().others(node) {
        let (via, mac) = (address(other), self::mac(other));
        let _ = writeln!(
            lines,
            "neigh add {via} lladdr {mac} dev {TUNNEL} nud permanent\n\
             route add {} via {via} dev {TUNNEL} onlink",
            other.pod_net
        );
        let _ = writeln!(
            forwarding,
            "fdb append {mac} dev {TUNNEL} dst {} self permanent",
            other.address
        );
    }
    let namespace = lab.node(&node.name);
    namespace.ip(&lines)?;
    let mut bridge = tool("bridge");
    bridge.args(["-n", namespace.name(), "-batch", "-"]);
    feed(&mut bridge, &forwarding).map(drop)
}

/// The address of a node's device: the first of its pods' network, which no pod gets.
fn address(node: &Node) -> Ipv4Addr {
    node.pod_net.network()
}

/// The hardware address of a node's device: locally administered, and made of the address.
fn mac(node: &Node) -> String {
    let [a, b, c, d] = address(node).octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
