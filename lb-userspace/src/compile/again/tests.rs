//! Whatever changes, compiling again comes to what compiling all of it does.

use lb_common::{Algorithm, Mode, Protocol, maglev};
use proptest::prelude::*;

use super::*;
use crate::{
    compile::{compile, tests::apply},
    desired::{Condition, Endpoint, Node, NodePort, TrafficPolicy},
};

/// A pod, of which nodes have some and every service may have any.
#[derive(Clone, Debug)]
struct Pod {
    ip: u8,
    other_port: bool,
    /// The node that the source names: none, this one, two peers, of which one is not met.
    node: u8,
    condition: Condition,
    weight: u32,
}

#[derive(Clone, Debug)]
struct Sketch {
    algorithm: Algorithm,
    dsr: bool,
    udp: bool,
    node_port: bool,
    cluster: bool,
    local: [bool; 2],
    pods: Vec<Pod>,
}

fn pod() -> impl Strategy<Value = Pod> {
    let condition = prop_oneof![
        4 => Just(Condition::Ready),
        1 => Just(Condition::Draining),
        1 => Just(Condition::Unhealthy),
    ];
    (
        0_u8..8,
        prop::bool::weighted(0.2),
        0_u8..4,
        condition,
        0_u32..3,
    )
        .prop_map(|(ip, other_port, node, condition, weight)| Pod {
            ip,
            other_port,
            node,
            condition,
            weight,
        })
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    prop::collection::vec(pod(), 0..6)
}

/// What becomes of a service's pods.
#[derive(Clone, Debug)]
enum Fate {
    Replaced(Vec<Pod>),
    /// One comes in the place of that of this number, or beside them.
    Joined(usize, Pod),
    Left(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => pods().prop_map(Fate::Replaced),
        2 => (0_usize..6, pod()).prop_map(|(n, pod)| Fate::Joined(n, pod)),
        1 => (0_usize..6).prop_map(Fate::Left),
    ]
}

fn befall(pods: &mut Vec<Pod>, fate: Fate) {
    match fate {
        Fate::Replaced(others) => *pods = others,
        Fate::Joined(n, pod) => match pods.get_mut(n) {
            Some(place) => *place = pod,
            None => pods.push(pod),
        },
        Fate::Left(n) if n < pods.len() => drop(pods.remove(n)),
        Fate::Left(_) => {}
    }
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let flags = any::<[bool; 6]>();
    (prop::bool::weighted(0.4), flags, pods()).prop_map(|(maglev, flags, pods)| {
        let [dsr, udp, node_port, cluster, external, internal] = flags;
        Sketch {
            algorithm: match maglev {
                true => Algorithm::Maglev,
                false => Algorithm::RoundRobin,
            },
            dsr,
            udp,
            node_port,
            cluster,
            local: [external && internal, internal],
            pods,
        }
    })
}

/// Of which services what becomes of the pods then, whether more about the first is another, which of the pods whose
/// node is not named are here, and whether it is a while until the next one.
type Step = (Vec<(usize, Fate)>, bool, u8, bool);

/// Services, and what becomes of their pods, step by step; now and then more than that.
fn history() -> impl Strategy<Value = (Vec<Sketch>, Vec<Step>)> {
    let places = prop_oneof![4 => Just(0b111_u8), 1 => any::<u8>()];
    let step = (
        prop::collection::vec((0_usize..6, fate()), 1..3),
        prop::bool::weighted(0.1),
        places,
        any::<bool>(),
    );
    (
        prop::collection::vec(sketch(), 1..6),
        prop::collection::vec(step, 1..8),
    )
}

fn service(n: usize, sketch: &Sketch) -> Service {
    let n = n as u8;
    let protocol = match sketch.udp {
        true => Protocol::Udp,
        false => Protocol::Tcp,
    };
    // Two services share an address by other ports.
    let at = |net: [u8; 3], ip: u8| desired::Frontend {
        addr: SocketAddr::from(([net[0], net[1], net[2], ip], 80 + u16::from(n))),
        protocol,
    };
    let policy = |local: bool| match local {
        true => TrafficPolicy::Local,
        false => TrafficPolicy::Cluster,
    };
    let nodes = [None, Some("here"), Some("met"), Some("unmet")];
    let endpoint = |pod: &Pod| {
        let port = 8080 + u16::from(pod.other_port);
        let endpoint = Endpoint {
            weight: pod.weight,
            condition: pod.condition,
            node: nodes[usize::from(pod.node)].map(str::to_owned),
            name: None,
        };
        (SocketAddr::from(([10, 0, 0, pod.ip], port)), endpoint)
    };
    Service {
        frontends: [at([192, 0, 2], n / 2)].into(),
        cluster: sketch
            .cluster
            .then(|| at([10, 96, 0], n))
            .into_iter()
            .collect(),
        node_port: sketch.node_port.then(|| NodePort {
            port: 30000 + u16::from(n),
            protocol,
            families: [desired::Family::V4].into(),
        }),
        algorithm: sketch.algorithm,
        maglev_slots: maglev::LADDER[0],
        elsewhere: match sketch.dsr {
            true => Mode::Dsr,
            false => Mode::Nat,
        },
        external_policy: policy(sketch.local[0]),
        internal_policy: policy(sketch.local[1]),
        endpoints: sketch.pods.iter().map(endpoint).collect(),
        ..Service::default()
    }
}

fn state(sketches: &[Sketch]) -> Desired {
    let services = sketches.iter().enumerate();
    let node = |last: u8| Node {
        addresses: [IpAddr::from([192, 168, 56, last])].into(),
        ..Node::default()
    };
    Desired {
        services: services
            .map(|(n, it)| (ServiceName(format!("default/s{n}:80")), service(n, it)))
            .collect(),
        nodes: [("met", node(102)), ("unmet", node(103))]
            .map(|(name, it)| (name.to_owned(), it))
            .into(),
        ..Desired::default()
    }
}

