//! Any text as a manifest, through to what the maps would hold.
#![no_main]

use std::collections::BTreeMap;

use lb_common::config::DEFAULT_SNAT_PORTS;
use libfuzzer_sys::fuzz_target;
use naru::{
    compile::{
        compile,
        image::{InUse, MapImage},
        render::Dump,
    },
    desired::{Desired, DeviceFacts, Snat, Surroundings},
    ipam::{self, Authority, Ledger},
    source::manifest,
};

fuzz_target!(|text: &str| {
    match manifest::parse("fuzz.yaml", text) {
        Ok(loaded) => compiled(&assigned(&loaded.desired)),
        Err(rejected) => assert!(!rejected.problems.is_empty()),
    }
});

/// Addresses are given once: a second run with what the first one knows changes nothing.
fn assigned(desired: &Desired) -> Desired {
    let first = ipam::assign(desired, &Ledger::default(), Authority::This);
    let second = ipam::assign(desired, &first.ledger, Authority::This);
    assert_eq!(first.addresses, second.addresses);
    assert_eq!(first.ledger, second.ledger);
    first.desired
}

/// Compiling is pure, and nothing that is in use changes its number.
fn compiled(desired: &Desired) {
    let node = node();
    let image = compile(desired, &node, &InUse::default());
    assert_eq!(image, compile(desired, &node, &InUse::default()));
    let Ok(image) = image else { return };
    assert_eq!(
        compile(desired, &node, &InUse::of(&image)),
        Ok(image.clone())
    );
    complete(&image);
    // Written and thrown away.
    let _ = Dump(&image).to_string();
}

/// Whatever a table names is there.
fn complete(image: &MapImage) {
    for (first, slots) in &image.tables {
        assert!(
            image
                .services
                .values()
                .any(|table| table.offset() == *first)
        );
        for slot in slots.iter() {
            let id = slot.current();
            let backend = image.backends.get(&id.index());
            assert!(backend.is_some_and(|backend| backend.serves(id)), "{id:?}");
        }
    }
    for entry in image.frontends.values() {
        assert!(image.services.contains_key(&entry.service()));
    }
}

fn node() -> Surroundings {
    let own = |addr| Snat::shared(addr, DEFAULT_SNAT_PORTS);
    let uplink = DeviceFacts {
        name: "eth0".into(),
        mac: [0x02, 0, 0, 0, 0, 0x65],
        snat_v4: Some(own([192, 168, 56, 10].into())),
        snat_v6: Some(own([0xfd00, 0x56, 0, 0, 0, 0, 0, 0x10].into())),
        xdp_redirect: true,
        tunnel: false,
    };
    Surroundings {
        node: "nuc01".into(),
        host_addresses: [[192, 168, 56, 10].into(), [10, 244, 1, 1].into()].into(),
        node_port_addresses: [[192, 168, 56, 10].into()].into(),
        devices: BTreeMap::from([(2, uplink)]),
        ..Surroundings::default()
    }
}
