//! Who may have what.

use std::net::IpAddr;

use super::{World, asking, has, name, sharing, tutorial};
use crate::{
    desired::BalancerName,
    ipam::{Authority, Ledger, Refusal, usage},
};

#[test]
fn a_requested_address_is_honoured_before_others_choose_or_refused_with_the_reason() {
    let ip = |ip: &str| format!(", loadBalancerIP: {ip}");
    let world = tutorial()
        .pool(
            "more",
            "addresses: [10.0.0.0/24], autoAssign: false, avoidBuggyIPs: true",
        )
        .service("a")
        .service_with("b", "", &ip("192.168.56.11"))
        .service_with("c", "", &ip("192.168.56.11"))
        .service_with("d", "", &ip("192.168.57.1"))
        .service_with("e", "", &ip("10.0.0.255"))
        .service_with("f", &asking("first"), &ip("10.0.0.7"))
        .service_with("g", &asking("more"), "")
        .service_with("h", &asking("most"), "")
        .service_with("i", "", &ip("10.0.0.7"));
    let assigned = world.assign(&Ledger::default());
    for (service, expected) in [
        ("a", "192.168.56.12"),
        ("b", "192.168.56.11"),
        (
            "c",
            "192.168.56.11 is taken by default/b, and cannot be shared: they do not have the same \
             annotation metallb.io/allow-shared-ip; ask for another one",
        ),
        (
            "d",
            "192.168.57.1 is in no pool; ask for one that is, or add it to a pool",
        ),
        (
            "e",
            "pool more leaves out 10.0.0.255 (avoidBuggyIPs); ask for another one",
        ),
        (
            "f",
            "it asks for 10.0.0.7 of pool first, but that is in pool more; \
             ask for one of the two",
        ),
        ("g", "10.0.0.1"),
        (
            "h",
            "pool most does not exist; name another one in metallb.io/address-pool, or define it",
        ),
        ("i", "10.0.0.7"),
    ] {
        assert_eq!(has(&assigned, service), expected, "{service}");
    }
}

