use std::{collections::BTreeSet, net::IpAddr};

use super::{Assignment, Authority, Ledger, Refusal, assign, usage};
use crate::{desired::BalancerName, source::manifest};

/// Manifests in one text, a line an object.
#[derive(Clone, Default)]
struct World(Vec<String>);

impl World {
    fn with(mut self, object: String) -> Self {
        self.0.push(object);
        self
    }

    fn pool(self, name: &str, spec: &str) -> Self {
        self.with(format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}, \
             namespace: metallb-system}}\nspec: {{{spec}}}\n"
        ))
    }

    fn service(self, name: &str) -> Self {
        self.service_with(name, "", "")
    }

    /// `spec` follows a comma.
    fn service_with(self, name: &str, metadata: &str, spec: &str) -> Self {
        let ports = match spec.contains("ports:") {
            true => "",
            false => ", ports: [{port: 80}]",
        };
        self.with(format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{metadata}}}\n\
             spec: {{type: LoadBalancer{ports}{spec}}}\n"
        ))
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|it| !it.contains(&format!("{{name: {name}")));
        self
    }

    fn assign(&self, ledger: &Ledger) -> Assignment {
        self.assign_by(ledger, Authority::This)
    }

    fn assign_by(&self, ledger: &Ledger, authority: Authority<'_>) -> Assignment {
        let loaded = manifest::parse("world.yaml", &self.0.join("---\n"));
        let desired = loaded.unwrap_or_else(|error| panic!("{error}")).desired;
        let assignment = assign(&desired, ledger, authority);
        if authority == Authority::This {
            let again = assign(&desired, &assignment.ledger, authority);
            assert_eq!(
                again.ledger, assignment.ledger,
                "a second run changes nothing"
            );
            assert_eq!(again.addresses, assignment.addresses);
            assert_eq!(again.changes, []);
        }
        assignment
    }
}

/// A world with the pool of the tutorials.
fn tutorial() -> World {
    World::default().pool("first", "addresses: [192.168.56.11-192.168.56.13]")
}

fn name(text: &str) -> BalancerName {
    BalancerName(format!("default/{text}"))
}

/// What a service has, with a space between; or why it has nothing.
fn has(assignment: &Assignment, service: &str) -> String {
    let name = name(service);
    match assignment.addresses.get(&name) {
        Some(addresses) => {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            all.join(" ")
        }
        None => assignment.refused[&name].to_string(),
    }
}

fn sharing(key: &str) -> String {
    format!(", annotations: {{metallb.io/allow-shared-ip: {key}}}")
}

fn asking(pool: &str) -> String {
    format!(", annotations: {{metallb.io/address-pool: {pool}}}")
}

#[test]
fn services_take_the_first_free_address_until_none_is_left_and_one_that_goes_frees_its() {
    let world = tutorial()
        .service("a")
        .service("b")
        .service("c")
        .service("d");
    let all = world.assign(&Ledger::default());
    for (service, address) in [("a", 11), ("b", 12), ("c", 13)] {
        assert_eq!(has(&all, service), format!("192.168.56.{address}"));
    }
    assert_eq!(
        has(&all, "d"),
        "no IPv4 or IPv6 address is left in pool first; \
         add addresses, or remove Services that have one"
    );
    let frontends = |of: &Assignment| {
        let services = of.desired.services.iter();
        let services = services.map(|(name, it)| {
            let frontends: Vec<_> = it.frontends.iter().map(ToString::to_string).collect();
            format!("{name} {}", frontends.join(" "))
        });
        services.collect::<Vec<_>>()
    };
    assert_eq!(
        frontends(&all),
        [
            "default/a:80 192.168.56.11:80/tcp",
            "default/b:80 192.168.56.12:80/tcp",
            "default/c:80 192.168.56.13:80/tcp"
        ],
        "who is reached by nobody is left out"
    );
    let after = world.without("b").assign(&all.ledger);
    assert_eq!(has(&after, "d"), "192.168.56.12");
    assert_eq!(has(&after, "c"), "192.168.56.13");
}

