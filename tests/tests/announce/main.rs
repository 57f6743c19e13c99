//! The announcer and the program's answers on a real link, seen from the other end of the
//! cable.
#![allow(clippy::unwrap_used, missing_docs)]

mod ndp;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use lb_common::config::DEFAULT_SEED;
use naru::{
    announce::{self, AnnounceState, AnnounceStatus, Announcer, ClaimCounts, Claims, SkipReason},
    compile::compile,
    datapath::{self, AttachMode, Attachment, Datapath, Lease},
    desired::Desired,
    net::{Mac, Network, SnatChoice},
};
use naru_tests::{
    Netns, cable,
    wire::{ArpFrame, ArpTap},
};
use tokio::time::sleep;

const VIP: [u8; 4] = [192, 0, 2, 11];
const OTHER: [u8; 4] = [192, 0, 2, 12];
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
        client.ip("-6 addr add 2001:db8::100/64 dev lan0 nodad");
        Self { node, client }
    }

    /// The link address that the client finds for an IPv6 address, or nothing.
    async fn find(&self, vip: Ipv6Addr) -> String {
        self.client.exec("ip -6 neigh flush dev lan0").await;
        let ping = format!("ping -6 -c 1 -W 1 {vip}");
        self.client.exec(&ping).await;
        let show = format!("ip -6 neigh show {vip} dev lan0");
        let output = self.client.exec(&show).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_default().to_owned()
    }

    /// The multicast groups of IPv6 that the node's interface is in.
    async fn groups(&self) -> String {
        let output = self.node.exec("ip -6 maddr show dev eth0").await;
        String::from_utf8(output.stdout).unwrap()
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
        let [status] = &status(&self.announcer)[..] else {
            panic!("not one claim: {:?}", status(&self.announcer));
        };
        status.clone()
    }
}

/// What the announcer says by itself, without the program's counts.
fn status(announcer: &Announcer) -> Vec<AnnounceStatus> {
    announcer.status(&ClaimCounts::new())
}

/// The program on the node's `eth0`, which answers.
struct Answering {
    datapath: Datapath,
    lease: Lease,
    _attachment: Attachment,
    pins: Pins,
}

/// Pins that are removed at the end.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        datapath::detach(&self.0).unwrap();
    }
}

impl Answering {
    async fn start(node: &Node) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("naru-announce-{}-{number}", std::process::id());
        let pins = Pins(PathBuf::from("/sys/fs/bpf").join(name));
        datapath::preflight(&pins.0).unwrap();
        let mut datapath = Datapath::open(datapath::Options {
            pin_dir: pins.0.clone(),
            ..datapath::Options::default()
        })
        .unwrap();
        let snapshot = node.net.snapshot().await.unwrap();
        let attached = BTreeMap::from([(node.eth0, false)]);
        let choice = SnatChoice::default();
        let mut around = snapshot.surroundings("node", &attached, BTreeSet::new(), &choice);
        around.seed = DEFAULT_SEED;
        let image = compile(&Desired::default(), &around, &datapath.in_use()).unwrap();
        datapath.apply(&image).unwrap();
        let attachment = datapath.attach("eth0", node.eth0, AttachMode::Generic);
        let lease = datapath.lease().unwrap();
        lease.renew(Duration::from_secs(60)).unwrap();
        Self {
            _attachment: attachment.unwrap(),
            datapath,
            lease,
            pins,
        }
    }

    /// Claims as the agent does: the program first.
    async fn claim(&mut self, node: &Node, claims: Claims) {
        let links = node.net.links().await.unwrap();
        let answerable = announce::answerable(&claims, &links);
        self.datapath.set_claims(&answerable).unwrap();
        node.announcer.set_claims(claims);
    }

    /// The status of a claim, with what the program counted.
    fn only(&self, node: &Node) -> AnnounceStatus {
        let counts = self.datapath.claim_counts().unwrap();
        node.announcer.status(&counts)[0].clone()
    }

    /// Ends it before its namespace.
    fn end(self) {
        let Self { datapath, pins, .. } = self;
        drop(datapath);
        drop(pins);
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
    while !holds(&status(announcer)) {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "not so after 5 s: {what}: {:?}",
            status(announcer)
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

/// All frames heard within that time.
async fn hear(tap: &ArpTap, time: Duration) -> Vec<Vec<u8>> {
    sleep(time).await;
    tap.take().into_iter().map(|(_, frame)| frame).collect()
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn answers_what_is_claimed_and_nothing_else() {
    let lan = Lan::new();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        let mut program = Answering::start(&node).await;
        program.claim(&node, claims(&[VIP], node.eth0)).await;
        node.answering().await;
        assert_eq!(lan.arping(VIP).await, node.mac.to_string());
        assert_eq!(lan.arping(OTHER).await, "");
        let status = program.only(&node);
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

        program.lease.end();
        assert_eq!(lan.arping(VIP).await, "", "nobody vouches for it");
        program.lease.renew(Duration::from_secs(60)).unwrap();
        assert_eq!(lan.arping(VIP).await, node.mac.to_string());
        program.claim(&node, Claims::new()).await;
        assert_eq!(lan.arping(VIP).await, "", "released");
        program.end();
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
        for status in status(&node.announcer) {
            assert_eq!(status.gratuitous_sent, 10);
        }
    });
}

#[test]
fn a_release_stops_announcements_at_once() {
    let lan = Lan::new();
    let tap = lan.tap();
    lan.node.block_on(|| async {
        let node = Node::start().await;
        node.claim(&[VIP]);
        node.answering().await;
        sleep(Duration::from_millis(100)).await;
        tap.take();
        node.claim(&[]);
        assert_eq!(
            hear(&tap, Duration::from_millis(1500)).await,
            Vec::<Vec<u8>>::new()
        );
        assert_eq!(status(&node.announcer), vec![]);

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
        assert_eq!(status(&announcer)[0].interface, "#77");

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
            node.ip("link delete eth7");
            until(&announcer, "gone", is_skipped(SkipReason::Gone)).await;
        }
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
        sleep(SOON).await;
        assert_eq!(node.only().conflicts, 2);
        let heard = tap.take();
        let fights = heard.iter().filter(|(_, frame)| frame[28..32] != VIP);
        assert_eq!(fights.count(), 0);
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
        node.announcer.set_claims(claims(&[VIP], lo));
        until(
            &node.announcer,
            "loopback",
            is_skipped(SkipReason::Loopback),
        )
        .await;

        let mut program = Answering::start(&node).await;
        let all = claims(&[VIP], node.eth0);
        program.claim(&node, all.clone()).await;
        node.answering().await;
        lan.node.ip("link set eth0 master br0");
        let enslaved = SkipReason::Enslaved("br0".to_owned());
        until(&node.announcer, "enslaved", is_skipped(enslaved)).await;
        program.claim(&node, all.clone()).await;
        assert_eq!(lan.arping(VIP).await, "");
        lan.node.ip("link set eth0 nomaster");
        node.answering().await;
        lan.node.ip("link set eth0 arp off");
        until(&node.announcer, "no ARP", is_skipped(SkipReason::NoArp)).await;
        program.claim(&node, all.clone()).await;
        assert_eq!(lan.arping(VIP).await, "");
        lan.node.ip("link set eth0 arp on");
        node.answering().await;
        program.claim(&node, all).await;
        assert_eq!(lan.arping(VIP).await, node.mac.to_string());
        program.end();
    });
}

#[test]
fn many_claims_are_all_announced() {
    let lan = Lan::new();
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
    });
}