#[test]
fn pools_for_somebody_come_first_by_priority_and_are_for_nobody_else() {
    let world = World::default()
        .pool("a-open", "addresses: [10.0.0.0/24]")
        .pool(
            "b-last",
            "addresses: [10.0.1.1/32], serviceAllocation: {namespaces: [shop]}",
        )
        .pool(
            "c-second",
            "addresses: [10.0.2.1/32], serviceAllocation: {priority: 20, namespaceSelectors: \
             [{matchLabels: {team: a}}]}",
        )
        .pool(
            "d-first",
            "addresses: [10.0.3.1/32], serviceAllocation: {priority: 10, namespaces: [shop], \
             serviceSelectors: [{matchLabels: {app: web}}]}",
        )
        .with(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n".into(),
        );
    let shop = ", namespace: shop, labels: {app: web}";
    let mut world = world
        .service("else")
        .service_with("asks", &asking("d-first"), "")
        .service_with("ip", "", ", loadBalancerIP: 10.0.3.1");
    for service in ["s1", "s2", "s3", "s4"] {
        world = world.service_with(service, shop, "");
    }
    let assigned = world.assign(&Ledger::default());
    let of = |service: &str| {
        let all = &assigned.addresses[&BalancerName(format!("shop/{service}"))];
        all.iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(
        ["s1", "s2", "s3", "s4"].map(of),
        ["10.0.3.1", "10.0.2.1", "10.0.1.1", "10.0.0.1"]
    );
    assert_eq!(has(&assigned, "else"), "10.0.0.0");
    let not_for_it = "pool d-first is not for it by its serviceAllocation; \
                      ask for another one, or change that";
    assert_eq!(has(&assigned, "asks"), not_for_it);
    assert_eq!(has(&assigned, "ip"), not_for_it);
}

#[test]
fn without_a_pool_that_gives_unasked_the_way_to_ask_is_told() {
    let world = World::default().pool("shy", "addresses: [10.0.0.0/24], autoAssign: false");
    let assigned = world.service("a").assign(&Ledger::default());
    assert!(has(&assigned, "a").contains("metallb.io/address-pool"));
}

#[test]
fn an_address_is_shared_by_equal_keys_other_ports_and_the_same_pods_only() {
    let port = |port: u16| format!(", ports: [{{port: {port}}}]");
    let local = |port: u16, app: &str| {
        format!(
            ", ports: [{{port: {port}}}], externalTrafficPolicy: Local, selector: {{app: {app}}}"
        )
    };
    let world = World::default()
        .pool("first", "addresses: [10.0.0.1-10.0.0.9]")
        .service_with("a", &sharing("k"), &port(80))
        .service_with("b", &sharing("k"), &port(443))
        .service_with("c", &sharing("k"), &port(443))
        .service_with("d", &sharing("other"), &port(25))
        .service("e")
        .service_with("f", &sharing("k"), ", ports: [{port: 80, protocol: UDP}]")
        .service_with("g", &sharing("l"), &local(80, "web"))
        .service_with("h", &sharing("l"), &local(81, "web"))
        .service_with("i", &sharing("l"), &local(82, "api"));
    let assigned = world.assign(&Ledger::default());
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let last = |service| {
        has(&assigned, service)
            .rsplit('.')
            .next()
            .map(str::to_owned)
    };
    let got = all.map(|it| last(it).expect("an address"));
    assert_eq!(got, ["1", "1", "2", "3", "4", "1", "5", "5", "6"]);

    // A key that changes: who came later has to go elsewhere.
    let changed = world
        .clone()
        .without("b")
        .service_with("b", &sharing("no"), &port(443));
    let changed = changed.assign(&assigned.ledger);
    assert_eq!(has(&changed, "a"), "10.0.0.1");
    assert_eq!(has(&changed, "b"), "10.0.0.7");
}

#[test]
fn families_are_as_the_service_says() {
    let world = World::default().pool("first", "addresses: [10.0.0.1-10.0.0.2, 'fd00::/64']");
    let policy = |policy: &str| format!(", ipFamilyPolicy: {policy}");
    let world = world
        .service("plain")
        .service_with("v6", "", ", ipFamilies: [IPv6]")
        .service_with("require", "", &policy("RequireDualStack"))
        .service_with("prefer", "", &policy("PreferDualStack"))
        .service_with("strict", "", &policy("RequireDualStack"))
        .service_with(
            "one",
            "",
            &format!("{}, loadBalancerIP: fd00::5", policy("RequireDualStack")),
        );
    let assigned = world.assign(&Ledger::default());
    assert_eq!(has(&assigned, "plain"), "10.0.0.1");
    assert_eq!(
        has(&assigned, "prefer"),
        "10.0.0.2 fd00::",
        "the first by name of those"
    );
    assert_eq!(has(&assigned, "v6"), "fd00::1");
    let exhausted = "no IPv4 and IPv6 address is left in pool first; \
                     add addresses, or remove Services that have one";
    assert_eq!(has(&assigned, "require"), exhausted);
    assert_eq!(has(&assigned, "strict"), exhausted);
    assert_eq!(
        has(&assigned, "one"),
        "it needs an IPv4 address as well (RequireDualStack); ask for one of each family"
    );
}

#[test]
fn external_and_cluster_ips_and_nodes_addresses_are_not_given_away_and_do_not_displace() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {ports: [{port: 80}], \
                 clusterIP: None, externalIPs: [192.168.56.11]}\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: nuc01}\nstatus: {addresses: \
                [{type: InternalIP, address: 192.168.56.12}]}\n";
    let world = tutorial()
        .with(other.to_owned())
        .with(node.to_owned())
        .service("a")
        .service_with("b", "", ", loadBalancerIP: 192.168.56.11");
    let assigned = world.assign(&Ledger::default());
    assert_eq!(has(&assigned, "a"), "192.168.56.13");
    assert_eq!(
        has(&assigned, "b"),
        "192.168.56.11:80/tcp is an external or cluster IP of default/other:80; \
         ask for another address"
    );
    let pools = usage(&assigned);
    assert_eq!(
        (pools[0].size.v4, pools[0].in_use.v4, pools[0].free.v4),
        (3, 1, 0)
    );

    // One that comes later has to yield.
    let before = tutorial().service("a").assign(&Ledger::default());
    let after = tutorial()
        .service("a")
        .with(other.to_owned())
        .assign(&before.ledger);
    assert_eq!(has(&after, "a"), "192.168.56.11");
    // Nor does whoever gives addresses out from now on, and knows what `a` says that it has alone.
    let mut world = tutorial().service("a").with(other.to_owned());
    world.0[1].push_str("status: {loadBalancer: {ingress: [{ip: 192.168.56.11}]}}\n");
    assert_eq!(has(&world.assign(&Ledger::default()), "a"), "192.168.56.11");
    let said: Vec<_> = after.displaced.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "default/other:80: its external or cluster IP 192.168.56.11:80/tcp is not served, because \
          that was given to another Service before; remove it, or give that one another address"
        ]
    );
    assert!(
        !after
            .desired
            .services
            .contains_key(&crate::desired::ServiceName("default/other:80".into()))
    );
}