#[test]
fn nothing_moves_because_others_come_and_go_and_who_comes_back_has_its_old_address() {
    let world = tutorial().service("m").service("n");
    let first = world.assign(&Ledger::default());
    assert_eq!(has(&first, "n"), "192.168.56.12");
    // One that comes first by name; and one goes.
    let second = world
        .clone()
        .without("m")
        .service("a")
        .assign(&first.ledger);
    assert_eq!(has(&second, "n"), "192.168.56.12");
    assert_eq!(has(&second, "a"), "192.168.56.11");
    let third = world.clone().without("m").assign(&second.ledger);
    // Both come back: the one that had it last is not the one that had it first.
    let both = world.service("a").assign(&third.ledger);
    assert_eq!(has(&both, "a"), "192.168.56.11");
    assert_eq!(has(&both, "m"), "192.168.56.13", "somebody has it");
    assert_eq!(has(&both, "n"), "192.168.56.12");
}

#[test]
fn who_comes_back_is_before_who_is_new() {
    let world = tutorial().service("z");
    let had = world.assign(&Ledger::default());
    let gone = tutorial().service_with("y", "", ", loadBalancerIP: 192.168.56.12");
    let gone = gone.assign(&had.ledger);
    let back = world.service("a").assign(&gone.ledger);
    assert_eq!(has(&back, "z"), "192.168.56.11");
    assert_eq!(has(&back, "a"), "192.168.56.12");
}

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
fn a_changed_request_reassigns_and_one_that_cannot_be_honoured_leaves_nothing() {
    let asks = |ip: &str| tutorial().service_with("a", "", &format!(", loadBalancerIP: {ip}"));
    let first = asks("192.168.56.12").assign(&Ledger::default());
    let second = asks("192.168.56.13").assign(&first.ledger);
    assert_eq!(has(&second, "a"), "192.168.56.13");
    let said: Vec<_> = second.changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "default/a loses 192.168.56.12: it asks for other addresses",
            "default/a is given 192.168.56.13"
        ]
    );
    let third = asks("192.168.56.99").assign(&second.ledger);
    assert_eq!(
        third.refused[&name("a")],
        Refusal::NotInPool([192, 168, 56, 99].into())
    );
    assert!(third.desired.services.is_empty());
    // No request any more: what it has is as good as any.
    let fourth = tutorial().service("a").assign(&second.ledger);
    assert_eq!(has(&fourth, "a"), "192.168.56.13");
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
fn who_prefers_two_families_takes_one_and_later_the_other_of_the_same_pool() {
    let pool =
        |addresses: &str| World::default().pool("first", &format!("addresses: [{addresses}]"));
    let prefers = ", ipFamilyPolicy: PreferDualStack";
    let one = pool("10.0.0.0/31").service_with("a", "", prefers);
    let one = one.assign(&Ledger::default());
    assert_eq!(has(&one, "a"), "10.0.0.0");
    let stamp = one.ledger.get(&name("a")).expect("it").stamp;
    let world = pool("10.0.0.0/31, 'fd00::/127'").pool("second", "addresses: ['fd01::/64']");
    let both = world.service_with("a", "", prefers).assign(&one.ledger);
    assert_eq!(has(&both, "a"), "10.0.0.0 fd00::");
    assert_eq!(
        both.ledger.get(&name("a")).expect("it").stamp,
        stamp,
        "it is as old as it was"
    );
    // It is of one family after all.
    let single = pool("10.0.0.0/31, 'fd00::/127'").service_with("a", "", ", ipFamilies: [IPv4]");
    assert_eq!(has(&single.assign(&both.ledger), "a"), "10.0.0.0");
}

#[test]
fn the_address_in_its_status_is_one_that_it_has() {
    let status = |ip: &str| format!("status: {{loadBalancer: {{ingress: [{{ip: {ip}}}]}}}}\n");
    let mut world = tutorial().service("a").service("b");
    world.0[2].push_str(&status("192.168.56.11"));
    let assigned = world.assign(&Ledger::default());
    assert_eq!(has(&assigned, "a"), "192.168.56.12");
    assert_eq!(has(&assigned, "b"), "192.168.56.11");
    // The ledger knows better, and what is of no pool counts for nothing.
    world.0[2] = world.0[2].replace("56.11", "56.99");
    assert_eq!(has(&world.assign(&assigned.ledger), "b"), "192.168.56.11");
    assert_eq!(has(&world.assign(&Ledger::default()), "b"), "192.168.56.12");
}

