//! Packets between peers: handed over as they are, delivered where they arrive, and never
//! sent on from there.

use lb_common::{Algorithm, Hook, Mode, Verdict};
use naru::desired::{Service, Snat};
use naru_tests::ip;

use crate::{
    Case,
    errors::quote,
    fragments::cut,
    frames::{
        ACK, CLIENT_MAC, FIN, Icmp, NODE_MAC, Packet, REMOTE_MAC, SYN, icmp, relinked, tcp, udp,
    },
    world::{Act, CLIENT, CLIENT6, POD, POD6, World, endpoints, service},
};

/// Pods of nuc02, who has 192.168.56.102.
const THERE: [&str; 2] = ["10.244.2.2:3000", "10.244.2.3:3000"];
const THERE6: &str = "[fd00:2::2]:3000";
const VIP: &str = "192.168.56.11:80";
const VIP6: &str = "[fd00::11]:80";
/// What this node says it is, and what nuc02 does, when they hand over: IEEE 802's bit for
/// locally administered addresses is set.
const FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x65];
const FROM_PEER: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x66];
/// The same where a frame goes back to the node that had the VIP before.
const BACK_FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x73, 0, 0, 0x65];
const BACK_FROM_PEER: [u8; 6] = [0x6e, 0x61, 0x73, 0, 0, 0x66];
const LAST_BACK_FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x74, 0, 0, 0x65];
const LAST_BACK_FROM_PEER: [u8; 6] = [0x6e, 0x61, 0x74, 0, 0, 0x66];
/// A third node's.
const THIRD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x67];

/// A service in mode `dsr`, the remote ones of its backends on `node`.
fn dsr(frontends: &[&str], backends: &[&str], node: &str) -> Service {
    let mut service = Service {
        elsewhere: Mode::Dsr,
        ..service(frontends, backends)
    };
    for (addr, endpoint) in &mut service.endpoints {
        let here = addr.ip().to_string();
        let here = here.starts_with("10.244.1.") || here.starts_with("fd00:1::");
        endpoint.node = Some(if here { "nuc01" } else { node }.to_owned());
    }
    service
}

/// The service that the cases of nuc01 alone take: one pod here, one on nuc02.
fn both(frontend: &str) -> Service {
    dsr(&[frontend], &[POD, THERE[0]], "nuc02")
}

fn client(n: u16) -> String {
    format!("192.168.56.1:{}", 1000 + n)
}

/// A client's packet as nuc02 hands it over.
fn handed(packet: Packet) -> Packet {
    packet.link(FROM_PEER, NODE_MAC)
}

