//! A: replicas in turn. B: node ports.

use naru_lab::{KubeOptions, Tally, Topology};

use crate::scene::{
    answering, class_room, control_plane, expose, field, load, naru, none_failed, pods, start,
    wait, wait_answering,
};

/// Each of five pods answers exactly twice of ten requests, in turn.
#[test]
fn a_five_replicas_round_robin() {
    let kube = start(KubeOptions {
        topology: Topology::nuc_of(5),
        ..KubeOptions::new(naru(), control_plane())
    });
    let create = "--image=nest-server --replicas=5 --port=3000";
    let ip = expose(&kube, "nest-server", create, "--port=80 --target-port=3000");
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 5);
    wait("agents agree on all five", || {
        let answers = kube.lab().client().many(&url, 10).unwrap();
        let tally = Tally::of(&answers);
        tally.failed == 0 && tally.by_pod.len() == 5 && tally.by_pod.values().all(|it| *it == 2)
    });

    let requests = load(&kube, &url);
    let (victim, _) = pods(&kube, "nest-server").remove(0);
    kube.kubectl(&format!("delete pod {victim}")).unwrap();
    wait_answering(&kube, &url, 5);
    assert!(!answering(&kube, &url, 20).contains(&victim));
    none_failed("A", requests);

    // A node is stopped, not the one with the API server.
    let listed = pods(&kube, "nest-server");
    let (lost, node) = listed.iter().find(|(_, node)| node != "nuc01").unwrap();
    kube.off(node).unwrap();
    wait("its pod is made elsewhere", || {
        let now = pods(&kube, "nest-server");
        now.len() == 5 && now.iter().all(|(_, at)| at != node)
    });
    wait_answering(&kube, &url, 5);
    wait("what the dead node announced others say", || {
        let of = "servicel2statuses -n naru-system";
        let said = field(&kube, of, ".items[*].status.node");
        !said.is_empty() && !said.contains(node)
    });
    let requests = load(&kube, &url);
    assert!(!answering(&kube, &url, 100).contains(lost));
    kube.on(node).unwrap();
    wait("it is ready again", || {
        field(
            &kube,
            &format!("node {node}"),
            ".status.conditions[?(@.type==\"Ready\")].status",
        ) == "True"
    });
    none_failed("A", requests);
}

/// Every node answers on the port, and `kubectl expose` gets one out of the range.
#[test]
fn b_node_ports() {
    let kube = class_room();
    let create = "create deployment np --image=nginx --replicas=1 --port=80";
    kube.kubectl(create).unwrap();
    kube.apply(
        "apiVersion: v1
kind: Service
metadata: {name: np-svc}
spec:
  type: NodePort
  selector: {app: np}
  ports: [{port: 80, targetPort: 80, nodePort: 30000}]
",
    )
    .unwrap();
    for node in &kube.lab().topology().nodes {
        wait_answering(&kube, &format!("http://{}:30000/", node.address), 1);
    }
    let url = "http://192.168.56.102:30000/";
    let requests = load(&kube, url);
    kube.kubectl("scale deployment np --replicas=3").unwrap();
    wait_answering(&kube, url, 3);
    kube.kubectl("expose deployment np --name=np-2 --type=NodePort --port=80")
        .unwrap();
    let port: u16 = field(&kube, "service np-2", ".spec.ports[0].nodePort")
        .parse()
        .unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
    wait_answering(&kube, &format!("http://192.168.56.103:{port}/"), 3);
    none_failed("B", requests);
}