/// Those of this node; `places`: which pods are on it, by bit, of those whose node is not named.
fn surroundings(places: u8) -> Surroundings {
    let here = (0..8).filter(|n| places & (1 << n) != 0);
    Surroundings {
        node: "here".to_owned(),
        local_endpoints: here.map(|n| [10, 0, 0, n].into()).collect(),
        host_addresses: [[192, 0, 2, 1].into()].into(),
        node_port_addresses: [[192, 0, 2, 1].into()].into(),
        peers: [("met".to_owned(), [192, 168, 56, 102].into())].into(),
        sockets: true,
        ..Surroundings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn it_is_what_compiling_all_of_it_comes_to((mut sketches, steps) in history()) {
        let mut around = surroundings(0b111);
        let mut memo = Memo::default();
        let mut before = state(&sketches);
        let mut in_use = InUse::default();
        let mut image = compile(&before, &around, &in_use).expect("fits");
        in_use = apply(&in_use, &image);
        for (fates, other, places, settled) in steps {
            let count = sketches.len();
            sketches[fates[0].0 % count].dsr ^= other;
            for (n, fate) in fates {
                befall(&mut sketches[n % count].pods, fate);
            }
            let now = state(&sketches);
            let then = surroundings(places);
            let all = compile(&now, &then, &in_use).expect("fits");
            let before_this = ((&before, &around), &image);
            let again = compile_again(before_this, (&now, &then), &in_use, &mut memo);
            prop_assert_eq!(&again.expect("fits"), &all);
            in_use = apply(&in_use, &all);
            if settled {
                in_use.primaries.clone_from(&all.primaries);
            }
            (before, around, image) = (now, then, all);
        }
    }
}

/// Where it compiled everything anew, the property above would say nothing.
#[test]
fn endpoints_alone_are_no_reason_to_compile_everything() {
    let pod = |ip: u8| Pod {
        ip,
        other_port: false,
        node: 1,
        condition: Condition::Ready,
        weight: 1,
    };
    let sketch = |pods: &[u8]| Sketch {
        algorithm: Algorithm::RoundRobin,
        dsr: false,
        udp: false,
        node_port: true,
        cluster: true,
        local: [false, false],
        pods: pods.iter().map(|&ip| pod(ip)).collect(),
    };
    let around = surroundings(0b111);
    let before = state(&[sketch(&[1, 2]), sketch(&[1, 2, 4]), sketch(&[5])]);
    let in_use = InUse::default();
    let image = compile(&before, &around, &in_use).expect("fits");
    let in_use = apply(&in_use, &image);
    let between = |now| {
        let change = Change::between((&before, &around), (now, &around), &in_use);
        change.expect("endpoints alone")
    };
    let names = |change: &Change<'_>, now: &Desired| -> Vec<String> {
        let mut census = Census::of(|_| true);
        census.follow(&now.services);
        let part = change.part(now, &image, &in_use, &census);
        part.services.keys().map(ToString::to_string).collect()
    };
    let mut memo = Memo::default();
    let mut compiled =
        |change: &Change<'_>, now| change.compile(&image, (now, &around), &in_use, &mut memo);

    let now = state(&[sketch(&[1, 2]), sketch(&[1, 3, 4]), sketch(&[5])]);
    let change = between(&now);
    assert_eq!(
        change.endpoints.len(),
        2,
        "the one that went and the new one"
    );
    assert_eq!(
        names(&change, &now),
        ["default/s0:80", "default/s1:80"],
        "those of shared pods"
    );
    assert!(compiled(&change, &now).is_ok());

    let now = state(&[sketch(&[1, 2]), sketch(&[1, 2, 3, 4]), sketch(&[5])]);
    let change = between(&now);
    assert_eq!(
        names(&change, &now),
        ["default/s1:80"],
        "whoever else has its other pods"
    );
    assert!(compiled(&change, &now).is_ok());

    // What nobody is reached by any more is no matter of endpoints.
    let none = state(&[sketch(&[1, 2]), sketch(&[]), sketch(&[5])]);
    let change = between(&none);
    assert_eq!(compiled(&change, &none), Err(TooNarrow::Altogether));
}

/// Others than the endpoint that changed may take new flows from then on, or none any more.
#[test]
fn endpoints_that_others_make_way_for_are_worked_out_anew() {
    let pod = |ip: u8, condition| Pod {
        ip,
        other_port: false,
        node: 1,
        condition,
        weight: 1,
    };
    let sketch = |first| Sketch {
        algorithm: Algorithm::RoundRobin,
        dsr: false,
        udp: false,
        node_port: false,
        cluster: false,
        local: [false, false],
        pods: vec![pod(1, first), pod(2, Condition::Draining)],
    };
    let around = surroundings(0b111);
    let before = state(&[sketch(Condition::Ready)]);
    let now = state(&[sketch(Condition::Draining)]);
    let in_use = InUse::default();
    let image = compile(&before, &around, &in_use).expect("fits");
    let in_use = apply(&in_use, &image);
    let change = Change::between((&before, &around), (&now, &around), &in_use);
    let change = change.expect("endpoints alone");
    let mut memo = Memo::default();
    let now = (&now, &around);
    let narrow = change.compile(&image, now, &in_use, &mut memo);
    assert_eq!(narrow, Err(TooNarrow::Endpoints));
    let wide = change.widened();
    let wide = wide.compile(&image, now, &in_use, &mut memo);
    let all = compile(now.0, now.1, &in_use).expect("fits");
    assert_eq!(wide, Ok(all));
}