/// An ICMP error of a router about a reply that the VIP sent.
fn too_big(sent: &Packet, link: [u8; 6]) -> Vec<u8> {
    let header =
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 };
    let kind = Icmp::V4(etherparse::Icmpv4Type::DestinationUnreachable(header));
    let vip = sent.src.ip().to_string();
    let frame = icmp("192.168.56.1", &vip, kind, &quote(sent)[..28]);
    relinked(frame, link, NODE_MAC)
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "dsr: a packet is handed over to the backend's node as it is, by both hooks",
            run: || {
                let mut world = World::new(&[
                    dsr(&[VIP], &THERE[..1], "nuc02"),
                    dsr(&["192.168.56.11:53/udp"], &THERE[..1], "nuc02"),
                    dsr(&[VIP6], &[THERE6], "nuc02"),
                ]);
                for packet in [
                    tcp(CLIENT, VIP, SYN).ttl(2),
                    tcp(CLIENT, VIP, ACK).payload(b"GET /"),
                    udp(CLIENT, "192.168.56.11:53", b"query"),
                    tcp(CLIENT6, VIP6, SYN).extended(),
                ] {
                    let out = packet.clone().link(FROM_HERE, REMOTE_MAC).bytes();
                    let (bytes, verdict) = (packet.bytes(), Verdict::ForwardDsr);
                    world.expect(Hook::Xdp, &bytes, verdict, Act::SentBack, &out);
                    world.expect(Hook::TcIngress, &bytes, verdict, Act::SentOn, &out);
                    // Behind a tag it leaves by TC, without it.
                    let tagged = packet.tagged(&[10]).bytes();
                    world.expect_untouched(Hook::Xdp, &tagged, Verdict::LeftToTc, Act::Pass);
                    world.expect(Hook::TcIngress, &tagged, verdict, Act::SentOn, &out);
                }
            },
        },
        Case {
            name: "moved: a connection that is not known goes back to where the VIP was",
            run: moved,
        },
        Case {
            name: "moved: what comes back is served as it began, or as by anybody",
            run: came_back,
        },
        Case {
            name: "moved: from one that is away nobody takes connections, and others go on",
            run: || {
                let mut maglev = service(&[VIP], &THERE[..1]);
                maglev.algorithm = Algorithm::Maglev;
                let mut world = World::new(&[maglev, service(&["192.168.56.11:81"], &[POD])]);
                moved_from(&mut world, "192.168.56.250");
                let stray = tcp(CLIENT, VIP, ACK).bytes();
                // TC finds that the neighbour does not answer either.
                world.expect_untouched(Hook::Xdp, &stray, Verdict::LeftToTc, Act::Pass);
                world.send(Hook::TcIngress, &stray, Verdict::ForwardNat, Act::SentOn);
                let stray = tcp(CLIENT, "192.168.56.11:81", ACK).bytes();
                world.send(Hook::TcIngress, &stray, Verdict::RefusedReset, Act::SentOn);
            },
        },
        Case {
            name: "dsr: at a TTL of 1 the stack answers, and nothing is recorded",
            run: || {
                let mut world = World::new(&[dsr(&[VIP], &THERE[..1], "nuc02")]);
                let packet = tcp(CLIENT, VIP, SYN).ttl(1).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::TtlExpired, Act::Pass);
                assert!(world.datapath.flows(1).unwrap().0.is_empty());
            },
        },
        Case {
            name: "dsr: round robin is exact over all nodes, and flows stay",
            run: || {
                let mut world = World::new(&[both(VIP)]);
                for n in 0..6 {
                    let verdict = if n % 2 == 0 {
                        Verdict::ForwardLocal
                    } else {
                        Verdict::ForwardDsr
                    };
                    for flags in [SYN, ACK] {
                        world.forwarded(&tcp(&client(n), VIP, flags), verdict);
                    }
                }
                let states = states(&world);
                assert_eq!(
                    states["192.168.56.1:1001"], "established",
                    "without a reply"
                );
                assert_eq!(
                    states["192.168.56.1:1000"], "syn-sent",
                    "a pod here would reply"
                );
                world.forwarded(&tcp(&client(1), VIP, FIN | ACK), Verdict::ForwardDsr);
                assert_eq!(self::states(&world)["192.168.56.1:1001"], "closing");
                // Nobody remembers this one.
                let stray = tcp(&client(9), VIP, ACK).bytes();
                world.send(Hook::Xdp, &stray, Verdict::RefusedReset, Act::SentBack);
            },
        },
        Case {
            name: "dsr: what a peer hands over goes to the pods here alone, and gets the VIP back",
            run: || {
                let here = [POD, "10.244.1.3:3000"];
                let mut world = World::new(&[
                    dsr(&[VIP], &[here[0], here[1], THERE[0]], "nuc02"),
                    dsr(&[VIP6], &[POD6, THERE6], "nuc02"),
                ]);
                for n in 0..6 {
                    let packet = handed(tcp(&client(n), VIP, SYN));
                    let pod = here[usize::from(n % 2)];
                    crate::forward::local(&mut world, &packet, &packet.clone().to(pod));
                    let later = handed(tcp(&client(n), VIP, ACK));
                    crate::forward::local(&mut world, &later, &later.clone().to(pod));
                    let reply = tcp(pod, &client(n), ACK).link(NODE_MAC, CLIENT_MAC);
                    let (bytes, out) = (reply.bytes(), reply.from(VIP).bytes());
                    world.expect(Hook::TcEgress, &bytes, Verdict::ReplyLocal, Act::Pass, &out);
                }
                let packet = handed(tcp(CLIENT6, VIP6, SYN));
                crate::forward::local(&mut world, &packet, &packet.clone().to(POD6));
            },
        },
        Case {
            name: "dsr: Maglev, too, finds a pod here for what a peer hands over",
            run: || {
                let service = Service {
                    algorithm: Algorithm::Maglev,
                    maglev_slots: 1021,
                    ..dsr(&[VIP], &[POD, THERE[0], THERE[1]], "nuc02")
                };
                let mut world = World::new(&[service]);
                for n in 0..50 {
                    let packet = handed(tcp(&client(n), VIP, ACK));
                    crate::forward::local(&mut world, &packet, &packet.clone().to(POD));
                }
            },
        },
        Case {
            name: "dsr: what a peer handed over is never sent on",
            run: never_sent_on,
        },
        Case {
            name: "dsr: a client on the backend's own node is served by nat, and keeps it",
            run: || {
                let mut world = World::new(&[dsr(&[VIP], &THERE[..1], "nuc02")]);
                let of_node =
                    |flags| tcp("192.168.56.102:5000", VIP, flags).link(REMOTE_MAC, NODE_MAC);
                let (source, to) = world.forwarded(&of_node(SYN), Verdict::ForwardNat);
                assert_eq!(source.ip().to_string(), "192.168.56.101");
                assert_eq!(to.to_string(), THERE[0]);
                let again = world.forwarded(&of_node(ACK), Verdict::ForwardNat);
                assert_eq!(again, (source, to));
                let reply = tcp(THERE[0], &source.to_string(), ACK).link(REMOTE_MAC, NODE_MAC);
                let out = reply.clone().from(VIP).to("192.168.56.102:5000").ttl(63);
                let out = out.link(NODE_MAC, REMOTE_MAC).bytes();
                let verdict = Verdict::ReplyNat;
                world.expect(Hook::Xdp, &reply.bytes(), verdict, Act::SentBack, &out);
            },
        },
        Case {
            name: "dsr: a node that answers no ARP gets nothing",
            run: || {
                let mut world = World::new(&[dsr(&[VIP], &THERE[..1], "silent")]);
                let packet = tcp(CLIENT, VIP, SYN).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::LeftToTc, Act::Pass);
                world.expect_untouched(Hook::TcIngress, &packet, Verdict::NoPeer, Act::Drop);
            },
        },
        Case {
            name: "dsr: a node that is on no LAN of ours is reached by nat",
            run: || {
                let mut world = World::new(&[dsr(&[VIP], &["192.168.56.102:3000"], "far")]);
                world.forwarded(&tcp(CLIENT, VIP, SYN), Verdict::ForwardNat);
            },
        },
        Case {
            name: "dsr: an error about a reply is handed over, and reaches the pod there",
            run: || {
                let mut world = World::new(&[both(VIP)]);
                world.forwarded(&tcp(&client(0), VIP, SYN), Verdict::ForwardLocal);
                world.forwarded(&tcp(&client(1), VIP, SYN), Verdict::ForwardDsr);
                let sent = tcp(VIP, &client(1), ACK).payload(&[7; 1400]);
                let error = too_big(&sent, CLIENT_MAC);
                let out = relinked(error.clone(), FROM_HERE, REMOTE_MAC);
                let verdict = Verdict::ErrorDsr;
                world.expect(Hook::Xdp, &error, verdict, Act::SentBack, &out);
                world.expect(Hook::TcIngress, &error, verdict, Act::SentOn, &out);
                // As it comes in there: nuc02's pod is this node's, for once.
                let sent = tcp(VIP, &client(0), ACK).payload(&[7; 1400]);
                let error = too_big(&sent, FROM_PEER);
                let out = world.send(Hook::Xdp, &error, Verdict::ErrorLocal, Act::Pass);
                assert_eq!(out[30..34], [10, 244, 1, 2], "to the pod");
                assert_eq!(out[54..58], [10, 244, 1, 2], "about what the pod sent");
            },
        },
        Case {
            name: "dsr: fragments follow the first",
            run: || {
                let mut world = World::new(&[dsr(&["192.168.56.11:53/udp"], &THERE[..1], "nuc02")]);
                let whole = udp(CLIENT, "192.168.56.11:53", &[7; 8000]);
                let out = cut(&whole.clone().link(FROM_HERE, REMOTE_MAC), 9);
                for (part, out) in cut(&whole, 9).iter().zip(out) {
                    world.expect(Hook::Xdp, part, Verdict::ForwardDsr, Act::SentBack, &out);
                }
            },
        },
        Case {
            name: "nat from an address that is for nothing else: 30,000 flows to one backend",
            run: many_flows,
        },
    ]
}

