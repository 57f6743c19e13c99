use crate::{
    desired::{Desired, Family, TrafficPolicy},
    source::{Loaded, manifest},
};

fn read(text: &str) -> Loaded {
    manifest::parse("lan.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> Vec<String> {
    let error = manifest::parse("lan.yaml", text).expect_err("refused");
    error.problems.iter().map(ToString::to_string).collect()
}

fn notes(text: &str) -> Vec<String> {
    read(text).notes.iter().map(ToString::to_string).collect()
}

/// A pool of this spec, on one line.
fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}, \
         namespace: metallb-system, labels: {{is: {name}}}}}\nspec: {{{spec}}}\n"
    )
}

fn advertisement(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: {name}, \
         namespace: metallb-system}}\nspec: {{{spec}}}\n"
    )
}

fn service(metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{{metadata}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]{spec}}}\n"
    )
}

const ALL: &str = "addresses: [192.168.56.0/24]";

#[test]
fn every_field_of_a_pool_is_read() {
    let text = pool(
        "first",
        "addresses: [192.168.56.240/28, 192.168.56.11-192.168.56.13, 'fd00:56::/64'], \
         autoAssign: false, avoidBuggyIPs: true, serviceAllocation: {priority: 50, \
         namespaces: [shop], namespaceSelectors: [{matchLabels: {team: a}}], \
         serviceSelectors: [{matchExpressions: [{key: app, operator: In, values: [web]}]}]}",
    );
    let Desired { pools, .. } = read(&text).desired;
    let pool = &pools["first"];
    let ranges: Vec<_> = pool.ranges.iter().map(ToString::to_string).collect();
    let expected = [
        "192.168.56.240-192.168.56.255",
        "192.168.56.11-192.168.56.13",
        "fd00:56::-fd00:56::ffff:ffff:ffff:ffff",
    ];
    assert_eq!(ranges, expected, "in the order in which they are written");
    assert!(!pool.auto_assign && pool.avoid_buggy_ips);
    assert_eq!(pool.labels["is"], "first");
    let allocation = pool.allocation.as_ref().expect("one");
    assert_eq!(allocation.priority, 50);
    assert!(allocation.namespaces.contains("shop"));
    assert_eq!(allocation.namespace_selectors[0].to_string(), "team=a");
    assert_eq!(allocation.service_selectors[0].to_string(), "app in (web)");

    let plain = read(&pool_and("")).desired.pools;
    assert!(plain["first"].auto_assign && !plain["first"].avoid_buggy_ips);
    assert_eq!(plain["first"].allocation, None);
}

fn pool_and(more: &str) -> String {
    pool("first", ALL) + more
}

#[test]
fn what_a_pool_cannot_be_is_told_with_line_object_and_remedy() {
    let says = |spec: &str| refused(&pool("first", spec)).join("\n");
    let at = "lan.yaml:2: IPAddressPool metallb-system/first: ";
    for (spec, what) in [
        (
            "addresses: []",
            "spec.addresses is empty; name at least one range, such as 192.168.56.11-192.168.56.13",
        ),
        (
            "addresses: [192.168.56.9-192.168.56.1]",
            "spec.addresses: `192.168.56.9-192.168.56.1` ends before it begins; \
             write 192.168.56.1-192.168.56.9",
        ),
        (
            "addresses: [10.0.0.1-10.0.0.9, 10.0.0.8/30]",
            "its addresses 10.0.0.8-10.0.0.11 overlap 10.0.0.1-10.0.0.9 of the same pool; \
             give each address to one pool, once",
        ),
        (
            "addresses: [10.0.0.0/24], serviceAllocation: {priority: -1}",
            "serviceAllocation.priority -1 cannot be; \
             write 1 for the first pool, larger numbers for later ones, 0 for the last",
        ),
        (
            "addresses: [10.0.0.0/24], serviceAllocation: {serviceSelectors: \
             [{matchExpressions: [{key: a, operator: Is, values: [b]}]}]}",
            "spec.serviceAllocation.serviceSelectors[0]: operator `Is` does not exist: there are \
             In, NotIn, Exists and DoesNotExist; write it as Kubernetes' labelSelector",
        ),
    ] {
        assert_eq!(says(spec), format!("{at}{what}"));
    }
    assert!(says("autoAssign: true").contains("addresses"));
    let twice = refused(&(pool("first", ALL) + &pool("first", "addresses: [10.0.0.0/8]")));
    assert!(
        twice[0].contains("one of this name is already defined at lan.yaml:2; remove one"),
        "{twice:?}"
    );
}

