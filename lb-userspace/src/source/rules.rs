//! What every source asks of addresses, ports and choices, in one wording.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::{Algorithm, Mode, Protocol, maglev};

use crate::desired::Frontend;

/// The most that one endpoint may weigh.
pub(crate) const MAX_WEIGHT: u32 = 1_000;
/// The longest affinity in seconds, as Kubernetes has it: a day.
const MAX_AFFINITY: u64 = 86_400;

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Objection {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

impl std::fmt::Display for Objection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Reads an address that clients shall speak to.
pub(crate) fn vip(text: &str) -> Result<IpAddr, Objection> {
    let ip = address(text)?;
    let reason = match ip {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        _ => return Ok(ip),
    };
    Err(Objection::new(
        format!("{ip} is {reason} and cannot be a virtual IP"),
        "use a unicast address of the network that the clients reach",
    ))
}

/// Reads an endpoint's address; refuses what Kubernetes refuses
/// (`ValidateEndpointIP`: unspecified, loopback, link-local, multicast).
pub(crate) fn endpoint(text: &str) -> Result<IpAddr, Objection> {
    let ip = address(text)?;
    let reason = match ip {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_link_local() => "a link-local address",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        _ => return Ok(ip),
    };
    Err(Objection::new(
        format!("endpoint {ip} is {reason}"),
        "give the address under which this node reaches the endpoint",
    ))
}

fn address(text: &str) -> Result<IpAddr, Objection> {
    let ip = text.trim().parse().map_err(|_| {
        Objection::new(
            format!("`{text}` is not an IP address"),
            "write it as 192.168.56.11",
        )
    })?;
    // Packets to such an address are IPv4 packets.
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let what = format!("{v6} is an IPv4 address in the form of an IPv6 one");
        return Err(Objection::new(what, format!("write it as {v4}")));
    }
    Ok(ip)
}

/// Reads a network that clients may come from.
pub(crate) fn network(text: &str) -> Result<IpNet, Objection> {
    let text = text.trim();
    let example = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip).to_string(),
        Err(_) => "10.0.0.0/8".to_owned(),
    };
    let network: IpNet = text.parse().map_err(|_| {
        let what = format!("`{text}` is not a network");
        Objection::new(what, format!("write it as {example}"))
    })?;
    Ok(network.trunc())
}

/// Puts networks in the one order in which they are compared.
pub(crate) fn networks(mut networks: Vec<IpNet>) -> Vec<IpNet> {
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// Checks for how many seconds a client may come back to its backend.
pub(crate) fn affinity(seconds: i64) -> Result<Duration, Objection> {
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=MAX_AFFINITY) => Ok(Duration::from_secs(seconds)),
        _ => Err(Objection::new(
            format!("an affinity of {seconds} seconds cannot be"),
            format!("use a number from 1 to {MAX_AFFINITY}"),
        )),
    }
}

/// Checks a port as Kubernetes holds it.
pub(crate) fn port(number: i32) -> Result<u16, Objection> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Objection::new(
            format!("port {number} does not exist"),
            "use a port from 1 to 65535",
        )),
    }
}

/// Reads a protocol as Kubernetes writes it; absent means TCP.
pub(crate) fn protocol(text: Option<&str>) -> Result<Protocol, Objection> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(Objection::new(
            format!("`{other}` is not a protocol"),
            "write TCP, UDP or SCTP",
        )),
    }
}

