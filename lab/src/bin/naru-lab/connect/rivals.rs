//! The other balancers, configured as people run them.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

/// A service of another balancer: where clients ask, and the pods behind it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) port: u16,
    pub(super) pods: Vec<SocketAddr>,
    /// Whether the pods answer to the balancer, as they must where they are elsewhere.
    pub(super) masquerade: bool,
}

/// The rules that kube-proxy's mode `nftables` makes of services: a verdict map by address,
/// protocol and port, a chain a service that draws a pod, a chain a pod that rewrites.
pub(super) fn nftables(vip: Ipv4Addr, services: &[Service]) -> String {
    let mut chains = String::new();
    let mut elements = Vec::new();
    for Service {
        port,
        pods,
        masquerade,
    } in services
    {
        let mut draws = Vec::new();
        for (index, pod) in pods.iter().enumerate() {
            let endpoint = format!("endpoint-{port}-{index}");
            let hairpin = format!("ip saddr {} jump mark-for-masquerade", pod.ip());
            let _ = write!(
                chains,
                "chain {endpoint} {{\n{hairpin}\nmeta l4proto tcp dnat to {pod}\n}}\n"
            );
            draws.push(format!("{index} : goto {endpoint}"));
        }
        let mark = match masquerade {
            true => "jump mark-for-masquerade\n",
            // externalTrafficPolicy: Local.
            false => "",
        };
        let (count, draws) = (pods.len(), draws.join(", "));
        let _ = write!(
            chains,
            "chain service-{port} {{\n{mark}numgen random mod {count} vmap {{ {draws} }}\n}}\n"
        );
        elements.push(format!("{vip} . tcp . {port} : goto service-{port}"));
    }
    let elements = elements.join(", ");
    format!(
        "table ip kube-proxy {{
chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
{chains}
map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {elements} }}
}}
map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
chain filter-prerouting {{
    type filter hook prerouting priority dstnat - 10;
    ct state new jump firewall-check
}}
chain filter-forward {{
    type filter hook forward priority filter - 110;
    ct state new jump service-endpoints-check
}}
chain nat-prerouting {{
    type nat hook prerouting priority dstnat;
    jump services
}}
chain masquerading {{
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
}}
chain nat-postrouting {{
    type nat hook postrouting priority srcnat;
    jump masquerading
}}
}}
"
    )
}

/// HAProxy at layer 4: bytes are passed on, connections are its own on both sides.
pub(super) fn haproxy(vip: Ipv4Addr, services: &[Service]) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "global
    maxconn 4000
    nbthread {threads}
defaults
    mode tcp
    balance roundrobin
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"
    );
    for Service { port, pods, .. } in services {
        let _ = write!(text, "listen service-{port}\n    bind {vip}:{port}\n");
        for (index, pod) in pods.iter().enumerate() {
            let _ = writeln!(text, "    server pod{index} {pod}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(masquerade: bool) -> [Service; 1] {
        let pods = ["10.244.1.2:80", "10.244.1.3:80"].map(|it| it.parse().unwrap());
        [Service {
            port: 80,
            pods: pods.to_vec(),
            masquerade,
        }]
    }

    #[test]
    fn a_service_draws_among_its_pods() {
        let vip = Ipv4Addr::new(192, 168, 56, 11);
        let rules = nftables(vip, &service(false));
        let draw = "numgen random mod 2 vmap { 0 : goto endpoint-80-0, 1 : goto endpoint-80-1 }";
        assert!(rules.contains(draw), "{rules}");
        assert!(!rules.contains("{\njump mark-for-masquerade"), "{rules}");
        let rules = nftables(vip, &service(true));
        assert!(
            rules.contains("chain service-80 {\njump mark-for-masquerade"),
            "{rules}"
        );
    }

    #[test]
    fn haproxy_knows_every_pod() {
        let text = haproxy(Ipv4Addr::new(192, 168, 56, 11), &service(true));
        assert!(text.contains("    bind 192.168.56.11:80\n"), "{text}");
        assert!(text.contains("    server pod1 10.244.1.3:80\n"), "{text}");
    }
}
