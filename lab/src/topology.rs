//! What a lab consists of, as plain data: the same description makes namespaces here
//! and can make virtual machines elsewhere.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::{Error, Result};

/// The name of the LAN interface on nodes and clients.
pub const UPLINK: &str = "eth0";
/// The name of a node's VXLAN device, where it has one: as Flannel names it.
pub const TUNNEL: &str = "flannel.1";

/// Nodes and clients on one LAN, and the pods on the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What people call it, as in `nuc`.
    pub name: String,
    /// The network that nodes and clients share.
    pub lan: Ipv4Net,
    /// The network that holds the pod networks of all nodes.
    pub cluster: Ipv4Net,
    /// The machines that run pods.
    pub nodes: Vec<Node>,
    /// The machines that only ask; they have no route but the LAN's. At least one.
    pub clients: Vec<ClientSpec>,
    /// The servers, in the order in which they were added.
    pub pods: Vec<PodSpec>,
    /// How packets get from a node to the pods of others.
    pub pod_routes: PodRoutes,
}

/// How packets get from a node to the pods of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRoutes {
    /// By the LAN, with the other node as the router.
    Lan,
    /// Through a VXLAN device ([`TUNNEL`]), as Flannel makes it.
    Vxlan,
}

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its host name.
    pub name: String,
    /// Its part in the cluster.
    pub role: Role,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
    /// The network of its pods; the first host address is the node's own.
    pub pod_net: Ipv4Net,
    /// Whether the node has the packet filter rules of a CNI and of kube-proxy:
    /// masquerading of what pods send out, and `ct state invalid drop` on what is
    /// forwarded. They make conntrack see, and judge, every packet.
    pub cni_masquerade: bool,
}

/// A node's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the cluster's API.
    ControlPlane,
    /// Runs pods only.
    Worker,
}

/// A machine on the LAN that is no part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSpec {
    /// Its host name.
    pub name: String,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
}

/// A server on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// Its name, `APP-SUFFIX` as Kubernetes would give it.
    pub name: String,
    /// The app that it is one of.
    pub app: String,
    /// The name of the node that it runs on.
    pub node: String,
    /// Its address in the node's pod network.
    pub address: Ipv4Addr,
    /// The port that it serves on.
    pub port: u16,
    /// What it serves.
    pub kind: PodKind,
}

/// What a pod serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodKind {
    /// HTTP over TCP that answers with the pod's name, and the same over UDP.
    Echo,
    /// The same at every address that is routed to the pod. Over UDP it answers from the
    /// address that was asked, and with that as its name.
    EchoAny,
    /// HTTP by nginx, with the pod's name as the answer.
    Http,
    /// DNS (dnsmasq): TXT of `who.test` is the pod's name, A its address.
    Dns,
}

impl Topology {
    /// The class room: three nodes, a client, and five pods of `nest-server` spread over
    /// the nodes.
    pub fn nuc() -> Self {
        let mut topology = Self::nuc_without_pods();
        topology.add_pods("nest-server", PodKind::Echo, 3000, 5);
        topology
    }

    /// The class room before anybody has deployed anything.
    pub fn nuc_without_pods() -> Self {
        Self::nuc_of(3)
    }

