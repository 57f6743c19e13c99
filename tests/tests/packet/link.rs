//! VLAN tags: rewritten behind them, answered with them, sent on without them.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    forward::local,
    frames::{ACK, CLIENT_MAC, NODE_MAC, RST, SYN, ping, pong, port_unreachable, tcp, udp},
    world::{Act, CLIENT, CLIENT6, POD, POD6, REMOTE, World, endpoints, service},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "behind one or two VLAN tags packets are rewritten, the tags stay",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:80"], &[POD]),
                    service(&["[fd00::11]:80"], &[POD6]),
                ]);
                for tags in [&[10][..], &[10, 20]] {
                    for (client, vip, pod) in [
                        (CLIENT, "192.168.56.11:80", POD),
                        (CLIENT6, "[fd00::11]:80", POD6),
                    ] {
                        let packet = tcp(client, vip, SYN).tagged(tags);
                        local(&mut world, &packet, &packet.clone().to(pod));
                        let reply = tcp(pod, client, SYN | ACK)
                            .tagged(tags)
                            .link(NODE_MAC, CLIENT_MAC);
                        let out = reply.clone().from(vip).bytes();
                        let verdict = Verdict::ReplyLocal;
                        world.expect(Hook::TcEgress, &reply.bytes(), verdict, Act::Pass, &out);
                    }
                }
            },
        },
        Case {
            name: "three VLAN tags are more than are read",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                let frame = tcp(CLIENT, "192.168.56.11:80", SYN).tagged(&[1, 2, 3]);
                world.expect_untouched(Hook::Xdp, &frame.bytes(), Verdict::Unparsed, Act::Pass);
            },
        },
        Case {
            name: "what is sent on leaves its VLAN by TC, without the tag",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[REMOTE])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).tagged(&[10]);
                let bytes = packet.bytes();
                world.expect_untouched(Hook::Xdp, &bytes, Verdict::LeftToTc, Act::Pass);
                let verdict = Verdict::ForwardNat;
                let out = world.send(Hook::TcIngress, &bytes, verdict, Act::SentOn);
                let (source, _) = endpoints(&out);
                let expected = packet
                    .tagged(&[])
                    .from(&source.to_string())
                    .to(REMOTE)
                    .ttl(63);
                assert_eq!(out, expected.bytes());
            },
        },
        Case {
            name: "answers go back with the tags",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:80"], &[]),
                    service(&["192.168.56.11:53/udp"], &[]),
                    service(&["192.168.56.11:90"], &[POD]),
                ]);
                for tags in [&[10][..], &[10, 20]] {
                    let syn = tcp(CLIENT, "192.168.56.11:80", SYN).tagged(tags);
                    let reset = tcp("192.168.56.11:80", CLIENT, RST | ACK)
                        .numbers(0, 0x0102_0305, 0)
                        .tagged(tags)
                        .link(NODE_MAC, CLIENT_MAC);
                    let verdict = Verdict::RefusedReset;
                    world.expect(
                        Hook::Xdp,
                        &syn.bytes(),
                        verdict,
                        Act::SentBack,
                        &reset.bytes(),
                    );
                    let query = udp(CLIENT, "192.168.56.11:53", b"query").tagged(tags);
                    let answer = port_unreachable(&query, 28);
                    let verdict = Verdict::RefusedUnreachable;
                    world.expect(Hook::Xdp, &query.bytes(), verdict, Act::SentBack, &answer);
                    let tag = |mut frame: Vec<u8>| {
                        for tag in tags.iter().rev() {
                            let [high, low] = u16::to_be_bytes(*tag);
                            frame.splice(12..12, [0x81, 0x00, high, low]);
                        }
                        frame
                    };
                    let ping = tag(ping("192.168.56.1", "192.168.56.11"));
                    let pong = tag(pong("192.168.56.11", "192.168.56.1"));
                    world.expect(Hook::Xdp, &ping, Verdict::EchoReply, Act::SentBack, &pong);
                }
            },
        },
    ]
}
