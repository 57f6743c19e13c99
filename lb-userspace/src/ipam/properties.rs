//! What holds whatever services come and go, and in whatever order nodes hear of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::Protocol;
use proptest::prelude::*;

use super::{Assignment, Authority, Ledger, assign, holdings::apart};
use crate::desired::{
    AddressRange, Balancer, BalancerName, Condition, Desired, Endpoint, Family, Labels, Pool,
    Service, ServiceName, TrafficPolicy,
};

const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn range(third: u8, size: u8) -> AddressRange {
    AddressRange {
        first: [10, 0, third, 1].into(),
        last: [10, 0, third, size].into(),
    }
}

fn pool(ranges: Vec<AddressRange>) -> Pool {
    Pool {
        ranges,
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        labels: Labels::new(),
    }
}

/// One of eight services by number, with what it may ask for.
fn balancer() -> impl Strategy<Value = (BalancerName, Balancer)> {
    let families = prop_oneof![
        Just(vec![]),
        Just(vec![V4]),
        Just(vec![V6]),
        Just(vec![V4, V6])
    ];
    let requested = prop_oneof![
        4 => Just(None),
        1 => (1..5_u8).prop_map(Some),
    ];
    let key = prop_oneof![2 => Just(None), 1 => Just(Some("k".to_owned()))];
    (0..8_u8, families, requested, key, any::<bool>(), 80..83_u16).prop_map(
        |(number, families, requested, sharing_key, one_family_will_do, port)| {
            let name = format!("ns/s{number}");
            let ports =
                BTreeMap::from([(ServiceName(format!("{name}:{port}")), (port, Protocol::Tcp))]);
            let balancer = Balancer {
                namespace: "ns".into(),
                namespace_labels: Labels::new(),
                labels: Labels::new(),
                requested: requested
                    .map(|last| [10, 0, 0, last].into())
                    .into_iter()
                    .collect(),
                pool: None,
                given: Vec::new(),
                families: families.into_iter().collect(),
                one_family_will_do,
                sharing_key,
                backend_key: String::new(),
                external_policy: TrafficPolicy::Cluster,
                ports,
            };
            (BalancerName(name), balancer)
        },
    )
}

/// Some services, and two pools with fewer addresses than may be asked for.
fn desired() -> impl Strategy<Value = Desired> {
    let v6 = AddressRange {
        first: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        last: [0xfd00, 0, 0, 0, 0, 0, 0, 3].into(),
    };
    let some = prop::collection::vec(balancer(), 0..8);
    (some, 1..5_u8, 1..3_u8).prop_map(move |(balancers, first, second)| {
        let balancers: BTreeMap<_, _> = balancers.into_iter().collect();
        let ports = balancers.values().flat_map(|it| it.ports.keys());
        let services = ports.map(|name| (name.clone(), Service::default()));
        Desired {
            services: services.collect(),
            pools: BTreeMap::from([
                ("a".to_owned(), pool(vec![range(0, first), v6])),
                ("b".to_owned(), pool(vec![range(1, second)])),
            ]),
            balancers: balancers.into_iter().collect(),
            ..Desired::default()
        }
    })
}

fn this(desired: &Desired, ledger: &Ledger) -> Assignment {
    assign(desired, ledger, Authority::This)
}

/// A ledger that some history has made.
fn ledger() -> impl Strategy<Value = Ledger> {
    prop::collection::vec(desired(), 0..5).prop_map(|history| {
        history.iter().fold(Ledger::default(), |ledger, desired| {
            this(desired, &ledger).ledger
        })
    })
}

fn merged(ledgers: &[&Ledger]) -> Ledger {
    let mut all = Ledger::default();
    for ledger in ledgers {
        all.merge(ledger);
    }
    all
}

