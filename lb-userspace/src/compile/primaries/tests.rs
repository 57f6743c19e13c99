//! Which frontend replies are restored to, and whose flows are recorded for it.

use std::collections::BTreeMap;

use lb_common::{Algorithm, maglev};
use proptest::prelude::*;

use super::super::compile;
use super::*;
use crate::desired::{
    Condition, Desired, Endpoint, Family, NodePort, Service, ServiceName, TrafficPolicy,
};

/// A Maglev service of nat mode with these frontends and pods; those in 10.0.0.0/24 are here.
fn service(frontends: &[&str], pods: &[&str]) -> Service {
    let endpoint = |addr: &&str| {
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: None,
            name: None,
        };
        (addr.parse().expect("address"), endpoint)
    };
    Service {
        frontends: frontends.iter().map(|it| tcp(it)).collect(),
        algorithm: Algorithm::Maglev,
        maglev_slots: maglev::LADDER[0],
        endpoints: pods.iter().map(endpoint).collect(),
        ..Service::default()
    }
}

fn tcp(addr: &str) -> desired::Frontend {
    desired::Frontend {
        addr: addr.parse().expect("address"),
        protocol: Protocol::Tcp,
    }
}

fn state(services: &[Service]) -> Desired {
    let named = services.iter().enumerate();
    let named = named.map(|(n, it)| (ServiceName(format!("default/s{n}:80")), it.clone()));
    Desired {
        services: named.collect(),
        ..Desired::default()
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        node: "nuc01".into(),
        local_endpoints: (0..10).map(|n| [10, 0, 0, n].into()).collect(),
        node_port_addresses: BTreeSet::from([[192, 0, 2, 1].into()]),
        peers: BTreeMap::from([("nuc02".into(), [192, 168, 56, 102].into())]),
        sockets: true,
        ..Surroundings::default()
    }
}

fn fits(services: &[Service], around: &Surroundings, in_use: &InUse) -> MapImage {
    let desired = state(services);
    let image = compile(&desired, around, in_use).expect("fits");
    let again = compile(&desired, around, &InUse::of(&image)).expect("fits");
    assert_eq!(again, image, "what is in force changes");
    image
}

fn new(services: &[Service]) -> MapImage {
    fits(services, &surroundings(), &InUse::default())
}

/// What replies of a pod are restored to; none where each of them needs a record.
fn primary(image: &MapImage, pod: &str) -> Option<String> {
    let primary = image.primaries.get(&key(&tcp(pod)))?;
    let to = SocketAddr::new(primary.addr.to_ip(), primary.port.get());
    let backend = &image.backends[&primary.backend.index()];
    assert_eq!(backend.id, primary.backend);
    assert_eq!(backend.restored, u32::from(!primary.is_none()));
    if primary.is_none() {
        return None;
    }
    let entry = image.frontends.values();
    assert!(
        entry.into_iter().any(|it| it.service() == primary.service),
        "counted for nobody"
    );
    Some(to.to_string())
}

fn is_recorded(image: &MapImage, frontend: &str) -> bool {
    image.frontends[&key(&tcp(frontend))].is_recorded()
}

/// Whether flows by the slots of every table are recorded; none where tables differ.
fn all_recorded(image: &MapImage) -> Option<bool> {
    let mut slots = image
        .tables
        .values()
        .flat_map(|slots| slots.iter())
        .map(|slot| slot.records());
    let first = slots.next()?;
    slots.all(|it| it == first).then_some(first)
}

const A: &str = "10.0.0.2:8080";
const B: &str = "10.0.0.3:8080";
const REMOTE: &str = "10.0.1.2:8080";
const VIP: &str = "192.0.2.80:80";
const SECOND: &str = "192.0.2.81:80";
const THIRD: &str = "192.0.2.82:80";

#[test]
fn an_own_address_comes_before_an_external_one_and_that_before_a_node_port() {
    let mut every = service(&[SECOND, THIRD], &[A, REMOTE]);
    every.external = BTreeSet::from([tcp(VIP)]);
    every.node_port = Some(NodePort {
        port: 30_000,
        protocol: Protocol::Tcp,
        families: BTreeSet::from([Family::V4]),
    });
    // The lowest of all, and lower than the external one.
    let node_port = "192.0.2.1:30000";
    let mut expected = Vec::new();
    for gone in [SECOND, THIRD, VIP] {
        let image = new(std::slice::from_ref(&every));
        let first = primary(&image, A).expect("one");
        for frontend in image.frontends.keys() {
            let frontend = SocketAddr::new(frontend.addr.to_ip(), frontend.port.get());
            let frontend = frontend.to_string();
            assert_eq!(is_recorded(&image, &frontend), frontend != first);
        }
        assert_eq!(primary(&image, REMOTE), None, "its replies come by");
        expected.push(first);
        every.frontends.remove(&tcp(gone));
        every.external.remove(&tcp(gone));
    }
    expected.extend(primary(&new(&[every]), A));
    assert_eq!(expected, [SECOND, THIRD, VIP, node_port]);
}

