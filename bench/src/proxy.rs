//! kube-proxy's rules for one service of type LoadBalancer whose pods are on this node, in its
//! modes `nftables` and `iptables`, as it writes them for `externalTrafficPolicy: Local`: so
//! that the client's address is kept, as it is with Naru. Connections are tracked, and a mark
//! asks for masquerading where that is needed, which is for pods that speak to themselves.

use std::fmt::Write;

use anyhow::Result;
use lb_common::Family;

use crate::{
    net::{BACKENDS, POD_PORT, PODS, PORT, vip},
    tool::feed,
};

/// Puts the rules of mode `nftables` into this namespace.
pub(crate) fn nftables(family: Family) -> Result<()> {
    feed("nft", &["-f", "-"], &nft_rules(family)?)
}

/// Puts the rules of mode `iptables` into this namespace.
pub(crate) fn iptables(family: Family) -> Result<()> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    feed(program, &[], &iptables_rules(family)?)
}

fn nft_rules(family: Family) -> Result<String> {
    let (ip, addr) = match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let vip = vip(family);
    let own = PODS.host(family, 0);
    let bits = if family == Family::V4 { 16 } else { 32 };
    let mut endpoints = String::new();
    let mut elements = Vec::new();
    for n in 0..BACKENDS {
        let pod = PODS.host(family, 2 + n);
        let to = match family {
            Family::V4 => format!("{pod}:{POD_PORT}"),
            Family::V6 => format!("[{pod}]:{POD_PORT}"),
        };
        writeln!(
            endpoints,
            "chain endpoint-{n} {{
               {ip} saddr {pod} jump mark-for-masquerade
               meta l4proto tcp dnat to {to}
             }}"
        )?;
        elements.push(format!("{n} : goto endpoint-{n}"));
    }
    let elements = elements.join(", ");
    Ok(format!(
        "table {ip} kube-proxy {{
           set cluster-ips {{ type {addr}; }}
           set nodeport-ips {{ type {addr}; }}
           map firewall-ips {{ type {addr} . inet_proto . inet_service : verdict; }}
           map no-endpoint-services {{ type {addr} . inet_proto . inet_service : verdict; }}
           map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
           map service-ips {{
             type {addr} . inet_proto . inet_service : verdict;
             elements = {{ {vip} . tcp . {PORT} : goto external-web }}
           }}
           map service-nodeports {{ type inet_proto . inet_service : verdict; }}
           chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
           chain masquerading {{
             meta mark & 0x4000 == 0 return
             meta mark set meta mark ^ 0x4000
             masquerade fully-random
           }}
           {endpoints}
           chain service-local-web {{ numgen random mod {BACKENDS} vmap {{ {elements} }}; }}
           chain service-web {{ numgen random mod {BACKENDS} vmap {{ {elements} }}; }}
           chain external-web {{
             {ip} saddr {own}/{bits} goto service-web
             fib saddr type local jump mark-for-masquerade
             fib saddr type local goto service-web
             goto service-local-web
           }}
           chain services {{
             {ip} daddr . meta l4proto . th dport vmap @service-ips
             {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
           }}
           chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}
           chain service-endpoints-check {{
             {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services
           }}
           chain nodeport-endpoints-check {{
             {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
           }}
           chain cluster-ips-check {{ {ip} daddr @cluster-ips drop; }}
           chain filter-prerouting {{
             type filter hook prerouting priority -110
             ct state new jump firewall-check
           }}
           chain filter-input {{
             type filter hook input priority -110
             ct state new jump nodeport-endpoints-check
             ct state new jump service-endpoints-check
           }}
           chain filter-forward {{
             type filter hook forward priority -110
             ct state new jump service-endpoints-check
             ct state new jump cluster-ips-check
           }}
           chain filter-output {{
             type filter hook output priority -110
             ct state new jump service-endpoints-check
             ct state new jump firewall-check
           }}
           chain filter-output-post-dnat {{
             type filter hook output priority -90
             ct state new jump cluster-ips-check
           }}
           chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
           chain nat-output {{ type nat hook output priority -100; jump services; }}
           chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
         }}"
    ))
}

fn iptables_rules(family: Family) -> Result<String> {
    let vip = vip(family);
    let own = PODS.host(family, 0);
    let bits = if family == Family::V4 { 16 } else { 32 };
    let mut chains = String::new();
    let mut rules = String::new();
    for n in 0..BACKENDS {
        let pod = PODS.host(family, 2 + n);
        let to = match family {
            Family::V4 => format!("{pod}:{POD_PORT}"),
            Family::V6 => format!("[{pod}]:{POD_PORT}"),
        };
        let comment = format!("-m comment --comment \"bench/web -> {to}\"");
        writeln!(chains, ":KUBE-SEP-{n:016} - [0:0]")?;
        // The last one takes what is left.
        let chance = match BACKENDS - n {
            1 => String::new(),
            left => format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / f64::from(left)
            ),
        };
        for chain in ["KUBE-SVC-WEB", "KUBE-SVL-WEB"] {
            writeln!(rules, "-A {chain} {comment} {chance}-j KUBE-SEP-{n:016}")?;
        }
        writeln!(
            rules,
            "-A KUBE-SEP-{n:016} {comment} -s {pod} -j KUBE-MARK-MASQ"
        )?;
        writeln!(
            rules,
            "-A KUBE-SEP-{n:016} {comment} -m tcp -p tcp -j DNAT --to-destination {to}"
        )?;
    }
    Ok(format!(
        "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-EXT-WEB - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SVL-WEB - [0:0]
{chains}-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SERVICES -m comment --comment \"bench/web loadbalancer IP\" -m tcp -p tcp -d {vip} --dport {PORT} -j KUBE-EXT-WEB
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-EXT-WEB -m comment --comment \"pod traffic for bench/web external destinations\" -s {own}/{bits} -j KUBE-SVC-WEB
-A KUBE-EXT-WEB -m comment --comment \"masquerade LOCAL traffic for bench/web external destinations\" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-WEB -m comment --comment \"route LOCAL traffic for bench/web external destinations\" -m addrtype --src-type LOCAL -j KUBE-SVC-WEB
-A KUBE-EXT-WEB -j KUBE-SVL-WEB
{rules}COMMIT
"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_backend_has_its_chain() {
        for family in [Family::V4, Family::V6] {
            let rules = nft_rules(family).unwrap();
            assert_eq!(rules.matches("dnat to").count(), BACKENDS as usize);
            let rules = iptables_rules(family).unwrap();
            assert_eq!(rules.matches("-j DNAT").count(), BACKENDS as usize);
            // All but the last, by two chains.
            let chances = rules.matches("--probability").count();
            assert_eq!(chances, 2 * (BACKENDS as usize - 1));
        }
    }
}
