//! What nodes say to a load balancer before them that asks which of them has pods of a Service.

use std::collections::BTreeSet;

use naru_lab::Kube;
use serde_json::Value;

use crate::scene::{class_room, field, given, pods, wait};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: alt, port: 8080, targetPort: 80}]
";

#[test]
fn nodes_with_pods_of_their_own_say_so_at_the_health_check_node_port() {
    let kube = class_room();
    kube.kubectl("create deployment web --image=nginx --replicas=1 --port=80")
        .unwrap();
    kube.apply(SERVICE).unwrap();
    given(&kube, "web");
    let port = field(&kube, "service web", ".spec.healthCheckNodePort");
    for replicas in [1, 3, 2] {
        kube.kubectl(&format!("scale deployment web --replicas={replicas}"))
            .unwrap();
        wait("those with pods say so, and all others that not", || {
            let pods = pods(&kube, "web");
            let theirs: BTreeSet<_> = pods.iter().map(|it| it.1.clone()).collect();
            pods.len() == replicas && said(&kube, &port) == (theirs, 3)
        });
    }
    kube.kubectl("scale deployment web --replicas=0").unwrap();
    wait("nobody has any", || {
        said(&kube, &port) == (BTreeSet::new(), 3)
    });

    let patch = r#"patch service web -p {"spec":{"externalTrafficPolicy":"Cluster"}}"#;
    kube.kubectl(patch).unwrap();
    wait("nobody listens there any more", || {
        said(&kube, &port) == (BTreeSet::new(), 0)
    });
}

/// The nodes that have pods by what they say, and how many nodes say anything.
fn said(kube: &Kube, port: &str) -> (BTreeSet<String>, usize) {
    let mut have = BTreeSet::new();
    let mut say = 0;
    for node in &kube.lab().topology().nodes {
        let url = format!("http://{}:{port}/healthz", node.address);
        let args = ["-sS", "--max-time", "5", "-w", "%{http_code}", &url];
        // Where nothing listens curl fails.
        let Ok(text) = kube.lab().node("client").run("curl", &args) else {
            continue;
        };
        let (body, code) = text.trim().rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["service"]["namespace"], "default");
        assert_eq!(body["service"]["name"], "web");
        let some = body["localEndpoints"].as_u64().unwrap() > 0;
        assert_eq!(code, if some { "200" } else { "503" }, "{body}");
        say += 1;
        if some {
            have.insert(node.name.clone());
        }
    }
    (have, say)
}
