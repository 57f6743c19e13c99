//! How backends are reached: here, by `nat`, by a peer.

use lb_common::BackendId;

use super::*;

#[test]
fn where_a_backend_is_decides_its_mode() {
    let mut desired = state(&one(1));
    let node = |desired: &mut Desired, node: Option<&str>| {
        desired.services.change(
            |_, _| true,
            |_, service| {
                for endpoint in service.endpoints.values_mut() {
                    endpoint.node = node.map(str::to_owned);
                }
            },
        );
    };
    let mut surroundings = Surroundings {
        node: "nuc01".into(),
        ..Surroundings::default()
    };
    let mode = |desired: &Desired, surroundings: &Surroundings| {
        let image = compile(desired, surroundings, &InUse::default()).expect("fits");
        image.backends[&1].mode()
    };
    assert_eq!(mode(&desired, &surroundings), Mode::Nat);
    surroundings.host_addresses.insert([10, 0, 0, 1].into());
    assert_eq!(mode(&desired, &surroundings), Mode::Local);
    node(&mut desired, Some("nuc02"));
    assert_eq!(mode(&desired, &surroundings), Mode::Nat);
    node(&mut desired, Some("nuc01"));
    assert_eq!(mode(&desired, &surroundings), Mode::Local);

    desired.services.change(
        |_, _| true,
        |_, service| {
            service.elsewhere = Mode::Dsr;
        },
    );
    assert_eq!(mode(&desired, &surroundings), Mode::Local);
    node(&mut desired, Some("nuc02"));
    assert_eq!(mode(&desired, &surroundings), Mode::Nat, "not a peer");
    let addr = [192, 168, 56, 102].into();
    surroundings.peers.insert("nuc02".into(), addr);
    assert_eq!(mode(&desired, &surroundings), Mode::Dsr);
    let image = compile(&desired, &surroundings, &InUse::default()).expect("fits");
    assert_eq!(image.backends[&1].via.to_ip(), addr);
}

#[test]
fn old_flows_go_on_the_way_they_began_by_where_new_ones_take_another() {
    let mut desired = state(&one(1));
    desired.services.change(
        |_, _| true,
        |_, service| {
            service.elsewhere = Mode::Dsr;
            for endpoint in service.endpoints.values_mut() {
                endpoint.node = Some("nuc02".to_owned());
            }
        },
    );
    let mut around = Surroundings::default();
    let alone = compile(&desired, &around, &InUse::default()).expect("fits");
    let new = |image: &MapImage| {
        let slots = image.tables.values().flat_map(|slots| slots.iter());
        let ids: BTreeSet<_> = slots.map(|slot| slot.current()).collect();
        ids.into_iter().next().expect("one")
    };
    let old = new(&alone);
    let peer = [192, 168, 56, 102].into();
    around.peers.insert("nuc02".into(), peer);
    let met = compile(&desired, &around, &InUse::of(&alone)).expect("fits");
    let mode = |id: BackendId| {
        let backend = met.backends[&id.index()];
        (backend.mode(), backend.alive, backend.open)
    };
    assert_eq!(mode(old), (Mode::Nat, Backend::ALIVE, 0));
    assert_eq!(mode(new(&met)), (Mode::Dsr, Backend::ALIVE, 1));
    assert_eq!(
        compile(&desired, &around, &InUse::of(&met)).expect("fits"),
        met
    );
    desired.services.change(
        |_, _| true,
        |_, service| {
            service.endpoints.clear();
        },
    );
    let gone = compile(&desired, &around, &InUse::of(&met)).expect("fits");
    assert!(gone.backends.is_empty());
}

#[test]
fn what_peers_hand_over_has_a_table_of_its_own() {
    let sketch = Sketch {
        frontends: [1].into(),
        local: [false; 2],
        udp: false,
        maglev: false,
        endpoints: (0..6).map(|n| (n, (1, true))).collect(),
    };
    let mut desired = state(&[(1, sketch)].into());
    desired.services.change(
        |_, _| true,
        |_, service| {
            service.elsewhere = Mode::Dsr;
        },
    );
    let around = surroundings();
    let image = compile(&desired, &around, &InUse::default()).expect("fits");
    let lens = |image: &MapImage| -> Vec<_> {
        let tables = image.services.iter();
        tables.map(|(&index, it)| (index, it.len())).collect()
    };
    assert_eq!(lens(&image), [(0, 6), (65_536, 4)], "0 to 3 are here");
    let again = compile(&desired, &around, &InUse::of(&image)).expect("fits");
    assert_eq!(again, image, "nothing moves");
    let elsewhere = Surroundings::default();
    let image = compile(&desired, &elsewhere, &InUse::of(&image)).expect("fits");
    assert_eq!(lens(&image), [(0, 6)]);
}
