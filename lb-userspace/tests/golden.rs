//! Directories of Kubernetes YAML → what the maps would hold, or why they are refused.
//!
//! Every directory below `tests/golden` is a case; `tests/golden/snapshots` holds what
//! is expected, checked by `cargo insta review`. The node is nuc01 of the lab.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use lb_common::config::DEFAULT_SNAT_PORTS;
use naru::{
    compile::{compile, image::InUse, render::Dump},
    desired::{DeviceFacts, Snat, Surroundings},
    ipam::{self, Authority, Ledger},
    source::Source,
};

fn nuc01() -> Surroundings {
    let uplink = DeviceFacts {
        name: "eth0".into(),
        mac: [0x02, 0, 0, 0, 0, 0x65],
        snat_v4: Some(own("192.168.56.10")),
        snat_v6: Some(own("fd00:56::10")),
        xdp_redirect: true,
        tunnel: false,
    };
    Surroundings {
        node: "nuc01".into(),
        host_addresses: [
            addr("192.168.56.10"),
            addr("10.244.1.1"),
            addr("fd00:56::10"),
        ]
        .into(),
        node_port_addresses: ["10.244.1.1", "192.168.56.10", "fd00:56::10"]
            .map(addr)
            .into(),
        devices: BTreeMap::from([(2, uplink)]),
        sockets: true,
        ..Surroundings::default()
    }
}

fn own(text: &str) -> Snat {
    Snat::shared(addr(text), DEFAULT_SNAT_PORTS)
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn show(dir: &Path) -> String {
    let mut text = String::new();
    match Source::Manifests(dir.to_owned()).load() {
        Ok(loaded) => {
            for note in &loaded.notes {
                writeln!(text, "note: {note}").expect("strings take all");
            }
            let assigned = ipam::assign(&loaded.desired, &Ledger::default(), Authority::This);
            for (name, why) in &assigned.refused {
                writeln!(text, "without an address: {name}: {why}").expect("strings take all");
            }
            for displaced in &assigned.displaced {
                writeln!(text, "displaced: {displaced}").expect("strings take all");
            }
            match compile(&assigned.desired, &nuc01(), &InUse::default()) {
                Ok(image) => write!(text, "{}", Dump(&image)).expect("strings take all"),
                Err(error) => writeln!(text, "does not fit: {error}").expect("strings take all"),
            }
        }
        Err(rejected) => writeln!(text, "{rejected}").expect("strings take all"),
    }
    text
}

#[test]
fn every_directory_of_manifests_gives_what_is_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(&root)
        .expect("cases")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir() && !path.ends_with("snapshots"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 9, "cases are missing: {cases:?}");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for case in cases {
            let name = case
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            insta::assert_snapshot!(name, show(&case));
        }
    });
}