#[test]
fn who_does_not_give_addresses_out_goes_by_the_ledger_and_waits() {
    let world = tutorial().service("a").service("b");
    let authority = world.assign(&Ledger::default());
    let other = Authority::Other("nuc02");
    let before = world.assign_by(&Ledger::default(), other);
    assert_eq!(
        has(&before, "a"),
        "waiting for node nuc02 to give it an address"
    );
    assert_eq!(before.ledger, Ledger::default());
    let after = world
        .clone()
        .service("c")
        .assign_by(&authority.ledger, other);
    assert_eq!(has(&after, "a"), "192.168.56.11");
    assert_eq!(
        has(&after, "c"),
        "waiting for node nuc02 to give it an address"
    );
    // It takes nothing back either.
    let less = world.without("a").assign_by(&authority.ledger, other);
    assert_eq!(less.ledger, authority.ledger);
}

#[test]
fn of_two_who_were_given_one_address_the_older_keeps_it() {
    let (a, b) = (tutorial().service("a"), tutorial().service("b"));
    // The network was split; b was given its address later by its clock.
    let left = a.assign(&Ledger::default());
    let right = tutorial().service("z").assign(&Ledger::default());
    let right = b.clone().service("z").without("z").assign(&right.ledger);
    assert_eq!(has(&left, "a"), has(&right, "b"));
    let mut merged = right.ledger.clone();
    assert!(merged.merge(&left.ledger));
    let world = tutorial().service("a").service("b");
    let healed = world.assign(&merged);
    assert_eq!(has(&healed, "a"), "192.168.56.11");
    assert_eq!(has(&healed, "b"), "192.168.56.12");
    let other = world.assign_by(&merged, Authority::Other("nuc02"));
    assert_eq!(has(&other, "a"), "192.168.56.11");
    assert!(has(&other, "b").starts_with("waiting"));
}

#[test]
fn what_is_not_allowed_any_more_is_redone_with_the_reason() {
    let all = tutorial().service("a").service("b");
    let first = all.assign(&Ledger::default());
    let shrunk = World::default()
        .pool("first", "addresses: [192.168.56.12-192.168.56.13]")
        .service("a")
        .service("b")
        .assign(&first.ledger);
    assert_eq!(has(&shrunk, "b"), "192.168.56.12");
    assert_eq!(has(&shrunk, "a"), "192.168.56.13");
    let said = shrunk.changes[0].to_string();
    assert_eq!(
        said,
        "default/a loses 192.168.56.11: 192.168.56.11 is in no pool; \
         ask for one that is, or add it to a pool"
    );
    // The pool is another one by name alone.
    let renamed = World::default()
        .pool("second", "addresses: [192.168.56.11-192.168.56.13]")
        .service("a")
        .service("b")
        .assign(&first.ledger);
    assert_eq!(has(&renamed, "a"), "192.168.56.11");
    assert_eq!(renamed.changes, []);
    // No pools for a while, as while files are replaced.
    let none = World::default()
        .service("a")
        .service("b")
        .assign(&first.ledger);
    assert!(none.addresses.is_empty() && none.refused.is_empty());
    let back = tutorial().service("b").service("a").assign(&none.ledger);
    assert_eq!(back.addresses, first.addresses);
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

#[test]
fn a_thousand_services_that_go_are_remembered_up_to_a_bound() {
    let mut world = World::default().pool("first", "addresses: [10.0.0.0/16]");
    for n in 0..600 {
        world = world.service(&format!("s{n:04}"));
    }
    let all = world.assign(&Ledger::default());
    let held: BTreeSet<_> = all.addresses.values().flatten().collect();
    assert_eq!(held.len(), 600);
    let none = World::default().pool("first", "addresses: [10.0.0.0/16]");
    let none = none.assign(&all.ledger);
    assert_eq!(none.ledger.entries().count(), super::REMEMBERED);
    let (forgotten, known) = (has(&all, "s0000"), has(&all, "s0599"));
    let back = World::default()
        .pool("first", "addresses: [10.0.0.0/16]")
        .service("s0599")
        .service("s0000")
        .assign(&none.ledger);
    assert_eq!(has(&back, "s0599"), known);
    assert_eq!(
        has(&back, "s0000"),
        forgotten,
        "by chance: it is the first one free"
    );
}
