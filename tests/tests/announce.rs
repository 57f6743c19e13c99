//! The announcer on a real link, seen from the other end of the cable.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use naru::{
    announce::{AnnounceState, AnnounceStatus, Announcer, Claims, SkipReason},
    net::{Mac, Network},
};
use naru_tests::{
    Netns, cable,
    wire::{ArpFrame, ArpTap},
};
use tokio::time::sleep;

const VIP: [u8; 4] = [192, 0, 2, 11];
const OTHER: [u8; 4] = [192, 0, 2, 12];
const CLIENT: [u8; 4] = [192, 0, 2, 100];
const ALL: [u8; 6] = [0xff; 6];

/// A node and a client at the two ends of a cable.
struct Lan {
    node: Netns,
    client: Netns,
}

impl Lan {
    fn new() -> Self {
        let (node, client) = (Netns::new("node"), Netns::new("client"));
        cable(&node, "eth0", &client, "lan0");
        node.ip("addr add 192.0.2.1/24 dev eth0");
        client.ip("addr add 192.0.2.100/24 dev lan0");
        Self { node, client }
    }

    fn tap(&self) -> ArpTap {
        ArpTap::open(&self.client, "lan0")
    }

    /// Asks twice, as a user would: the stations that answered, or nothing.
    async fn arping(&self, vip: [u8; 4]) -> String {
        let command = format!("arping -c 2 -w 2 -I lan0 {}", IpAddr::from(vip));
        let output = self.client.exec(&command).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let answers: BTreeSet<String> = text
            .lines()
            .filter(|line| line.contains("reply from"))
            .filter_map(|line| line.split(['[', ']']).nth(1))
            .map(str::to_lowercase)
            .collect();
        answers.into_iter().collect::<Vec<_>>().join(" ")
    }
}

/// An announcer with the node's `eth0`.
struct Node {
    net: Network,
    announcer: Announcer,
    eth0: u32,
    mac: Mac,
}

impl Node {
    async fn start() -> Self {
        let net = Network::open().unwrap();
        let snapshot = net.snapshot().await.unwrap();
        let eth0 = snapshot.link_named("eth0").unwrap();
        Self {
            announcer: Announcer::start(net.clone()).unwrap(),
            eth0: eth0.index,
            mac: eth0.mac.unwrap(),
            net,
        }
    }

    fn claim(&self, vips: &[[u8; 4]]) {
        self.announcer.set_claims(claims(vips, self.eth0));
    }

    async fn answering(&self) {
        let all_answer = |status: &[AnnounceStatus]| {
            status
                .iter()
                .all(|claim| claim.state == AnnounceState::Answering)
        };
        until(&self.announcer, "all claims are answered", all_answer).await;
    }

    fn only(&self) -> AnnounceStatus {
        let [status] = &self.announcer.status()[..] else {
            panic!("not one claim: {:?}", self.announcer.status());
        };
        status.clone()
    }
}

fn claims(vips: &[[u8; 4]], index: u32) -> Claims {
    vips.iter()
        .map(|&vip| (IpAddr::from(vip), BTreeSet::from([index])))
        .collect()
}

