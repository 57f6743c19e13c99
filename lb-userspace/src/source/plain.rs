//! Services of plain Linux, from a configuration file or from flags → [`Desired`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::{Algorithm, Mode, Protocol};

use super::{Findings, Origin, Outcome, rules};
use crate::desired::{
    Condition, Desired, Endpoint, Frontend, HealthCheck, Node, Service, ServiceName,
};

/// One service as its author wrote it, the addresses already read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    /// Its address where it has no name of its own.
    pub(super) name: Option<String>,
    pub(super) frontend: Frontend,
    pub(super) algorithm: Algorithm,
    pub(super) maglev_slots: u32,
    pub(super) elsewhere: Mode,
    pub(super) affinity: Option<Duration>,
    pub(super) source_ranges: Vec<IpNet>,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) backends: Vec<Backend>,
}

/// One of its backends.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) origin: Origin,
    pub(super) addr: SocketAddr,
    pub(super) weight: u32,
    /// The node that it is on, where that is said.
    pub(super) node: Option<String>,
}

impl Entry {
    /// `-/NAME:PORT`; UDP is said, since TCP may stand on the same port.
    fn service_name(&self) -> ServiceName {
        let ip = self.frontend.addr.ip().to_string();
        let name = self.name.as_deref().unwrap_or(&ip);
        let port = self.frontend.addr.port();
        ServiceName(match self.frontend.protocol {
            Protocol::Tcp => format!("-/{name}:{port}"),
            other => format!("-/{name}:{port}/{other}"),
        })
    }
}

/// Works out what the entries ask for.
pub(super) fn translate(
    entries: Vec<Entry>,
    nodes: BTreeMap<String, Node>,
    mut findings: Findings,
) -> Outcome {
    let mut desired = Desired {
        nodes,
        ..Desired::default()
    };
    let mut owners: BTreeMap<Frontend, Origin> = BTreeMap::new();
    for entry in entries {
        let object = format!("service {}", entry.frontend);
        let origin = &entry.origin;
        if let Some(other) = owners.insert(entry.frontend, origin.clone()) {
            let what = format!("this frontend is already taken at {other}");
            findings.problem(
                origin,
                &object,
                what,
                "give one of the two another address or port",
            );
            continue;
        }
        let mut endpoints = BTreeMap::new();
        for backend in &entry.backends {
            let Backend { origin, addr, .. } = backend;
            if let Err(objection) = rules::behind(*addr, &entry.frontend) {
                findings.problem(origin, &object, objection.what, objection.remedy);
            }
            let endpoint = Endpoint {
                weight: backend.weight,
                condition: Condition::Ready,
                node: backend.node.clone(),
                name: None,
            };
            if endpoints.insert(*addr, endpoint).is_some() {
                let what = format!("backend {addr} is named twice");
                findings.problem(
                    origin,
                    &object,
                    what,
                    "name it once, with a weight if it counts more",
                );
            }
        }
        if entry.backends.is_empty() {
            findings.note(origin, &object, "no backends, so clients are refused");
        }
        let name = entry.service_name();
        let service = Service {
            frontends: BTreeSet::from([entry.frontend]),
            algorithm: entry.algorithm,
            maglev_slots: entry.maglev_slots,
            elsewhere: entry.elsewhere,
            affinity: entry.affinity,
            source_ranges: entry.source_ranges,
            health_check: entry.health_check,
            health_check_port: None,
            endpoints,
            ..Service::default()
        };
        if desired.services.insert(name.clone(), service).is_some() {
            let what = format!("two services are called {name}");
            findings.problem(origin, &object, what, "give each a name of its own");
        }
    }
    findings.outcome(desired)
}
