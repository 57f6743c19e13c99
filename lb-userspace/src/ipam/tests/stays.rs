//! What stays with whom, and what is given anew.

use std::collections::BTreeSet;

use super::{World, has, name, tutorial};
use crate::ipam::{Assignment, Authority, Ledger, REMEMBERED, Refusal};

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
    assert_eq!(none.ledger.entries().count(), REMEMBERED);
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

#[test]
fn what_was_given_up_stays_so_whoever_has_not_heard_of_it_yet() {
    let before = tutorial().service("a").assign(&Ledger::default()).ledger;
    let after = tutorial().assign(&before).ledger;
    let (mut late, mut early) = (before.clone(), after.clone());
    assert!(late.merge(&after));
    assert!(!early.merge(&before));
    assert_eq!(late, early);
    assert!(late.get(&name("a")).expect("it is remembered").released);
}
