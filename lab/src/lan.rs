//! Making a topology out of namespaces, veth pairs and bridges.
//!
//! ```text
//!        client          nuc01              nuc02 …
//!         eth0            eth0 ── cni0       eth0 ── cni0
//!          │               │       ├ veth0    │       └ veth1
//!  ┌───────┴───────────────┴───────┼──────────┴──┐         └── eth0 of a pod
//!  │ lan: a bridge, a port a host  │             │
//!  └───────────────────────────────┼─────────────┘
//!                                  └── eth0 of a pod
//! ```

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::Result;
use crate::lab::Lab;
use crate::netns::NetNs;
use crate::tool::{feed, tool};
use crate::topology::{Node, PodRoutes, UPLINK};
use crate::{pass, vxlan};

/// Makes everything but the pods' servers.
pub(crate) fn make(lab: &Lab) -> Result<()> {
    lab.make_namespaces()?;
    lab.make_lan()?;
    let nodes = &lab.topology().nodes;
    nodes.iter().try_for_each(|node| lab.make_node(node))?;
    lab.make_pods()?;
    match lab.topology().pod_routes {
        PodRoutes::Lan => nodes.iter().try_for_each(|node| lab.route_by_lan(node)),
        PodRoutes::Vxlan => vxlan::make(lab),
    }
}

