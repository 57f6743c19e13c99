//! F: the life of a Deployment behind a cluster IP and its name.

use naru_lab::Kube;

use crate::scene::{
    class_room, field, given, load, none_failed, pods, report, wait, wait_answering,
};

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

    // By its name too, which pods ask a DNS for that is balanced itself, over UDP and TCP.
    kube.start_dns().unwrap();
    let whole = "simple-app.default.svc.cluster.local";
    for lines in [
        "getent ahostsv4 simple-app | head -1 | cut -d' ' -f1".to_owned(),
        format!("dig +short +notcp {whole}"),
        format!("dig +short +tcp {whole}"),
    ] {
        let said = kube.exec(&node, &pod, &lines).unwrap();
        assert_eq!(said.trim(), ip, "{lines}");
    }
    let curl_name = "curl -sS --max-time 5 http://simple-app/";
    assert!(
        kube.exec(&node, &pod, curl_name)
            .unwrap()
            .starts_with("simple-app-")
    );
    let dig = format!("dig +short @10.96.0.10 {whole}");
    assert_eq!(kube.shell("nuc02", &dig).unwrap().trim(), ip);

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
        report("F", 30, 0);
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
    none_failed("F", requests);
}
