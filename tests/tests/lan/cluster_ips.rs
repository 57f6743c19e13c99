//! Cluster IPs, which only sockets of the node and its pods reach; and whose endpoints
//! serve those, by either policy.

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use naru_lab::{Endpoint, NetNs, PodSpec, ServiceSpec};
use serde_json::{Value, json};

use crate::{
    cgroup::{Cgroup, lines, scene, ten},
    probe,
    scene::{
        NODE, NODE_ADDRESS, Scene, VIP, assert_everyone, assert_in_turn, change, rows, text, wait,
    },
};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);

/// Gives both services the cluster IP and further fields of their spec.
fn with_cluster_ip(scene: &Scene, fields: &[(&str, &str)]) {
    let how = |service: ServiceSpec| {
        let service = service.with("clusterIP", &CLUSTER_IP.to_string());
        let with = |it: ServiceSpec, (field, yaml): &(&str, &str)| it.with(field, yaml);
        fields.iter().fold(service.on_node(30_080), with)
    };
    let policy = |of: &str| {
        let field = fields.iter().find(|(field, _)| *field == of);
        json!(field.map_or("Cluster", |(_, policy)| policy))
    };
    let (internal, external) = (
        policy("internalTrafficPolicy"),
        policy("externalTrafficPolicy"),
    );
    change(scene, how, |row| {
        row["node_port"] == 30_080
            && row["internal_policy"] == internal
            && row["external_policy"] == external
    });
}

fn by(scene: &Scene, local: bool) -> Vec<PodSpec> {
    let pods = scene.pods().iter();
    pods.filter(|pod| (pod.node == NODE) == local)
        .cloned()
        .collect()
}

/// A datagram of each of six sockets and who answers, by `connect` or by `sendto`.
fn datagrams(at: Ipv4Addr, connected: bool) -> String {
    let ask = if connected {
        format!("s.connect((\"{at}\", 80)); s.send(b\"who?\")")
    } else {
        format!("s.sendto(b\"who?\", (\"{at}\", 80))")
    };
    format!(
        "python3 -c 'import socket
for _ in range(6):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); {ask}
    data, peer = s.recvfrom(99); assert peer == (\"{at}\", 80), peer; print(data.decode())'"
    )
}

/// Who answers at an address on TCP and UDP, connected and not.
fn answers(cgroup: &Cgroup, machine: &NetNs, at: Ipv4Addr) -> Vec<Vec<String>> {
    let url = format!("http://{at}/");
    [ten(&url), datagrams(at, true), datagrams(at, false)]
        .map(|script| lines(&cgroup.shell(machine, &script).unwrap()))
        .into()
}

