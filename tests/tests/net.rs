//! The kernel's links, addresses, routes and notices, in a namespace of the test.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use naru::net::{Changes, Network, RouteKind, Routes, is_local_endpoint};
use naru_tests::{Netns, cable};
use tokio::time::timeout;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with an uplink `eth0` and a "pod" behind `pod0`.
fn node() -> (Netns, Netns) {
    let (node, peer) = (Netns::new("node"), Netns::new("peer"));
    cable(&node, "eth0", &peer, "lan0");
    cable(&node, "pod0", &peer, "pod1");
    node.ip("addr add 192.0.2.1/24 dev eth0");
    node.ip("addr add 192.0.2.7/24 dev eth0");
    node.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    node.ip("addr add 10.244.1.1/24 dev pod0");
    (node, peer)
}

#[test]
fn a_snapshot_shows_links_and_addresses() {
    let (node, _peer) = node();
    let snapshot = node.block_on(|| async { Network::open().unwrap().snapshot().await.unwrap() });

    let eth0 = snapshot.link_named("eth0").unwrap();
    assert!(eth0.up && eth0.carrier && eth0.broadcast && eth0.mac.unwrap().is_station());
    assert!(!eth0.loopback && !eth0.noarp && eth0.master.is_none());
    assert_eq!(eth0.mtu, 1500);
    assert!(snapshot.link_named("lo").unwrap().loopback);
    assert_eq!(
        snapshot.link_named("eth9").unwrap_err().to_string(),
        "no interface eth9; there are: lo, eth0, pod0"
    );

    let hosts = snapshot.host_addresses();
    for addr in ["127.0.0.1", "::1", "192.0.2.1", "192.0.2.7", "10.244.1.1"] {
        assert!(hosts.contains(&ip(addr)), "{addr} is not in {hosts:?}");
    }
    assert_eq!(
        snapshot.first_global(eth0.index, false),
        Some(ip("192.0.2.1")),
        "the second address of the network is a secondary one"
    );
    assert_eq!(
        snapshot.first_global(eth0.index, true),
        Some(ip("2001:db8::1")),
        "not the link-local one"
    );
}

#[test]
fn a_port_of_a_bridge_names_its_master() {
    let (node, _peer) = node();
    node.ip("link add br0 type bridge");
    node.ip("link set eth0 master br0");
    let snapshot = node.block_on(|| async { Network::open().unwrap().snapshot().await.unwrap() });
    assert_eq!(
        snapshot.link_named("eth0").unwrap().master,
        Some(snapshot.link_named("br0").unwrap().index)
    );
}

#[test]
fn routes_tell_where_an_endpoint_is() {
    let (node, _peer) = node();
    node.ip("route add 10.244.2.0/24 via 192.0.2.2");
    node.ip("route add 10.244.3.0/24 via inet6 fe80::9 dev eth0");
    node.ip("route add unreachable 10.1.0.0/24");
    node.ip("route add prohibit 10.2.0.0/24");
    node.ip("route add blackhole 10.3.0.0/24");
    node.ip("-6 route add 2001:db8:2::/64 via 2001:db8::2");
    node.ip("-6 route add unreachable 2001:db8:3::/64");
    node.block_on(|| async {
        let net = Network::open().unwrap();
        let snapshot = net.snapshot().await.unwrap();
        let index = |name| snapshot.link_named(name).unwrap().index;
        let (eth0, pod0) = (index("eth0"), index("pod0"));

        let own = net.route_to(ip("192.0.2.1")).await.unwrap();
        assert_eq!(own.kind, RouteKind::Local);
        let pod = net.route_to(ip("10.244.1.9")).await.unwrap();
        assert_eq!(
            (pod.kind, pod.egress, pod.gateway, pod.preferred_source),
            (RouteKind::Unicast, Some(pod0), None, Some(ip("10.244.1.1")))
        );
        let remote = net.route_to(ip("10.244.2.9")).await.unwrap();
        assert_eq!(
            (remote.egress, remote.gateway),
            (Some(eth0), Some(ip("192.0.2.2")))
        );
        let by_v6 = net.route_to(ip("10.244.3.9")).await.unwrap();
        assert_eq!(by_v6.gateway, Some(ip("fe80::9")));
        let remote = net.route_to(ip("2001:db8:2::9")).await.unwrap();
        assert_eq!(
            (remote.egress, remote.gateway),
            (Some(eth0), Some(ip("2001:db8::2")))
        );
        for nowhere in [
            "10.1.0.1",
            "10.2.0.1",
            "10.3.0.1",
            "203.0.113.1",
            "2001:db8:3::1",
            "2001:db8:9::1",
        ] {
            let route = net.route_to(ip(nowhere)).await.unwrap();
            assert_eq!(route.kind, RouteKind::Unreachable, "{nowhere}");
        }

        let endpoints = [
            "192.0.2.1",
            "192.0.2.50",
            "10.244.1.9",
            "10.244.2.9",
            "10.1.0.1",
        ];
        let mut routes = Routes::default();
        let all = BTreeSet::from(endpoints.map(ip));
        routes.look_up(&net, all.clone()).await.unwrap();
        let local = |routes: &Routes| -> BTreeSet<IpAddr> {
            let attached = BTreeSet::from([eth0]);
            let local = routes
                .iter()
                .filter(|(_, it)| is_local_endpoint(it, &attached));
            local.map(|(ip, _)| ip).collect()
        };
        assert_eq!(
            local(&routes),
            BTreeSet::from([ip("192.0.2.1"), ip("10.244.1.9")]),
            "the host itself and the pod"
        );

        node.ip("route add 10.244.2.9/32 dev pod0");
        routes.look_up(&net, all.clone()).await.unwrap();
        assert!(!local(&routes).contains(&ip("10.244.2.9")), "asked again");
        routes = Routes::default();
        routes.look_up(&net, all).await.unwrap();
        assert!(local(&routes).contains(&ip("10.244.2.9")));
        routes.look_up(&net, BTreeSet::new()).await.unwrap();
        assert_eq!(routes.iter().count(), 0, "nobody asks for them any more");
    });
}

