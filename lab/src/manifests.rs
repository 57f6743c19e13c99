//! Ordinary Kubernetes YAML, written as users write it, for the agent to read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::topology::{Node, PodSpec, Topology};

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name, and that of its file.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The address that clients use.
    pub address: Ipv4Addr,
    /// Whether `loadBalancerIP` asks for it. Otherwise it is the one that a pool is expected
    /// to give.
    pub requested: bool,
    /// The port that clients use.
    pub port: u16,
    /// The port that pods listen on.
    pub target_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// How backends are chosen; unsaid, it is the agent's default.
    pub algorithm: Option<Algorithm>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
    /// Further fields of its spec, each as YAML in one line.
    pub spec: BTreeMap<String, String>,
    /// The port of the nodes that clients may use as well.
    pub node_port: Option<u16>,
}

/// The transport of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How a service chooses a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Each in turn.
    RoundRobin,
    /// By a hash of the flow.
    Maglev,
}

impl Algorithm {
    /// As the annotation `naru.dev/algorithm` and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Maglev => "maglev",
        }
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl ServiceSpec {
    /// The tutorial's service: `nest-server`, 192.168.56.11, port 80 to 3000.
    pub fn nest_server() -> Self {
        Self::new("nest-server", Ipv4Addr::new(192, 168, 56, 11), 80, 3000)
    }

    /// A TCP service in the namespace `default`.
    pub fn new(name: &str, address: Ipv4Addr, port: u16, target_port: u16) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            address,
            requested: true,
            port,
            target_port,
            protocol: Protocol::Tcp,
            algorithm: None,
            annotations: BTreeMap::new(),
            spec: BTreeMap::new(),
            node_port: None,
        }
    }

    /// The same over another transport.
    #[must_use]
    pub fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The same without a request for its address: a pool gives it.
    #[must_use]
    pub fn from_pool(self) -> Self {
        Self {
            requested: false,
            ..self
        }
    }

    /// The same with an algorithm asked for.
    #[must_use]
    pub fn by(self, algorithm: Algorithm) -> Self {
        Self {
            algorithm: Some(algorithm),
            ..self
        }
    }

    /// The same with an annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with a field of its spec.
    #[must_use]
    pub fn with(mut self, field: &str, yaml: &str) -> Self {
        self.spec.insert(field.to_owned(), yaml.to_owned());
        self
    }

    /// The same with a port of the nodes.
    #[must_use]
    pub fn on_node(self, node_port: u16) -> Self {
        Self {
            node_port: Some(node_port),
            ..self
        }
    }

    /// Where clients find it over HTTP.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.address, self.port)
    }

    /// The Service as YAML.
    pub fn yaml(&self) -> String {
        let Self {
            name,
            namespace,
            address,
            port,
            target_port,
            ..
        } = self;
        let mut annotations = self.annotations.clone();
        if let Some(algorithm) = self.algorithm {
            annotations.insert("naru.dev/algorithm".to_owned(), algorithm.name().to_owned());
        }
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
        );
        if !annotations.is_empty() {
            yaml.push_str("  annotations:\n");
        }
        for (key, value) in &annotations {
            // A JSON string is a YAML string whatever is in it.
            let _ = writeln!(
                yaml,
                "    {key}: {}",
                serde_json::Value::from(value.as_str())
            );
        }
        let protocol = self.protocol.name();
        yaml.push_str("spec:\n  type: LoadBalancer\n");
        if self.requested {
            let _ = writeln!(yaml, "  loadBalancerIP: {address}");
        }
        let _ = write!(yaml, "  selector:\n    app: {name}\n");
        for (field, value) in &self.spec {
            let _ = writeln!(yaml, "  {field}: {value}");
        }
        let _ = write!(
            yaml,
            "  ports:\n    - protocol: {protocol}\n      port: {port}\n      \
             targetPort: {target_port}\n"
        );
        if let Some(node_port) = self.node_port {
            let _ = writeln!(yaml, "      nodePort: {node_port}");
        }
        yaml
    }

    /// The only EndpointSlice of this service as YAML.
    pub fn endpoints_yaml(&self, endpoints: &[Endpoint]) -> String {
        self.slice_yaml(1, endpoints)
    }

    /// One of several EndpointSlices of this service as YAML, by its number.
    pub fn slice_yaml(&self, number: usize, endpoints: &[Endpoint]) -> String {
        let Self {
            name,
            namespace,
            target_port,
            ..
        } = self;
        let protocol = self.protocol.name();
        let mut yaml = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{number}\n  \
             namespace: {namespace}\n  labels:\n    kubernetes.io/service-name: {name}\n\
             addressType: IPv4\nports:\n  - name: \"\"\n    protocol: {protocol}\n    \
             port: {target_port}\nendpoints:{}\n",
            if endpoints.is_empty() { " []" } else { "" }
        );
        for endpoint in endpoints {
            let Endpoint {
                pod,
                node,
                address,
                ready,
                serving,
                terminating,
            } = endpoint;
            let _ = write!(
                yaml,
                "  - addresses:\n      - {address}\n    conditions:\n      ready: {ready}\n      \
                 serving: {serving}\n      terminating: {terminating}\n    nodeName: {node}\n    \
                 targetRef:\n      kind: Pod\n      name: {pod}\n      namespace: {namespace}\n"
            );
        }
        yaml
    }
}

