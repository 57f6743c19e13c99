use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(interface: u32, addr: &str) -> Address {
    Address {
        interface,
        addr: ip(addr),
        prefix_len: 24,
        global: true,
        secondary: false,
        usable: true,
    }
}

fn link(index: u32, name: &str) -> (u32, Link) {
    let link = Link {
        index,
        name: name.to_owned(),
        ..Link::default()
    };
    (index, link)
}

#[test]
fn source_of_new_flows_is_the_first_primary_global_usable_one() {
    let snapshot = Snapshot {
        links: BTreeMap::new(),
        addresses: vec![
            Address {
                global: false,
                ..address(2, "169.254.1.1")
            },
            Address {
                usable: false,
                ..address(2, "10.0.0.1")
            },
            Address {
                secondary: true,
                ..address(2, "10.0.0.2")
            },
            address(3, "10.0.0.3"),
            address(2, "10.0.0.4"),
            address(2, "10.0.0.5"),
            address(2, "fd00::4"),
        ],
    };
    assert_eq!(snapshot.first_global(2, false), Some(ip("10.0.0.4")));
    assert_eq!(snapshot.first_global(2, true), Some(ip("fd00::4")));
    assert_eq!(snapshot.first_global(3, true), None);
    assert_eq!(snapshot.first_global(9, false), None);
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let snapshot = Snapshot {
        links: BTreeMap::from([link(1, "lo"), link(2, "eth0"), link(5, "cni0")]),
        addresses: vec![],
    };
    assert_eq!(snapshot.link_named("eth0").unwrap().index, 2);
    assert_eq!(
        snapshot.link_named("eth9").unwrap_err().to_string(),
        "no interface eth9; there are: lo, eth0, cni0"
    );
}

#[test]
fn surroundings_leave_out_what_is_gone() {
    let snapshot = Snapshot {
        links: BTreeMap::from([link(1, "lo"), link(2, "eth0")]),
        addresses: vec![address(1, "127.0.0.1"), address(2, "192.168.56.1")],
    };
    let surroundings = snapshot.surroundings(
        "nuc01",
        &BTreeMap::from([(2, true), (7, false)]),
        BTreeSet::from([ip("10.244.1.5")]),
        &SnatChoice::default(),
    );
    assert_eq!(surroundings.node, "nuc01");
    assert_eq!(
        surroundings.host_addresses,
        BTreeSet::from([ip("127.0.0.1"), ip("192.168.56.1")])
    );
    assert_eq!(
        surroundings.local_endpoints,
        BTreeSet::from([ip("10.244.1.5")])
    );
    assert_eq!(
        surroundings.devices,
        BTreeMap::from([(
            2,
            DeviceFacts {
                name: "eth0".to_owned(),
                mac: [0; 6],
                snat_v4: Some(Snat::shared(ip("192.168.56.1"), 61_001..=65_535)),
                snat_v6: None,
                xdp_redirect: true,
                tunnel: false,
            }
        )])
    );
}

#[test]
fn a_dedicated_source_serves_the_interfaces_of_its_network() {
    let snapshot = Snapshot {
        links: BTreeMap::from([link(2, "eth0"), link(3, "flannel.1")]),
        addresses: vec![address(2, "192.168.56.1"), address(3, "10.244.1.0")],
    };
    let choice = SnatChoice {
        addresses: vec![ip("fd00::50"), ip("192.168.56.50")],
        ports: 50_000..=50_999,
    };
    let attached = BTreeMap::from([(2, true), (3, false)]);
    let devices = snapshot
        .surroundings("nuc01", &attached, BTreeSet::new(), &choice)
        .devices;
    let own = Snat::shared(ip("10.244.1.0"), 50_000..=50_999);
    let dedicated = Snat {
        addr: ip("192.168.56.50"),
        ports: 1_024..=65_535,
    };
    assert_eq!(devices[&2].snat_v4, Some(dedicated));
    assert_eq!(devices[&3].snat_v4, Some(own));
    assert_eq!(devices[&2].snat_v6, None, "not of its network");
}

#[test]
fn on_point_to_point_links_the_own_end_counts() {
    let mut message = AddressMessage::default();
    message.header.index = 4;
    message.header.prefix_len = 32;
    message.attributes = vec![
        AddressAttribute::Address(ip("10.9.9.2")),
        AddressAttribute::Local(ip("10.9.9.1")),
    ];
    let address = Address::from_message(&message).unwrap();
    assert_eq!(address.addr, ip("10.9.9.1"));
    assert!(address.usable && address.global && !address.secondary);

    message.attributes = vec![AddressAttribute::Flags(AddressFlags::Tentative)];
    assert_eq!(Address::from_message(&message), None);
    message
        .attributes
        .push(AddressAttribute::Address(ip("fe80::1")));
    assert!(!Address::from_message(&message).unwrap().usable);
}

#[test]
fn what_an_interface_is_made_of_is_read() {
    let kind = |kind| {
        let mut message = LinkMessage::default();
        let infos = vec![LinkInfo::Kind(kind)];
        message.attributes = vec![LinkAttribute::LinkInfo(infos)];
        Link::from(message).kind
    };
    assert_eq!(kind(InfoKind::Veth), LinkKind::Veth);
    assert_eq!(kind(InfoKind::Bond), LinkKind::Bond);
    assert_eq!(kind(InfoKind::Vxlan), LinkKind::Tunnel);
    assert_eq!(kind(InfoKind::Geneve), LinkKind::Tunnel);
    assert_eq!(kind(InfoKind::Bridge), LinkKind::Other);
    assert_eq!(Link::from(LinkMessage::default()).kind, LinkKind::Other);
}