/// That a connection and a datagram are refused at once.
fn assert_refused(cgroup: &Cgroup, machine: &NetNs, at: Ipv4Addr) {
    let began = Instant::now();
    for kind in ["STREAM", "DGRAM"] {
        let script = format!(
            "python3 -c 'import socket, errno
s = socket.socket(socket.AF_INET, socket.SOCK_{kind}); s.settimeout(3)
print(errno.errorcode[s.connect_ex((\"{at}\", 80))])'"
        );
        let said = cgroup.shell(machine, &script).unwrap();
        assert_eq!(said, "ECONNREFUSED", "{kind} {at}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_cluster_ip_serves_the_node_and_its_pods_and_nobody_on_the_lan() {
    let (cgroup, scene) = scene("cluster-ip");
    with_cluster_ip(&scene, &[]);
    let node = scene.lab.node(NODE);
    let url = format!("http://{CLUSTER_IP}/");
    let pod = scene.lab.pod(&scene.first(true).name).namespace();
    for machine in [node, pod] {
        assert_in_turn(
            &lines(&cgroup.shell(machine, &ten(&url)).unwrap()),
            scene.pods(),
        );
        for answers in answers(&cgroup, machine, CLUSTER_IP) {
            assert_everyone(&answers, scene.pods());
        }
    }
    let script = format!(
        "import socket; s = socket.create_connection((\"{CLUSTER_IP}\", 80)); print(*s.getpeername())"
    );
    let named = cgroup
        .shell(node, &format!("python3 -c '{script}'"))
        .unwrap();
    assert_eq!(named, format!("{CLUSTER_IP} 80"));

    // A machine of the LAN that sends its packets to the node gets no service.
    let client = scene.lab.node("client");
    let via = NODE_ADDRESS.to_string();
    client
        .run("ip", &["route", "add", "10.96.0.0/16", "via", &via])
        .unwrap();
    let before = scene.verdict("xdp", "not_ours");
    let at = probe::at(CLUSTER_IP, 80);
    let patience = Duration::from_millis(500);
    probe::failure(|| probe::connect_within(client, 0, at, patience));
    assert!(scene.verdict("xdp", "not_ours") > before);
    let flows = scene.agent.json(&["flows"]).unwrap();
    assert!(rows(&flows["flows"]).is_empty(), "{flows}");

    let services = scene.agent.json(&["services"]).unwrap();
    let listed = rows(&services)
        .iter()
        .find(|row| row["name"] == "default/nest-server:80")
        .unwrap();
    assert_eq!(listed["internal"], json!([format!("{CLUSTER_IP}:80/tcp")]));
    let table = scene.agent.cli(&["services"]).unwrap();
    assert!(
        table.contains(&format!("{CLUSTER_IP}:80/tcp (internal)")),
        "{table}"
    );
    let status = scene.agent.json(&["status"]).unwrap();
    let announced: Vec<_> = rows(&status["announced"])
        .iter()
        .map(|it| text(it, "vip"))
        .collect();
    assert_eq!(announced, [VIP.to_string()]);

    // The next agent finds all in place.
    scene.agent.restart().unwrap();
    assert_in_turn(
        &lines(&cgroup.shell(node, &ten(&url)).unwrap()),
        scene.pods(),
    );
}

#[test]
fn one_cluster_ip_serves_dns_over_udp_and_tcp_without_any_other_address() {
    let (cgroup, scene) = scene("dns");
    let endpoints: String = scene
        .pods()
        .iter()
        .map(|pod| {
            format!(
                "  - {{addresses: [{}], nodeName: {}}}\n",
                pod.address, pod.node
            )
        })
        .collect();
    let manifest = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\n\
         spec:\n  clusterIP: 10.96.0.10\n  clusterIPs: [10.96.0.10]\n  ports:\n  \
         - {{name: dns, port: 53, protocol: UDP, targetPort: 3000}}\n  \
         - {{name: dns-tcp, port: 53, protocol: TCP, targetPort: 3000}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: kube-dns-1\n  \
         namespace: kube-system\n  labels: {{kubernetes.io/service-name: kube-dns}}\n\
         addressType: IPv4\nports:\n  - {{name: dns, port: 3000, protocol: UDP}}\n  \
         - {{name: dns-tcp, port: 3000, protocol: TCP}}\nendpoints:\n{endpoints}"
    );
    scene.manifests.write("dns.yaml", &manifest).unwrap();
    wait("the service is in force", || {
        rows(&scene.agent.json(&["services"]).unwrap()).len() == 4
    });
    let pod = scene.lab.pod(&scene.first(true).name).namespace();
    let tcp = cgroup.shell(pod, &ten("http://10.96.0.10:53/")).unwrap();
    assert_in_turn(&lines(&tcp), scene.pods());
    let script = "python3 -c 'import socket
for n in range(10):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
    s.connect((\"10.96.0.10\", 53)); s.send(b\"who?\"); print(s.recv(99).decode())'";
    let udp = cgroup.shell(pod, script).unwrap();
    assert_in_turn(&lines(&udp), scene.pods());
}

#[test]
fn the_internal_policy_local_keeps_a_cluster_ip_to_pods_of_the_node() {
    let (cgroup, scene) = scene("internal");
    with_cluster_ip(&scene, &[("internalTrafficPolicy", "Local")]);
    let (here, elsewhere) = (by(&scene, true), by(&scene, false));
    let node = scene.lab.node(NODE);
    let pod = scene.lab.pod(&here[0].name).namespace();
    for machine in [node, pod] {
        for answers in answers(&cgroup, machine, CLUSTER_IP) {
            assert_everyone(&answers, &here);
        }
        // The policy is about cluster IPs alone.
        for at in [VIP, NODE_ADDRESS] {
            let port = if at == VIP { 80 } else { 30_080 };
            let url = format!("http://{at}:{port}/");
            assert_everyone(
                &lines(&cgroup.shell(machine, &ten(&url)).unwrap()),
                scene.pods(),
            );
        }
    }
    let client = scene.lab.node("client");
    assert_everyone(
        &probe::who_from(client, 20_000..20_010, probe::at(VIP, 80)),
        scene.pods(),
    );

    // One that ends but still serves is better than none; then there is none.
    let ending = Endpoint {
        ready: false,
        terminating: true,
        ..Endpoint::from(&here[0])
    };
    scene.set_endpoints(elsewhere.iter().map(Endpoint::from).chain([ending]));
    for answers in answers(&cgroup, node, CLUSTER_IP) {
        assert_everyone(&answers, &here[..1]);
    }
    scene.set_endpoints(elsewhere.iter());
    assert_refused(&cgroup, node, CLUSTER_IP);
    assert_refused(&cgroup, pod, CLUSTER_IP);
    for answers in answers(&cgroup, pod, VIP) {
        assert_everyone(&answers, &elsewhere);
    }
    scene.set_endpoints(scene.pods());
    for answers in answers(&cgroup, pod, CLUSTER_IP) {
        assert_everyone(&answers, &here);
    }
}

#[test]
fn the_external_policy_local_is_for_packets_and_not_for_those_inside() {
    let (cgroup, scene) = scene("external");
    with_cluster_ip(&scene, &[("externalTrafficPolicy", "Local")]);
    let (here, elsewhere) = (by(&scene, true), by(&scene, false));
    let client = scene.lab.node("client");
    let node = scene.lab.node(NODE);
    let pod = scene.lab.pod(&here[0].name).namespace();
    assert_everyone(
        &probe::who_from(client, 20_000..20_010, probe::at(VIP, 80)),
        &here,
    );
    for machine in [node, pod] {
        for at in [VIP, CLUSTER_IP] {
            for answers in answers(&cgroup, machine, at) {
                assert_everyone(&answers, scene.pods());
            }
        }
    }

    // Two tables: that of packets, and that of whoever is inside.
    let services = scene.agent.json(&["services"]).unwrap();
    let of = |row: &Value, field| rows(&row[field]).len();
    let listed: Vec<_> = rows(&services)
        .iter()
        .filter(|row| row["name"] == "default/nest-server:80")
        .map(|row| {
            (
                of(row, "frontends") > 0,
                of(row, "internal") > 1,
                &row["backends"],
            )
        })
        .collect();
    assert_eq!(listed, [(false, true, &json!(5)), (true, false, &json!(2))]);

    // Without a pod of its own the node turns packets away, and serves those inside.
    scene.set_endpoints(elsewhere.iter());
    let port = probe::at(NODE_ADDRESS, 30_080);
    let (kind, _) = probe::failure(|| probe::connect(client, 0, port));
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    for machine in [node, pod] {
        for at in [VIP, CLUSTER_IP] {
            for answers in answers(&cgroup, machine, at) {
                assert_everyone(&answers, &elsewhere);
            }
        }
        let url = format!("http://{NODE_ADDRESS}:30080/");
        assert_everyone(
            &lines(&cgroup.shell(machine, &ten(&url)).unwrap()),
            &elsewhere,
        );
    }
    scene.set_endpoints(Vec::<Endpoint>::new());
    for at in [VIP, CLUSTER_IP] {
        assert_refused(&cgroup, pod, at);
    }
}

#[test]
fn a_client_inside_comes_back_to_its_pod_by_whichever_address() {
    let (cgroup, scene) = scene("sticky");
    with_cluster_ip(&scene, &[("sessionAffinity", "ClientIP")]);
    let node = scene.lab.node(NODE);
    let mut tcp: Vec<String> = Vec::new();
    for at in [CLUSTER_IP, VIP, CLUSTER_IP] {
        let url = format!("http://{at}/");
        tcp.extend(lines(&cgroup.shell(node, &ten(&url)).unwrap()));
    }
    tcp.dedup();
    assert_eq!(tcp.len(), 1, "one client, one pod: {tcp:?}");
}

#[test]
fn cluster_ips_of_ipv6_are_served_alike() {
    let (cgroup, scene) = scene("ipv6");
    let manifest = "apiVersion: v1\nkind: Service\nmetadata: {name: six}\nspec:\n  \
        clusterIPs: [\"fd00:96::80\"]\n  ipFamilies: [IPv6]\n  \
        ports: [{port: 80, targetPort: 8080}]\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: \
        {name: six-1, labels: {kubernetes.io/service-name: six}}\naddressType: IPv6\n\
        ports: [{port: 8080}]\nendpoints: [{addresses: [\"fd00:1::80\"], nodeName: nuc01}]\n";
    let node = scene.lab.node(NODE);
    node.run(
        "ip",
        &["address", "add", "fd00:1::80/128", "dev", "lo", "nodad"],
    )
    .unwrap();
    // A route, so that the socket finds a source; the address itself is nowhere.
    node.run("ip", &["route", "add", "fd00:96::/64", "dev", "lo"])
        .unwrap();
    scene.manifests.write("six.yaml", manifest).unwrap();
    wait("the service is in force", || {
        rows(&scene.agent.json(&["services"]).unwrap()).len() == 3
    });
    let script = "exec python3 -c 'import socket
to, at = (\"fd00:96::80\", 80), (\"fd00:1::80\", 8080)
tcp = socket.create_server(at, family=socket.AF_INET6)
s = socket.create_connection(to, timeout=3)
there, peer = tcp.accept()
print(s.getpeername()[:2] == to, there.getsockname()[:2] == at)
try: socket.create_connection((to[0], 81), timeout=1)
except OSError: print(\"another port is not served\")'";
    let said = cgroup.shell(node, script).unwrap();
    assert_eq!(lines(&said), ["True True", "another port is not served"]);
}

#[test]
fn without_a_cgroup_cluster_ips_take_no_room() {
    let scene = Scene::new();
    let how = |it: ServiceSpec| it.with("clusterIP", "10.96.0.80").on_node(30_080);
    change(&scene, how, |row| row["node_port"] == 30_080);
    let services = scene.agent.json(&["services"]).unwrap();
    assert!(
        rows(&services)
            .iter()
            .all(|row| row["internal"] == json!([])),
        "{services}"
    );
}
