//! What a user applies: plain YAML by Kustomize, and the Helm chart, as a real API server and real
//! Helm take them.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use self::desk::{Desk, NAMESPACE};
use crate::scene::{POOL, naru, wait};

mod desk;
mod image;
mod monitoring;

/// Kinds of the Prometheus operator, with whatever is in them.
const OPERATOR: [(&str, &str); 2] = [
    ("podmonitors", "PodMonitor"),
    ("prometheusrules", "PrometheusRule"),
];

/// Each value in another way than by default.
const OTHER_VALUES: &str = "
image: {repository: registry.lan/naru, tag: 0.2.0, pullPolicy: Always}
imagePullSecrets: [{name: lan}]
replaceKubeProxy: false
apiServer: {host: 192.168.56.101, port: 443}
interfaces: ['eth*', flannel.1]
loadBalancerClass: naru.dev/naru
gossip: {existingSecret: mine}
crds: true
metrics:
  enabled: true
  podMonitor: true
  prometheusRule: true
  dashboard: true
  labels: {release: prometheus}
agent:
  args: [--no-preempt, --hold-down=30]
  resources: {limits: {memory: 256Mi}}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: []
controller:
  replicas: 1
  args: []
  resources: {}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]
";

/// The path of something in `deploy/`.
fn deployed(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("deploy").join(name).display().to_string()
}

/// The chart and the plain YAML are of the same objects, and an API server takes both.
#[test]
fn helm_and_kustomize_say_the_same() {
    let desk = Desk::new();
    desk.helm(&["lint", "--strict"], "").unwrap();
    desk.helm(&["lint", "--strict"], OTHER_VALUES).unwrap();

    let plain = desk.kustomize();
    let chart = desk.template("");
    let mut expected = desk.objects(&plain);
    let mut rendered = desk.objects(&chart);
    // Each makes what the other one leaves to the user.
    assert!(expected.remove("Namespace naru-system").is_some());
    let secret = rendered.remove("Secret naru-gossip").unwrap();
    let key = secret["data"]["key"].as_str().unwrap();
    // Twice base64, of the Secret and of the key: 32 bytes.
    assert_eq!(key.len(), 60, "{key}");
    for (name, object) in &expected {
        assert_eq!(rendered.get(name), Some(object), "{name}");
    }
    let image = format!("ghcr.io/naru-lb/naru:{}", env!("CARGO_PKG_VERSION"));
    assert!(chart.contains(&image), "the chart is of another version");
    let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rendered), names(&expected));

    desk.apply(&fs::read_to_string(deployed("namespace.yaml")).unwrap());
    desk.apply(&OPERATOR.map(operators).concat());
    let other = desk.template(OTHER_VALUES);
    for yaml in [&plain, &chart, &other] {
        desk.dry_run(yaml).unwrap();
    }
    let crds = |values: &str| {
        desk.template(values)
            .matches("kind: CustomResource")
            .count()
    };
    assert_eq!([crds("crds: true"), crds("crds: false")], [3, 0]);

    every_value_arrives(&desk, &desk.objects(&other));
    check_reads(&desk, &[("chart", &chart), ("kustomized", &plain)]);
}

