//! Properties of `compile`, against plain descriptions of what they mean.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use lb_common::{Algorithm, Backend, BackendId, Protocol, maglev};
use proptest::prelude::*;

use super::*;
use crate::desired::{Condition, Endpoint, Service, TrafficPolicy};

mod reach;
mod room;

/// A service of which only what the properties vary is said.
#[derive(Clone, Debug)]
struct Sketch {
    frontends: BTreeSet<u8>,
    udp: bool,
    maglev: bool,
    /// Whether the external and the internal policy are Local.
    local: [bool; 2],
    endpoints: BTreeMap<u8, (u32, bool)>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    (
        prop::collection::btree_set(any::<u8>(), 1..3),
        any::<bool>(),
        prop::bool::weighted(0.3),
        any::<[bool; 2]>(),
        prop::collection::btree_map(0_u8..12, (0_u32..5, prop::bool::weighted(0.8)), 0..6),
    )
        .prop_map(|(frontends, udp, maglev, local, endpoints)| Sketch {
            frontends,
            udp,
            maglev,
            local,
            endpoints,
        })
}

/// Services by number; a frontend that an earlier one has is left out.
fn state(sketches: &BTreeMap<u8, Sketch>) -> Desired {
    let mut used = HashSet::new();
    let services = sketches.iter().map(|(n, sketch)| {
        let protocol = if sketch.udp {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        let at = |[a, b, c]: [u8; 3], ip: u8| desired::Frontend {
            addr: SocketAddr::from(([a, b, c, ip], 80)),
            protocol,
        };
        let own = sketch.frontends.iter().copied();
        let own: Vec<u8> = own.filter(|&ip| used.insert((ip, protocol))).collect();
        let [external_policy, internal_policy] = sketch.local.map(|local| match local {
            true => TrafficPolicy::Local,
            false => TrafficPolicy::Cluster,
        });
        let endpoints = sketch.endpoints.iter().map(|(&ip, &(weight, ready))| {
            let endpoint = Endpoint {
                weight,
                condition: if ready {
                    Condition::Ready
                } else {
                    Condition::Draining
                },
                node: None,
                name: None,
            };
            (SocketAddr::from(([10, 0, 0, ip], 8080)), endpoint)
        });
        let service = Service {
            frontends: own.iter().map(|&ip| at([192, 0, 2], ip)).collect(),
            cluster: own.iter().map(|&ip| at([10, 96, 0], ip)).collect(),
            external_policy,
            internal_policy,
            algorithm: if sketch.maglev {
                Algorithm::Maglev
            } else {
                Algorithm::RoundRobin
            },
            maglev_slots: maglev::LADDER[0],
            endpoints: endpoints.collect(),
            ..Service::default()
        };
        (ServiceName(format!("default/s{n}:80")), service)
    });
    Desired {
        services: services.collect(),
        ..Desired::default()
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        local_endpoints: (0..4).map(|n| [10, 0, 0, n].into()).collect(),
        sockets: true,
        ..Surroundings::default()
    }
}

/// Every slot of every table in force, with the service that has it.
fn slots_of(tables: &OrdMap<u32, SlotTable>) -> Vec<u32> {
    tables
        .values()
        .flat_map(|t| t.offset()..t.offset() + t.len())
        .collect()
}

fn identity(backend: &Backend) -> (Addr, u16, u8, u8) {
    (
        backend.addr,
        backend.port.get(),
        backend.protocol,
        backend.mode,
    )
}

/// Puts `image` in force on top of `before`; what is given up does not rest.
pub(super) fn apply(before: &InUse, image: &MapImage) -> InUse {
    let mut after = InUse::of(image);
    for backend in before.backends.iter() {
        if after.backends.get(backend.id.index()).is_none() {
            let mut dead = *backend;
            dead.alive = 0;
            after.backends.insert(dead);
        }
    }
    // Those of backends that are gone stay for some seconds.
    for (&addr, &primary) in &before.primaries {
        after.primaries.entry(addr).or_insert(primary);
    }
    after
}

fn history() -> impl Strategy<Value = Vec<BTreeMap<u8, Sketch>>> {
    let states = prop::collection::btree_map(0_u8..8, sketch(), 0..6);
    prop::collection::vec(states, 1..5)
}

proptest! {
    #[test]
    fn compiling_what_is_in_force_changes_nothing(states in history()) {
        let mut in_use = InUse::default();
        for sketches in states {
            let desired = state(&sketches);
            let image = compile(&desired, &surroundings(), &in_use).expect("fits");
            in_use = apply(&in_use, &image);
            let again = compile(&desired, &surroundings(), &in_use).expect("fits");
            prop_assert_eq!(image, again);
        }
    }

    #[test]
    fn what_lives_on_keeps_its_number_and_what_is_new_disturbs_nothing(states in history()) {
        let mut in_use = InUse::default();
        for sketches in states {
            let image = compile(&state(&sketches), &surroundings(), &in_use).expect("fits");
            let live = || in_use.backends.iter().filter(|backend| backend.alive != 0);
            for backend in image.backends.values() {
                prop_assert!(backend.id.index() > 0 && backend.alive == Backend::ALIVE);
                let before = live().find(|old| identity(old) == identity(backend));
                match before {
                    Some(old) => prop_assert_eq!(old.id, backend.id),
                    None => {
                        // A new one takes no id that any flow may remember.
                        let known = |old: &&Backend| old.id.index() == backend.id.index();
                        let former = in_use.backends.iter().find(known);
                        prop_assert!(former.is_none_or(|old| old.alive == 0));
                        let generation = former.map_or(0, |old| old.id.generation() + 1);
                        prop_assert_eq!(backend.id.generation(), generation);
                    }
                }
            }
            // No slot is in two tables, and a table that moved or is new lies on no
            // slot that is in use, even by a service that goes.
            let all = slots_of(&image.services);
            let distinct: HashSet<_> = all.iter().collect();
            prop_assert_eq!(all.len(), distinct.len());
            let occupied: HashSet<_> = slots_of(&in_use.services).into_iter().collect();
            for (index, table) in &image.services {
                if in_use.services.get(index) == Some(table) {
                    continue;
                }
                let same_place = in_use
                    .services
                    .get(index)
                    .is_some_and(|old| old.len() == table.len() && old.algorithm() == table.algorithm());
                prop_assert!(!same_place, "moved without need");
                let range = table.offset()..table.offset() + table.len();
                prop_assert!(range.into_iter().all(|slot| !occupied.contains(&slot)));
            }
            for (frontend, entry) in &image.frontends {
                prop_assert!(image.services.contains_key(&entry.service()));
                prop_assert!(image.addresses[&frontend.addr].contains(AddressUse::VIP));
                prop_assert!(image.internal.contains_key(frontend));
            }
            for (frontend, index) in &image.internal {
                prop_assert!(image.services.contains_key(index));
                let cluster = !image.frontends.contains_key(frontend);
                prop_assert!(!cluster || !image.addresses.contains_key(&frontend.addr));
            }
            in_use = apply(&in_use, &image);
        }
    }

    #[test]
    fn other_services_are_left_alone(
        sketches in prop::collection::btree_map(0_u8..8, sketch(), 2..6),
        gone in any::<prop::sample::Index>(),
        new in sketch(),
    ) {
        // Frontends of their own, so that no change of one changes another.
        let mut sketches = sketches;
        for (n, sketch) in &mut sketches {
            sketch.frontends = BTreeSet::from([*n]);
        }
        let first = compile(&state(&sketches), &surroundings(), &InUse::default()).expect("fits");
        let in_use = InUse::of(&first);
        let gone = *sketches.keys().nth(gone.index(sketches.len())).expect("one");
        sketches.remove(&gone);
        let mut new = new;
        new.frontends = BTreeSet::from([200]);
        sketches.insert(100, new);
        let second = compile(&state(&sketches), &surroundings(), &in_use).expect("fits");
        for (index, name) in &first.names {
            if name.0 == format!("default/s{gone}:80") {
                prop_assert!(!second.services.contains_key(index));
                continue;
            }
            prop_assert_eq!(second.names.get(index), Some(name));
            prop_assert_eq!(second.services[index], first.services[index]);
            let at = first.services[index].offset();
            if !first.services[index].is_empty() {
                prop_assert_eq!(&second.tables[&at], &first.tables[&at]);
            }
        }
    }

    #[test]
    fn only_endpoints_that_may_take_new_flows_have_slots(sketch in sketch()) {
        let sketch = Sketch { local: [false; 2], ..sketch };
        let desired = state(&BTreeMap::from([(0, sketch.clone())]));
        let image = compile(&desired, &surroundings(), &InUse::default()).expect("fits");
        let named: BTreeSet<u8> = image
            .tables
            .values()
            .flat_map(|slots| slots.iter())
            .map(|slot| match image.backends[&slot.current().index()].addr.to_ip() {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => unreachable!("no IPv6 was asked for"),
            })
            .collect();
        let with = |wanted: bool| -> BTreeSet<u8> {
            let all = sketch.endpoints.iter();
            all.filter(|(_, (weight, ready))| *weight > 0 && *ready == wanted).map(|(&ip, _)| ip).collect()
        };
        let expected = if with(true).is_empty() { with(false) } else { with(true) };
        prop_assert_eq!(named, expected);
        prop_assert_eq!(image.backends.len(), sketch.endpoints.len());
    }
}

fn one(n: u8) -> BTreeMap<u8, Sketch> {
    BTreeMap::from([(n, plain(n))])
}

fn plain(n: u8) -> Sketch {
    Sketch {
        frontends: BTreeSet::from([n]),
        udp: false,
        maglev: false,
        local: [false; 2],
        endpoints: BTreeMap::from([(n, (1, true))]),
    }
}

#[test]
fn what_rests_is_not_given_out() {
    let in_use = InUse {
        resting_services: BTreeSet::from([0, 1]),
        resting_backends: BTreeSet::from([1, 3]),
        resting_slots: BTreeMap::from([(0, 5), (6, 10)]),
        ..InUse::default()
    };
    let image = compile(&state(&one(1)), &surroundings(), &in_use).expect("fits");
    assert_eq!(image.services.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(image.backends.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(image.services[&2].offset(), 5, "the gap of one slot");
}

#[test]
fn the_place_of_a_backend_that_connections_go_on_with_is_given_out_last() {
    let first = compile(&state(&one(1)), &surroundings(), &InUse::default()).expect("fits");
    let gone = apply(&InUse::of(&first), &MapImage::default());
    let index = |in_use: &InUse| {
        let image = compile(&state(&one(2)), &surroundings(), in_use).expect("fits");
        let id = image.backends.values().next().expect("one").id;
        let addresses = image.addresses.iter();
        let local = addresses.filter(|(_, usage)| usage.contains(AddressUse::LOCAL_BACKEND));
        (id.to_string(), local.count())
    };
    assert_eq!(index(&gone), ("1.1".into(), 1));
    let mut gone = InUse {
        leaves_gone: true,
        ..gone
    };
    assert_eq!(
        index(&gone),
        ("2.0".into(), 2),
        "replies still come from it"
    );
    for index in 2..MAX_BACKENDS as u32 {
        let mut dead = *gone.backends.get(1).expect("there");
        dead.id = BackendId::new(index, 1);
        gone.backends.insert(dead);
    }
    assert_eq!(index(&gone).0, "1.1", "better than none");
}

#[test]
fn an_index_goes_to_one_of_two_services_that_were_one() {
    let mut joined = plain(1);
    joined.frontends.insert(2);
    let first = compile(
        &state(&BTreeMap::from([(1, joined)])),
        &surroundings(),
        &InUse::default(),
    );
    let in_use = InUse::of(&first.expect("fits"));
    let parted = BTreeMap::from([(1, plain(1)), (2, plain(2))]);
    let image = compile(&state(&parted), &surroundings(), &in_use).expect("fits");
    let indices: BTreeSet<_> = image.frontends.values().map(|it| it.service()).collect();
    assert_eq!(indices, BTreeSet::from([0, 1]));
}

#[test]
fn what_does_not_fit_is_named_with_the_remedy() {
    let mut desired = state(&(0..33).map(|n| (n, plain(n))).collect());
    desired.services.change(
        |_, _| true,
        |_, service| {
            service.algorithm = Algorithm::Maglev;
            service.maglev_slots = maglev::DEFAULT_SLOTS;
        },
    );
    let error = compile(&desired, &surroundings(), &InUse::default()).expect_err("full");
    let text = error.to_string();
    assert!(text.contains("65537 slots of default/s"), "{text}");
    assert!(text.contains("naru.dev/maglev-slots"), "{text}");

    let mut twice = state(&one(1));
    let service = twice.services[&ServiceName("default/s1:80".into())].clone();
    twice
        .services
        .insert(ServiceName("default/a:80".into()), service);
    let error = compile(&twice, &surroundings(), &InUse::default()).expect_err("twice");
    assert_eq!(
        error.to_string(),
        "192.0.2.1:80/tcp is a frontend of both default/a:80 and default/s1:80; \
         give it to one of them"
    );
}

#[test]
fn the_unhealthy_keep_their_places_and_take_nobody_even_where_all_are() {
    let mut sketch = plain(1);
    sketch.endpoints = BTreeMap::from([(1, (1, true)), (2, (1, true)), (3, (1, false))]);
    let mut desired = state(&BTreeMap::from([(1, sketch)]));
    let slots = |desired: &Desired| {
        let image = compile(desired, &surroundings(), &InUse::default()).expect("fits");
        assert_eq!(image.backends.len(), 3, "old flows go on");
        let all = desired.services.values().flat_map(|it| &it.endpoints);
        let failed = all.filter(|(_, it)| it.condition == Condition::Unhealthy);
        let marked = image.backends.values();
        let marked = marked.filter(|it| it.alive == Backend::FAILED);
        assert_eq!(failed.count(), marked.count());
        let slots = image.tables.values().flat_map(|slots| slots.iter());
        slots
            .map(|slot| image.backends[&slot.current().index()].addr.to_string())
            .collect::<Vec<_>>()
    };
    let mut fall = |ip: u8| {
        let name = desired.services.keys().next().expect("one").clone();
        let service = desired.services.get_mut(&name).expect("there");
        let addr = SocketAddr::from(([10, 0, 0, ip], 8080));
        let endpoint = service.endpoints.get_mut(&addr).expect("there");
        endpoint.condition = Condition::Unhealthy;
        slots(&desired)
    };
    assert_eq!(fall(1), ["10.0.0.2"]);
    // Who ends but still serves is better than nobody.
    assert_eq!(fall(2), ["10.0.0.3"]);
    assert_eq!(fall(3), [""; 0]);
}

#[test]
fn each_family_has_its_own_table_and_its_own_endpoints() {
    let mut desired = state(&one(1));
    let name = desired.services.keys().next().expect("one").clone();
    let service = desired.services.get_mut(&name).expect("there");
    let addr: SocketAddr = "[fd00::1]:80".parse().expect("address");
    service.frontends.insert(desired::Frontend {
        addr,
        protocol: Protocol::Tcp,
    });
    let before = compile(&state(&one(1)), &surroundings(), &InUse::default()).expect("fits");
    let image = compile(&desired, &surroundings(), &InUse::of(&before)).expect("fits");
    let lens: Vec<_> = image.services.values().map(|table| table.len()).collect();
    assert_eq!(lens, [1, 0], "IPv4 as before, IPv6 has no endpoint");
    let names: BTreeSet<_> = image.names.values().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(image.frontends.len(), 2);
}

#[test]
fn node_ports_give_way_to_what_was_given_by_name_and_clash_with_each_other() {
    let node_port = || desired::NodePort {
        port: 80,
        protocol: Protocol::Tcp,
        families: BTreeSet::from([desired::Family::V4]),
    };
    let mut desired = state(&BTreeMap::from([(1, plain(1)), (2, plain(2))]));
    let ip: IpAddr = [192, 0, 2, 1].into();
    let surroundings = Surroundings {
        node_port_addresses: BTreeSet::from([
            ip,
            [192, 0, 2, 9].into(),
            "fd00::9".parse().expect("ip"),
        ]),
        host_addresses: BTreeSet::from([ip]),
        ..surroundings()
    };
    let name = |n: u8| ServiceName(format!("default/s{n}:80"));
    desired.services.get_mut(&name(2)).expect("two").node_port = Some(node_port());
    let image = compile(&desired, &surroundings, &InUse::default()).expect("fits");
    let of = |text: &str| {
        let addr: SocketAddr = text.parse().expect("address");
        let frontend = key(&desired::Frontend {
            addr,
            protocol: Protocol::Tcp,
        });
        image.names.get(&image.frontends.get(&frontend)?.service())
    };
    assert_eq!(of("192.0.2.1:80"), Some(&name(1)));
    assert_eq!(of("192.0.2.9:80"), Some(&name(2)));
    assert_eq!(of("[fd00::9]:80"), None);

    desired.services.get_mut(&name(1)).expect("one").node_port = Some(node_port());
    let error = compile(&desired, &surroundings, &InUse::default()).expect_err("twice");
    assert!(error.to_string().contains("192.0.2.9:80/tcp"), "{error}");
}