#[test]
fn overlaps_across_pools_name_both_whatever_lies_between() {
    let text = pool("wide", "addresses: [10.0.0.0/16]")
        + &pool("inner", "addresses: [10.0.1.0/24]")
        + &pool("later", "addresses: [10.0.2.0/24, 'fd00::/64']");
    assert_eq!(
        refused(&text),
        [
            "lan.yaml:7: IPAddressPool metallb-system/inner: its addresses 10.0.1.0-10.0.1.255 \
             overlap 10.0.0.0-10.0.255.255 of IPAddressPool metallb-system/wide (lan.yaml:2); \
             give each address to one pool, once",
            "lan.yaml:12: IPAddressPool metallb-system/later: its addresses 10.0.2.0-10.0.2.255 \
             overlap 10.0.0.0-10.0.255.255 of IPAddressPool metallb-system/wide (lan.yaml:2); \
             give each address to one pool, once",
        ]
    );
}

#[test]
fn every_field_of_an_advertisement_is_read_and_its_pools_are_found() {
    let pools = pool("first", ALL) + &pool("second", "addresses: [10.0.0.0/8]");
    let text = pools.clone()
        + &advertisement(
            "named",
            "ipAddressPools: [first, missing], nodeSelectors: [{matchLabels: {rack: '1'}}], \
             interfaces: [eth1, eth0], serviceSelectors: [{matchLabels: {app: web}}], \
             preferredNodeSelectors: [{weight: 100, preference: {matchLabels: {fast: 'yes'}}}]",
        )
        + &advertisement(
            "by-label",
            "ipAddressPoolSelectors: [{matchLabels: {is: second}}]",
        )
        + &advertisement("all", "")
        + &advertisement("none", "ipAddressPools: [missing]");
    let loaded = read(&text);
    let of = |name: &str| {
        let pools = &loaded.desired.advertisements[name].pools;
        pools.iter().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(of("named"), ["first"]);
    assert_eq!(of("by-label"), ["second"]);
    assert_eq!(of("all"), ["first", "second"]);
    assert!(of("none").is_empty());
    let named = &loaded.desired.advertisements["named"];
    assert_eq!(named.node_selectors[0].to_string(), "rack=1");
    assert_eq!(
        named.interfaces.iter().collect::<Vec<_>>(),
        ["eth0", "eth1"]
    );
    assert_eq!(named.service_selectors[0].to_string(), "app=web");
    assert_eq!(named.preferences[0].0, 100);
    assert_eq!(named.preferences[0].1.to_string(), "fast=yes");
    let unknown = "L2Advertisement metallb-system/named: spec.ipAddressPools names missing, which \
                   does not exist";
    assert!(
        loaded
            .notes
            .iter()
            .any(|it| it.to_string().ends_with(unknown))
    );

    for weight in [0, 101, -1] {
        let spec = format!("preferredNodeSelectors: [{{weight: {weight}, preference: {{}}}}]");
        assert_eq!(
            refused(&(pools.clone() + &advertisement("named", &spec))),
            [format!(
                "lan.yaml:12: L2Advertisement metallb-system/named: \
                 spec.preferredNodeSelectors[0]: weight {weight} cannot be; \
                 use a number from 1 to 100"
            )]
        );
    }
}

#[test]
fn a_pool_that_nobody_announces_and_what_is_of_bgp_are_noted() {
    let bgp = |kind: &str, version: &str, spec: &str| {
        format!(
            "---\napiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: it, namespace: \
             metallb-system}}\nspec: {{{spec}}}\n"
        )
    };
    let text = pool_and("")
        + &bgp(
            "BGPPeer",
            "v1beta2",
            "myASN: 64512, peerASN: 64512, peerAddress: 10.0.0.1, holdtime: 3s",
        )
        + &bgp("BGPAdvertisement", "v1beta1", "ipAddressPools: [first]")
        + &bgp("Community", "v1beta1", "communities: []")
        + &bgp("BFDProfile", "v1beta1", "receiveInterval: 280")
        + &bgp("ServiceL2Status", "v1beta1", "");
    let expected = [
        "lan.yaml:2: IPAddressPool metallb-system/first: no L2Advertisement names it: its \
         addresses are given out and served, but not announced",
        "lan.yaml:7: BGPPeer metallb-system/it: `spec.holdtime` is not a field of this kind, it \
         was ignored",
        "lan.yaml:7: BGPPeer metallb-system/it: not used: Naru speaks no BGP",
        "lan.yaml:12: BGPAdvertisement metallb-system/it: not used: Naru speaks no BGP",
        "lan.yaml:17: Community metallb-system/it: not used: Naru speaks no BGP",
        "lan.yaml:22: BFDProfile metallb-system/it: not used: Naru speaks no BGP",
        "lan.yaml:27: ServiceL2Status metallb-system/it: not used by naru",
    ];
    assert_eq!(notes(&text), expected);
    let wrong = refused(&bgp("BFDProfile", "v1beta1", "receiveInterval: soon"));
    assert!(
        wrong[0].starts_with("lan.yaml:5: BFDProfile metallb-system/it: "),
        "{wrong:?}"
    );
}

#[test]
fn what_a_service_asks_for_is_read_by_both_prefixes_and_the_stable_one_wins() {
    let text = pool_and(&service(
        "name: web, namespace: shop, labels: {app: web}, annotations: {\
         metallb.io/loadBalancerIPs: '192.168.56.11, fd00::11', \
         metallb.universe.tf/loadBalancerIPs: 192.168.56.12, \
         metallb.universe.tf/address-pool: first, metallb.io/allow-shared-ip: key}",
        ", ipFamilyPolicy: PreferDualStack, externalTrafficPolicy: Local, \
         selector: {app: web, tier: front}",
    ));
    let text = text
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n"
        + &service("name: plain", "");
    let Desired {
        balancers,
        services,
        ..
    } = read(&text).desired;
    let name = |text: &str| crate::desired::BalancerName(text.to_owned());
    let web = &balancers[&name("shop/web")];
    let requested: Vec<_> = web.requested.iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["192.168.56.11", "fd00::11"]);
    assert_eq!(web.pool.as_deref(), Some("first"));
    assert_eq!(web.sharing_key.as_deref(), Some("key"));
    assert_eq!(web.backend_key, "app=web,tier=front");
    assert_eq!(web.external_policy, TrafficPolicy::Local);
    assert_eq!(web.families, [Family::V4, Family::V6].into());
    assert!(web.one_family_will_do);
    assert_eq!(web.labels["app"], "web");
    assert_eq!(web.namespace_labels["team"], "a");
    assert_eq!(web.namespace_labels["kubernetes.io/metadata.name"], "shop");
    assert_eq!(
        web.ports.keys().map(|it| &*it.0).collect::<Vec<_>>(),
        ["shop/web:80"]
    );
    let plain = &balancers[&name("default/plain")];
    assert!(plain.requested.is_empty() && plain.families.is_empty());
    assert_eq!(plain.backend_key, "");
    assert!(
        services.values().all(|it| it.frontends.is_empty()),
        "addresses come later"
    );
}