#[test]
fn it_stays_while_its_frontend_is_there_and_moves_when_that_goes() {
    let around = surroundings();
    let first = new(&[service(&[SECOND], &[A])]);
    assert_eq!(primary(&first, A).as_deref(), Some(SECOND));
    let joined = fits(
        &[service(&[VIP, SECOND], &[A, B])],
        &around,
        &InUse::of(&first),
    );
    assert_eq!(primary(&joined, A).as_deref(), Some(SECOND), "kept");
    assert_eq!(primary(&joined, B).as_deref(), Some(VIP), "new");
    assert!(is_recorded(&joined, VIP) && is_recorded(&joined, SECOND));
    // Of another service now, which is what counts it.
    let moved = [service(&[VIP], &[B]), service(&[SECOND], &[A])];
    let moved = fits(&moved, &around, &InUse::of(&joined));
    assert_eq!(primary(&moved, A).as_deref(), Some(SECOND));
    let entry = moved.frontends[&key(&tcp(SECOND))];
    assert_eq!(
        moved.primaries[&key(&tcp(A))].service,
        entry.service(),
        "whose flows they are"
    );
    assert!(!is_recorded(&moved, VIP) && !is_recorded(&moved, SECOND));
    let without = fits(&[service(&[VIP], &[A, B])], &around, &InUse::of(&joined));
    assert_eq!(primary(&without, A).as_deref(), Some(VIP));
    assert!(
        !is_recorded(&without, VIP),
        "all of its pods are answered for by it"
    );
}

#[test]
fn it_stays_where_the_pod_leaves_its_service_for_connections_do() {
    let other = service(&[SECOND], &[A]);
    let before = new(&[service(&[VIP], &[A]), other.clone()]);
    assert_eq!(primary(&before, A).as_deref(), Some(VIP));
    let left = [service(&[VIP], &[B]), other.clone()];
    let left = fits(&left, &surroundings(), &InUse::of(&before));
    assert_eq!(primary(&left, A).as_deref(), Some(VIP));
    assert!(is_recorded(&left, SECOND) && !is_recorded(&left, VIP));
    let gone = fits(&[other], &surroundings(), &InUse::of(&left));
    assert_eq!(primary(&gone, A).as_deref(), Some(SECOND));
    assert!(!is_recorded(&gone, SECOND));
}

#[test]
fn of_two_services_of_a_pod_the_other_one_is_recorded() {
    let image = new(&[service(&[VIP], &[A]), service(&[SECOND], &[A, B])]);
    assert_eq!(primary(&image, A).as_deref(), Some(VIP));
    assert_eq!(primary(&image, B).as_deref(), Some(SECOND));
    assert!(!is_recorded(&image, VIP));
    assert!(is_recorded(&image, SECOND));
    assert_eq!(all_recorded(&image), Some(false), "entries decide it");
}

#[test]
fn round_robin_and_affinity_give_none_and_leave_that_of_another_service() {
    let in_turn = Service {
        algorithm: Algorithm::RoundRobin,
        ..service(&[VIP], &[A, B])
    };
    let affine = Service {
        affinity: Some(std::time::Duration::from_secs(60)),
        ..service(&[VIP], &[A, B])
    };
    for other in [in_turn, affine] {
        let image = new(std::slice::from_ref(&other));
        assert_eq!(primary(&image, A), None);
        assert!(image.primaries.contains_key(&key(&tcp(A))), "replies leave");
        assert!(!is_recorded(&image, VIP), "slots and turns decide it");
        let image = new(&[other, service(&[SECOND], &[A])]);
        assert_eq!(primary(&image, A).as_deref(), Some(SECOND));
        assert_eq!(primary(&image, B), None);
        assert!(is_recorded(&image, VIP));
        assert!(!is_recorded(&image, SECOND));
    }
}

#[test]
fn datagrams_have_none_and_those_to_pods_here_are_recorded() {
    let mut of_dns = service(&[], &[A]);
    let udp = desired::Frontend {
        protocol: Protocol::Udp,
        ..tcp(VIP)
    };
    of_dns.frontends = BTreeSet::from([udp]);
    let image = new(std::slice::from_ref(&of_dns));
    let of = desired::Frontend {
        protocol: Protocol::Udp,
        ..tcp(A)
    };
    assert!(image.primaries[&key(&of)].is_none());
    assert_eq!(all_recorded(&image), Some(true));
    // Nor do they take the one of TCP for theirs.
    let image = new(&[of_dns, service(&[SECOND], &[A])]);
    assert!(image.primaries[&key(&of)].is_none());
    assert_eq!(primary(&image, A).as_deref(), Some(SECOND));
    assert!(!image.frontends[&key(&udp)].is_recorded());
}