fn never_sent_on() {
    let service = dsr(&[VIP], &THERE, "nuc02");
    let elsewhere = crate::world::service(&["192.168.56.11:81"], &["192.168.56.102:3000"]);
    let mut world = World::new(&[service, elsewhere]);
    for hook in [Hook::Xdp, Hook::TcIngress] {
        for packet in [
            tcp(CLIENT, VIP, SYN),
            tcp(CLIENT, VIP, ACK),
            tcp(CLIENT, "192.168.56.11:81", SYN),
        ] {
            let bytes = handed(packet).bytes();
            world.expect_untouched(hook, &bytes, Verdict::NotHere, Act::Drop);
        }
    }
    // Nor does a flow that this node began itself, as the one that announced the VIP then.
    world.forwarded(&tcp(CLIENT, VIP, SYN), Verdict::ForwardDsr);
    let bytes = handed(tcp(CLIENT, VIP, ACK)).bytes();
    world.expect_untouched(Hook::Xdp, &bytes, Verdict::NotHere, Act::Drop);
    let error = too_big(&tcp(VIP, CLIENT, ACK).payload(&[7; 1400]), FROM_PEER);
    world.expect_untouched(Hook::Xdp, &error, Verdict::NotHere, Act::Drop);
    // Nor is an answer of a backend, which no peer hands over.
    let request = tcp(CLIENT, "192.168.56.11:81", SYN);
    let (source, to) = world.forwarded(&request, Verdict::ForwardNat);
    let reply = tcp(&to.to_string(), &source.to_string(), ACK);
    let reply = reply.link(FROM_PEER, NODE_MAC).bytes();
    world.expect_untouched(Hook::Xdp, &reply, Verdict::NotOurs, Act::Pass);
}

