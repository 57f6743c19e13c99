//! The tutorials, as they are written: their objects, their `kubectl`, real clients, and requests
//! that go on throughout.

use std::{collections::BTreeSet, time::Duration};

use naru_lab::{Kube, KubeOptions, Load, LoadOptions};

use crate::scene::{control_plane, naru, none_failed, wait};

/// The class room's pool, which the tutorials give to MetalLB.
const POOL: &str = "
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

/// What `kubectl` prints of one field.
fn field(kube: &Kube, object: &str, path: &str) -> String {
    let line = format!("get {object} -o jsonpath={{{path}}}");
    kube.kubectl(&line).unwrap()
}

fn external_ip(kube: &Kube, service: &str) -> String {
    let of = format!("service {service}");
    field(kube, &of, ".status.loadBalancer.ingress[0].ip")
}

/// Waits for a Service's address.
fn given(kube: &Kube, service: &str) -> String {
    wait("it has an address", || {
        !external_ip(kube, service).is_empty()
    });
    external_ip(kube, service)
}

fn load(kube: &Kube, url: &str) -> Load {
    let options = LoadOptions {
        connections: 2,
        limit: Duration::from_secs(300),
        ..LoadOptions::default()
    };
    kube.lab().client().load(url, options)
}

/// The pods that answer so many requests.
fn answering(kube: &Kube, url: &str, count: usize) -> BTreeSet<String> {
    let answers = kube.lab().client().many(url, count).unwrap();
    answers
        .into_iter()
        .filter_map(|it| Some(it.ok()?.pod))
        .collect()
}

#[test]
fn c_services_get_addresses_of_a_pool_until_there_are_none() {
    let options = KubeOptions {
        controllers: 2,
        ..KubeOptions::new(naru(), control_plane())
    };
    let kube = Kube::start(options).unwrap();
    kube.apply(POOL).unwrap();
    for app in ["nginx-1", "nginx-2"] {
        let create = format!("create deployment {app} --image=nginx --replicas=3 --port=80");
        kube.kubectl(&create).unwrap();
        let expose = format!("expose deployment {app} --type=LoadBalancer --port=80");
        kube.kubectl(&expose).unwrap();
        given(&kube, app);
    }
    assert_eq!(external_ip(&kube, "nginx-1"), "192.168.56.11");
    assert_eq!(external_ip(&kube, "nginx-2"), "192.168.56.12");
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

    // All six of a Deployment that is scaled up answer, and none of those that ask is let down.
    let url = "http://192.168.56.11/";
    wait("three answer", || answering(&kube, url, 12).len() == 3);
    let requests = load(&kube, url);
    kube.kubectl("scale deployment nginx-1 --replicas=6")
        .unwrap();
    wait("six answer", || answering(&kube, url, 24).len() == 6);

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
    let pool = "ipaddresspool nginx-ip-range -n naru-system";
    wait("the pool says that it is used up", || {
        field(&kube, pool, ".status.assignedIPv4") == "3"
            && field(&kube, pool, ".status.availableIPv4") == "0"
    });

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