/// Reads `IP:PORT`.
fn ip_and_port(text: &str, example: &str) -> Result<(String, u16), Objection> {
    let how = || format!("write it as {example}");
    let (ip, port) = match text.rsplit_once(':') {
        // A bare IPv6 address has colons, but no port.
        Some((ip, port)) if !ip.contains(':') || ip.ends_with(']') => (ip, port),
        _ => {
            let ip = text.trim();
            let port = example
                .rsplit(':')
                .next()
                .and_then(|port| port.parse().ok());
            return Err(match ip.parse::<IpAddr>() {
                Ok(ip) => Objection::new(
                    format!("{ip}: a port is missing"),
                    format!("write {}", SocketAddr::new(ip, port.unwrap_or(80))),
                ),
                Err(_) => Objection::new(format!("`{text}` is not IP:PORT"), how()),
            });
        }
    };
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(|| {
            Objection::new(
                format!("`{text}`: `{port}` is not a port"),
                "use a port from 1 to 65535",
            )
        })?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if ip.is_empty() {
        return Err(Objection::new(
            format!("`{text}`: an address is missing"),
            how(),
        ));
    }
    Ok((ip.to_owned(), port))
}

/// Reads `IP:PORT`, or that with `/tcp`, `/udp` or `/sctp`.
pub(crate) fn frontend(text: &str) -> Result<Frontend, Objection> {
    let (addr, protocol) = match text.split_once('/') {
        None | Some((_, "tcp" | "TCP")) => (text, Protocol::Tcp),
        Some((_, "udp" | "UDP")) => (text, Protocol::Udp),
        Some((_, "sctp" | "SCTP")) => (text, Protocol::Sctp),
        Some((_, other)) => {
            return Err(Objection::new(
                format!("`{text}`: `{other}` is not a protocol that naru balances"),
                "end it with /tcp, /udp or /sctp",
            ));
        }
    };
    let addr = addr.split('/').next().unwrap_or_default();
    let (ip, port) = ip_and_port(addr, "192.168.56.11:80")?;
    Ok(Frontend {
        addr: SocketAddr::new(vip(&ip)?, port),
        protocol,
    })
}

/// Reads `IP:PORT` of a backend.
pub(crate) fn backend(text: &str) -> Result<SocketAddr, Objection> {
    let (ip, port) = ip_and_port(text, "10.0.0.11:8080")?;
    Ok(SocketAddr::new(endpoint(&ip)?, port))
}

/// Reads the name of an algorithm.
pub(crate) fn algorithm(text: &str) -> Result<Algorithm, Objection> {
    [Algorithm::RoundRobin, Algorithm::Maglev]
        .into_iter()
        .find(|algorithm| algorithm.name() == text.trim())
        .ok_or_else(|| {
            Objection::new(
                format!("`{text}` is not an algorithm"),
                "write round-robin or maglev",
            )
        })
}

/// Reads how packets reach the backends of other nodes.
pub(crate) fn mode(text: &str) -> Result<Mode, Objection> {
    [Mode::Nat, Mode::Dsr]
        .into_iter()
        .find(|mode| mode.name() == text.trim())
        .ok_or_else(|| {
            Objection::new(
                format!("`{text}` is not a way to other nodes"),
                "write nat, or dsr where they run naru too and are on one LAN",
            )
        })
}

/// Checks the size of a Maglev table.
pub(crate) fn maglev_slots(slots: u32) -> Result<u32, Objection> {
    if maglev::LADDER.contains(&slots) {
        return Ok(slots);
    }
    let sizes: Vec<_> = maglev::LADDER.iter().map(u32::to_string).collect();
    Err(Objection::new(
        format!("{slots} is not a size of a Maglev table"),
        format!("use one of {}", sizes.join(", ")),
    ))
}

/// Checks a weight.
pub(crate) fn weight(text: &str) -> Result<u32, Objection> {
    match text.trim().parse() {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(Objection::new(
            format!("`{}` is not a weight", text.trim()),
            format!("use a number from 0 (takes no new flows) to {MAX_WEIGHT}"),
        )),
    }
}

/// Refuses an endpoint that cannot stand behind a frontend: one that would send a
/// service's packets back to itself, and one on another port over SCTP.
pub(crate) fn behind(endpoint: SocketAddr, frontend: &Frontend) -> Result<(), Objection> {
    if endpoint == frontend.addr {
        return Err(Objection::new(
            format!(
                "endpoint {endpoint} is the service's own frontend, packets would go in a circle"
            ),
            "give the endpoint another address or port",
        ));
    }
    on_port(endpoint, frontend.addr.port(), frontend.protocol)
}

