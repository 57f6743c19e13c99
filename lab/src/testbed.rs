//! A topology as virtual machines: the files that vagrant/ reads, as text.
//!
//! They are part of the sources, so that Vagrant needs nothing of ours to be built first;
//! `cargo xtask docs` writes them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::{fs, io};

use ipnet::Ipv4Net;
use serde::{Serialize, Serializer};

use crate::manifests::{Endpoint, ServiceSpec, nodes_yaml};
use crate::topology::{Role, Topology};

/// What Vagrant makes machines of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Testbed {
    /// What people call the topology.
    pub name: String,
    /// The network that all machines share.
    #[serde(serialize_with = "as_text")]
    pub lan: Ipv4Net,
    /// The network of pods, where a cluster is installed.
    #[serde(serialize_with = "as_text")]
    pub pods: Ipv4Net,
    /// The address of the service that every node serves.
    pub vip: Ipv4Addr,
    /// The nodes, and then the clients.
    pub machines: Vec<Machine>,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// Its part.
    pub role: Part,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
}

/// What a machine is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A node that runs the cluster's API, where there is a cluster.
    ControlPlane,
    /// Another node.
    Worker,
    /// Only asks.
    Client,
}

/// The port of a node's own server.
const PORT: u16 = 3000;

// === impl Testbed ===

impl Testbed {
    /// The machines of a topology. A client that has the first address of the LAN gets
    /// another one, the last that is free: the first one is the host's own, with
    /// VirtualBox as with libvirt.
    pub fn new(topology: &Topology) -> Self {
        let nodes = topology.nodes.iter().map(|node| Machine {
            name: node.name.clone(),
            role: match node.role {
                Role::ControlPlane => Part::ControlPlane,
                Role::Worker => Part::Worker,
            },
            address: node.address,
        });
        let mut machines: Vec<Machine> = nodes.collect();
        for client in &topology.clients {
            let taken = |address: &Ipv4Addr| {
                machines.iter().any(|machine| machine.address == *address)
                    || topology.clients.iter().any(|it| it.address == *address)
            };
            let hosts = u32::from(topology.lan.network()) + 1;
            let address = if u32::from(client.address) == hosts {
                let last = u32::from(topology.lan.broadcast()) - 1;
                let mut free = (hosts + 1..=last).rev().map(Ipv4Addr::from);
                free.find(|address| !taken(address))
                    .unwrap_or(client.address)
            } else {
                client.address
            };
            machines.push(Machine {
                name: client.name.clone(),
                role: Part::Client,
                address,
            });
        }
        Self {
            name: topology.name.clone(),
            lan: topology.lan,
            pods: topology.cluster,
            vip: service().address,
            machines,
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|it| it.role != Part::Client)
    }

    /// The machines that only ask.
    pub fn clients(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|it| it.role == Part::Client)
    }
}

/// The files, by their path below vagrant/: the testbed, and the manifests with which its
/// nodes serve HTTP themselves where no cluster is installed.
pub fn files(topology: &Topology) -> Vec<(&'static str, String)> {
    let testbed = Testbed::new(topology);
    let service = service();
    let endpoints: Vec<Endpoint> = testbed
        .nodes()
        .map(|node| Endpoint {
            pod: format!("{}-{}", service.name, node.name),
            node: node.name.clone(),
            address: node.address,
            ready: true,
            serving: true,
            terminating: false,
        })
        .collect();
    let note = "# Made by `cargo xtask docs` out of lab/src/topology.rs: change it there.\n";
    vec![
        ("topology.json", format!("{}\n", json(&testbed))),
        (
            "manifests/nodes.yaml",
            format!("{note}{}", nodes_yaml(topology, &[])),
        ),
        (
            "manifests/nest-server.yaml",
            format!("{note}{}", service.yaml()),
        ),
        (
            "manifests/nest-server-endpoints.yaml",
            format!("{note}{}", service.endpoints_yaml(&endpoints)),
        ),
    ]
}

/// Writes the files below a directory.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(topology: &Topology, dir: &Path) -> io::Result<()> {
    for (file, text) in files(topology) {
        let path = dir.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
    }
    Ok(())
}

/// Checked by the agents themselves: where there is no cluster, nobody else notices that a
/// node is gone.
fn service() -> ServiceSpec {
    ServiceSpec::new(
        "nest-server",
        ServiceSpec::nest_server().address,
        ServiceSpec::nest_server().port,
        PORT,
    )
    .annotated(
        "naru.dev/health-check",
        "http:/ interval=2s timeout=1s rise=1 fall=2",
    )
}

fn as_text<S: Serializer>(network: &Ipv4Net, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(network)
}

fn json(testbed: &Testbed) -> String {
    // It is made of strings and lists alone, so that nothing can be in the way.
    serde_json::to_string_pretty(testbed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Where Vagrant reads them.
    fn vagrant() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vagrant"))
    }

    #[test]
    fn vagrant_reads_what_the_topology_says() {
        for (file, text) in files(&Topology::nuc()) {
            let found = fs::read_to_string(vagrant().join(file)).unwrap_or_default();
            assert_eq!(
                found, text,
                "vagrant/{file}: run `cargo xtask docs` and commit it"
            );
        }
    }

    #[test]
    fn no_machine_has_the_address_of_the_host() {
        let testbed = Testbed::new(&Topology::nuc());
        let client = testbed.clients().next().unwrap();
        assert_eq!(client.address, Ipv4Addr::new(192, 168, 56, 254));
        let mut addresses: Vec<_> = testbed.machines.iter().map(|it| it.address).collect();
        addresses.push(testbed.vip);
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
        assert!(
            addresses
                .iter()
                .all(|address| testbed.lan.contains(address))
        );
    }

    #[test]
    fn every_node_serves() {
        let files = files(&Topology::nuc());
        let (_, endpoints) = files.last().unwrap();
        for node in Topology::nuc().nodes {
            assert!(endpoints.contains(&format!("- {}\n", node.address)));
            assert!(endpoints.contains(&format!("nodeName: {}\n", node.name)));
        }
    }
}
