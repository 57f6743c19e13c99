//! Next hops that are not looked up for every packet.

use std::{thread::sleep, time::Duration};

use lb_common::{Hook, Verdict};
use naru_tests::ip;

use crate::{
    Case,
    frames::{ACK, CLIENT_MAC, REMOTE_MAC, SYN},
    known,
    sides::{Side, V4, V6, maglev},
    world::{Act, World},
};

/// Longer than what was looked up counts without an agent: 256 ticks of 10 ms at most.
const FORGOTTEN: Duration = Duration::from_millis(2700);
/// The sender's address of what this node hands over.
const FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x65];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x68];

/// A neighbour, and its link address, which is what it was whatever becomes of the test.
struct Neighbour(&'static str, [u8; 6]);

impl Neighbour {
    /// Gives it a link address, as far as this node knows.
    fn is_at(&self, mac: [u8; 6]) {
        let Self(address, _) = self;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!(
            "neigh replace {address} lladdr {mac} dev uplink nud permanent"
        ));
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.is_at(self.1);
    }
}

/// It moves and is told of, then moves back and is not; `goes_to` shows where packets go.
fn moves(mut world: World, neighbour: &Neighbour, goes_to: impl Fn(&mut World, [u8; 6])) {
    goes_to(&mut world, neighbour.1);
    neighbour.is_at(OTHER_MAC);
    world.datapath.forget_hops();
    goes_to(&mut world, OTHER_MAC);
    neighbour.is_at(neighbour.1);
    sleep(FORGOTTEN);
    goes_to(&mut world, neighbour.1);
}

#[track_caller]
fn goes_to(world: &mut World, side: &Side, mac: [u8; 6]) {
    for flags in [SYN, ACK] {
        let packet = side.segment(0, flags);
        let out = packet.clone().link(FROM_HERE, mac).bytes();
        let verdict = Verdict::ForwardDsr;
        world.expect(Hook::Xdp, &packet.bytes(), verdict, Act::SentBack, &out);
    }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "dsr: a neighbour that moves is followed at once, and without an agent soon",
            run: || {
                let neighbour = Neighbour("192.168.56.102", REMOTE_MAC);
                for side in [V4, V6] {
                    let world = World::new(&[maglev(&[side.vip], &side.there[..1])]).settled();
                    moves(world, &neighbour, |world, mac| goes_to(world, &side, mac));
                }
            },
        },
        Case {
            name: "nat: so is a client to whom replies go",
            run: || {
                let client = Neighbour("192.168.56.1", CLIENT_MAC);
                let mut world = World::new(&known::services());
                let source = known::connect(&mut world, known::CLIENT);
                moves(world, &client, |world, mac| {
                    for _ in 0..2 {
                        let (reply, verdict) = (known::reply(source, ACK), Verdict::ReplyNat);
                        let frame = world.send(Hook::Xdp, &reply, verdict, Act::SentBack);
                        assert_eq!(frame[..6], mac);
                    }
                });
            },
        },
    ]
}
