//! What becomes of a change of which not all can be written.

use lb_common::{Entry, Frontend, Port};

use crate::{
    Case,
    frames::SYN,
    sides::{FLOWS, Side, V4, V6, all, maglev},
    world::World,
};

/// Takes the room that map `FRONTENDS` has left, for as long as `meanwhile` runs.
fn without_room(world: &mut World, meanwhile: impl FnOnce(&mut World)) {
    let mut frontends = world.datapath.frontends();
    let addresses =
        (0..=u16::MAX).map(|n| std::net::Ipv4Addr::from([198, 18, (n >> 8) as u8, n as u8]));
    let others = addresses.map(|addr| Frontend::new(addr.into(), Port::new(9), 6));
    let there = |it: &Frontend| frontends.insert(it, Entry::new(0, false), 0).is_ok();
    let others: Vec<_> = others.take_while(there).collect();
    meanwhile(world);
    for other in others {
        frontends.remove(&other).unwrap();
    }
}

/// What is served by a frontend before, and by two with other pods after.
fn services(side: &Side) -> [Vec<naru::desired::Service>; 2] {
    let [first, second, third] = side.pods;
    [
        vec![maglev(&[side.vip], &[first])],
        vec![maglev(&[side.vip, side.second], &[second, third])],
    ]
}

/// A world of what was before, in which what is to come after could not be written whole.
fn failed(side: &Side) -> World {
    let [before, after] = services(side);
    let mut world = World::new(&before);
    without_room(&mut world, |world| {
        let refused = world.try_change(&after).unwrap_err();
        assert!(refused.to_string().contains("FRONTENDS"), "{refused}");
    });
    for pod in all(&mut world, side, SYN) {
        assert!(side.pods.contains(&&pod[..]), "{pod}");
    }
    world
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a change that failed midway: the next one writes what it lacked",
            run: || {
                for side in [V4, V6] {
                    let mut world = failed(&side);
                    let [_, after] = services(&side);
                    world.change(&after);
                    let pods = all(&mut world, &side, SYN);
                    assert!(
                        pods.iter().all(|it| side.pods[1..].contains(&&it[..])),
                        "{pods:?}"
                    );
                    for n in FLOWS..2 * FLOWS {
                        let further = world.served(&side.segment(n, SYN).to(side.second));
                        assert!(side.pods[1..].contains(&&further[..]), "{further}");
                    }
                    assert_eq!(world.apply_again(&after).total(), 0, "written twice");
                    assert_eq!(world.reopen().apply_again(&after).total(), 0, "not written");
                }
            },
        },
        Case {
            name: "a change that failed midway: where it is taken back, nothing of it is left",
            run: || {
                for side in [V4, V6] {
                    let mut world = failed(&side);
                    let [before, _] = services(&side);
                    world.change(&before);
                    let pods = all(&mut world, &side, SYN);
                    assert_eq!(pods, vec![side.pods[0]; usize::from(FLOWS)]);
                    assert_eq!(world.apply_again(&before).total(), 0, "written twice");
                    // As the maps say it, and not who wrote them.
                    let mut world = world.reopen();
                    let image = world.datapath.live_image();
                    assert_eq!((image.backends.len(), image.frontends.len()), (1, 1));
                    assert_eq!(world.apply_again(&before).total(), 0, "not taken back");
                }
            },
        },
    ]
}
