//! Health check node ports: where a load balancer before the nodes asks which of them have
//! endpoints of a Service (`spec.healthCheckNodePort`).
//!
//! Answers as kube-proxy does, in whose place the agent is (kubernetes
//! `pkg/proxy/healthcheck/service_health.go`): 200 where there are ready endpoints on this node,
//! else 503, whatever is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpListener},
};

use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::json;
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    compile,
    desired::{Condition, Desired, ServiceName, Surroundings},
    http,
};

/// How many endpoints there are, for whoever shares the load by it.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";
const NO_SNIFFING: &str = "x-content-type-options";

/// Those that are served, each on every address that node ports are served on.
#[derive(Default)]
pub(super) struct Probes(BTreeMap<SocketAddr, Probe>);

/// One that is served for as long as this is there.
struct Probe {
    said: watch::Sender<Health>,
    task: AbortHandle,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Health {
    namespace: String,
    name: String,
    /// Ready endpoints on this node.
    endpoints: BTreeSet<IpAddr>,
}

impl Probes {
    /// Serves what these ask for, and nothing else. Gives what failed.
    pub(super) fn serve(&mut self, desired: &Desired, surroundings: &Surroundings) -> Vec<String> {
        let wanted = wanted(desired, surroundings);
        self.0.retain(|at, _| wanted.contains_key(at));
        let mut failures = Vec::new();
        for (at, health) in wanted {
            if let Some(probe) = self.0.get(&at) {
                probe.said.send_if_modified(|said| {
                    let differs = *said != health;
                    *said = health;
                    differs
                });
                continue;
            }
            let service = format!("{}/{}", health.namespace, health.name);
            match Probe::begin(at, health) {
                Ok(probe) => {
                    self.0.insert(at, probe);
                }
                Err(error) => failures.push(format!(
                    "Service {service}: its health check at {at} is not served: {error}; see that \
                     nothing else listens there, such as kube-proxy"
                )),
            }
        }
        failures
    }
}

impl Probe {
    fn begin(at: SocketAddr, health: Health) -> std::io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (said, hears) = watch::channel(health);
        let answer = move |_| {
            let answer = hears.borrow().answer();
            async { answer }
        };
        let task = tokio::spawn(http::serve(listener, "health checks", answer));
        Ok(Self {
            said,
            task: task.abort_handle(),
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Health {
    fn of(ServiceName(name): &ServiceName) -> Self {
        let service = name.rsplit_once(':').map_or(name.as_str(), |it| it.0);
        let (namespace, name) = service.split_once('/').unwrap_or(("", service));
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            endpoints: BTreeSet::new(),
        }
    }

    fn answer(&self) -> Response<String> {
        let count = self.endpoints.len();
        let status = match count {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        let text = json!({
            "service": {"namespace": self.namespace, "name": self.name},
            "localEndpoints": count,
            "serviceProxyHealthy": true,
        });
        let mut answer = http::plain(status, &format!("{text}\n"));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(NO_SNIFFING, HeaderValue::from_static("nosniff"));
        headers.insert(WEIGHT, count.into());
        answer
    }
}

/// What is to be answered where. The ports of a Service are one to whoever asks.
fn wanted(desired: &Desired, surroundings: &Surroundings) -> BTreeMap<SocketAddr, Health> {
    let mut wanted = BTreeMap::new();
    for (name, service) in desired.services.iter() {
        let Some(port) = service.health_check_port else {
            continue;
        };
        let here = service.endpoints.iter().filter(|&(&addr, endpoint)| {
            endpoint.condition == Condition::Ready && compile::is_here(addr, endpoint, surroundings)
        });
        let here: BTreeSet<IpAddr> = here.map(|(addr, _)| addr.ip()).collect();
        for &ip in &surroundings.node_port_addresses {
            let health = wanted
                .entry(SocketAddr::new(ip, port))
                .or_insert_with(|| Health::of(name));
            health.endpoints.extend(&here);
        }
    }
    wanted
}