/// No two services have one address that they may not share.
fn disjoint(desired: &Desired, assignment: &Assignment) -> Result<(), TestCaseError> {
    for (one, addresses) in &assignment.addresses {
        for (other, others) in &assignment.addresses {
            if one < other && !addresses.is_disjoint(others) {
                let (one, other) = (&desired.balancers[one], &desired.balancers[other]);
                prop_assert_eq!(apart(one, other), None);
            }
        }
    }
    let services = assignment.desired.services.values();
    let frontends: Vec<_> = services.flat_map(|it| &it.frontends).collect();
    let different: BTreeSet<_> = frontends.iter().collect();
    prop_assert_eq!(frontends.len(), different.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in ledger(), b in ledger(), c in ledger()
    ) {
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
        let (mut left, mut right) = (merged(&[&a, &b]), a.clone());
        left.merge(&c);
        right.merge(&merged(&[&b, &c]));
        prop_assert_eq!(&left, &right);
        prop_assert!(!left.merge(&right), "nothing new");
        prop_assert!(!left.merge(&a) && !left.merge(&b) && !left.merge(&c));
        let mut again = a.clone();
        let new = again.merge(&b);
        prop_assert_eq!(new, again != a);
    }

    #[test]
    fn every_service_has_addresses_that_it_may_have_or_a_reason(
        desired in desired(), ledger in ledger()
    ) {
        let assignment = this(&desired, &ledger);
        disjoint(&desired, &assignment)?;
        for (name, balancer) in desired.balancers.iter() {
            let Some(addresses) = assignment.addresses.get(name) else {
                prop_assert!(assignment.refused.contains_key(name));
                continue;
            };
            prop_assert!(!assignment.refused.contains_key(name));
            prop_assert!(!addresses.is_empty());
            let families: BTreeSet<_> = addresses.iter().map(|ip| Family::of(*ip)).collect();
            prop_assert_eq!(families.len(), addresses.len());
            if !balancer.families.is_empty() {
                prop_assert!(families.is_subset(&balancer.families));
                prop_assert!(balancer.one_family_will_do || families == balancer.families);
            }
            for ip in &balancer.requested {
                prop_assert!(addresses.contains(ip));
            }
            let mut pools = desired.pools.values();
            prop_assert!(pools.any(|pool| addresses
                .iter()
                .all(|ip| pool.ranges.iter().any(|range| range.contains(*ip)))));
        }
        let again = this(&desired, &assignment.ledger);
        prop_assert_eq!(&again.ledger, &assignment.ledger);
        prop_assert_eq!(&again.addresses, &assignment.addresses);
        prop_assert!(again.changes.is_empty());
    }

    #[test]
    fn nothing_moves_when_others_come_and_go(
        before in desired(), after in desired(), ledger in ledger()
    ) {
        let old = this(&before, &ledger);
        // The same pools, and of both worlds the same services where they are in both.
        let mut mixed = after;
        mixed.pools = before.pools.clone();
        for (name, balancer) in before.balancers.iter() {
            let ports = |it: &Balancer| it.ports.keys().cloned().collect::<Vec<_>>();
            if let Some(other) = mixed.balancers.insert(name.clone(), balancer.clone()) {
                for port in ports(&other) {
                    mixed.services.remove(&port);
                }
                for port in ports(balancer) {
                    mixed.services.insert(port, Service::default());
                }
            } else {
                mixed.balancers.remove(name);
            }
        }
        let new = this(&mixed, &old.ledger);
        for name in mixed.balancers.keys().filter(|it| before.balancers.contains_key(*it)) {
            if let Some(addresses) = old.addresses.get(name) {
                let kept = new.addresses.get(name);
                prop_assert!(kept.is_some_and(|it| addresses.is_subset(it)), "{name} moved");
            }
        }
        // And back: nobody moves who had stayed, and who finds its address free has it again.
        let back = this(&before, &new.ledger);
        for (name, addresses) in &new.addresses {
            if before.balancers.contains_key(name) {
                let kept = back.addresses.get(name);
                prop_assert!(kept.is_some_and(|it| addresses.is_subset(it)), "{name} moved");
            }
        }
    }

    #[test]
    fn what_is_followed_is_what_is_assigned_anew(
        before in desired(),
        ledger in ledger(),
        authority in prop::sample::select(vec![Authority::This, Authority::Source]),
        // Of services by number: in a pool's addresses, or in nobody's.
        endpoints in prop::collection::vec((0..8_usize, 0..3_u8, 1..5_u8, any::<bool>()), 0..4),
    ) {
        let (mut before, mut now) = (before.clone(), before);
        let names: Vec<_> = now.services.keys().cloned().collect();
        for (service, third, last, ready) in endpoints {
            let Some(name) = names.get(service) else { continue };
            // Some go, others come.
            let world = if last % 2 == 0 { &mut before } else { &mut now };
            let service = world.services.get_mut(name).expect("a known one");
            let addr = ([10, 0, third, last], 80).into();
            let condition = if ready { Condition::Ready } else { Condition::Draining };
            let endpoint = Endpoint { condition, weight: 1, node: None, name: None };
            service.endpoints.insert(addr, endpoint);
        }
        let mut assignment = assign(&before, &ledger, authority);
        let anew = assign(&now, &assignment.ledger, authority);
        if assignment.follow(&before, &now) {
            prop_assert_eq!(assignment, anew);
        } else {
            let services = before.services.values().chain(now.services.values());
            let mut all = services.flat_map(|it| it.endpoints.keys());
            prop_assert!(all.any(|it| it.ip() < IpAddr::from([10, 0, 2, 0])), "of no pool");
        }
    }

    #[test]
    fn who_comes_back_alone_has_its_old_addresses(desired in desired(), ledger in ledger()) {
        let before = this(&desired, &ledger);
        for name in desired.balancers.keys() {
            let mut without = desired.clone();
            without.balancers.remove(name);
            // Nobody waits for what becomes free, or it would be theirs.
            if !before.refused.is_empty() {
                continue;
            }
            let gone = this(&without, &before.ledger);
            let grown = desired.balancers.keys().any(|it| {
                it != name && gone.addresses.get(it) != before.addresses.get(it)
            });
            if !grown {
                let back = this(&desired, &gone.ledger);
                prop_assert_eq!(&back.addresses, &before.addresses);
            }
        }
    }

    #[test]
    fn nodes_that_have_seen_the_same_agree_whatever_the_order(
        desired in desired(),
        ledgers in prop::collection::vec(ledger(), 1..4),
        order in any::<prop::sample::Index>(),
    ) {
        let mut turned: Vec<&Ledger> = ledgers.iter().collect();
        let straight = merged(&turned);
        let middle = order.index(turned.len());
        turned.rotate_left(middle);
        turned.reverse();
        let other = merged(&turned);
        prop_assert_eq!(&straight, &other);
        let follower = Authority::Other("a");
        let one = assign(&desired, &straight, follower);
        disjoint(&desired, &one)?;
        prop_assert_eq!(&one, &assign(&desired, &other, follower));
        // What the authority makes of it is the same everywhere, once it has spread.
        let authority = this(&desired, &straight);
        let mut heard = other;
        heard.merge(&authority.ledger);
        let heard = assign(&desired, &heard, follower);
        prop_assert_eq!(&heard.addresses, &authority.addresses);
        prop_assert_eq!(&heard.desired, &authority.desired);
    }

    #[test]
    fn two_halves_that_both_gave_addresses_out_agree_when_they_meet(
        common in ledger(), left in desired(), right in desired()
    ) {
        // Each half has an authority of its own, and later sees the same services.
        let (a, b) = (this(&left, &common), this(&right, &common));
        let met = merged(&[&a.ledger, &b.ledger]);
        let healed = this(&right, &met);
        disjoint(&right, &healed)?;
        for (name, addresses) in &healed.addresses {
            prop_assert!(!addresses.is_empty(), "{name}");
        }
        let mut spread = merged(&[&b.ledger, &a.ledger]);
        spread.merge(&healed.ledger);
        let follower = assign(&right, &spread, Authority::Other("a"));
        prop_assert_eq!(&follower.addresses, &healed.addresses);
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written(ledger in ledger()) {
        let text = serde_json::to_string(&ledger).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Ledger>(&text).expect("ledger"), ledger);
    }
}
