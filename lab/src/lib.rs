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
mod client;
mod error;
pub mod interrupt;
mod lab;
mod lan;
mod load;
mod manifests;
mod netns;
mod ownership;
mod pass;
mod pod;
pub mod testbed;
mod tool;
mod topology;
mod vxlan;

pub use agent::{Agent, AgentOptions};
pub use client::{Answer, Client, Http, http_get};
pub use error::{Error, Result};
pub use interrupt::Catch;
pub use lab::{Lab, LabOptions};
pub use load::{Load, LoadOptions, LongLived, Tally};
pub use manifests::{Algorithm, Endpoint, Manifests, Protocol, ServiceSpec};
pub use netns::NetNs;
pub use ownership::{left_of, sweep};
pub use pod::Pod;
pub use topology::{ClientSpec, Node, PodKind, PodRoutes, PodSpec, Role, TUNNEL, Topology, UPLINK};