    /// The same with so many nodes; 50 at most fit between the other addresses.
    pub fn nuc_of(nodes: u8) -> Self {
        let node = |number: u8| Node {
            name: format!("nuc{number:02}"),
            role: if number == 1 {
                Role::ControlPlane
            } else {
                Role::Worker
            },
            address: Ipv4Addr::new(192, 168, 56, 100 + number),
            pod_net: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24),
            cni_masquerade: false,
        };
        Self {
            name: "nuc".to_owned(),
            lan: Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 56, 0), 24),
            cluster: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            nodes: (1..=nodes.min(50)).map(node).collect(),
            clients: vec![ClientSpec {
                name: "client".to_owned(),
                address: Ipv4Addr::new(192, 168, 56, 1),
            }],
            pods: Vec::new(),
            pod_routes: PodRoutes::Lan,
        }
    }

    /// Gives every node the packet filter rules of a CNI ([`Node::cni_masquerade`]).
    #[must_use]
    pub fn with_cni_masquerade(mut self) -> Self {
        for node in &mut self.nodes {
            node.cni_masquerade = true;
        }
        self
    }

    /// Has the nodes reach each other's pods through VXLAN, as Flannel does.
    #[must_use]
    pub fn with_vxlan(mut self) -> Self {
        self.pod_routes = PodRoutes::Vxlan;
        self
    }

    /// Adds a machine that only asks, beside the first one.
    #[must_use]
    pub fn with_client(mut self, name: &str) -> Self {
        let next = 1 + self.clients.len() as u32;
        self.clients.push(ClientSpec {
            name: name.to_owned(),
            address: (u32::from(self.lan.network()) + next).into(),
        });
        self
    }

    /// The address on the LAN of a node or a client.
    pub fn address_of(&self, machine: &str) -> Result<Ipv4Addr> {
        let nodes = self.nodes.iter().map(|it| (&it.name, it.address));
        let mut all = nodes.chain(self.clients.iter().map(|it| (&it.name, it.address)));
        let found = all.find(|(name, _)| *name == machine);
        found
            .map(|(_, address)| address)
            .ok_or_else(|| Error::Topology(format!("{machine} is no machine of the LAN")))
    }

    /// Adds pods of an app, dealt out to the nodes in turn.
    pub fn add_pods(&mut self, app: &str, kind: PodKind, port: u16, count: usize) {
        for index in 0..count {
            let node = &self.nodes[index % self.nodes.len()];
            // .1 is the node itself.
            let taken = self.pods.iter().filter(|pod| pod.node == node.name).count();
            let address = u32::from(node.pod_net.network()) + 2 + taken as u32;
            self.pods.push(PodSpec {
                name: format!("{app}-{}", suffix(index)),
                app: app.to_owned(),
                node: node.name.clone(),
                address: address.into(),
                port,
                kind,
            });
        }
    }

    /// The pods of an app.
    pub fn pods_of<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a PodSpec> {
        self.pods.iter().filter(move |pod| pod.app == app)
    }

    /// All nodes but this one.
    pub(crate) fn others(&self, node: &Node) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|other| other.name != node.name)
    }

    /// Refuses what could not be built, or would be built into something misleading.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Topology(what));
        let mut names: Vec<&str> = vec!["lan"];
        let mut addresses = Vec::new();
        for (name, address) in self
            .nodes
            .iter()
            .map(|node| (&node.name, node.address))
            .chain(
                self.clients
                    .iter()
                    .map(|client| (&client.name, client.address)),
            )
        {
            if !self.lan.contains(&address) {
                return wrong(format!(
                    "{name} has {address}, which is not in {}",
                    self.lan
                ));
            }
            names.push(name);
            addresses.push(address);
        }
        for pod in &self.pods {
            let Some(node) = self.nodes.iter().find(|node| node.name == pod.node) else {
                return wrong(format!(
                    "pod {} is on {}, which is no node",
                    pod.name, pod.node
                ));
            };
            if !node.pod_net.contains(&pod.address) {
                return wrong(format!(
                    "pod {}: {} is not in {}",
                    pod.name, pod.address, node.pod_net
                ));
            }
            names.push(&pod.name);
            addresses.push(pod.address);
        }
        if self.clients.is_empty() || self.nodes.is_empty() {
            return wrong("there must be a node and a client".to_owned());
        }
        names.sort_unstable();
        addresses.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!("{} is there twice", twice[0]));
        }
        if let Some(twice) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!("{} is given twice", twice[0]));
        }
        Ok(())
    }
}

/// The end of a pod's name: looks like Kubernetes' and is the same in every run.
fn suffix(index: usize) -> String {
    // Kubernetes leaves out vowels and what is easily misread.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut number = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    (0..5)
        .map(|_| {
            let letter = LETTERS[(number % LETTERS.len() as u64) as usize];
            number /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_class_room_is_sound_and_has_local_and_remote_pods() {
        let nuc = Topology::nuc();
        nuc.check().unwrap();
        let on = |name: &str| nuc.pods.iter().filter(|pod| pod.node == name).count();
        assert_eq!((on("nuc01"), on("nuc02"), on("nuc03")), (2, 2, 1));
        assert_eq!(nuc.pods_of("nest-server").count(), 5);
        assert!(nuc.pods.iter().all(|pod| pod.port == 3000));
    }

    #[test]
    fn what_overlaps_is_refused() {
        let mut nuc = Topology::nuc();
        nuc.pods[1].address = nuc.pods[0].address;
        nuc.pods[1].node = nuc.pods[0].node.clone();
        assert!(
            nuc.check()
                .unwrap_err()
                .to_string()
                .contains("10.244.1.2 is given twice")
        );

        let mut nuc = Topology::nuc();
        nuc.nodes[0].address = Ipv4Addr::new(10, 0, 0, 1);
        assert!(
            nuc.check()
                .unwrap_err()
                .to_string()
                .contains("not in 192.168.56.0/24")
        );
    }
}
