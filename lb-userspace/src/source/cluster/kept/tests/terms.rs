//! Whose Services are whose.

use super::*;

/// A Service of type LoadBalancer with all kinds of frontends, of this class.
fn balanced(class: Option<&str>) -> Told<Service> {
    let object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": class,
            "clusterIP": "10.96.0.10",
            "ports": [{"port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.77", "ipMode": "VIP"},
            {"ip": "192.0.2.78", "ipMode": "Proxy"},
        ]}},
    });
    applied("default", "web", &object)
}

/// What comes of it on these terms: whether it is ours to give an address to, and its port.
fn on_terms(terms: Terms, class: Option<&str>) -> (bool, Option<crate::desired::Service>) {
    let mut kept = listed(terms);
    kept.services.take(balanced(class));
    let desired = outcome(&mut kept).desired;
    let port = desired.services.values().next().cloned();
    (desired.balancers.keys().count() == 1, port)
}

#[test]
fn cluster_ips_and_node_ports_are_left_to_a_kube_proxy_that_stays() {
    let pooled = Terms {
        pooled: true,
        ..Terms::default()
    };
    let (ours, port) = on_terms(pooled.clone(), None);
    let port = port.expect("a port");
    assert!(ours && port.cluster.len() == 1 && port.node_port.is_some());
    let beside = Terms {
        beside_kube_proxy: true,
        ..pooled
    };
    let (ours, port) = on_terms(beside, None);
    let port = port.expect("a port");
    assert!(ours && port.cluster.is_empty() && port.node_port.is_none());
}

#[test]
fn of_another_class_what_proxies_serve_is_served_and_claimed_by_nobody() {
    let (ours, port) = on_terms(Terms::default(), Some("example.org/other"));
    let port = port.expect("a port");
    assert!(!ours && port.frontends.is_empty());
    assert!(port.cluster.len() == 1 && port.node_port.is_some());
    let external: Vec<String> = port.external.iter().map(ToString::to_string).collect();
    assert_eq!(
        external,
        ["192.0.2.77:80/tcp"],
        "not the one of ipMode Proxy"
    );
    let beside = Terms {
        beside_kube_proxy: true,
        ..Terms::default()
    };
    assert_eq!(on_terms(beside, Some("example.org/other")).1, None);
}

#[test]
fn services_are_ours_by_their_class() {
    let is_ours = |own: Option<&str>, class| {
        let terms = Terms {
            class: own.map(str::to_owned),
            pooled: true,
            ..Terms::default()
        };
        on_terms(terms, class).0
    };
    assert!(is_ours(None, None) && is_ours(None, Some("naru.dev/naru")));
    assert!(!is_ours(None, Some("example.org/other")));
    let own = Some("example.org/own");
    assert!(is_ours(own, own) && !is_ours(own, None) && !is_ours(own, Some("naru.dev/naru")));
}
