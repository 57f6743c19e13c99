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

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::agent::{Agent, AgentOptions};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::netns::NetNs;
use crate::ownership::{self, Owned};
use crate::pod::Pod;
use crate::tool::{feed, tool};
use crate::topology::{Node, Topology, UPLINK};

/// A running lab. Dropping it removes it; [`teardown`](Self::teardown) also says whether
/// that went well.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    // Pods end before the namespaces that they are in go.
    pods: Vec<Pod>,
    namespaces: BTreeMap<String, NetNs>,
    owned: Owned,
}

/// How to build a lab, where the defaults do not do.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// The `naru-lab` that pods run. Found by itself where it is `$NARU_LAB_BIN`, the
    /// running program, or beside that (as for tests in a target directory).
    pub program: Option<PathBuf>,
}

impl Lab {
    /// Builds the LAN and starts its pods; returns when all of them serve.
    pub fn build(topology: Topology) -> Result<Self> {
        Self::build_with(topology, LabOptions::default())
    }

    /// [`build`](Self::build), with options.
    pub fn build_with(topology: Topology, options: LabOptions) -> Result<Self> {
        topology.check()?;
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let program = options.program.map_or_else(own_program, Ok)?;
        interrupt::watch();
        ownership::sweep()?;
        let owned = Owned::claim()?;

        let machines = topology.nodes.iter().map(|node| &node.name);
        let machines = machines.chain(topology.clients.iter().map(|client| &client.name));
        let names = machines.chain(topology.pods.iter().map(|pod| &pod.name)).cloned();
        let namespaces: BTreeMap<String, NetNs> = names
            .chain(["lan".to_owned()])
            .map(|name| (name.clone(), NetNs::new(owned.namespace(&name))))
            .collect();
        let mut lab = Self { topology, pods: Vec::new(), namespaces, owned };
        lab.make_namespaces()?;
        lab.make_lan()?;
        for node in &lab.topology.nodes {
            lab.make_node(node)?;
        }
        lab.make_pods(&program)?;
        Ok(lab)
    }

    /// What this lab was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The lab's id, which is in all its names.
    pub fn id(&self) -> &str {
        self.owned.id()
    }

    /// A directory of the lab's own, removed with it: for manifests, logs, captures.
    pub fn dir(&self) -> PathBuf {
        self.owned.dir()
    }

    /// The namespace of a node, a client or a pod, or of the switch (`lan`).
    ///
    /// # Panics
    /// Where the topology has nothing of that name.
    pub fn node(&self, name: &str) -> &NetNs {
        let known = || self.namespaces.keys().cloned().collect::<Vec<_>>().join(", ");
        self.namespaces.get(name).unwrap_or_else(|| panic!("no {name} in this lab: {}", known()))
    }

    /// Requests from the (first) client of the LAN.
    pub fn client(&self) -> Client {
        Client::new(self.node(&self.topology.clients[0].name).clone())
    }