#[test]
fn use_is_counted_by_family_and_shared_addresses_once() {
    let port = |port: u16| format!(", ports: [{{port: {port}}}]");
    let world = World::default()
        .pool(
            "first",
            "addresses: [10.0.0.254-10.0.1.1, 'fd00::/64'], avoidBuggyIPs: true",
        )
        .pool("second", "addresses: [10.1.0.0/30], autoAssign: false")
        .service_with("a", &sharing("k"), &port(80))
        .service_with("b", &sharing("k"), &port(81))
        .service_with("c", "", ", ipFamilyPolicy: RequireDualStack");
    let assigned = world.assign(&Ledger::default());
    let pools = usage(&assigned);
    let first = &pools[0];
    assert_eq!((first.size.v4, first.size.v6), (2, u64::MAX));
    assert_eq!((first.in_use.v4, first.in_use.v6), (2, 1));
    assert_eq!((first.free.v4, first.free.v6), (0, u64::MAX));
    let shared: IpAddr = [10, 0, 0, 254].into();
    assert_eq!(first.given[&shared], [name("a"), name("b")]);
    assert_eq!(first.given[&IpAddr::from([10, 0, 1, 1])], [name("c")]);
    assert_eq!((pools[1].size.v4, pools[1].free.v4), (4, 4));
    assert!(!pools[1].auto_assign && pools[1].given.is_empty());
}

/// In a cluster nodes go by what Services say that they were given.
#[test]
fn what_the_source_says_counts_where_a_pool_has_it_and_nobody_else_does() {
    let status = |ip: &str| format!("}}\nstatus: {{loadBalancer: {{ingress: [{{ip: {ip}}}]}}");
    let world = World::default()
        .pool("lan", "addresses: [192.0.2.8-192.0.2.9]")
        .service_with("a", "", &status("192.0.2.9"))
        .service_with("b", "", &status("192.0.2.9"))
        .service_with("of-a-node", "", &status("198.51.100.1"))
        .service("waits");
    let assignment = world.assign_by(&Ledger::default(), Authority::Source);
    let has: Vec<_> = assignment
        .addresses
        .keys()
        .map(|it| it.0.as_str())
        .collect();
    assert_eq!(has, ["default/a"]);
    let why = |name: &str| &assignment.refused[&BalancerName(format!("default/{name}"))];
    assert!(matches!(why("b"), Refusal::Taken { .. }), "{}", why("b"));
    assert!(matches!(why("of-a-node"), Refusal::NotInPool(_)));
    assert!(matches!(why("waits"), Refusal::NotGiven));
    assert!(assignment.changes.is_empty() && assignment.ledger == Ledger::default());
}
