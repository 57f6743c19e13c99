//! The tutorials, as they are written: their objects, their `kubectl`, real clients, and requests
//! that go on throughout.

use std::collections::BTreeMap;

use naru_lab::{Kube, KubeOptions, Tally, Topology};

use crate::scene::{
    answering, class_room, control_plane, expose, external_ip, field, given, load, naru,
    none_failed, pods, start, wait, wait_answering,
};

/// The pool as it was written for MetalLB up to 0.12.
const CONFIG_MAP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: metallb-system}
data:
  config: |
    address-pools:
    - name: nginx-ip-range
      protocol: layer2
      addresses:
      - 192.168.56.11-192.168.56.13
";

#[test]
fn c_services_get_addresses_of_a_pool_until_there_are_none() {
    let options = KubeOptions {
        controllers: 2,
        ..KubeOptions::new(naru(), control_plane())
    };
    let kube = Kube::start(options).unwrap();
    kube.apply(CONFIG_MAP).unwrap();
    for (app, ip) in [("nginx-1", "192.168.56.11"), ("nginx-2", "192.168.56.12")] {
        let create = "--image=nginx --replicas=3 --port=80";
        assert_eq!(expose(&kube, app, create, "--port=80"), ip);
    }
    let mode = field(
        &kube,
        "service nginx-1",
        ".status.loadBalancer.ingress[0].ipMode",
    );
    assert_eq!(mode, "VIP");
    let pool = field(
        &kube,
        "service nginx-1",
        r".metadata.annotations.metallb\.io/ip-allocated-from-pool",
    );
    assert_eq!(pool, "nginx-ip-range");

    // One node announces it, and says so.
    let statuses = || {
        let of = "servicel2statuses -n naru-system -l metallb.io/service-name=nginx-1";
        field(&kube, of, ".items[*].status.node")
    };
    wait("a node says so", || statuses().starts_with("nuc0"));
    let node = statuses();
    assert!(!node.contains(' '), "{node}");
    let of = "get events --field-selector involvedObject.name=nginx-1,reason=nodeAssigned";
    assert!(kube.kubectl(of).unwrap().contains(&node));

    // All six of a Deployment that is scaled up answer, and none of those that ask is let down.
    let url = "http://192.168.56.11/";
    wait_answering(&kube, url, 3);
    let requests = load(&kube, url);
    kube.kubectl("scale deployment nginx-1 --replicas=6")
        .unwrap();
    wait_answering(&kube, url, 6);

    // One address is left for two.
    for name in ["nginx-3", "nginx-4"] {
        let expose =
            format!("expose deployment nginx-2 --name={name} --type=LoadBalancer --port=80");
        kube.kubectl(&expose).unwrap();
        let event = || {
            let of = format!("get events --field-selector involvedObject.name={name} --no-headers");
            kube.kubectl(&of).unwrap()
        };
        let expected = match name {
            "nginx-3" => "IPAllocated",
            _ => "AllocationFailed",
        };
        wait("an event says so", || event().contains(expected));
    }
    assert_eq!(external_ip(&kube, "nginx-3"), "192.168.56.13");
    assert_eq!(external_ip(&kube, "nginx-4"), "");

    // The controller that works dies; another one takes over, and moves nothing.
    let holder = || {
        let lease = "lease naru-controller -n naru-system";
        field(&kube, lease, ".spec.holderIdentity")
    };
    let first = holder();
    kube.kill_controller(first.strip_prefix("controller-").unwrap().parse().unwrap());
    kube.kubectl("delete service nginx-3").unwrap();
    wait("another one gives what is free", || {
        external_ip(&kube, "nginx-4") == "192.168.56.13"
    });
    assert_ne!(holder(), first);
    assert_eq!(external_ip(&kube, "nginx-1"), "192.168.56.11");
    assert_eq!(external_ip(&kube, "nginx-2"), "192.168.56.12");

    // A Service that is none for a load balancer any more has no address.
    let patch = r#"{"spec":{"type":"ClusterIP"}}"#;
    let args = ["patch", "service", "nginx-2", "-p", patch];
    kube.plane().kubectl(&args).unwrap();
    wait("its address is taken back", || {
        let annotations = field(&kube, "service nginx-2", ".metadata.annotations");
        external_ip(&kube, "nginx-2").is_empty() && !annotations.contains("from-pool")
    });
    let gone = kube.lab().client().get("http://192.168.56.12/");
    assert!(gone.is_err(), "{gone:?}");
    none_failed(requests);
}

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
    none_failed(requests);

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
    none_failed(requests);
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
    none_failed(requests);
}