/// Waits a while for the status to become so.
async fn until(announcer: &Announcer, what: &str, holds: impl Fn(&[AnnounceStatus]) -> bool) {
    let started = Instant::now();
    while !holds(&announcer.status()) {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "not so after 5 s: {what}: {:?}",
            announcer.status()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

fn is_skipped(reason: SkipReason) -> impl Fn(&[AnnounceStatus]) -> bool {
    move |status| status[0].state == AnnounceState::Skipped(reason.clone())
}

/// The two frames of a round, as RFC 5227 and RFC 5944 have them.
fn round(mac: Mac, vip: [u8; 4]) -> [Vec<u8>; 2] {
    let request = ArpFrame {
        to: ALL,
        from: mac.0,
        operation: 1,
        sender: mac.0,
        sender_ip: vip,
        target: [0; 6],
        target_ip: vip,
    };
    let reply = ArpFrame {
        operation: 2,
        target: mac.0,
        ..request
    };
    [request.bytes(), reply.bytes()]
}

/// The client's question for an address.
fn question(tap: &ArpTap, to: [u8; 6], vip: [u8; 4]) -> ArpFrame {
    ArpFrame {
        to,
        from: tap.mac(),
        operation: 1,
        sender: tap.mac(),
        sender_ip: CLIENT,
        target: [0; 6],
        target_ip: vip,
    }
}

/// The node's answer to that.
fn answer(tap: &ArpTap, mac: Mac, vip: [u8; 4]) -> ArpFrame {
    ArpFrame {
        to: tap.mac(),
        from: mac.0,
        operation: 2,
        sender: mac.0,
        sender_ip: vip,
        target: tap.mac(),
        target_ip: CLIENT,
    }
}

/// All frames heard within that time.
async fn hear(tap: &ArpTap, time: Duration) -> Vec<Vec<u8>> {
    sleep(time).await;
    tap.take().into_iter().map(|(_, frame)| frame).collect()
}

/// The same without announcements, which go on for 5 s after a claim.
async fn hear_answers(tap: &ArpTap, time: Duration) -> Vec<Vec<u8>> {
    let mut heard = hear(tap, time).await;
    heard.retain(|frame| frame[28..32] != frame[38..42]);
    heard
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn answers_what_is_claimed_and_nothing_else() {
    let lan = Lan::new();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        node.answering().await;
        assert_eq!(lan.arping(VIP).await, node.mac.to_string());
        assert_eq!(lan.arping(OTHER).await, "");
        let status = node.only();
        assert_eq!(status.interface, "eth0");
        assert!(status.requests_received >= 1);
        assert_eq!(status.requests_received, status.responses_sent);
        assert_eq!(status.conflicts, 0);

        // Who checks whether the address is free learns that it is not.
        let check = lan
            .client
            .exec("arping -D -c 1 -w 2 -I lan0 192.0.2.11")
            .await;
        assert_eq!(check.status.code(), Some(1));

        node.claim(&[]);
        assert_eq!(lan.arping(VIP).await, "", "released");
    });
}

#[test]
fn answers_byte_by_byte_and_only_what_is_sent_to_it() {
    let lan = Lan::new();
    // Takes in what is meant for other stations too.
    lan.node.ip("link set eth0 promisc on");
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        node.answering().await;
        tap.send(&question(&tap, ALL, VIP).bytes());
        tap.send(&question(&tap, node.mac.0, VIP).bytes());
        assert_eq!(
            hear_answers(&tap, SOON).await,
            vec![answer(&tap, node.mac, VIP).bytes(); 2]
        );

        tap.send(&question(&tap, [2, 0, 0, 0, 0, 0x99], VIP).bytes());
        tap.send(&question(&tap, [1, 0, 0x5e, 0, 0, 1], VIP).bytes());
        let forged = ArpFrame {
            sender: node.mac.0,
            ..question(&tap, ALL, VIP)
        };
        tap.send(&forged.bytes());
        let mut cut = question(&tap, ALL, VIP).bytes();
        cut.truncate(30);
        tap.send(&cut);
        assert_eq!(hear_answers(&tap, SOON).await, Vec::<Vec<u8>>::new());
        assert_eq!(node.only().requests_received, 2);
    });
}

#[test]
fn a_new_claim_is_announced_five_times() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let claimed = Instant::now();
        node.claim(&[VIP]);
        sleep(Duration::from_millis(600)).await;
        // Said again, and another one joins: only that one is new.
        node.claim(&[VIP]);
        node.claim(&[VIP, OTHER]);
        sleep(Duration::from_millis(6500)).await;

        let heard = tap.take();
        for vip in [VIP, OTHER] {
            let of_vip: Vec<_> = heard.iter().filter(|(_, f)| f[28..32] == vip).collect();
            let frames: Vec<_> = of_vip.iter().map(|(_, frame)| frame.clone()).collect();
            assert_eq!(frames, vec![round(node.mac, vip); 5].concat());
            let started = if vip == VIP {
                claimed
            } else {
                claimed + Duration::from_millis(600)
            };
            for (i, (at, _)) in of_vip.iter().enumerate() {
                let due = started + Duration::from_millis(1100) * (i as u32 / 2);
                let late = at.saturating_duration_since(due);
                assert!(*at >= due && late < SOON, "frame {i} is {late:?} late");
            }
        }
        assert_eq!(heard.len(), 20);
        for status in node.announcer.status() {
            assert_eq!(status.gratuitous_sent, 10);
        }
    });
}

#[test]
fn a_release_stops_answers_and_announcements_at_once() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        node.answering().await;
        sleep(Duration::from_millis(100)).await;
        // The question waits in the socket when the claim goes: no await in between.
        tap.take();
        tap.send(&question(&tap, ALL, VIP).bytes());
        node.claim(&[]);
        assert_eq!(
            hear(&tap, Duration::from_millis(1500)).await,
            Vec::<Vec<u8>>::new()
        );
        assert_eq!(node.announcer.status(), vec![]);

        // Claimed again it is new again, even with no time to notice in between.
        node.claim(&[VIP]);
        assert_eq!(hear(&tap, SOON).await, round(node.mac, VIP));
        node.claim(&[]);
        node.claim(&[VIP]);
        assert_eq!(hear(&tap, SOON).await, round(node.mac, VIP));
    });
}