fn many_flows() {
    let source = Snat::dedicated([192, 168, 56, 50].into());
    let services = [service(&[VIP], &["192.168.56.102:3000"])];
    let mut world = World::with_snat(&services, source);
    let mut used = std::collections::BTreeSet::new();
    let ingress = world.ingress;
    let mut syn = tcp(CLIENT, VIP, SYN);
    for n in 0..30_000_u16 {
        syn = syn.from(&format!(
            "192.168.56.{}:{}",
            60 + n / 10_000,
            1024 + n % 10_000
        ));
        let out = world
            .datapath
            .test_run(Hook::Xdp, &syn.bytes(), ingress)
            .unwrap();
        let (source, _) = endpoints(&out.bytes);
        assert_eq!(source.ip().to_string(), "192.168.56.50");
        assert!(source.port() >= 1024, "privileged: {source}");
        assert!(used.insert(source), "flow {n}: {source} is given out twice");
    }
    let (_, verdict, count) = world.datapath.verdicts().unwrap().remove(0);
    assert_eq!((verdict, count.packets), (Verdict::ForwardNat, 30_000));
    assert_eq!(world.recorded(), (30_000, 30_000), "some were displaced");
}

/// The flows' states, by client.
fn states(world: &World) -> std::collections::BTreeMap<String, &'static str> {
    let (flows, _) = world.datapath.flows(100).unwrap();
    let state = |flow: naru::datapath::FlowEntry| {
        let client = format!("{}:{}", flow.tuple.src, flow.tuple.src_port);
        (client, flow.flow.state.name(true))
    };
    flows.into_iter().map(state).collect()
}

fn moved_from(world: &mut World, node: &str) {
    let formers = [VIP, VIP6].map(|vip| {
        let vip: std::net::SocketAddr = vip.parse().unwrap();
        (vip.ip(), node.parse().unwrap())
    });
    let gained = formers.iter().map(|(ip, _)| *ip).collect();
    let formers = formers.into();
    world.datapath.set_formers(&formers, &gained).unwrap();
}

