//! A desk at which somebody applies what is in `deploy/`.

use std::collections::BTreeMap;

use naru_lab::{ControlPlane, Error, Lab, NetNs, Topology};
use serde_json::Value;

use super::deployed;
use crate::scene::control_plane;

/// Where Naru's objects are.
pub(super) const NAMESPACE: &str = "naru-system";
/// How many seconds a command may take: Helm and kubectl would wait for minutes.
const LONGEST: &str = "100";
/// Labels and annotations that only Helm gives.
const BY_HELM: [&str; 3] = ["app.kubernetes.io/", "helm.sh/", "meta.helm.sh/"];

/// A control plane without nodes, and Helm beside it.
pub(super) struct Desk {
    pub(super) plane: ControlPlane,
    pub(super) lab: Lab,
}

impl Desk {
    pub(super) fn new() -> Self {
        let lab = Lab::build(Topology::nuc_without_pods()).unwrap();
        let first = lab.topology().nodes[0].clone();
        let dir = lab.dir().join("controlplane");
        let node = lab.node(&first.name).clone();
        let plane = ControlPlane::start(&control_plane(), node, first.address, &dir).unwrap();
        Self { plane, lab }
    }

    pub(super) fn node(&self) -> &NetNs {
        self.lab.node(&self.lab.topology().nodes[0].name)
    }

    pub(super) fn run(&self, words: &[&str], input: &str) -> Result<String, Error> {
        let program = control_plane().join(words[0]).display().to_string();
        let config = self.plane.kubeconfig("admin").display().to_string();
        let mut all = vec![LONGEST, &program, "--kubeconfig", &config];
        all.extend(&words[1..]);
        self.node().feed("timeout", &all, input)
    }

    /// `helm VERB … CHART -n naru-system`, with these values.
    pub(super) fn helm(&self, words: &[&str], values: &str) -> Result<String, Error> {
        let chart = deployed("helm/naru");
        let mut all = vec!["helm"];
        all.extend(words);
        all.extend([&chart, "--namespace", NAMESPACE, "--values", "-"]);
        self.run(&all, values)
    }

    pub(super) fn template(&self, values: &str) -> String {
        self.helm(&["template", "naru"], values).unwrap()
    }

    pub(super) fn kustomize(&self) -> String {
        self.run(&["kubectl", "kustomize", &deployed("")], "")
            .unwrap()
    }

    /// What the API server says to all of it.
    pub(super) fn dry_run(&self, yaml: &str) -> Result<String, Error> {
        let words = ["kubectl", "apply", "--dry-run=server", "-f", "-"];
        self.run(&words, yaml)
    }

    /// Objects as `kubectl` reads them, by kind and name, without what Helm adds.
    pub(super) fn objects(&self, yaml: &str) -> BTreeMap<String, Value> {
        let words = [
            "kubectl",
            "create",
            "--dry-run=client",
            "-o=json",
            "-f",
            "-",
        ];
        let json = self.run(&words, yaml).unwrap();
        let objects = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
        let named = objects.map(|it| {
            let mut it = it.unwrap();
            for field in ["labels", "annotations"] {
                without_helm(&mut it["metadata"], field);
            }
            let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
            let name = text(&it["metadata"]["name"]);
            (format!("{} {name}", text(&it["kind"])), it)
        });
        named.collect()
    }

    pub(super) fn field(&self, object: &str, path: &str) -> String {
        let path = format!("-o=jsonpath={{{path}}}");
        let mut words = vec!["kubectl", "get", "--ignore-not-found", "-n", NAMESPACE];
        words.extend(object.split(' '));
        words.push(&path);
        self.run(&words, "").unwrap()
    }

    pub(super) fn key(&self) -> String {
        self.field("secret naru-gossip", ".data.key")
    }

    pub(super) fn apply(&self, yaml: &str) {
        self.plane.apply(yaml).unwrap();
    }
}

fn without_helm(metadata: &mut Value, field: &str) {
    let Some(all) = metadata[field].as_object_mut() else {
        // Indexing has made one.
        metadata.as_object_mut().unwrap().remove(field);
        return;
    };
    all.retain(|name, _| !BY_HELM.iter().any(|it| name.starts_with(it)));
    if all.is_empty() {
        metadata.as_object_mut().unwrap().remove(field);
    }
}
