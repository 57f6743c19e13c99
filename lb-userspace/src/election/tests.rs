use proptest::prelude::*;

use super::*;
use crate::desired::{
    AddressRange, Advertisement, Balancer, BalancerName, Condition, Desired, Endpoint, Frontend,
    Labels, Pool, Service, ServiceName,
};

const VIP: &str = "192.168.56.11";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

/// The order that MetalLB 0.16 gives for these nodes and addresses, worked out once with
/// `printf 'NODE#ADDRESS' | sha256sum`.
#[test]
fn the_order_is_metallb_s() {
    let cases = [
        ("alpha beta gamma", "192.168.56.11", "beta alpha gamma"),
        ("alpha beta gamma", "10.1.2.3", "gamma alpha beta"),
        ("alpha beta gamma", "2001:db8::1:0:0:5", "gamma alpha beta"),
    ];
    for (nodes, address, order) in cases {
        let ranked = ranking(ip(address), names(nodes)).map(|(node, _)| node);
        assert_eq!(ranked.collect::<Vec<_>>(), names(order), "{address}");
    }
}

/// A service on these addresses, with an endpoint on each of the nodes.
fn service(addresses: &[&str], on: &[&str]) -> Service {
    Service {
        frontends: addresses
            .iter()
            .map(|text| Frontend {
                addr: (ip(text), 80).into(),
                protocol: lb_common::Protocol::Tcp,
            })
            .collect(),
        endpoints: (1..)
            .zip(on)
            .map(|(n, node)| {
                let endpoint = Endpoint {
                    weight: 1,
                    condition: Condition::Ready,
                    node: Some((*node).to_owned()),
                    name: None,
                };
                (([10, 244, 0, n], 80).into(), endpoint)
            })
            .collect(),
        ..Service::default()
    }
}

