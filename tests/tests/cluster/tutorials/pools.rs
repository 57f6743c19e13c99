//! C: addresses out of a pool.

use naru_lab::{Kube, KubeOptions};
use naru_tests::CONFIG_MAP;

use crate::scene::{
    control_plane, expose, external_ip, field, load, naru, none_failed, wait, wait_answering,
};

#[test]
fn c_services_get_addresses_of_a_pool_until_there_are_none() {
    let options = KubeOptions {
        controllers: 2,
        ..KubeOptions::new(naru(), control_plane())
    };
    let kube = Kube::start(options).unwrap();
    kube.kubectl("create namespace metallb-system").unwrap();
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
    none_failed("C", requests);
}