#[test]
fn where_nodes_with_shared_vips_find_different_ways_all_flows_are_recorded() {
    let nat = service(&[VIP], &[A]);
    let of_node = Service {
        elsewhere: Mode::Dsr,
        external_policy: TrafficPolicy::Local,
        ..nat.clone()
    };
    let shared = Surroundings {
        shared: true,
        ..surroundings()
    };
    let dsr = [Service {
        elsewhere: Mode::Dsr,
        ..nat.clone()
    }];
    let image = fits(&dsr, &shared, &InUse::default());
    assert_eq!(primary(&image, A).as_deref(), Some(VIP));
    for service in [nat, of_node] {
        let services = [service];
        let image = fits(&services, &shared, &InUse::default());
        assert_eq!(primary(&image, A), None);
        let to_packets = image.frontends.values().map(|it| it.service());
        let to_packets = to_packets.map(|index| image.services[&index].offset());
        let mut slots = to_packets.flat_map(|offset| image.tables[&offset].iter());
        assert!(slots.all(|slot| slot.records()));
        // Flows of the time before rely on it.
        let before = new(&services);
        assert!(primary(&before, A).is_some());
        let image = fits(&services, &shared, &InUse::of(&before));
        assert_eq!(primary(&image, A).as_deref(), Some(VIP));
    }
}

#[test]
fn what_is_gone_keeps_it_where_connections_are_left_to_it() {
    let before = InUse::of(&new(&[service(&[VIP], &[A])]));
    let after = [service(&[VIP], &[B])];
    for leaves_gone in [false, true] {
        let in_use = InUse {
            leaves_gone,
            ..before.clone()
        };
        let image = compile(&state(&after), &surroundings(), &in_use).expect("fits");
        let kept = image.primaries.get(&key(&tcp(A)));
        assert_eq!(kept.is_some_and(|it| !it.is_none()), leaves_gone);
    }
}

/// A service of which the property varies only this: its frontends and pods by number, how it
/// picks, and whether others are reached by `dsr`.
type Sketch = (BTreeSet<u8>, BTreeSet<u8>, u8, bool);

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let numbers = || prop::collection::btree_set(0_u8..6, 1..4);
    let sketch = (numbers(), numbers(), 0_u8..4, any::<bool>());
    prop::collection::vec(sketch, 1..4)
}

fn sketched(sketches: &[Sketch]) -> Vec<Service> {
    let mut used = BTreeSet::new();
    let service = |(frontends, pods, pick, dsr): &Sketch| {
        let own: Vec<_> = frontends.iter().filter(|it| used.insert(**it)).collect();
        let own: Vec<_> = own.iter().map(|n| format!("192.0.2.{n}:80")).collect();
        let own: Vec<_> = own.iter().map(|it| &it[..]).collect();
        // Half of them are here.
        let pods = pods.iter().map(|n| format!("10.0.{}.{n}:8080", n % 2));
        let pods: Vec<_> = pods.collect();
        let pods: Vec<_> = pods.iter().map(|it| &it[..]).collect();
        let mut service = service(&own, &pods);
        match pick {
            0 => service.algorithm = Algorithm::RoundRobin,
            1 => service.affinity = Some(std::time::Duration::from_secs(60)),
            _ => {}
        }
        if *dsr {
            service.elsewhere = Mode::Dsr;
        }
        service
    };
    sketches.iter().map(service).collect()
}

proptest! {
    #[test]
    fn no_reply_is_restored_to_a_frontend_that_its_flow_did_not_come_by(
        history in prop::collection::vec(sketches(), 1..4),
        shared in any::<bool>(),
    ) {
        let around = Surroundings { shared, ..surroundings() };
        let mut in_use = InUse::default();
        for sketches in history {
            let services = sketched(&sketches);
            let image = fits(&services, &around, &in_use);
            for service in &services {
                let computes = service.algorithm == Algorithm::Maglev
                    && service.affinity.is_none()
                    && (service.elsewhere == Mode::Dsr || !shared);
                let here = service.endpoints.keys();
                let here = here.filter(|it| around.local_endpoints.contains(&it.ip()));
                for pod in here {
                    let primary = primary(&image, &pod.to_string());
                    prop_assert!(
                        primary.is_some() || !computes || service.frontends.is_empty(),
                        "{pod} of a service that computes has none"
                    );
                    for frontend in &service.frontends {
                        let frontend = frontend.addr.to_string();
                        let other = primary.as_ref().is_some_and(|it| *it != frontend);
                        prop_assert!(
                            !other || is_recorded(&image, &frontend),
                            "{pod} would answer for {primary:?} in place of {frontend}"
                        );
                    }
                }
            }
            in_use = InUse::of(&image);
        }
    }
}