fn desired(services: impl IntoIterator<Item = (&'static str, Service)>) -> Desired {
    Desired {
        services: services
            .into_iter()
            .map(|(name, it)| (ServiceName(format!("default/{name}:80")), it))
            .collect(),
        ..Desired::default()
    }
}

fn members(text: &str) -> BTreeMap<String, Standing> {
    names(text)
        .into_iter()
        .map(|it| (it, Standing::default()))
        .collect()
}

fn outcome(desired: &Desired, members: &BTreeMap<String, Standing>, sticky: bool) -> Outcome {
    let field = Field {
        members,
        nodes: &desired.nodes,
        sticky,
    };
    elect(&subjects(desired)[&ip(VIP)], &field)
}

fn winner(desired: &Desired, members: &BTreeMap<String, Standing>) -> Result<String, Nobody> {
    outcome(desired, members, false).winner
}

#[test]
fn every_objection_passes_the_address_on() {
    let desired = desired([("web", service(&[VIP], &["gamma"]))]);
    let mut members = members("gamma alpha beta");
    assert_eq!(winner(&desired, &members), Ok("beta".to_owned()));
    members.get_mut("beta").unwrap().leaving = true;
    assert_eq!(winner(&desired, &members), Ok("alpha".to_owned()));
    members.get_mut("alpha").unwrap().withheld = [ip(VIP)].into();
    assert_eq!(winner(&desired, &members), Ok("gamma".to_owned()));
    members.get_mut("gamma").unwrap().withheld = [ip(VIP)].into();
    assert_eq!(winner(&desired, &members), Err(Nobody::NoCandidate));

    let mut labelled = desired.clone();
    let node = |label: &str| Node {
        labels: Labels::from([(label.to_owned(), String::new())]),
        ..Node::default()
    };
    labelled.nodes.insert("beta".to_owned(), node(EXCLUDED));
    let unavailable = Node {
        network_unavailable: true,
        ..Node::default()
    };
    labelled.nodes.insert("alpha".to_owned(), unavailable);
    let members = self::members("gamma alpha beta");
    assert_eq!(winner(&labelled, &members), Ok("gamma".to_owned()));
}

#[test]
fn without_an_endpoint_nobody_announces() {
    let mut desired = desired([("web", service(&[VIP], &["gamma"]))]);
    let endpoints = |desired: &mut Desired, condition| {
        desired.services.change(
            |_, _| true,
            |_, service| {
                for endpoint in service.endpoints.values_mut() {
                    endpoint.condition = condition;
                }
            },
        );
    };
    let members = members("gamma alpha");
    endpoints(&mut desired, Condition::Draining);
    assert!(winner(&desired, &members).is_ok());
    endpoints(&mut desired, Condition::Unhealthy);
    assert_eq!(winner(&desired, &members), Err(Nobody::NoEndpoint));
}

#[test]
fn policy_local_asks_for_an_endpoint_on_the_node() {
    let mut local = service(&[VIP], &["gamma"]);
    local.external_policy = TrafficPolicy::Local;
    let mut desired = desired([("web", local.clone())]);
    let members = members("gamma alpha beta");
    assert_eq!(winner(&desired, &members), Ok("gamma".to_owned()));
    // Another service on the address that any node serves.
    desired.services.insert(
        ServiceName("default/dns:53".to_owned()),
        service(&[VIP], &["alpha"]),
    );
    assert_eq!(winner(&desired, &members), Ok("beta".to_owned()));
    // Nobody says where the endpoint is: the node itself finds out.
    for endpoint in local.endpoints.values_mut() {
        endpoint.node = None;
    }
    let unknown = self::desired([("web", local)]);
    assert_eq!(winner(&unknown, &members), Ok("beta".to_owned()));
}

#[test]
fn a_pair_of_families_and_what_shares_with_it_stays_together() {
    let desired = desired([
        ("a", service(&["192.168.56.12", "fd00::12"], &["gamma"])),
        ("b", service(&["192.168.56.12"], &["gamma"])),
        ("c", service(&["fd00::12", "fd00::11"], &["gamma"])),
        ("d", service(&[VIP], &["gamma"])),
    ]);
    let subjects = subjects(&desired);
    let together = &subjects[&ip("fd00::11")];
    assert_eq!(together.key, ip("192.168.56.12"));
    assert_eq!(together.addresses.len(), 3);
    assert_eq!(subjects[&ip("fd00::12")], *together);
    assert_eq!(subjects[&ip(VIP)].addresses.len(), 1);
}

/// A pool that holds the address, and a service out of it with a label.
fn pooled(advertisements: impl IntoIterator<Item = Advertisement>) -> Desired {
    let mut desired = desired([("web", service(&[VIP], &["gamma"]))]);
    let pool = Pool {
        ranges: vec![AddressRange {
            first: ip("192.168.56.10"),
            last: ip("192.168.56.20"),
        }],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        labels: Labels::new(),
    };
    desired.pools.insert("lan".to_owned(), pool);
    let balancer = Balancer {
        namespace: "default".to_owned(),
        namespace_labels: Labels::new(),
        labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        requested: Vec::new(),
        pool: None,
        given: Vec::new(),
        families: BTreeSet::new(),
        one_family_will_do: false,
        sharing_key: None,
        backend_key: String::new(),
        external_policy: TrafficPolicy::Cluster,
        ports: BTreeMap::from([(
            ServiceName("default/web:80".to_owned()),
            (80, lb_common::Protocol::Tcp),
        )]),
    };
    desired
        .balancers
        .insert(BalancerName("default/web".to_owned()), balancer);
    for name in ["gamma", "alpha", "beta"] {
        let node = Node {
            labels: Labels::from([("name".to_owned(), name.to_owned())]),
            ..Node::default()
        };
        desired.nodes.insert(name.to_owned(), node);
    }
    for (n, advertisement) in (1..).zip(advertisements) {
        desired
            .advertisements
            .insert(format!("l2-{n}"), advertisement);
    }
    desired
}

fn of_pool(pool: &str) -> Advertisement {
    Advertisement {
        pools: BTreeSet::from([pool.to_owned()]),
        ..Advertisement::default()
    }
}

fn selector(key: &str, value: &str) -> kube_core::Selector {
    [(key.to_owned(), value.to_owned())].into_iter().collect()
}

#[test]
fn advertisements_admit_and_prefer_nodes() {
    let members = members("gamma alpha beta");
    let elected = |advertisements: Vec<Advertisement>| winner(&pooled(advertisements), &members);
    assert_eq!(elected(vec![]), Err(Nobody::NotAdvertised));
    assert_eq!(elected(vec![of_pool("other")]), Err(Nobody::NotAdvertised));
    assert_eq!(elected(vec![of_pool("lan")]), Ok("beta".to_owned()));

    let only_gamma = Advertisement {
        node_selectors: vec![selector("name", "gamma")],
        ..of_pool("lan")
    };
    assert_eq!(elected(vec![only_gamma.clone()]), Ok("gamma".to_owned()));
    let nobody = Advertisement {
        node_selectors: vec![selector("name", "delta")],
        ..of_pool("lan")
    };
    assert_eq!(elected(vec![nobody.clone()]), Err(Nobody::NoCandidate));
    assert_eq!(elected(vec![nobody, only_gamma]), Ok("gamma".to_owned()));

    let of_others = Advertisement {
        service_selectors: vec![selector("app", "db")],
        ..of_pool("lan")
    };
    assert_eq!(elected(vec![of_others]), Err(Nobody::NotAdvertised));

    let preferring = |weight, name| Advertisement {
        preferences: vec![(weight, selector("name", name))],
        ..of_pool("lan")
    };
    assert_eq!(
        elected(vec![preferring(1, "gamma")]),
        Ok("gamma".to_owned())
    );
    // Weights add up over advertisements.
    let split = vec![
        preferring(40, "gamma"),
        preferring(30, "alpha"),
        preferring(20, "alpha"),
    ];
    assert_eq!(elected(split), Ok("alpha".to_owned()));
}

#[test]
fn interfaces_are_those_of_all_that_admit_the_node() {
    let on = |name: &str, interfaces: &[&str]| Advertisement {
        node_selectors: vec![selector("name", name)],
        interfaces: interfaces.iter().map(|it| (*it).to_owned()).collect(),
        ..of_pool("lan")
    };
    let desired = pooled([
        on("gamma", &["eth0"]),
        on("gamma", &["eth1"]),
        on("alpha", &[]),
    ]);
    let subjects = subjects(&desired);
    let advertised = &subjects[&ip(VIP)].advertised;
    let there =
        |node: &str, interface| advertised.on_interface(&desired.nodes[node].labels, interface);
    assert!(there("gamma", "eth0") && there("gamma", "eth1") && !there("gamma", "eth2"));
    assert!(there("alpha", "eth2"));
    assert!(!there("beta", "eth0"));
}

#[test]
fn a_sticky_address_stays_with_whoever_has_it() {
    let desired = desired([("web", service(&[VIP], &["gamma"]))]);
    let mut members = members("gamma alpha beta");
    members.get_mut("gamma").unwrap().claims = [ip(VIP)].into();
    assert_eq!(
        outcome(&desired, &members, false).winner,
        Ok("beta".to_owned())
    );
    assert_eq!(
        outcome(&desired, &members, true).winner,
        Ok("gamma".to_owned())
    );
    members.get_mut("gamma").unwrap().leaving = true;
    assert_eq!(
        outcome(&desired, &members, true).winner,
        Ok("beta".to_owned())
    );
}

#[test]
fn who_is_held_down_serves_where_nobody_else_can() {
    let desired = desired([("web", service(&[VIP], &["gamma"]))]);
    let mut members = members("gamma beta");
    members.get_mut("beta").unwrap().held_down = true;
    assert_eq!(winner(&desired, &members), Ok("gamma".to_owned()));
    members.get_mut("gamma").unwrap().withheld = [ip(VIP)].into();
    assert_eq!(winner(&desired, &members), Ok("beta".to_owned()));
    // What it has had to take, it keeps.
    members.get_mut("gamma").unwrap().withheld = [].into();
    members.get_mut("beta").unwrap().claims = [ip(VIP)].into();
    assert_eq!(
        outcome(&desired, &members, true).winner,
        Ok("beta".to_owned())
    );
}

proptest! {
    /// Removing a loser changes nothing, and a new node takes an address only where it
    /// sorts first.
    #[test]
    fn only_the_winner_s_coming_and_going_moves_an_address(
        nodes in prop::collection::btree_set("[a-z]{1,6}", 1..9),
        new in "[a-z]{7}",
        leaves in any::<prop::sample::Index>(),
    ) {
        let desired = desired([("web", service(&[VIP], &["x"]))]);
        let all: BTreeMap<_, _> = nodes.iter().map(|it| (it.clone(), Standing::default())).collect();
        let before = winner(&desired, &all).unwrap();
        let gone = nodes.iter().nth(leaves.index(nodes.len())).unwrap();
        let mut fewer = all.clone();
        fewer.remove(gone);
        if *gone != before {
            prop_assert_eq!(winner(&desired, &fewer).unwrap(), before.clone());
        }
        let mut more = all;
        more.insert(new.clone(), Standing::default());
        let after = winner(&desired, &more).unwrap();
        prop_assert!(after == before || after == new);
    }
}
