//! The ways between client and node, each a network of its own with an address to serve,
//! and the servers behind that.

use std::{fmt::Write, net::Ipv4Addr};

/// An address to serve, and who serves there.
pub(crate) struct Site {
    pub(crate) vip: Ipv4Addr,
    /// Every server: its name and where it serves. The last one is not on the node.
    pub(crate) servers: [(&'static str, &'static str); 3],
}

/// The servers on the node, in pods of their own.
pub(crate) const PODS: [(&str, &str); 2] = [("a", "10.245.1.2:3000"), ("b", "10.245.1.3:3000")];

/// By a network card.
pub(crate) const CARD: Site = site(
    Ipv4Addr::new(192, 168, 57, 11),
    ("far", "192.168.57.102:3000"),
);
/// By a VLAN on another card.
pub(crate) const VLAN: Site = site(
    Ipv4Addr::new(192, 168, 58, 11),
    ("far-vlan", "192.168.58.102:3000"),
);
/// By a bond of two cables.
pub(crate) const BOND: Site = site(
    Ipv4Addr::new(192, 168, 59, 11),
    ("far-bond", "192.168.59.102:3000"),
);
/// By the card, and on through VXLAN.
pub(crate) const TUNNEL: Site = site(
    Ipv4Addr::new(192, 168, 57, 12),
    ("far-tunnel", "10.245.2.2:3000"),
);
pub(crate) const ALL: [&Site; 4] = [&CARD, &VLAN, &BOND, &TUNNEL];

/// The port of services over SCTP at the addresses of [`CARD`] and [`BOND`], and of their
/// servers.
pub(crate) const SCTP_PORT: u16 = 90;
/// The servers of them.
pub(crate) const SCTP_SERVERS: [(&str, Ipv4Addr); 2] = [
    ("a", Ipv4Addr::new(10, 245, 1, 2)),
    ("far", Ipv4Addr::new(192, 168, 57, 102)),
];

const fn site(vip: Ipv4Addr, far: (&'static str, &'static str)) -> Site {
    Site {
        vip,
        servers: [PODS[0], PODS[1], far],
    }
}

/// A configuration file with all of this.
pub(crate) fn configuration() -> String {
    let mut text = "services:\n".to_owned();
    for site in ALL {
        let backends = site.servers.map(|(_, address)| address).join(", ");
        for protocol in ["", "/udp"] {
            let vip = site.vip;
            let _ = writeln!(
                text,
                "  - {{frontend: \"{vip}:80{protocol}\", backends: [{backends}]}}"
            );
        }
    }
    let backends = SCTP_SERVERS.map(|(_, address)| format!("{address}:{SCTP_PORT}"));
    let backends = backends.join(", ");
    for Site { vip, .. } in [CARD, BOND] {
        let _ = writeln!(
            text,
            "  - {{frontend: \"{vip}:{SCTP_PORT}/sctp\", backends: [{backends}]}}"
        );
    }
    text
}