impl Lab {
    fn make_namespaces(&self) -> Result<()> {
        let batch: String = self
            .namespaces()
            .map(|ns| format!("netns add {}\n", ns.name()))
            .collect();
        feed(tool("ip").args(["-batch", "-"]), &batch)?;
        for namespace in self.namespaces() {
            namespace.ip("link set lo up\n")?;
        }
        for node in &self.topology().nodes {
            // Namespaces may inherit the machine's values: say all that matters. Loose
            // reverse path filtering is what systemd sets.
            self.node(&node.name).sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "2"),
            ])?;
        }
        for client in &self.topology().clients {
            // Room for many short connections, as each keeps its port for a minute; and
            // ports that no connection takes unasked, for those who ask for a certain one.
            self.node(&client.name).sysctl(&[
                ("ipv4/ip_local_port_range", "10000 65000"),
                ("ipv4/ip_local_reserved_ports", "20000-31999"),
            ])?;
        }
        Ok(())
    }

    /// Who has an uplink, in the order of the switch's ports.
    pub(crate) fn lan_hosts(&self) -> Vec<(&str, Ipv4Addr)> {
        let topology = self.topology();
        let nodes = topology.nodes.iter().map(|it| (&*it.name, it.address));
        let clients = topology.clients.iter().map(|it| (&*it.name, it.address));
        nodes.chain(clients).collect()
    }

    /// The switch, and everybody's uplink to it.
    fn make_lan(&self) -> Result<()> {
        let hosts = self.lan_hosts();
        let lan = self.node("lan");
        let mut switch = "link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
                          link set br0 up\n"
            .to_owned();
        for (index, (name, _)) in hosts.iter().enumerate() {
            // Both ends are born where they belong: nothing shows up on the machine.
            let peer = self.node(name).name();
            let _ = writeln!(
                switch,
                "link add port{index} type veth peer name {UPLINK} netns {peer}"
            );
            let _ = writeln!(switch, "link set port{index} master br0 alias {name}");
            let _ = writeln!(switch, "link set port{index} up");
        }
        lan.ip(&switch)?;
        for (index, (name, address)) in hosts.iter().enumerate() {
            let prefix = self.topology().lan.prefix_len();
            self.node(name).ip(&format!(
                "address add {address}/{prefix} broadcast + dev {UPLINK}\nlink set {UPLINK} up\n"
            ))?;
            like_a_wire(self.node(name), UPLINK)?;
            like_a_wire(lan, &format!("port{index}"))?;
        }
        pass::write(&self.pass_program())?;
        let ports = 0..self.topology().nodes.len();
        let ports: Vec<String> = ports.map(|index| format!("port{index}")).collect();
        pass::attach(lan, &self.pass_program(), &ports)
    }

    /// Puts an XDP program that lets everything pass on a device, natively: as on the
    /// switch's ports, or as somebody else's program that is in the way.
    pub fn attach_pass(&self, machine: &str, device: &str) -> Result<()> {
        pass::attach(
            self.node(machine),
            &self.pass_program(),
            &[device.to_owned()],
        )
    }

    /// Makes a machine's cable what an ordinary virtual one is: packets come merged, with
    /// checksums that nobody has completed.
    pub fn like_a_container(&self, machine: &str) -> Result<()> {
        let mut hosts = self.lan_hosts().into_iter();
        let index = hosts.position(|(name, _)| name == machine);
        if let Some(index) = index {
            let port = format!("port{index}");
            for (namespace, device) in [(self.node(machine), UPLINK), (self.node("lan"), &port)] {
                let features = ["-K", device, "gro", "off", "tx", "on", "tso", "on"];
                namespace.run("ethtool", &features)?;
            }
        }
        Ok(())
    }

    fn pass_program(&self) -> PathBuf {
        self.dir().join("pass.o")
    }

    /// A node's bridge for pods, and its packet filter.
    fn make_node(&self, node: &Node) -> Result<()> {
        let mut lines = format!(
            "link add cni0 type bridge forward_delay 0 mcast_snooping 0\n\
             address add {}/{} broadcast + dev cni0\n\
             link set cni0 up\n",
            gateway(node),
            node.pod_net.prefix_len()
        );
        for (index, pod) in self.topology().pods.iter().enumerate() {
            if pod.node == node.name {
                let peer = self.node(&pod.name).name();
                let _ = writeln!(
                    lines,
                    "link add veth{index} type veth peer name eth0 netns {peer}"
                );
                let _ = writeln!(
                    lines,
                    "link set veth{index} master cni0 up alias {}",
                    pod.name
                );
            }
        }
        let namespace = self.node(&node.name);
        namespace.ip(&lines)?;
        if node.cni_masquerade {
            feed(
                namespace.command("nft").args(["-f", "-"]),
                &self.cni_rules(node),
            )?;
        }
        Ok(())
    }

    /// A node's routes to the pods of others, which are its routers.
    fn route_by_lan(&self, node: &Node) -> Result<()> {
        let routes: String = self
            .topology()
            .others(node)
            .map(|other| format!("route add {} via {}\n", other.pod_net, other.address))
            .collect();
        self.node(&node.name).ip(&routes)
    }

    /// What flannel and kube-proxy install, as far as it can get in a balancer's way.
    fn cni_rules(&self, node: &Node) -> String {
        let (cluster, own) = (self.topology().cluster, node.pod_net);
        format!(
            "table ip cni {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    ip saddr {own} ip daddr {cluster} return
                    ip saddr {cluster} ip daddr {own} return
                    ip saddr != {cluster} ip daddr {own} return
                    ip saddr {cluster} ip daddr != 224.0.0.0/4 masquerade
                    ip saddr != {cluster} ip daddr {cluster} masquerade
                }}
                chain forward {{
                    type filter hook forward priority filter;
                    ct state invalid drop
                }}
            }}"
        )
    }

    /// Pods' addresses and routes.
    fn make_pods(&self) -> Result<()> {
        for node in &self.topology().nodes {
            let (gateway, prefix) = (gateway(node), node.pod_net.prefix_len());
            for pod in self
                .topology()
                .pods
                .iter()
                .filter(|pod| pod.node == node.name)
            {
                self.node(&pod.name).ip(&format!(
                    "address add {}/{prefix} broadcast + dev eth0\n\
                     link set eth0 up\n\
                     route add default via {gateway}\n",
                    pod.address
                ))?;
            }
        }
        Ok(())
    }
}

/// The node's own address in its pod network.
fn gateway(node: &Node) -> Ipv4Addr {
    (u32::from(node.pod_net.network()) + 1).into()
}

/// Makes a veth end behave like a network card, on both ends of each LAN link.
///
/// - GRO switches on NAPI, without which the end drops what an XDP program on the other
///   one redirects to it.
/// - Checksums are completed and segments cut in the sender, as a card would have done:
///   a frame that XDP sends on loses the note that the device still has to.
fn like_a_wire(namespace: &NetNs, device: &str) -> Result<()> {
    let features = ["-K", device, "gro", "on", "tx", "off", "tso", "off"];
    namespace.run("ethtool", &features).map(drop)
}