fn moved() {
    let services = [
        service(&[VIP], &[POD]),
        service(&[VIP6], &[POD6]),
        service(&["192.168.56.11:53/udp"], &[POD]),
    ];
    let mut world = World::new(&services);
    moved_from(&mut world, "192.168.56.102");
    for stray in [
        tcp(CLIENT, VIP, ACK).payload(b"more"),
        tcp(CLIENT6, VIP6, FIN | ACK),
    ] {
        let out = stray.clone().link(BACK_FROM_HERE, REMOTE_MAC).bytes();
        let (bytes, verdict) = (stray.bytes(), Verdict::Returned);
        for _ in 0..2 {
            world.expect(Hook::Xdp, &bytes, verdict, Act::SentBack, &out);
            world.expect(Hook::TcIngress, &bytes, verdict, Act::SentOn, &out);
        }
    }
    assert!(
        world.datapath.flows(1).unwrap().0.is_empty(),
        "nothing is recorded"
    );
    // From the very node that it would go to: that one knows no such VIP any more.
    let routed = tcp(CLIENT, VIP, ACK).link(REMOTE_MAC, NODE_MAC).bytes();
    world.send(Hook::Xdp, &routed, Verdict::RefusedReset, Act::SentBack);
    // An error about such a connection goes there, too.
    let sent = tcp(VIP, CLIENT, ACK).payload(b"x");
    let error = too_big(&sent, CLIENT_MAC);
    let out = relinked(error.clone(), BACK_FROM_HERE, REMOTE_MAC);
    world.expect(Hook::Xdp, &error, Verdict::Returned, Act::SentBack, &out);
    // What begins, begins here, and is known from then on.
    let syn = tcp(CLIENT, VIP, SYN);
    crate::forward::local(&mut world, &syn, &syn.clone().to(POD));
    let ack = tcp(CLIENT, VIP, ACK);
    crate::forward::local(&mut world, &ack, &ack.clone().to(POD));
    let query = udp(CLIENT, "192.168.56.11:53", b"query");
    crate::forward::local(&mut world, &query, &query.clone().to(POD));
    // A second agent over the same maps goes on so, until it is told otherwise.
    let mut world = world.reopen();
    let stray = tcp(CLIENT6, VIP6, ACK).bytes();
    world.send(Hook::Xdp, &stray, Verdict::Returned, Act::SentBack);
    let nobody = Default::default();
    world
        .datapath
        .set_formers(&nobody, &Default::default())
        .unwrap();
    world.send(Hook::Xdp, &stray, Verdict::RefusedReset, Act::SentBack);
}

fn came_back() {
    let back = |packet: &Packet| packet.clone().link(BACK_FROM_PEER, NODE_MAC);
    let mut world = World::new(&[
        both(VIP),
        service(&["192.168.56.12:80"], &["192.168.56.102:3000"]),
    ]);
    // Both nodes have had it: frames go back once.
    moved_from(&mut world, "192.168.56.102");
    let pods = [Verdict::ForwardLocal, Verdict::ForwardDsr];
    for (n, verdict) in (0..).zip(pods) {
        world.forwarded(&tcp(&client(n), VIP, SYN), verdict);
    }
    let nat = "192.168.56.12:80";
    let (source, _) = world.forwarded(&tcp(CLIENT, nat, SYN), Verdict::ForwardNat);
    for (n, verdict) in (0..).zip(pods) {
        world.forwarded(&back(&tcp(&client(n), VIP, ACK)), verdict);
    }
    let (again, _) = world.forwarded(&back(&tcp(CLIENT, nat, ACK)), Verdict::ForwardNat);
    assert_eq!(again, source);
    // What is not known here either goes back once more, and then is refused: by the way to
    // the client, since it did not come from there.
    moved_from(&mut world, "192.168.56.109");
    ip("neigh replace 192.168.56.109 lladdr 02:00:00:00:00:67 dev uplink nud permanent");
    let stray = tcp(&client(9), VIP, ACK);
    let out = stray.clone().link(LAST_BACK_FROM_HERE, THIRD_MAC).bytes();
    let verdict = Verdict::Returned;
    world.expect(
        Hook::Xdp,
        &back(&stray).bytes(),
        verdict,
        Act::SentBack,
        &out,
    );
    let last = stray.link(LAST_BACK_FROM_PEER, NODE_MAC).bytes();
    let answer = world.send(Hook::Xdp, &last, Verdict::RefusedReset, Act::SentBack);
    assert_eq!(answer[..12], [CLIENT_MAC, NODE_MAC].concat());
    // So it is with what a peer handed over and lost its backend here.
    world.forwarded(&handed(tcp(CLIENT, VIP, SYN)), Verdict::ForwardLocal);
    world.change(&[dsr(&[VIP], &THERE[..1], "nuc02")]);
    let orphan = handed(tcp(CLIENT, VIP, ACK)).bytes();
    let answer = world.send(Hook::Xdp, &orphan, Verdict::RefusedReset, Act::SentBack);
    assert_eq!(answer[..12], [CLIENT_MAC, NODE_MAC].concat());
}