#[test]
fn with_pools_the_address_in_the_status_is_one_that_it_has_and_without_it_is_served() {
    let status = "status: {loadBalancer: {ingress: [{ip: 192.168.56.40}]}}\n";
    let web = service("name: web", "") + status;
    let given = |loaded: Loaded| {
        let desired = loaded.desired;
        let balancer = desired.balancers.values().next().expect("one").clone();
        let frontends = desired
            .services
            .values()
            .map(|it| it.frontends.len())
            .sum::<usize>();
        (balancer.given.len(), balancer.requested.len(), frontends)
    };
    assert_eq!(given(read(&web)), (1, 0, 1));
    assert_eq!(given(read(&pool_and(&web))), (1, 0, 0));
}

#[test]
fn the_legacy_config_map_reads_as_its_pools_and_other_config_maps_do_not() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  namespace: metallb-system\n  \
                  name: config\ndata:\n  config: |\n    address-pools:\n    - name: nginx_range\n      \
                  protocol: layer2\n      addresses:\n      - 192.168.56.11-192.168.56.13\n";
    let Desired {
        pools,
        advertisements,
        ..
    } = read(config).desired;
    assert_eq!(
        pools["nginx-range"].ranges[0].to_string(),
        "192.168.56.11-192.168.56.13"
    );
    assert!(
        advertisements["l2advertisement1"]
            .pools
            .contains("nginx-range")
    );
    let broken = config.replace("56.13", "56.1");
    assert_eq!(
        refused(&broken),
        [
            "lan.yaml:9: IPAddressPool metallb-system/nginx-range: spec.addresses: \
          `192.168.56.11-192.168.56.1` ends before it begins; write 192.168.56.1-192.168.56.11"
        ]
    );
    let other = config.replace("name: config", "name: kube-proxy");
    assert_eq!(
        notes(&other),
        ["lan.yaml:1: ConfigMap metallb-system/kube-proxy: not used by naru"]
    );
    let listed = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  \
                  metadata: {namespace: metallb-system, name: config}\n  data: {config: \
                  \"address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/8]}]\"}\n";
    assert!(read(listed).desired.pools.contains_key("a"));
    let peers = config.replace(
        "    address-pools:",
        "    peers: [{my-asn: 1, peer-asn: 1, peer-address: 10.0.0.1}]\n    address-pools:",
    );
    assert_eq!(
        notes(&peers),
        ["lan.yaml:8: ConfigMap metallb-system/config: peers: not used: Naru speaks no BGP"]
    );
}