/// A pod as an EndpointSlice lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's name.
    pub pod: String,
    /// The node that it is on.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers on the connections that it has.
    pub serving: bool,
    /// Is about to end.
    pub terminating: bool,
}

impl From<&PodSpec> for Endpoint {
    fn from(pod: &PodSpec) -> Self {
        Self {
            pod: pod.name.clone(),
            node: pod.node.clone(),
            address: pod.address,
            ready: true,
            serving: true,
            terminating: false,
        }
    }
}

/// The Nodes of a topology as YAML.
pub(crate) fn nodes_yaml(topology: &Topology, without: &[&str]) -> String {
    let node = |node: &Node| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:\n    \
             - type: InternalIP\n      address: {}\n    - type: Hostname\n      address: {}\n",
            node.name, node.address, node.name
        )
    };
    let listed = topology.nodes.iter();
    let listed = listed.filter(|it| !without.contains(&&*it.name));
    let nodes: Vec<_> = listed.map(node).collect();
    nodes.join("---\n")
}

/// A directory of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// Makes the directory.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a Service, in place of the one that was there.
    pub fn service(&self, service: &ServiceSpec) -> Result<()> {
        self.write(&format!("{}.yaml", service.name), &service.yaml())
    }

    /// Writes a service's EndpointSlice, in place of the one that was there.
    pub fn endpoints<E: Into<Endpoint>>(
        &self,
        service: &ServiceSpec,
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<()> {
        let endpoints: Vec<Endpoint> = endpoints.into_iter().map(Into::into).collect();
        self.write(
            &format!("{}-endpoints.yaml", service.name),
            &service.endpoints_yaml(&endpoints),
        )
    }

    /// Writes the Nodes of a topology.
    pub fn nodes(&self, topology: &Topology) -> Result<()> {
        self.nodes_but(topology, &[])
    }

    /// The same without some of them.
    pub fn nodes_but(&self, topology: &Topology, without: &[&str]) -> Result<()> {
        self.write("nodes.yaml", &nodes_yaml(topology, without))
    }

    /// Writes a file so that a reader sees the old text or the new one: it is written
    /// beside the directory and moved in.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        let draft = self.dir.with_extension(format!("{file}.draft"));
        fs::write(&draft, text).map_err(Error::io(draft.display().to_string()))?;
        fs::rename(&draft, &path).map_err(Error::io(path.display().to_string()))
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::remove_file(&path).map_err(Error::io(path.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_users_write_it() {
        let yaml = ServiceSpec::nest_server().by(Algorithm::Maglev).yaml();
        let expected = "apiVersion: v1\nkind: Service\nmetadata:\n  name: nest-server\n  \
            namespace: default\n  annotations:\n    naru.dev/algorithm: \"maglev\"\nspec:\n  \
            type: LoadBalancer\n  loadBalancerIP: 192.168.56.11\n  selector:\n    \
            app: nest-server\n  ports:\n    - protocol: TCP\n      port: 80\n      targetPort: 3000\n";
        assert_eq!(yaml, expected);
    }

    #[test]
    fn a_service_of_a_pool_asks_for_no_address() {
        let asking = ServiceSpec::nest_server();
        let line = "  loadBalancerIP: 192.168.56.11\n";
        assert_eq!(
            asking.clone().from_pool().yaml(),
            asking.yaml().replace(line, "")
        );
    }

    #[test]
    fn a_slice_lists_each_pod_with_its_node() {
        let nuc = Topology::nuc();
        let endpoints: Vec<Endpoint> = nuc.pods.iter().map(Into::into).collect();
        let yaml = ServiceSpec::nest_server().endpoints_yaml(&endpoints);
        assert!(
            yaml.contains("kubernetes.io/service-name: nest-server\n"),
            "{yaml}"
        );
        assert_eq!(yaml.matches("nodeName: nuc02\n").count(), 2, "{yaml}");
        assert_eq!(yaml.matches("ready: true\n").count(), 5, "{yaml}");
        assert!(
            ServiceSpec::nest_server()
                .endpoints_yaml(&[])
                .ends_with("endpoints: []\n")
        );
    }
}
