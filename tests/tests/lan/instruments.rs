//! The instruments that failovers are measured with, held against what is known.

use std::{thread::sleep, time::Duration};

use naru_lab::{
    Cluster, ClusterOptions, Condition, Fate, OwnerChoice, OwnerWatch, Plan, Ports, Topology,
};

use crate::scene::{NODE, VIP, naru, wait};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Agents on three nodes, of which the first claims the address, with two clients.
fn one_owner() -> Cluster {
    let options = ClusterOptions::new(naru()).owner(OwnerChoice::First);
    let cluster = Cluster::start(Topology::nuc().with_client("far"), &options).unwrap();
    wait("the address is claimed", || {
        cluster.owners(VIP).unwrap() == [NODE]
    });
    cluster
}

/// A plan that does not wait for calm longer than this after the fault.
fn for_at_most(cluster: &Cluster, after: Duration) -> Plan {
    Plan {
        after: (after, after),
        ..Plan::new(cluster)
    }
}

#[test]
fn an_outage_of_known_length_is_measured_right() {
    let cluster = one_owner();
    // Links up, nothing heard: 700 ms, and the time that commands take.
    let plan = for_at_most(&cluster, ms(2500)).holding(10);
    let plan = Plan {
        after: (ms(4500), ms(4500)),
        ..plan
    };
    let seen = plan
        .observe(&cluster, |cluster| {
            cluster.lab().block(NODE)?;
            sleep(ms(700));
            cluster.lab().unblock(NODE)
        })
        .unwrap();
    let outcome = seen.outcome();
    let gap = outcome.gap.expect("it ends");
    assert!((690..1000).contains(&gap), "{outcome:?}");
    assert!((650..950).contains(&outcome.unowned), "{outcome:?}");
    assert!((40..110).contains(&outcome.lost), "{outcome:?}");
    // It counts from the command on, the gap from the last answer, which may have come later.
    assert!((600..1000).contains(&outcome.lossy), "{outcome:?}");
    assert_eq!((outcome.several, outcome.changes), (0, 0), "{outcome:?}");
    // TCP sends again what was lost.
    assert_eq!(outcome.connections, [(Fate::Alive, 10)].into());
    assert!(outcome.calm);
}

#[test]
fn nothing_is_measured_where_nothing_happens() {
    let cluster = one_owner();
    for ports in [Ports::Fresh, Ports::Fixed(4)] {
        let plan = Plan {
            ports,
            ..for_at_most(&cluster, ms(2500))
        };
        let seen = plan.observe(&cluster, |_| Ok(())).unwrap();
        let outcome = seen.outcome();
        assert_eq!((outcome.lost, outcome.lossy), (0, 0), "{outcome:?}");
        assert_eq!((outcome.unowned, outcome.several), (0, 0), "{outcome:?}");
        assert!(outcome.requests > 150 && outcome.calm, "{outcome:?}");
        let answers = seen.requests.0.iter().map(|it| it.answer.as_ref().unwrap());
        let pods: std::collections::BTreeSet<_> = answers.map(|(_, pod)| pod).collect();
        assert_eq!(pods.len(), if ports == Ports::Fresh { 5 } else { 4 });
    }
}

#[test]
fn two_owners_at_a_time_are_seen() {
    let cluster = one_owner();
    // Somebody else has the address too.
    let seen = for_at_most(&cluster, ms(2000))
        .observe(&cluster, |cluster| {
            let other = cluster.lab().node("nuc03");
            let add = ["address", "add", "192.168.56.11/32", "dev", "eth0"];
            other.run("ip", &add)?;
            sleep(ms(500));
            let del = ["address", "del", "192.168.56.11/32", "dev", "eth0"];
            other.run("ip", &del).map(drop)
        })
        .unwrap();
    let outcome = seen.outcome();
    assert!((450..700).contains(&outcome.several), "{outcome:?}");
    assert!((450..800).contains(&outcome.single_after), "{outcome:?}");
    assert!(outcome.changes > 2, "{:?}", seen.near.owners());
}

#[test]
fn a_node_without_power_says_nothing_and_forgets_all() {
    let cluster = one_owner();
    let victim = "nuc02";
    let pins = cluster.agent(victim).unwrap().pin_dir().to_owned();
    let here = |pod: &&naru_lab::Pod| pod.spec().node == victim;
    assert!(pins.exists());
    let seen = for_at_most(&cluster, ms(2000))
        .holding(10)
        .observe(&cluster, |cluster| cluster.off(victim))
        .unwrap();
    // No reset, no end: connections to its pods just stop.
    for (connection, fate) in &seen.connections {
        let pod = cluster.lab().pod(&connection.pod);
        let expected = match pod.spec().node == victim {
            true => Fate::PodGone,
            false => Fate::Alive,
        };
        assert_eq!(*fate, expected, "{connection:?}");
        assert_eq!(connection.ended, None, "{connection:?}");
    }
    assert_eq!(seen.outcome().connections[&Fate::PodGone], 4);
    assert_eq!(cluster.condition(victim), Condition::Off);
    assert!(!pins.exists());
    assert!(!cluster.lab().is_cabled(victim).unwrap());
    assert!(
        cluster
            .lab()
            .pods()
            .iter()
            .filter(here)
            .all(|it| !it.is_running())
    );
    cluster.on(victim).unwrap();
    assert!(pins.exists() && cluster.lab().is_cabled(victim).unwrap());
    assert_eq!(cluster.condition(victim), Condition::Up);
    let seen = for_at_most(&cluster, ms(2000))
        .observe(&cluster, |_| Ok(()))
        .unwrap();
    assert_eq!(seen.outcome().lost, 0);
}

#[test]
fn sides_of_a_split_hear_nothing_of_each_other() {
    let cluster = one_owner();
    let owners = |client: &str| {
        let began = std::time::Instant::now();
        let watch = OwnerWatch::start(cluster.lab(), client, VIP, ms(20), began).unwrap();
        sleep(ms(300));
        watch.owners(began, ms(300))
    };
    cluster.split_off(NODE).unwrap();
    assert_eq!(
        (owners("client"), owners("far")),
        (vec![], vec![NODE.to_owned()])
    );
    // The link stays up, so nobody is told.
    assert!(cluster.lab().is_cabled(NODE).unwrap());
    cluster.unite(NODE).unwrap();
    let both = vec![NODE.to_owned()];
    assert_eq!((owners("client"), owners("far")), (both.clone(), both));
}

#[test]
fn a_machine_that_hangs_goes_on_where_it_was() {
    let cluster = one_owner();
    cluster.freeze(NODE).unwrap();
    assert_eq!(cluster.owners(VIP).unwrap(), [""; 0]);
    let agent = cluster.agent(NODE).unwrap();
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    assert_eq!(state(agent.pid().unwrap()), 'T');
    cluster.thaw(NODE).unwrap();
    wait("it answers again", || {
        cluster.owners(VIP).unwrap() == [NODE]
    });
    assert_ne!(state(agent.pid().unwrap()), 'T');
}
