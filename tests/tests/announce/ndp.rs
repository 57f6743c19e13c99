//! IPv6: neighbour discovery.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use naru::announce::{AnnounceStatus, Claims};
use naru_tests::wire::NdpTap;
use tokio::time::sleep;

use crate::{Answering, Lan, Node, SOON, until};

const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12);

#[test]
fn a_client_finds_an_ipv6_address_and_cannot_take_it() {
    let lan = Lan::new();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let mut program = Answering::start(&node).await;
        program
            .claim(&node, Claims::from([(VIP6.into(), [node.eth0].into())]))
            .await;
        node.answering().await;
        assert_eq!(lan.find(VIP6).await, node.mac.to_string());
        assert_eq!(lan.find(OTHER6).await, "");
        let status = program.only(&node);
        assert!(status.requests_received >= 1, "{status:?}");
        assert_eq!(status.requests_received, status.responses_sent);

        // Duplicate address detection finds it taken.
        lan.client.ip("-6 addr add 2001:db8::11/64 dev lan0");
        let began = Instant::now();
        loop {
            let shown = lan.client.exec("ip -6 addr show dev lan0").await;
            let shown = String::from_utf8(shown.stdout).unwrap();
            if shown.contains("dadfailed") {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{shown}");
            sleep(Duration::from_millis(50)).await;
        }
        lan.client.ip("-6 addr del 2001:db8::11/64 dev lan0");
        program.lease.end();
        // The announcer speaks on for a few seconds, and who asks may believe it.
        let began = Instant::now();
        while !lan.find(VIP6).await.is_empty() {
            let late = began.elapsed() > Duration::from_secs(10);
            assert!(!late, "nobody vouches for it");
        }
        program.end();
    });
}

#[test]
fn an_ipv6_claim_is_announced_and_its_group_joined_for_as_long_as_an_address_needs_it() {
    let lan = Lan::new();
    let tap = NdpTap::open(&lan.client, "lan0");
    lan.node.block_on(|| async {
        let node = Node::start().await;
        // They share their last three bytes, and so the group.
        let twin = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x11);
        let on = BTreeSet::from([node.eth0]);
        let both = Claims::from([(VIP6.into(), on.clone()), (twin.into(), on.clone())]);
        let group = "ff02::1:ff00:11";
        assert!(!lan.groups().await.contains(group));
        node.announcer.set_claims(both);
        node.answering().await;
        sleep(Duration::from_millis(1500)).await;
        assert!(lan.groups().await.contains(group));
        for vip in [VIP6, twin] {
            let rounds = tap.advertisements_of(vip);
            assert_eq!(rounds.len(), 2, "at once, and after 1.1 s");
            for frame in rounds {
                assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
                assert_eq!(frame[6..12], node.mac.0);
                assert_eq!(frame[22..38], vip.octets());
                // Override; the link address.
                assert_eq!(frame[58..62], [0x20, 0, 0, 0]);
                assert_eq!(frame[78..], [&[2, 1], &node.mac.0[..]].concat());
            }
        }
        node.announcer.set_claims(Claims::from([(twin.into(), on)]));
        sleep(SOON).await;
        assert!(lan.groups().await.contains(group), "the twin needs it");

        // An interface that comes later is in the groups of what was announced before.
        lan.node
            .ip("link add eth9 index 99 type veth peer name far9");
        lan.node.ip("link set far9 up");
        let later = BTreeSet::from([node.eth0, 99]);
        node.announcer
            .set_claims(Claims::from([(twin.into(), later)]));
        lan.node.ip("link set eth9 up");
        node.answering().await;
        sleep(SOON).await;
        let shown = lan.node.exec("ip -6 maddr show dev eth9").await;
        assert!(String::from_utf8(shown.stdout).unwrap().contains(group));

        node.announcer.set_claims(Claims::new());
        sleep(SOON).await;
        assert!(!lan.groups().await.contains(group), "nobody needs it");
    });
}

#[test]
fn another_station_that_advertises_the_address_is_counted() {
    let lan = Lan::new();
    let tap = NdpTap::open(&lan.client, "lan0");
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let on = BTreeSet::from([node.eth0]);
        node.announcer.set_claims(Claims::from([(VIP6.into(), on)]));
        node.answering().await;
        sleep(SOON).await;
        // The node's own announcement, as the other station would send it.
        let mut frame = tap.advertisements_of(VIP6)[0].clone();
        frame[6..12].copy_from_slice(&tap.mac());
        frame[80..86].copy_from_slice(&tap.mac());
        tap.send(&frame);
        sleep(SOON).await;
        assert_eq!(node.only().conflicts, 1);
    });
}

#[test]
fn many_ipv6_claims_are_all_joined() {
    let lan = Lan::new();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let vip = |i: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, i, i]);
        let on = BTreeSet::from([node.eth0]);
        let joined = |groups: String| groups.matches("ff02::1:ff").count();
        let before = joined(lan.groups().await);
        let all: Claims = (1..=1000).map(|i| (vip(i), on.clone())).collect();
        node.announcer.set_claims(all);
        let announced =
            |status: &[AnnounceStatus]| status.iter().all(|claim| claim.gratuitous_sent >= 1);
        until(&node.announcer, "each was announced", announced).await;
        assert_eq!(joined(lan.groups().await), before + 1000);
        node.announcer.set_claims(Claims::new());
        sleep(SOON).await;
        assert_eq!(joined(lan.groups().await), before);
    });
}
