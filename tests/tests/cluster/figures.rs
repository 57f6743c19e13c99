//! How soon what a cluster says is in force, and what many Services cost.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{Kube, NetNs};
use serde_json::{Value, json};

use crate::scene::{
    NODES, class_room, external_ip, figure, load, measured, metrics, none_failed, pods, value,
    wait, wait_answering,
};

/// How often an endpoint is changed.
const CHANGES: usize = 200;
/// Longer than any change takes.
const LONG: Duration = Duration::from_secs(5);

#[test]
fn an_endpoint_that_is_ready_has_traffic_at_once_and_scaling_lets_nobody_down() {
    let kube = class_room();
    let service = two(&kube);
    let times = flips(&kube, &service, CHANGES);
    tell("an endpoint ready, to the first packet", &times);

    // A Deployment from three pods to thirty and back, under load.
    let ip = crate::scene::expose(
        &kube,
        "nest-server",
        "--image=nest-server --replicas=3 --port=3000",
        "--port=80 --target-port=3000",
    );
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 3);
    let requests = load(&kube, &url);
    kube.kubectl("scale deployment nest-server --replicas=30")
        .unwrap();
    wait_answering(&kube, &url, 30);
    kube.kubectl("scale deployment nest-server --replicas=3")
        .unwrap();
    wait("there are three", || pods(&kube, "nest-server").len() == 3);
    wait_answering(&kube, &url, 3);
    none_failed("3 to 30 to 3 pods", requests);
}

#[test]
fn a_thousand_services_are_cheap() {
    let kube = measured();
    let service = two(&kube);
    let few = flips(&kube, &service, 50);
    let mut objects = Vec::new();
    for number in 0..1000 {
        let name = format!("many-{number}");
        let spec = json!({ "type": "ClusterIP", "ports": [{ "port": 80, "targetPort": 3000 }] });
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": spec,
        }));
        // Nobody is there; nobody asks them.
        let host = |it: usize| Ipv4Addr::from(0x0a80_0000 + (number * 10 + it) as u32);
        let addresses: Vec<_> = (0..10).map(host).collect();
        objects.push(slice(&name, &addresses, "TCP", Some("nuc02")));
    }
    kube.write(&objects).unwrap();
    wait("all are followed", || {
        let shown = kube.agent("nuc01").unwrap().json(&["services"]).unwrap();
        shown.as_array().map_or(0, Vec::len) >= 1001
    });
    let before = reconciled(&kube);
    let many = flips(&kube, &service, 50);
    let after = reconciled(&kube);
    tell("a change beside no other Service", &few);
    tell("a change beside 1,000 Services of 10 endpoints", &many);
    let [all, soon] = [0, 1].map(|it| after[it] - before[it]);
    assert!(all >= 50.0, "each agent has seen each change: {all}");
    figure(&format!(
        "agents beside 1,000 Services: {soon} of {all} changes were in the maps within 20 ms"
    ));
    for node in NODES {
        let pid = kube.agent(node).unwrap().pid().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|it| it.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        figure(&format!(
            "agent of {node}, 1,000 Services of 10 endpoints: {:.1} MiB",
            kib as f64 / 1024.0
        ));
        assert!(kib < 60 * 1024, "{node}: {line}");
    }
}

