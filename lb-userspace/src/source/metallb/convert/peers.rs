//! `peers` → BGPPeers.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::SecretReference,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use serde_saphyr::Spanned;

use super::{name, resource};
use crate::source::{
    Findings,
    kubernetes::Sourced,
    metallb::{
        bgp::{BgpPeer, BgpPeerSpec},
        legacy::{NodeSelector, Peer, Written},
    },
    rules::Objection,
};

/// How long a peer may be silent unless said.
const HOLD: Duration = Duration::from_secs(90);
/// The shortest that BGP knows, but for never (RFC 4271 section 4.2).
const SHORTEST_HOLD: Duration = Duration::from_secs(3);

pub(super) fn convert(
    written: &Written,
    peers: Vec<Spanned<Peer>>,
    namespace: &str,
    profiles: &BTreeSet<String>,
    findings: &mut Findings,
) -> Vec<Sourced<BgpPeer>> {
    let mut converted = Vec::new();
    for (i, peer) in (1..).zip(peers) {
        let origin = written.origin(Some(peer.referenced.line()));
        let peer = peer.value;
        let of_peer = format!("peer{i}");
        let bfd_profile = peer
            .bfd_profile
            .as_ref()
            .and_then(|it| name(it, &origin, &written.object, findings));
        let mut problem = |objection: Objection| {
            let what = format!("{of_peer}: {}", objection.what);
            findings.problem(&origin, &written.object, what, objection.remedy);
        };
        if let Some(profile) = bfd_profile.as_ref().filter(|it| !profiles.contains(*it)) {
            problem(Objection::new(
                format!("bfd-profile {profile} does not exist"),
                "name one of bfd-profiles",
            ));
        }
        let addresses = [
            ("peer-address", Some(&peer.peer_address)),
            ("source-address", peer.source_address.as_ref()),
            ("router-id", peer.router_id.as_ref()),
        ];
        for (field, address) in addresses {
            if let Some(text) = address.filter(|it| it.parse::<IpAddr>().is_err()) {
                let what = format!("{field} `{text}` is not an IP address");
                problem(Objection::new(what, "write it as 192.168.56.1"));
            }
        }
        let mut time = |field: &str, text: Option<&String>| {
            let time = seconds(text?).map_err(|it| {
                let what = format!("{field}: {}", it.what);
                problem(Objection::new(what, it.remedy));
            });
            time.ok()
        };
        let hold = time("hold-time", peer.hold_time.as_ref()).unwrap_or(HOLD);
        let keepalive = time("keepalive-time", peer.keepalive_time.as_ref());
        if !hold.is_zero() && hold < SHORTEST_HOLD {
            problem(Objection::new(
                format!("hold-time {} is too short", spelt(hold)),
                "write 0s for never, or at least 3s",
            ));
        }
        let spec = BgpPeerSpec {
            my_asn: peer.my_asn,
            peer_asn: Some(peer.peer_asn),
            peer_address: Some(peer.peer_address),
            source_address: peer.source_address,
            peer_port: peer.peer_port.filter(|it| *it != 0),
            hold_time: Some(spelt(hold)),
            keepalive_time: keepalive.map(spelt),
            router_id: peer.router_id,
            node_selectors: Some(peer.node_selectors.into_iter().map(selector).collect())
                .filter(|it: &Vec<_>| !it.is_empty()),
            password: peer.password,
            password_secret: Some(SecretReference::default()),
            bfd_profile,
            ebgp_multi_hop: Some(true).filter(|_| peer.ebgp_multihop),
            ..BgpPeerSpec::default()
        };
        let object = resource("v1beta2", "BGPPeer", (&of_peer, namespace), spec);
        converted.push(Sourced { origin, object });
    }
    converted
}

fn selector(written: NodeSelector) -> LabelSelector {
    let expressions = written.match_expressions.into_iter();
    let expressions: Vec<_> = expressions
        .map(|it| LabelSelectorRequirement {
            key: it.key,
            operator: it.operator,
            values: Some(it.values).filter(|it| !it.is_empty()),
        })
        .collect();
    LabelSelector {
        match_labels: Some(written.match_labels).filter(|it| !it.is_empty()),
        match_expressions: Some(expressions).filter(|it| !it.is_empty()),
    }
}

/// Reads a span of time as Go writes it, `1m30s` or `1.5h`; parts of a second are dropped,
/// as BGP knows none.
fn seconds(text: &str) -> Result<Duration, Objection> {
    let bad = || {
        let what = format!("`{text}` is not a span of time");
        Objection::new(what, "write it as 90s or 1m30s")
    };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number = rest
            .find(|it: char| !it.is_ascii_digit() && it != '.')
            .ok_or_else(bad)?;
        let (number, unit) = rest.split_at(number);
        let end = unit
            .find(|it: char| it.is_ascii_digit() || it == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let scale = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = after;
    }
    // Rounded to the microsecond first: 0.3 and 2.7 are to be 3.
    let micros = (total * 1e6).round() / 1e6;
    Duration::try_from_secs_f64(micros.floor()).map_err(|_| bad())
}

/// A span of whole seconds as Go writes it: `1m30s`.
fn spelt(span: Duration) -> String {
    let all = span.as_secs();
    let (hours, minutes, seconds) = (all / 3_600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_as_go_does() {
        let says = |text: &str| seconds(text).map_or_else(|error| error.to_string(), spelt);
        for (text, expected) in [
            ("90s", "1m30s"),
            ("120s", "2m0s"),
            ("1m30s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("2h", "2h0m0s"),
            ("3500ms", "3s"),
            ("0", "0s"),
            ("90", "`90` is not a span of time; write it as 90s or 1m30s"),
            ("s", "`s` is not a span of time; write it as 90s or 1m30s"),
            (
                "-3s",
                "`-3s` is not a span of time; write it as 90s or 1m30s",
            ),
            ("", "`` is not a span of time; write it as 90s or 1m30s"),
        ] {
            assert_eq!(says(text), expected, "{text}");
        }
    }
}
