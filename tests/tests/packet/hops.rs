//! Next hops that are not looked up for every packet.

use std::{thread::sleep, time::Duration};

use lb_common::{Hook, Verdict};
use naru_tests::ip;

use crate::{
    Case,
    frames::{ACK, REMOTE_MAC, SYN},
    sides::{Side, V4, V6, maglev},
    world::{Act, World},
};

/// Longer than what was looked up counts without an agent: 256 ticks of 10 ms at most.
const FORGOTTEN: Duration = Duration::from_millis(2700);
/// The sender's address of what this node hands over.
const FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x65];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x68];

/// Gives nuc02 a link address, as far as this node knows.
fn is_at(mac: [u8; 6]) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!(
        "neigh replace 192.168.56.102 lladdr {mac} dev uplink nud permanent"
    ));
}

/// Its link address is what it was, whatever became of the test.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        is_at(REMOTE_MAC);
    }
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
    vec![Case {
        name: "dsr: a neighbour that moves is followed at once, and without an agent soon",
        run: || {
            let _restored = Restored;
            for side in [V4, V6] {
                let mut world = World::new(&[maglev(&[side.vip], &side.there[..1])]).settled();
                goes_to(&mut world, &side, REMOTE_MAC);
                is_at(OTHER_MAC);
                world.datapath.forget_hops();
                goes_to(&mut world, &side, OTHER_MAC);
                is_at(REMOTE_MAC);
                sleep(FORGOTTEN);
                goes_to(&mut world, &side, REMOTE_MAC);
            }
        },
    }]
}