#[test]
fn changes_are_noticed_soon_and_gathered() {
    let (node, _peer) = node();
    node.block_on(|| async {
        let net = Network::open().unwrap();
        let mut events = net.events().unwrap();
        let quiet = timeout(Duration::from_millis(200), events.next()).await;
        assert!(quiet.is_err(), "nothing happened, yet {quiet:?}");

        let started = Instant::now();
        node.ip("addr add 192.0.2.8/24 dev eth0");
        let changes = events.next().await.unwrap();
        assert!(changes.addresses && !changes.links, "{changes:?}");
        assert!(started.elapsed() < Duration::from_millis(500));

        node.ip("-6 route add 2001:db8:5::/64 dev eth0");
        let changes = events.next().await.unwrap();
        assert_eq!(
            changes,
            Changes {
                routes: true,
                ..Changes::default()
            }
        );

        // Routes may name what a daemon changes behind them.
        node.ip("nexthop add id 7 dev eth0");
        let changes = events.next().await.unwrap();
        assert!(changes.routes, "{changes:?}");

        // A link that goes takes its addresses and routes along; all of that is one
        // or two notices.
        node.ip("link set eth0 down");
        let mut seen = Changes::default();
        let mut notices = 0;
        while let Ok(changes) = timeout(Duration::from_millis(300), events.next()).await {
            seen |= changes.unwrap();
            notices += 1;
        }
        assert_eq!(seen, Changes::ALL);
        assert!(notices <= 3, "{notices} notices");
    });
}

#[test]
fn a_notice_survives_a_dropped_wait() {
    let (node, _peer) = node();
    node.block_on(|| async {
        let mut events = Network::open().unwrap().events().unwrap();
        node.ip("addr add 192.0.2.8/24 dev eth0");
        // Long enough to read the messages, too short to hand out the notice.
        let early = timeout(Duration::from_millis(5), events.next()).await;
        assert!(early.is_err());
        let changes = timeout(Duration::from_secs(1), events.next()).await;
        assert!(changes.unwrap().unwrap().addresses);
    });
}

#[test]
fn lost_notices_mean_that_anything_changed() {
    let (node, _peer) = node();
    node.block_on(|| async {
        let mut events = Network::open().unwrap().events().unwrap();
        // Far more than the socket's buffer holds, while nobody reads.
        let mut batch = String::new();
        for i in 0..4000 {
            let (high, low) = (i / 256, i % 256);
            writeln!(batch, "route add 10.{high}.{low}.0/28 dev eth0").unwrap();
        }
        let file = std::env::temp_dir().join(node.name());
        std::fs::write(&file, batch).unwrap();
        node.ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();

        assert_eq!(events.next().await.unwrap(), Changes::ALL);
        while timeout(Duration::from_millis(200), events.next())
            .await
            .is_ok()
        {}
        node.ip("addr add 192.0.2.8/24 dev eth0");
        assert!(events.next().await.unwrap().addresses, "it goes on after");
    });
}

#[test]
fn questions_of_several_tasks_at_once_are_all_answered() {
    let (node, _peer) = node();
    node.block_on(|| async {
        let net = Network::open().unwrap();
        let ask = |net: Network| async move {
            for _ in 0..200 {
                net.snapshot().await.unwrap();
                net.links().await.unwrap();
            }
        };
        tokio::join!(ask(net.clone()), ask(net.clone()), ask(net));
    });
}
