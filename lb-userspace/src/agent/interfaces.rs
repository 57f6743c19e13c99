//! Which interfaces `--interface` means.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use glob::Pattern;

use crate::net::{Link, Network, RouteKind, Snapshot};

/// One interface by its name, or all whose names match a pattern, also those that come
/// later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    text: String,
    pattern: Option<Pattern>,
}

impl Interfaces {
    /// The name, where it is one and no pattern.
    pub(super) fn name(&self) -> Option<&str> {
        self.pattern.is_none().then_some(&self.text)
    }

    /// Whether the interface is meant. A pattern means Ethernet interfaces that can stand
    /// alone: neither loopback nor tunnels, nor the ports of a bridge or bond.
    pub(super) fn mean(&self, link: &Link) -> bool {
        match &self.pattern {
            None => self.text == link.name,
            Some(pattern) => {
                let alone = link.mac.is_some() && !link.loopback && link.master.is_none();
                alone && pattern.matches(&link.name)
            }
        }
    }
}

/// Addresses that are nobody's (RFC 5737, RFC 3849): what leads there leads everywhere.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The interface that the default route leaves by, of IPv4 rather than of IPv6.
///
/// # Errors
/// Where there is none: which interface clients come in by nobody but the operator knows then.
pub(super) async fn by_default(
    network: &Network,
    snapshot: &Snapshot,
) -> anyhow::Result<Interfaces> {
    for anywhere in ANYWHERE {
        let route = network.route_to(anywhere).await?;
        let link = route.egress.and_then(|it| snapshot.links.get(&it));
        if let (Some(link), RouteKind::Unicast, Some(_)) = (link, route.kind, route.gateway) {
            tracing::info!("on {}, the interface of the default route", link.name);
            return Ok(Interfaces {
                text: link.name.clone(),
                pattern: None,
            });
        }
    }
    anyhow::bail!(
        "there is no default route; name the interface that clients come in by with --interface"
    )
}

/// The interfaces that are there and that any of these mean, by index.
pub(super) fn present<'a>(
    wanted: &'a [Interfaces],
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Link> {
    let links = snapshot.links.values();
    links.filter(|link| wanted.iter().any(|it| it.mean(link)))
}

impl FromStr for Interfaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = if text.contains(['*', '?', '[']) {
            let pattern = Pattern::new(text);
            Some(pattern.map_err(|error| format!("{error}; write a pattern such as 'eth*'"))?)
        } else {
            None
        };
        Ok(Self {
            text: text.to_owned(),
            pattern,
        })
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;

    fn link(name: &str) -> Link {
        Link {
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ..Link::default()
        }
    }

    fn mean(text: &str, link: &Link) -> bool {
        text.parse::<Interfaces>().unwrap().mean(link)
    }

    #[test]
    fn a_name_means_one_and_a_pattern_all_that_match() {
        assert!(mean("eth0", &link("eth0")));
        assert!(!mean("eth0", &link("eth01")));
        assert!(mean("eth*", &link("eth01")));
        assert!(!mean("eth*", &link("veth1")));
        assert!(mean("en[op]?s0", &link("enp1s0")));
        assert!(!mean("en[op]?s0", &link("enx1s0")));
        assert_eq!("eth*".parse::<Interfaces>().unwrap().name(), None);
        assert_eq!("eth0".parse::<Interfaces>().unwrap().name(), Some("eth0"));
        let refused = "eth[".parse::<Interfaces>().unwrap_err();
        assert!(refused.contains("'eth*'"), "{refused}");
    }

    #[test]
    fn a_pattern_means_what_can_stand_alone_and_a_name_anything() {
        let port = Link {
            master: Some(2),
            ..link("eth1")
        };
        let tunnel = Link {
            mac: None,
            ..link("tun0")
        };
        let lo = Link {
            loopback: true,
            ..link("lo")
        };
        for link in [port, tunnel, lo] {
            assert!(!mean("*", &link), "{}", link.name);
            assert!(mean(&link.name, &link), "{}", link.name);
        }
    }
}