/// Refuses an endpoint that a port over SCTP cannot lead to.
pub(crate) fn on_port(
    endpoint: SocketAddr,
    from: u16,
    protocol: Protocol,
) -> Result<(), Objection> {
    let to = endpoint.port();
    if same_port(protocol, from, to) {
        return Ok(());
    }
    Err(Objection::new(
        format!(
            "endpoint {endpoint} is not on port {from}: over SCTP a port cannot be changed on the \
             way, because the checksum of the whole packet covers it"
        ),
        format!("let it listen on port {from}, or make the service's port {to}"),
    ))
}

/// Whether packets of a protocol can be sent on from one port to another: a checksum
/// of SCTP (RFC 9260, a CRC over all of it) cannot be corrected in passing.
pub(crate) fn same_port(protocol: Protocol, from: u16, to: u16) -> bool {
    protocol != Protocol::Sctp || from == to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let says = |text: &str| frontend(text).map_or_else(|e| e.to_string(), |f| f.to_string());
        let cases = [
            ("192.168.56.11:80", "192.168.56.11:80/tcp"),
            ("192.168.56.11:53/udp", "192.168.56.11:53/udp"),
            (
                "192.168.56.11",
                "192.168.56.11: a port is missing; write 192.168.56.11:80",
            ),
            (
                "192.168.56.11:http",
                "`192.168.56.11:http`: `http` is not a port; use a port from 1 to 65535",
            ),
            (
                "192.168.56.11:0",
                "`192.168.56.11:0`: `0` is not a port; use a port from 1 to 65535",
            ),
            (
                "example.org:80",
                "`example.org` is not an IP address; write it as 192.168.56.11",
            ),
            (
                ":80",
                "`:80`: an address is missing; write it as 192.168.56.11:80",
            ),
            ("[2001:db8::1]:80", "[2001:db8::1]:80/tcp"),
            (
                "2001:db8::1",
                "2001:db8::1: a port is missing; write [2001:db8::1]:80",
            ),
            (
                "[::ffff:192.168.56.11]:80",
                "::ffff:192.168.56.11 is an IPv4 address in the form of an IPv6 one; \
                 write it as 192.168.56.11",
            ),
            (
                "[fe80::1]:80",
                "fe80::1 is a link-local address and cannot be a virtual IP; \
                 use a unicast address of the network that the clients reach",
            ),
            (
                "192.168.56.11:80/icmp",
                "`192.168.56.11:80/icmp`: `icmp` is not a protocol that naru balances; \
                 end it with /tcp, /udp or /sctp",
            ),
            ("192.168.56.11:80/sctp", "192.168.56.11:80/sctp"),
            (
                "224.0.0.1:80",
                "224.0.0.1 is a multicast address and cannot be a virtual IP; \
                 use a unicast address of the network that the clients reach",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(says(text), expected);
        }
    }

    #[test]
    fn endpoints_that_kubernetes_refuses_are_refused() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "169.254.0.1",
            "::1",
            "fe80::1",
            "::ffff:10.244.1.2",
            "x",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert!(endpoint("10.244.1.2").is_ok());
        assert!(endpoint("fd00::2").is_ok());
    }

    #[test]
    fn networks_are_read_in_one_form() {
        let says = |text| network(text).map_or_else(|e| e.to_string(), |net| net.to_string());
        assert_eq!(says(" 10.1.2.3/8 "), "10.0.0.0/8");
        assert_eq!(says("2001:db8::1/32"), "2001:db8::/32");
        assert_eq!(
            says("10.0.0.1"),
            "`10.0.0.1` is not a network; write it as 10.0.0.1/32"
        );
        assert_eq!(
            says("10.0.0.0/33"),
            "`10.0.0.0/33` is not a network; write it as 10.0.0.0/8"
        );
    }
}
