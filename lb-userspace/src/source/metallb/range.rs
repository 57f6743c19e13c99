//! Ranges of addresses, as people write them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    desired::{AddressRange, Family},
    source::rules::{self, Objection},
};

/// What no client on a LAN speaks to.
const UNUSABLE: [(&str, &str); 9] = [
    ("0.0.0.0/32", "the unspecified address"),
    ("127.0.0.0/8", "loopback addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/128", "the unspecified address"),
    ("::1/128", "the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses in the form of IPv6 ones"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
];

/// Reads a network or `first-last`; gives the network as well where the text named one of
/// its hosts.
pub(super) fn parse(text: &str) -> Result<(AddressRange, Option<IpNet>), Objection> {
    let text = text.trim();
    let (range, truncated) = match text.split_once('-') {
        Some((first, last)) => (between(text, first.trim(), last.trim())?, None),
        None => network(text)?,
    };
    for (unusable, what) in UNUSABLE {
        let Ok(unusable) = unusable.parse::<IpNet>() else {
            continue;
        };
        let unusable = AddressRange {
            first: unusable.network(),
            last: unusable.broadcast(),
        };
        if overlap(&range, &unusable) {
            return Err(Objection::new(
                format!("`{text}` holds {what}, which cannot be virtual IPs"),
                "use unicast addresses of the network that the clients reach",
            ));
        }
    }
    Ok((range, truncated))
}

fn between(text: &str, first: &str, last: &str) -> Result<AddressRange, Objection> {
    let address = |part: &str| {
        part.parse::<IpAddr>().map_err(|_| {
            Objection::new(
                format!("`{text}`: `{part}` is not an IP address"),
                "write a range as 192.168.56.11-192.168.56.13, or a network as 192.168.56.0/28",
            )
        })
    };
    let (first, last) = (address(first)?, address(last)?);
    if Family::of(first) != Family::of(last) {
        return Err(Objection::new(
            format!("`{text}` begins with one family and ends with the other"),
            "write one range for each",
        ));
    }
    if first > last {
        return Err(Objection::new(
            format!("`{text}` ends before it begins"),
            format!("write {last}-{first}"),
        ));
    }
    Ok(AddressRange { first, last })
}

fn network(text: &str) -> Result<(AddressRange, Option<IpNet>), Objection> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let what = format!("`{text}` is an address, not a network or a range");
        return Err(Objection::new(what, format!("write {}", IpNet::from(ip))));
    }
    let written: IpNet = text.parse().map_err(|_| {
        Objection::new(
            format!("`{text}` is neither a network nor a range of addresses"),
            "write 192.168.56.0/28 or 192.168.56.11-192.168.56.13",
        )
    })?;
    let network = rules::network(text)?;
    let range = AddressRange {
        first: network.network(),
        last: network.broadcast(),
    };
    Ok((range, (written != network).then_some(network)))
}

/// Whether any address is of both.
pub(super) fn overlap(one: &AddressRange, other: &AddressRange) -> bool {
    Family::of(one.first) == Family::of(other.first)
        && one.first <= other.last
        && other.first <= one.last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_ranges_are_read_and_what_is_wrong_with_one_is_said() {
        let says = |text: &str| match parse(text) {
            Ok((range, None)) => range.to_string(),
            Ok((range, Some(network))) => format!("{range} of {network}"),
            Err(objection) => objection.to_string(),
        };
        let elsewhere = "which cannot be virtual IPs; \
                         use unicast addresses of the network that the clients reach";
        let cases = [
            ("192.168.56.16/30", "192.168.56.16-192.168.56.19"),
            (
                "192.168.56.18/30",
                "192.168.56.16-192.168.56.19 of 192.168.56.16/30",
            ),
            (
                " 192.168.56.11 - 192.168.56.13 ",
                "192.168.56.11-192.168.56.13",
            ),
            ("fd00:56::/127", "fd00:56::-fd00:56::1"),
            (
                "192.168.56.11",
                "`192.168.56.11` is an address, not a network or a range; write 192.168.56.11/32",
            ),
            (
                "192.168.56.0/33",
                "`192.168.56.0/33` is neither a network nor a range of addresses; \
                 write 192.168.56.0/28 or 192.168.56.11-192.168.56.13",
            ),
            (
                "192.168.56.13-192.168.56.11",
                "`192.168.56.13-192.168.56.11` ends before it begins; \
                 write 192.168.56.11-192.168.56.13",
            ),
            (
                "192.168.56.11-fd00::1",
                "`192.168.56.11-fd00::1` begins with one family and ends with the other; \
                 write one range for each",
            ),
            (
                "192.168.56.11-13",
                "`192.168.56.11-13`: `13` is not an IP address; \
                 write a range as 192.168.56.11-192.168.56.13, or a network as 192.168.56.0/28",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(says(text), expected);
        }
        for (text, what) in [
            ("0.0.0.0/0", "the unspecified address"),
            ("126.0.0.0-128.0.0.0", "loopback addresses"),
            ("fe80::/64", "link-local addresses"),
            ("::/0", "the unspecified address"),
        ] {
            assert_eq!(says(text), format!("`{text}` holds {what}, {elsewhere}"));
        }
    }
}
