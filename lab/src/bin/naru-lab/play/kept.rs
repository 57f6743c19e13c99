//! What a keeper keeps: a LAN with manifests, or a cluster of Kubernetes.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context;
use naru_lab::{
    Agent, Algorithm, Cluster, ClusterOptions, Condition, Kube, KubeOptions, Lab, Result,
    ServiceSpec, tutorial_services,
};

use super::{Wanted, show};

/// A lab with an agent on every node.
pub(super) trait Kept {
    fn lab(&self) -> &Lab;
    fn agent(&self, node: &str) -> Result<&Agent>;
    fn is_off(&self, node: &str) -> bool;
    fn cut(&self, node: &str) -> Result<()>;
    fn heal(&self, node: &str) -> Result<()>;
    fn off(&self, node: &str) -> Result<()>;
    fn on(&self, node: &str) -> Result<()>;
    /// What is served, and by whom, for people.
    fn services(&self) -> Result<String>;
    /// An address that is served, and its port.
    fn served(&self) -> Vec<String>;
    /// How to reach the API server, and where `kubectl` is.
    fn kubernetes(&self) -> Option<(PathBuf, PathBuf)>;
    fn teardown(self: Box<Self>) -> Result<()>;
}

/// Makes what is wanted.
pub(super) fn make(
    naru: &Path,
    control_plane: Option<&Path>,
    wanted: &Wanted,
) -> anyhow::Result<Box<dyn Kept>> {
    if wanted.kubernetes {
        let plane = control_plane.context("--kubernetes needs --control-plane")?;
        return Ok(Box::new(kubernetes(naru, plane, wanted)?));
    }
    let options = ClusterOptions::new(naru)
        .owner(wanted.owner())
        .services(services());
    Ok(Box::new(Cluster::start(wanted.topology(), &options)?))
}

/// The tutorial's service by both transports, and two more addresses: one by Maglev with
/// direct server return, one as users without pools of their own have it.
fn services() -> Vec<ServiceSpec> {
    let [tcp, udp] = tutorial_services();
    let more = |name: &str, last: u8| ServiceSpec {
        name: name.to_owned(),
        address: [192, 168, 56, last].into(),
        ..tcp.clone()
    };
    let maglev = more("nest-maglev", 12)
        .by(Algorithm::Maglev)
        .annotated("naru.dev/mode", "dsr");
    vec![tcp.clone(), udp, maglev, more("nest-third", 13)]
}

impl Kept for Cluster {
    fn lab(&self) -> &Lab {
        self.lab()
    }

    fn agent(&self, node: &str) -> Result<&Agent> {
        self.agent(node)
    }

    fn is_off(&self, node: &str) -> bool {
        self.condition(node) == Condition::Off
    }

    fn cut(&self, node: &str) -> Result<()> {
        self.cut(node)
    }

    fn heal(&self, node: &str) -> Result<()> {
        self.heal(node)
    }

    fn off(&self, node: &str) -> Result<()> {
        self.off(node)
    }

    fn on(&self, node: &str) -> Result<()> {
        self.on(node)
    }

    fn services(&self) -> Result<String> {
        show::services(self)
    }

    fn served(&self) -> Vec<String> {
        let served = self.services().iter();
        served
            .map(|it| format!("{}:{}", it.address, it.port))
            .collect()
    }

    fn kubernetes(&self) -> Option<(PathBuf, PathBuf)> {
        None
    }

    fn teardown(self: Box<Self>) -> Result<()> {
        (*self).teardown()
    }
}

/// The class room's pool, and the tutorial's Deployment with an address of it.
const OBJECTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: naru-system}
spec: {addresses: [192.168.56.11-192.168.56.20]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: naru-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nest-server, namespace: default}
spec:
  replicas: 5
  selector: {matchLabels: {app: nest-server}}
  template:
    metadata: {labels: {app: nest-server}}
    spec: {containers: [{name: nest-server, image: nest-server, ports: [{containerPort: 3000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: nest-server, namespace: default}
spec:
  type: LoadBalancer
  loadBalancerIP: 192.168.56.11
  selector: {app: nest-server}
  ports: [{port: 80, targetPort: 3000}]
";

fn kubernetes(naru: &Path, plane: &Path, wanted: &Wanted) -> anyhow::Result<Kube> {
    let options = KubeOptions {
        topology: wanted.nodes(),
        ..KubeOptions::new(naru, plane)
    };
    let kube = Kube::start(options)?;
    kube.apply(OBJECTS)?;
    kube.start_dns()?;
    kube.start_metrics()?;
    kube.kubectl("rollout status deployment nest-server --timeout=100s")?;
    let link = bin(&kube).join("kubectl");
    std::fs::create_dir_all(bin(&kube))
        .and_then(|()| symlink(plane.join("kubectl"), &link))
        .with_context(|| link.display().to_string())?;
    Ok(kube)
}

/// Where the programs are that a cluster brings.
fn bin(kube: &Kube) -> PathBuf {
    kube.lab().dir().join("bin")
}

impl Kept for Kube {
    fn lab(&self) -> &Lab {
        self.lab()
    }

    fn agent(&self, node: &str) -> Result<&Agent> {
        self.agent(node)
    }

    fn is_off(&self, node: &str) -> bool {
        self.is_off(node)
    }

    fn cut(&self, node: &str) -> Result<()> {
        self.lab().cut(node)
    }

    fn heal(&self, node: &str) -> Result<()> {
        self.lab().heal(node)
    }

    fn off(&self, node: &str) -> Result<()> {
        self.off(node)
    }

    fn on(&self, node: &str) -> Result<()> {
        self.on(node)
    }

    fn services(&self) -> Result<String> {
        let services = self.kubectl("get services -A")?;
        let pods = self.kubectl("get pods -A -o wide")?;
        Ok(format!("{services}\n{}", pods.trim_end()))
    }

    fn served(&self) -> Vec<String> {
        vec!["192.168.56.11:80".to_owned()]
    }

    fn kubernetes(&self) -> Option<(PathBuf, PathBuf)> {
        Some((self.plane().kubeconfig("admin"), bin(self)))
    }

    fn teardown(self: Box<Self>) -> Result<()> {
        (*self).teardown()
    }
}
