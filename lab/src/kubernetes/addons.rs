//! What clusters have beside their control plane: DNS, and the API that autoscalers ask.

use std::{net::Ipv4Addr, time::Duration};

use super::Kube;
use crate::{
    error::{Error, Result},
    kubelet::{METRICS_API, PORT as KUBELET},
};

/// Where pods ask for names.
pub(super) const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where they reach the API server.
pub(super) const API_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// How long DNS may take to serve.
const PATIENCE: Duration = Duration::from_secs(100);

/// CoreDNS as kubeadm installs it, as far as names of the cluster are concerned.
const DNS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- apiGroups: ['']
  resources: [services, pods, namespaces]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health {
            lameduck 2s
        }
        ready
        kubernetes cluster.local in-addr.arpa ip6.arpa {
            pods insecure
        }
        cache 5
        reload
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 2
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      containers:
      - name: coredns
        image: registry.k8s.io/coredns/coredns
        args: [-conf, /etc/coredns/Corefile]
        ports:
        - {containerPort: 53, name: dns, protocol: UDP}
        - {containerPort: 53, name: dns-tcp, protocol: TCP}
        readinessProbe: {httpGet: {path: /ready, port: 8181}}
        volumeMounts: [{name: config, mountPath: /etc/coredns, readOnly: true}]
      volumes: [{name: config, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  selector: {k8s-app: kube-dns}
  clusterIP: DNS_ADDRESS
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
";

/// A kubelet of the lab tells what all pods use.
const METRICS: &str = "
apiVersion: v1
kind: Service
metadata: {name: lab-metrics, namespace: kube-system}
spec: {ports: [{port: 443, targetPort: KUBELET}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: lab-metrics
  namespace: kube-system
  labels: {kubernetes.io/service-name: lab-metrics}
addressType: IPv4
ports: [{port: KUBELET, protocol: TCP}]
endpoints: [{addresses: [NODE], conditions: {ready: true}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: VERSION.GROUP}
spec:
  group: GROUP
  version: VERSION
  service: {name: lab-metrics, namespace: kube-system, port: 443}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
";

impl Kube {
    /// Starts a cluster's DNS behind its cluster IP; returns when it serves.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start_dns(&self) -> Result<()> {
        self.apply(&DNS.replace("DNS_ADDRESS", &DNS_ADDRESS.to_string()))?;
        let seconds = PATIENCE.as_secs();
        self.kubectl(&format!(
            "rollout status deployment coredns -n kube-system --timeout={seconds}s"
        ))?;
        Ok(())
    }

    /// Has the API server tell how much CPU pods use, for autoscalers and `kubectl top`.
    ///
    /// # Errors
    /// Where it refuses to.
    pub fn start_metrics(&self) -> Result<()> {
        let (group, version) = METRICS_API.split_once('/').unwrap_or_default();
        let node = self.lab.topology().nodes.first();
        let node = node.ok_or_else(|| Error::Topology("there is no node".to_owned()))?;
        let objects = METRICS
            .replace("NODE", &node.address.to_string())
            .replace("KUBELET", &KUBELET.to_string())
            .replace("GROUP", group)
            .replace("VERSION", version);
        self.apply(&objects)?;
        let seconds = PATIENCE.as_secs();
        self.kubectl(&format!(
            "wait apiservice {version}.{group} --for=condition=Available --timeout={seconds}s"
        ))?;
        Ok(())
    }
}