/// How many changes the agents have taken over, and how many of them within 20 ms of the first word.
fn reconciled(kube: &Kube) -> [f64; 2] {
    let pages = NODES.map(|node| metrics(kube, node));
    let sum = |name: &str, label: &str| pages.iter().map(|it| value(it, name, label)).sum();
    [
        sum("naru_reconcile_seconds_count", ""),
        sum("naru_reconcile_seconds_bucket", r#"le="0.02""#),
    ]
}

/// A Service with an address, and two pods of which it has one.
struct Two {
    to: SocketAddr,
    pods: [(String, Ipv4Addr); 2],
}

fn two(kube: &Kube) -> Two {
    let create = "create deployment two --image=two --replicas=2 --port=3000";
    kube.kubectl(create).unwrap();
    kube.kubectl("rollout status deployment two --timeout=100s")
        .unwrap();
    let of = |pod: &str| {
        let of = format!("pod {pod}");
        let ip = crate::scene::field(kube, &of, ".status.podIP");
        (pod.to_owned(), ip.parse().unwrap())
    };
    let listed = pods(kube, "two");
    let pods = [of(&listed[0].0), of(&listed[1].0)];
    kube.apply(
        "apiVersion: v1
kind: Service
metadata: {name: flip}
spec:
  type: LoadBalancer
  ports: [{port: 80, targetPort: 3000, protocol: UDP}]
",
    )
    .unwrap();
    kube.write(&[slice("flip", &[pods[0].1], "UDP", None)])
        .unwrap();
    wait("it has an address", || {
        !external_ip(kube, "flip").is_empty()
    });
    let ip: IpAddr = external_ip(kube, "flip").parse().unwrap();
    let two = Two {
        to: (ip, 80).into(),
        pods,
    };
    let client = kube.lab().node("client");
    wait("it is served", || {
        first(client, two.to, &two.pods[0].0, Duration::from_secs(1)).is_some()
    });
    two
}

/// Changes the endpoint so often; from when the API server has taken each change to the first answer
/// of the pod that it names, in order.
fn flips(kube: &Kube, two: &Two, count: usize) -> Vec<Duration> {
    let client = kube.lab().node("client");
    let mut times = Vec::with_capacity(count);
    // It has the first one; an even number of changes leaves that.
    for index in (0..=1).cycle().skip(1).take(count) {
        // Not in step with anything that happens at regular times.
        sleep(Duration::from_millis(20 + (times.len() as u64 * 37) % 50));
        let (pod, address) = &two.pods[index];
        let (taken, answered) = std::thread::scope(|scope| {
            let answered = scope.spawn(|| first(client, two.to, pod, LONG));
            let slice = slice("flip", &[*address], "UDP", None);
            let taken = kube.write(&[slice]).unwrap()[0];
            (taken, answered.join().unwrap())
        });
        let answered = answered.unwrap_or_else(|| panic!("{pod} does not answer"));
        times.push(answered.saturating_duration_since(taken));
    }
    times.sort();
    times
}

/// When a pod answers first, of flows that are each a new one.
fn first(client: &NetNs, to: SocketAddr, pod: &str, within: Duration) -> Option<Instant> {
    let began = Instant::now();
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut buffer = [0; 256];
        let length = socket
            .connect(to)
            .and_then(|()| socket.send(b"who?"))
            .and_then(|_| socket.recv(&mut buffer));
        length.is_ok_and(|length| buffer[..length].trim_ascii() == pod.as_bytes())
    };
    client
        .enter(|| {
            while began.elapsed() < within {
                if ask() {
                    return Some(Instant::now());
                }
                sleep(Duration::from_micros(200));
            }
            None
        })
        .unwrap()
}

/// A Service's EndpointSlice; `node`: where its endpoints are, where that is said.
fn slice(service: &str, addresses: &[Ipv4Addr], protocol: &str, node: Option<&str>) -> Value {
    let endpoint = |it: &Ipv4Addr| json!({ "addresses": [it], "conditions": { "ready": true }, "nodeName": node });
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 3000, "protocol": protocol }],
        "endpoints": endpoints,
    })
}

/// A quantile of times in order.
fn at(times: &[Duration], quantile: f64) -> Duration {
    times[((times.len() - 1) as f64 * quantile).round() as usize]
}

fn tell(what: &str, times: &[Duration]) {
    let ms = |quantile: f64| at(times, quantile).as_secs_f64() * 1e3;
    figure(&format!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms, of {}",
        ms(0.5),
        ms(0.99),
        ms(1.0),
        times.len()
    ));
}