    /// A pod, by its name.
    ///
    /// # Panics
    /// Where the topology has no such pod.
    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.pods.iter().find(|pod| pod.spec().name == name);
        pod.unwrap_or_else(|| panic!("no pod {name} in this lab"))
    }

    /// All pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Starts the agent on a node; returns when it says that it is ready.
    pub fn agent(&self, node: &str, options: AgentOptions) -> Result<Agent> {
        let state = self.owned.dir().join(node);
        Agent::start(node, self.node(node).clone(), self.owned.pins(node), state, options)
    }

    /// Removes the lab, and says so where something could not be removed.
    pub fn teardown(self) -> Result<()> {
        let Self { pods, owned, .. } = self;
        drop(pods);
        owned.remove()
    }

    fn make_namespaces(&self) -> Result<()> {
        let batch: String =
            self.namespaces.values().map(|ns| format!("netns add {}\n", ns.name())).collect();
        feed(tool("ip").args(["-batch", "-"]), &batch)?;
        for namespace in self.namespaces.values() {
            namespace.ip("link set lo up\n")?;
        }
        for node in &self.topology.nodes {
            // Namespaces may inherit the machine's values: say all that matters. Loose
            // reverse path filtering is what systemd sets.
            self.node(&node.name).sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "2"),
            ])?;
        }
        for client in &self.topology.clients {
            // Room for many short connections: each keeps its port for a minute.
            self.node(&client.name).sysctl(&[("ipv4/ip_local_port_range", "10000 65000")])?;
        }
        Ok(())
    }

    /// The switch, and everybody's uplink to it.
    fn make_lan(&self) -> Result<()> {
        let hosts: Vec<_> = self
            .topology
            .nodes
            .iter()
            .map(|node| (&node.name, node.address))
            .chain(self.topology.clients.iter().map(|client| (&client.name, client.address)))
            .collect();
        let lan = self.node("lan");
        let mut switch = "link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
                          link set br0 up\n"
            .to_owned();
        for (index, (name, _)) in hosts.iter().enumerate() {
            // Both ends are born where they belong: nothing shows up on the machine.
            let peer = self.node(name).name();
            let _ = writeln!(switch, "link add port{index} type veth peer name {UPLINK} netns {peer}");
            let _ = writeln!(switch, "link set port{index} master br0 alias {name}");
            let _ = writeln!(switch, "link set port{index} up");
        }
        lan.ip(&switch)?;
        for (index, (name, address)) in hosts.iter().enumerate() {
            let prefix = self.topology.lan.prefix_len();
            self.node(name).ip(&format!(
                "address add {address}/{prefix} broadcast + dev {UPLINK}\nlink set {UPLINK} up\n"
            ))?;
            like_a_wire(self.node(name), UPLINK)?;
            like_a_wire(lan, &format!("port{index}"))?;
        }
        Ok(())
    }

    /// A node's bridge for pods, its routes to the pods of others, its packet filter.
    fn make_node(&self, node: &Node) -> Result<()> {
        let mut lines = format!(
            "link add cni0 type bridge forward_delay 0 mcast_snooping 0\n\
             address add {}/{} broadcast + dev cni0\n\
             link set cni0 up\n",
            gateway(node),
            node.pod_net.prefix_len()
        );
        for (index, pod) in self.topology.pods.iter().enumerate() {
            if pod.node == node.name {
                let peer = self.node(&pod.name).name();
                let _ = writeln!(lines, "link add veth{index} type veth peer name eth0 netns {peer}");
                let _ = writeln!(lines, "link set veth{index} master cni0 up alias {}", pod.name);
            }
        }
        for other in self.topology.nodes.iter().filter(|other| other.name != node.name) {
            let _ = writeln!(lines, "route add {} via {}", other.pod_net, other.address);
        }
        let namespace = self.node(&node.name);
        namespace.ip(&lines)?;
        if node.cni_masquerade {
            feed(namespace.command("nft").args(["-f", "-"]), &self.cni_rules(node))?;
        }
        Ok(())
    }

    /// What flannel and kube-proxy install, as far as it can get in a balancer's way.
    fn cni_rules(&self, node: &Node) -> String {
        let (cluster, own) = (self.topology.cluster, node.pod_net);
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

    /// Pods' addresses and routes, and the servers themselves.
    fn make_pods(&mut self, program: &Path) -> Result<()> {
        for spec in &self.topology.pods {
            let Some(node) = self.topology.nodes.iter().find(|node| node.name == spec.node) else {
                continue;
            };
            let namespace = self.node(&spec.name).clone();
            namespace.ip(&format!(
                "address add {}/{} broadcast + dev eth0\nlink set eth0 up\nroute add default via {}\n",
                spec.address,
                node.pod_net.prefix_len(),
                gateway(node)
            ))?;
            self.pods.push(Pod::new(spec.clone(), namespace, program, &self.owned.dir()));
        }
        // All at once, then wait for each.
        for pod in &self.pods {
            pod.launch()?;
        }
        self.pods.iter().try_for_each(Pod::wait_ready)
    }
}

/// The node's own address in its pod network.
fn gateway(node: &Node) -> std::net::Ipv4Addr {
    (u32::from(node.pod_net.network()) + 1).into()
}

/// Makes a veth end behave like a network card, on both ends of each LAN link.
///
/// - GRO switches on NAPI, without which the end drops what an XDP program on the other
///   one transmits or redirects.
/// - Checksums are completed and segments cut in the sender, as a card would have done:
///   a frame that XDP sends on loses the note that the device still has to.
fn like_a_wire(namespace: &NetNs, device: &str) -> Result<()> {
    let features = ["-K", device, "gro", "on", "tx", "off", "tso", "off"];
    namespace.run("ethtool", &features).map(drop)
}

/// The `naru-lab` to run pods with.
fn own_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NARU_LAB_BIN") {
        return Ok(path.into());
    }
    let running = std::env::current_exe().map_err(Error::io("the running program"))?;
    // Tests are in target/PROFILE/deps, the program itself in target/PROFILE.
    let candidates = running.ancestors().skip(1).take(2).map(|dir| dir.join("naru-lab"));
    candidates.filter(|path| path.is_file()).next().ok_or_else(|| {
        Error::Topology(format!(
            "naru-lab, which serves as the pods, is not beside {}: \
             `cargo build -p naru-lab`, or name it in NARU_LAB_BIN",
            running.display()
        ))
    })
}