/// The objects are of [`OTHER_VALUES`], and programs know the flags that come of them.
fn every_value_arrives(desk: &Desk, other: &BTreeMap<String, Value>) {
    for (object, expected) in [
        (
            "DaemonSet naru-agent",
            "--replace-kube-proxy=false --interface=eth* --interface=flannel.1 \
             --load-balancer-class=naru.dev/naru --metrics=$(POD_IP):7948 --no-preempt \
             --hold-down=30",
        ),
        (
            "Deployment naru-controller",
            "--load-balancer-class=naru.dev/naru --metrics=$(POD_IP):7948",
        ),
    ] {
        let container = &other[object]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.lan/naru:0.2.0");
        let args = container["args"].as_array().unwrap().iter();
        let args: Vec<&str> = args.map(|it| it.as_str().unwrap()).collect();
        assert!(args.join(" ").ends_with(expected), "{args:?}");
        let mut args: Vec<_> = args
            .iter()
            .map(|it| it.replace("$(POD_IP)", "10.0.0.1"))
            .collect();
        args.push("--help".to_owned());
        desk.node()
            .run(&naru().display().to_string(), &args)
            .unwrap();
    }
    let agent = &other["DaemonSet naru-agent"]["spec"]["template"]["spec"];
    let env = agent["containers"][0]["env"].to_string();
    assert!(env.contains(r#""value":"192.168.56.101""#), "{env}");
    let volumes = agent["volumes"].to_string();
    assert!(volumes.contains(r#""secretName":"mine""#), "{volumes}");
    assert!(!other.contains_key("Secret naru-gossip"));
    assert_eq!(
        other["ConfigMap naru-dashboard"]["data"]["naru.json"],
        fs::read_to_string(deployed("grafana/naru.json")).unwrap()
    );

    for wrong in ["crds: maybe", "interface: eth0", "agent: {args: [eth0]}"] {
        let error = desk.helm(&["template", "naru"], wrong).unwrap_err();
        assert!(error.to_string().contains("schema"), "{error}");
    }
}

/// `naru check` reads all of it, and says of each object that it has no use for it.
fn check_reads(desk: &Desk, rendered: &[(&str, &str)]) {
    let dir = desk.lab.dir().join("rendered");
    fs::create_dir(&dir).unwrap();
    for (name, yaml) in rendered {
        fs::write(dir.join(format!("{name}.yaml")), yaml).unwrap();
    }
    for dir in [&deployed(""), &dir.display().to_string()] {
        let check = ["check", dir.as_str()];
        let said = desk.node().run(&naru().display().to_string(), &check);
        let said = said.unwrap();
        assert!(said.ends_with("valid: 0 services\n"), "{said}");
        let notes = said.lines().filter(|it| it.starts_with("note: "));
        assert!(notes.clone().count() > 10, "{said}");
        for note in notes {
            assert!(note.contains("not used by naru"), "{note}");
        }
    }
}

/// A chart that comes, is upgraded, goes and comes again takes no key and no pool with it.
#[test]
fn helm_keeps_keys_and_pools() {
    let desk = Desk::new();
    desk.helm(&["install", "naru", "--create-namespace"], "")
        .unwrap();
    let key = desk.key();
    assert_eq!(key.len(), 60, "{key}");
    let pools = "crd ipaddresspools.metallb.io";
    let path = r".metadata.labels.app\.kubernetes\.io/managed-by";
    assert_eq!(desk.field(pools, path), "Helm");
    wait("pools are served", || desk.plane.apply(POOL).is_ok());

    let said = desk
        .helm(&["upgrade", "naru"], "controller: {replicas: 3}")
        .unwrap();
    assert!(said.contains("kind: IPAddressPool"), "{said}");
    assert_eq!(desk.key(), key);
    let replicas = desk.field("deployment naru-controller", ".spec.replicas");
    assert_eq!(replicas, "3");
    assert_eq!(desk.field(pools, path), "Helm");

    let uninstall = ["helm", "uninstall", "naru", "--namespace", NAMESPACE];
    desk.run(&uninstall, "").unwrap();
    assert_eq!(desk.field("daemonset naru-agent", ".kind"), "");
    let addresses = "ipaddresspool nginx-ip-range";
    assert!(desk.field(addresses, ".spec.addresses").contains("56.11"));

    // They are its own again, and a key that somebody made is used as it is.
    desk.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: naru-gossip, namespace: naru-system}, \
         data: {key: bWluZQ==}}",
    );
    desk.helm(&["install", "naru"], "").unwrap();
    assert_eq!(desk.field(pools, path), "Helm");
    assert_eq!(desk.key(), "bWluZQ==");
    desk.run(&uninstall, "").unwrap();
    assert_eq!(desk.key(), "bWluZQ==");

    // Those of somebody else are let alone.
    desk.run(&["kubectl", "delete", "-f", &deployed("crds.yaml")], "")
        .unwrap();
    let only = fs::read_to_string(deployed("crds.yaml")).unwrap();
    desk.apply(only.split("\n---\n").next().unwrap());
    desk.helm(&["install", "naru"], "").unwrap();
    assert_eq!(desk.field(pools, path), "");
    let announced = "crd servicel2statuses.metallb.io";
    assert_eq!(desk.field(announced, path), "Helm");
    desk.helm(&["upgrade", "naru"], "").unwrap();
    assert_eq!(desk.field(pools, ".kind"), "CustomResourceDefinition");
}

/// The definition of a kind of the Prometheus operator.
fn operators((plural, kind): (&str, &str)) -> String {
    format!(
        "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.monitoring.coreos.com}}
spec:
  group: monitoring.coreos.com
  names: {{kind: {kind}, plural: {plural}}}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"
    )
}
