//! The lab: a LAN made of network namespaces, with real servers as pods.
//!
//! A [`Topology`] says what there is, [`Lab::build`] makes it, and dropping the
//! [`Lab`] removes it again. An [`Agent`] runs the real `naru` on one of the nodes, fed
//! with the ordinary Kubernetes YAML that [`Manifests`] writes; a [`Client`] asks for
//! answers from outside, as a user on the LAN would.
//!
//! ```no_run
//! use naru_lab::{AgentOptions, Lab, Manifests, ServiceSpec, Topology};
//!
//! # fn main() -> naru_lab::Result<()> {
//! let lab = Lab::build(Topology::nuc())?;
//! let manifests = Manifests::create(lab.dir().join("manifests"))?;
//! let service = ServiceSpec::nest_server();
//! manifests.service(&service)?;
//! manifests.endpoints(&service, lab.topology().pods_of("nest-server"))?;
//! let agent = lab.agent("nuc01", AgentOptions::new("target/debug/naru").manifests(&manifests))?;
//! println!("{}", lab.client().get(&service.url("/"))?.pod);
//! agent.detach()?;
//! lab.teardown()
//! # }
//! ```
//!
//! # What a lab promises
//! - It touches its own namespaces only: no device, address or sysctl of the machine.
//! - What it made it removes: on drop, on SIGINT and SIGTERM, and, where its process
//!   was killed outright, when the next lab starts ([`sweep`]).
//! - Names carry the lab's id, so labs run side by side.
#![forbid(unsafe_code)]

mod agent;
mod burn;
mod cgroup;
mod client;
mod cluster;
mod controlplane;
mod error;
mod fault;
mod faults;
mod held;
pub mod interrupt;
mod kubelet;
mod kubernetes;
mod lab;
mod lan;
mod load;
mod manifests;
mod netns;
mod nginx;
mod owner;
mod ownership;
mod pass;
mod pod;
mod prober;
mod process;
pub mod testbed;
mod timeline;
mod tool;
mod topology;
mod trial;
mod vxlan;

pub use agent::{Agent, AgentOptions};
pub use burn::Burners;
pub use cgroup::Cgroup;
pub use client::{Answer, Client, Http, http_get};
pub use cluster::{
    Cluster, ClusterOptions, Condition, OwnerChoice, can_fake_clocks, tutorial_services,
};
pub use controlplane::ControlPlane;
pub use error::{Error, Result};
pub use fault::Fault;
pub use held::{Connection, HeldOpen};
pub use interrupt::Catch;
pub use kubelet::{Kubelet, Roll};
pub use kubernetes::{EndpointWatch, Kube, KubeOptions};
pub use lab::{Lab, LabOptions};
pub use load::{Load, LoadOptions, LongLived, Tally};
pub use manifests::{Algorithm, Endpoint, Manifests, Protocol, ServiceSpec};
pub use netns::NetNs;
pub use owner::OwnerWatch;
pub use ownership::{left_of, sweep};
pub use pod::Pod;
pub use prober::{MARK, Ports, Prober};
pub use process::Process;
pub use timeline::{Asked, Ownership, Probe, Requests};
pub use topology::{ClientSpec, Node, PodKind, PodRoutes, PodSpec, Role, TUNNEL, Topology, UPLINK};
pub use trial::{Fate, Outcome, Plan, Seen};