#[test]
fn follows_interfaces_that_come_and_go() {
    let (node, client) = (Netns::new("node"), Netns::new("client"));
    node.block_on(|| async {
        let announcer = Announcer::start(Network::open().unwrap()).unwrap();
        announcer.set_claims(claims(&[VIP], 77));
        until(&announcer, "gone", is_skipped(SkipReason::Gone)).await;
        assert_eq!(announcer.status()[0].interface, "#77");

        for _ in 0..2 {
            node.ip(&format!(
                "link add eth7 index 77 type veth peer name lan0 netns {}",
                client.name()
            ));
            until(&announcer, "down", is_skipped(SkipReason::Down)).await;
            node.ip("link set eth7 up");
            until(&announcer, "no carrier", is_skipped(SkipReason::NoCarrier)).await;
            let tap = ArpTap::open(&client, "lan0");
            client.ip("link set lan0 up");
            let answers = |status: &[AnnounceStatus]| status[0].state == AnnounceState::Answering;
            until(&announcer, "answering", answers).await;
            let heard = hear(&tap, SOON).await;
            assert_eq!(heard.len(), 2, "announced");
            tap.send(&question(&tap, ALL, VIP).bytes());
            let heard = hear_answers(&tap, SOON).await;
            assert_eq!(heard.len(), 1, "answered");
            node.ip("link delete eth7");
            until(&announcer, "gone", is_skipped(SkipReason::Gone)).await;
        }
        assert_eq!(announcer.status()[0].responses_sent, 2);
    });
}

#[test]
fn announces_anew_after_a_flap_and_with_another_address() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        assert_eq!(hear(&tap, SOON).await, round(node.mac, VIP));

        // Both within the time that notices are gathered.
        lan.node.ip("link set eth0 down");
        lan.node.ip("link set eth0 up");
        assert_eq!(hear(&tap, SOON).await, round(node.mac, VIP), "a flap");

        lan.client.ip("link set lan0 down");
        let no_carrier = is_skipped(SkipReason::NoCarrier);
        until(&node.announcer, "no carrier", no_carrier).await;
        lan.client.ip("link set lan0 up");
        assert_eq!(hear(&tap, SOON).await, round(node.mac, VIP), "a cable");

        let mac = Mac([2, 0, 0, 0, 0, 0x77]);
        lan.node.ip(&format!("link set eth0 address {mac}"));
        assert_eq!(hear(&tap, SOON).await, round(mac, VIP), "another address");
        tap.send(&question(&tap, ALL, VIP).bytes());
        let heard = hear_answers(&tap, SOON).await;
        assert_eq!(heard, vec![answer(&tap, mac, VIP).bytes()]);
    });
}

#[test]
fn counts_who_else_uses_the_address_and_does_not_fight() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        node.answering().await;
        for frame in round(Mac(tap.mac()), VIP) {
            tap.send(&frame);
        }
        assert_eq!(hear_answers(&tap, SOON).await, Vec::<Vec<u8>>::new());
        let status = node.only();
        assert_eq!((status.conflicts, status.requests_received), (2, 0));
    });
}

#[test]
fn unusable_interfaces_say_why() {
    let lan = Lan::new();
    lan.node.ip("link add br0 type bridge");
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let snapshot = node.net.snapshot().await.unwrap();
        let lo = snapshot.link_named("lo").unwrap().index;
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11]);
        let mut all = claims(&[VIP], lo);
        all.insert(v6, BTreeSet::from([node.eth0]));
        node.announcer.set_claims(all);
        until(
            &node.announcer,
            "loopback",
            is_skipped(SkipReason::Loopback),
        )
        .await;
        let status = &node.announcer.status()[1];
        assert_eq!(status.state, AnnounceState::Skipped(SkipReason::Ipv6));

        node.claim(&[VIP]);
        node.answering().await;
        lan.node.ip("link set eth0 master br0");
        let enslaved = SkipReason::Enslaved("br0".to_owned());
        until(&node.announcer, "enslaved", is_skipped(enslaved)).await;
        lan.node.ip("link set eth0 nomaster");
        node.answering().await;
        lan.node.ip("link set eth0 arp off");
        until(&node.announcer, "no ARP", is_skipped(SkipReason::NoArp)).await;
        assert_eq!(lan.arping(VIP).await, "");
        lan.node.ip("link set eth0 arp on");
        node.answering().await;
        assert_eq!(lan.arping(VIP).await, node.mac.to_string());
    });
}

#[test]
fn many_claims_are_all_announced() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let vips: Vec<[u8; 4]> = (0..2000u16)
            .map(|i| [198, 18, (i / 250) as u8, (i % 250) as u8 + 1])
            .collect();
        node.claim(&vips);
        let announced = |status: &[AnnounceStatus]| {
            let once = status.iter().filter(|claim| claim.gratuitous_sent >= 2);
            once.count() == 2000
        };
        until(&node.announcer, "each was announced", announced).await;
        tap.take();
        let expected = answer(&tap, node.mac, vips[1234]).bytes();
        // A round of all of them may be on its way before the answer, and fill the tap's
        // buffer: ask again, as a resolver does.
        let began = Instant::now();
        loop {
            tap.send(&question(&tap, ALL, vips[1234]).bytes());
            if hear(&tap, SOON).await.contains(&expected) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "no answer");
        }
    });
}