/// A cluster IP, reached from every node and from pods, through a life of its Deployment.
#[test]
fn f_rolling_updates_behind_a_cluster_ip() {
    let kube = class_room();
    let create = "create deployment simple-app --image=simple-app:v1 --replicas=3 --port=5000";
    kube.kubectl(create).unwrap();
    kube.kubectl("expose deployment simple-app --port=80 --target-port=5000")
        .unwrap();
    let ip = field(&kube, "service simple-app", ".spec.clusterIP");
    let curl = format!("curl -sS --max-time 5 -D - http://{ip}/");
    for node in ["nuc01", "nuc02", "nuc03"] {
        wait("a node reaches it", || kube.shell(node, &curl).is_ok());
    }
    let (pod, node) = pods(&kube, "simple-app").remove(0);
    wait("a pod reaches it", || kube.exec(&node, &pod, &curl).is_ok());

    // From outside by an address, with requests on both ways throughout.
    kube.kubectl("expose deployment simple-app --name=outside --type=LoadBalancer --port=80 --target-port=5000")
        .unwrap();
    let url = format!("http://{}/", given(&kube, "outside"));
    wait_answering(&kube, &url, 3);
    let requests = load(&kube, &url);
    let inside = |kube: &Kube| {
        let lines =
            format!("for i in $(seq 30); do curl -sS --max-time 5 -o /dev/null http://{ip}/; done");
        kube.shell("nuc02", &lines).unwrap();
    };
    let version = |expected: &str| {
        wait("all pods are of the version", || {
            let told = (0..6).map(|_| kube.shell("nuc03", &curl).unwrap());
            let of = format!("x-version: {expected}");
            told.into_iter().all(|it| it.contains(&of))
        });
    };
    let rollout = "rollout status deployment simple-app --timeout=100s";
    kube.kubectl("scale deployment simple-app --replicas=10")
        .unwrap();
    kube.kubectl(rollout).unwrap();
    wait_answering(&kube, &url, 10);
    inside(&kube);
    kube.kubectl("set image deployment simple-app simple-app=simple-app:v2")
        .unwrap();
    inside(&kube);
    kube.kubectl(rollout).unwrap();
    version("v2");
    kube.kubectl("rollout undo deployment simple-app").unwrap();
    inside(&kube);
    kube.kubectl(rollout).unwrap();
    version("v1");
    kube.kubectl("scale deployment simple-app --replicas=3")
        .unwrap();
    wait_answering(&kube, &url, 3);
    inside(&kube);
    none_failed(requests);
}

/// What each pod served is counted as the tutorial counts it, by its log.
#[test]
fn d_and_g_every_pod_gets_its_share() {
    let kube = start(KubeOptions {
        args: vec!["--metrics".to_owned(), METRICS.to_owned()],
        ..KubeOptions::new(naru(), control_plane())
    });
    let create = "--image=nginx --replicas=3 --port=80";
    let ip = expose(&kube, "myapp", create, "--port=8080 --target-port=80");
    wait_answering(&kube, &format!("http://{ip}:8080/"), 3);
    let pool = "ipaddresspool nginx-ip-range -n naru-system";
    wait("the pool says how full it is", || {
        field(&kube, pool, ".status.assignedIPv4") == "1"
            && field(&kube, pool, ".status.availableIPv4") == "2"
    });
    let client = kube.lab().node("client");
    let url = format!("http://{ip}:8080/");
    let before = served(&kube, "myapp");
    for _ in 0..3 {
        let said = client
            .run("ab", &["-q", "-n", "1000", "-c", "100", &url])
            .unwrap();
        let failed = said.lines().find(|it| it.starts_with("Failed requests:"));
        assert!(failed.is_some_and(|it| it.ends_with(" 0")), "{said}");
    }
    let after = served(&kube, "myapp");
    assert_eq!(after.len(), 3, "{after:?}");
    let shares: Vec<u64> = after.iter().map(|(pod, it)| it - before[pod]).collect();
    assert_eq!(shares.iter().sum::<u64>(), 3000, "{shares:?}");
    assert!(
        shares.iter().all(|it| (900..=1100).contains(it)),
        "{shares:?}"
    );
    // The same by metrics, of the node that the clients come to.
    let announcing = r#"metallb_speaker_announced{service="default/myapp""#;
    let pages = ["nuc01", "nuc02", "nuc03"].map(|node| {
        let curl = format!("curl -sS --max-time 5 http://{METRICS}/metrics");
        kube.shell(node, &curl).unwrap()
    });
    let mut pages = pages.iter().filter(|it| it.contains(announcing));
    let page = pages.next().unwrap();
    assert_eq!(pages.next(), None, "one node announces");
    for pod in after.keys() {
        let flows = format!(r#"pod="{pod}""#);
        let mut lines = page
            .lines()
            .filter(|it| it.starts_with("naru_backend_flows_total"));
        let line = lines.find(|it| it.contains(&flows)).unwrap();
        let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(count >= 900.0, "{line}");
    }
}

/// Where agents serve metrics, on each node.
const METRICS: &str = "127.0.0.1:7946";

/// Lines by pod of `kubectl logs --prefix`.
fn served(kube: &Kube, app: &str) -> BTreeMap<String, u64> {
    let line = format!("logs -l app={app} --prefix --tail=-1");
    let mut served = BTreeMap::new();
    for line in kube.kubectl(&line).unwrap().lines() {
        // `[pod/NAME/CONTAINER] …`
        let pod = line.split('/').nth(1).unwrap_or_default();
        *served.entry(pod.to_owned()).or_default() += 1;
    }
    served
}

/// A client stays with its pod, and moves once when that goes.
#[test]
fn i_sticky_sessions() {
    let kube = class_room();
    let create = "--image=nest-server --replicas=3 --port=3000";
    let ip = expose(&kube, "nest-server", create, "--port=80 --target-port=3000");
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 3);
    let patch = r#"{"spec":{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}}}}"#;
    let args = ["patch", "service", "nest-server", "-p", patch];
    kube.plane().kubectl(&args).unwrap();
    wait("it sticks", || answering(&kube, &url, 20).len() == 1);
    let requests = load(&kube, &url);
    let first = answering(&kube, &url, 30);
    assert_eq!(first.len(), 1, "{first:?}");
    let gone = first.first().unwrap();
    kube.kubectl(&format!("delete pod {gone}")).unwrap();
    let second = answering(&kube, &url, 30);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(second, first);
    kube.kubectl("scale deployment nest-server --replicas=6")
        .unwrap();
    kube.kubectl("rollout status deployment nest-server --timeout=100s")
        .unwrap();
    assert_eq!(answering(&kube, &url, 30), second);
    none_failed(requests);
}
