//! A cluster of the lab with Naru in it, and how to ask it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{Kube, KubeOptions, Load, LoadOptions};
pub use naru_tests::naru;

/// How long anything may take that is waited for: an API server that comes back is asked again
/// within a minute.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The class room's nodes.
pub const NODES: [&str; 3] = ["nuc01", "nuc02", "nuc03"];

/// Where agents serve metrics that do, on each node.
const METRICS: &str = "127.0.0.1:7948";

/// The class room's pool, which the tutorials give to MetalLB.
pub const POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: nginx-ip-range, namespace: naru-system}
spec: {addresses: [192.168.56.11-192.168.56.13]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: nginx-ip-range, namespace: naru-system}
spec: {ipAddressPools: [nginx-ip-range]}
";

/// The class room with its pool.
pub fn class_room() -> Kube {
    start(KubeOptions::new(naru(), control_plane()))
}

/// The same, with agents that serve metrics on their nodes.
pub fn measured() -> Kube {
    start(KubeOptions {
        args: vec!["--metrics".to_owned(), METRICS.to_owned()],
        ..KubeOptions::new(naru(), control_plane())
    })
}

/// What the agent of a node tells then.
pub fn metrics(kube: &Kube, node: &str) -> String {
    let curl = format!("curl -sS --max-time 5 http://{METRICS}/metrics");
    kube.shell(node, &curl).unwrap()
}

/// The value of a metric, of the line that has this in it.
#[track_caller]
pub fn value(page: &str, name: &str, label: &str) -> f64 {
    let mut lines = page.lines().filter(|it| it.starts_with(name));
    let line = lines.find(|it| it.contains(label));
    let line = line.unwrap_or_else(|| panic!("no {name} of {label}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

pub fn start(options: KubeOptions) -> Kube {
    let kube = Kube::start(options).unwrap();
    kube.apply(POOL).unwrap();
    kube
}

/// A Deployment, and a Service of type LoadBalancer for it; gives the Service's address.
pub fn expose(kube: &Kube, app: &str, create: &str, expose: &str) -> String {
    kube.kubectl(&format!("create deployment {app} {create}"))
        .unwrap();
    let line = format!("expose deployment {app} --type=LoadBalancer {expose}");
    kube.kubectl(&line).unwrap();
    given(kube, app)
}

/// What `kubectl` prints of one field.
pub fn field(kube: &Kube, object: &str, path: &str) -> String {
    let line = format!("get {object} -o jsonpath={{{path}}}");
    kube.kubectl(&line).unwrap()
}

pub fn external_ip(kube: &Kube, service: &str) -> String {
    let of = format!("service {service}");
    field(kube, &of, ".status.loadBalancer.ingress[0].ip")
}

/// Waits for a Service's address.
pub fn given(kube: &Kube, service: &str) -> String {
    wait("it has an address", || {
        !external_ip(kube, service).is_empty()
    });
    external_ip(kube, service)
}

/// Requests that go on until they are stopped, each on a connection of its own.
pub fn load(kube: &Kube, url: &str) -> Load {
    let options = LoadOptions {
        connections: 2,
        limit: Duration::from_secs(300),
        ..LoadOptions::default()
    };
    kube.lab().client().load(url, options)
}

/// The pods that answer so many requests.
pub fn answering(kube: &Kube, url: &str, count: usize) -> BTreeSet<String> {
    let answers = kube.lab().client().many(url, count).unwrap();
    answers
        .into_iter()
        .filter_map(|it| Some(it.ok()?.pod))
        .collect()
}

/// Waits until so many pods answer, and no other ones.
pub fn wait_answering(kube: &Kube, url: &str, count: usize) -> Duration {
    let what = format!("{count} pods answer at {url}");
    wait(&what, || answering(kube, url, 4 * count).len() == count)
}

/// The pods of an app that are not about to go, each with its node.
pub fn pods(kube: &Kube, app: &str) -> Vec<(String, String)> {
    let line = format!(
        "get pods -l app={app} -o jsonpath={{range.items[*]}}{{.metadata.name}},{{.spec.nodeName}},\
         {{.metadata.deletionTimestamp}};{{end}}"
    );
    let listed = kube.kubectl(&line).unwrap();
    let listed = listed.split(';').filter(|it| !it.is_empty());
    let fields = listed.map(|it| it.split(',').collect::<Vec<_>>());
    let there = fields.filter(|it| it[2].is_empty());
    there
        .map(|it| (it[0].to_owned(), it[1].to_owned()))
        .collect()
}

/// Stops requests of which none may have failed, and some must have been answered; they count for
/// a walkthrough.
#[track_caller]
pub fn none_failed(walkthrough: &str, load: Load) {
    let tally = load.stop().unwrap();
    report(walkthrough, tally.ok + tally.failed, tally.failed);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.ok > 0, "no request was answered");
}

/// Counts requests for a walkthrough, in the file that `NARU_WALKTHROUGHS` names.
pub fn report(walkthrough: &str, sent: u64, failed: u64) {
    let line = format!("{walkthrough} {sent} {failed}");
    println!("{line}");
    tell(&line);
}

/// Tells a figure, in the same file.
pub fn figure(what: &str) {
    println!("{what}");
    tell(&format!("figure {what}"));
}

fn tell(line: &str) {
    if let Some(file) = std::env::var_os("NARU_WALKTHROUGHS") {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// The directory with the programs of a control plane.
pub fn control_plane() -> PathBuf {
    let program = std::env::var_os("NARU_CONTROLPLANE").map(PathBuf::from);
    program.expect("NARU_CONTROLPLANE names no directory: `cargo xtask test cluster`")
}

/// Waits until something is so; tells how long that took.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(Duration::from_millis(50));
    }
    start.elapsed()
}
