//! Which parts a service has, and whose a frontend is.

use std::net::IpAddr;

use super::*;

fn frontend(text: &str) -> Frontend {
    Frontend {
        addr: text.parse().expect("an address"),
        protocol: Protocol::Tcp,
    }
}

fn service(external_policy: TrafficPolicy, internal_policy: TrafficPolicy) -> Service {
    Service {
        frontends: [frontend("192.0.2.1:80")].into(),
        cluster: [frontend("10.96.0.1:80")].into(),
        external_policy,
        internal_policy,
        ..Service::default()
    }
}

fn desired(services: &[Service]) -> Desired {
    let named = services.iter().enumerate();
    Desired {
        services: named
            .map(|(n, service)| (ServiceName(format!("default/s{n}:80")), service.clone()))
            .collect(),
        ..Desired::default()
    }
}

fn surroundings(sockets: bool) -> Surroundings {
    Surroundings {
        sockets,
        ..Surroundings::default()
    }
}

/// The policy of each part, with the addresses of its frontends and of its internal ones.
fn of(service: &Service, sockets: bool) -> Vec<String> {
    let desired = desired(std::slice::from_ref(service));
    let parts = parts(&desired, &surroundings(sockets)).expect("no clash");
    let addresses = |frontends: &BTreeSet<Frontend>| -> Vec<IpAddr> {
        frontends.iter().map(|it| it.addr.ip()).collect()
    };
    parts
        .parts
        .values()
        .map(|part| {
            let (packets, sockets) = (addresses(&part.frontends), addresses(&part.internal));
            format!("{} {packets:?} {sockets:?}", part.policy.name())
        })
        .collect()
}

#[test]
fn a_service_has_a_part_for_each_policy_that_holds_for_anybody() {
    use TrafficPolicy::{Cluster, Local};
    let cases = [
        (
            Cluster,
            Cluster,
            &["Cluster [192.0.2.1] [10.96.0.1, 192.0.2.1]"][..],
        ),
        (
            Local,
            Cluster,
            &["Cluster [] [10.96.0.1, 192.0.2.1]", "Local [192.0.2.1] []"],
        ),
        (
            Cluster,
            Local,
            &["Cluster [192.0.2.1] [192.0.2.1]", "Local [] [10.96.0.1]"],
        ),
        (
            Local,
            Local,
            &["Cluster [] [192.0.2.1]", "Local [192.0.2.1] [10.96.0.1]"],
        ),
    ];
    for (external, internal, expected) in cases {
        let service = service(external, internal);
        assert_eq!(of(&service, true), expected);
        let alone = format!("{} [192.0.2.1] []", external.name());
        assert_eq!(of(&service, false), [alone], "no sockets are served");
    }
}

#[test]
fn a_cluster_ip_belongs_to_one_service_which_may_have_it_as_external_ip_too() {
    let mut service = service(TrafficPolicy::Local, TrafficPolicy::Local);
    service.external = service.cluster.clone();
    let expected = "Local [10.96.0.1, 192.0.2.1] [10.96.0.1]";
    assert_eq!(of(&service, true), ["Cluster [] [192.0.2.1]", expected]);
    let thief = Service {
        external: [frontend("10.96.0.1:80")].into(),
        ..Service::default()
    };
    service.external.clear();
    let desired = desired(&[service, thief]);
    let clash = parts(&desired, &surroundings(true))
        .err()
        .map(|it| it.to_string());
    let clash = clash.expect("refused");
    assert!(
        clash.starts_with("10.96.0.1:80/tcp is a frontend of both"),
        "{clash}"
    );
    assert!(parts(&desired, &surroundings(false)).is_ok());
}
