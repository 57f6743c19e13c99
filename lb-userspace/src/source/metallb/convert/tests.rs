use serde_json::{Value, json};

use super::file;

const CONFIG: &str = "\
peers:
- my-asn: 64600
  peer-asn: 64601
  peer-address: 172.30.0.1
- my-asn: 64600
  peer-asn: 64601
  peer-address: 172.30.0.2
  source-address: 172.30.0.9
  peer-port: 1790
  hold-time: 1.5h
  keepalive-time: 45s
  router-id: 10.9.8.7
  password: \"123456\"
  bfd-profile: Quick_Link
  ebgp-multihop: true
  node-selectors:
  - match-labels: {rack: left}
    match-expressions:
    - {key: role, operator: NotIn, values: [db]}
bgp-communities:
  zz-last: 65001:2
  aa-first: 65001:1
address-pools:
- name: 7_Office.Range
  protocol: layer2
  addresses: [172.30.1.0/26, 172.30.2.5-172.30.2.9]
  auto-assign: false
- name: uplink
  protocol: bgp
  addresses: ['2001:db8:30::/120']
  avoid-buggy-ips: true
  bgp-advertisements:
  - {aggregation-length: 32, localpref: 100, communities: [aa-first]}
  - {aggregation-length-v6: 128}
- name: second-office
  protocol: layer2
  addresses: [172.30.3.0/24]
  avoid-buggy-ips: false
bfd-profiles:
- name: Quick_Link
  receive-interval: 100
  detect-multiplier: 4
  passive-mode: true
";

/// The documents of a text that converts.
fn documents(text: &str) -> Vec<Value> {
    let converted = file("config.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    let documents = converted.yaml.split("---\n");
    let parse = |it| serde_saphyr::from_str(it).expect("YAML");
    documents.map(parse).collect()
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    let status = match kind {
        "IPAddressPool" => json!({
            "assignedIPv4": 0, "assignedIPv6": 0, "availableIPv4": 0, "availableIPv6": 0
        }),
        _ => json!({}),
    };
    json!({
        "apiVersion": format!("metallb.io/{version}"), "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec, "status": status,
    })
}

fn expected() -> Vec<Value> {
    let b1 = "v1beta1";
    let pool = |name, spec| object(b1, "IPAddressPool", name, &spec);
    let bgp = |n, spec| {
        object(
            b1,
            "BGPAdvertisement",
            &format!("bgpadvertisement{n}"),
            &spec,
        )
    };
    let l2 = |n, pool: &str| {
        let spec = json!({"ipAddressPools": [pool]});
        object(b1, "L2Advertisement", &format!("l2advertisement{n}"), &spec)
    };
    let peer = |n, spec| object("v1beta2", "BGPPeer", &format!("peer{n}"), &spec);
    vec![
        peer(
            1,
            json!({
                "myASN": 64600, "peerASN": 64601, "peerAddress": "172.30.0.1",
                "holdTime": "1m30s", "passwordSecret": {},
            }),
        ),
        peer(
            2,
            json!({
                "myASN": 64600, "peerASN": 64601, "peerAddress": "172.30.0.2",
                "sourceAddress": "172.30.0.9", "peerPort": 1790, "holdTime": "1h30m0s",
                "keepaliveTime": "45s", "routerID": "10.9.8.7", "password": "123456",
                "passwordSecret": {}, "bfdProfile": "quick-link", "ebgpMultiHop": true,
                "nodeSelectors": [{
                    "matchLabels": {"rack": "left"},
                    "matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["db"]}],
                }],
            }),
        ),
        pool(
            "office.range",
            json!({
                "addresses": ["172.30.1.0/26", "172.30.2.5-172.30.2.9"], "autoAssign": false,
            }),
        ),
        pool(
            "uplink",
            json!({"addresses": ["2001:db8:30::/120"], "avoidBuggyIPs": true}),
        ),
        pool("second-office", json!({"addresses": ["172.30.3.0/24"]})),
        bgp(
            1,
            json!({
                "aggregationLength": 32, "localPref": 100, "communities": ["aa-first"],
                "ipAddressPools": ["uplink"],
            }),
        ),
        bgp(
            2,
            json!({"aggregationLengthV6": 128, "ipAddressPools": ["uplink"]}),
        ),
        l2(1, "office.range"),
        l2(2, "second-office"),
        object(
            b1,
            "BFDProfile",
            "quick-link",
            &json!({
                "receiveInterval": 100, "detectMultiplier": 4, "echoMode": false,
                "passiveMode": true,
            }),
        ),
        object(
            b1,
            "Community",
            "communities",
            &json!({"communities": [
                {"name": "aa-first", "value": "65001:1"}, {"name": "zz-last", "value": "65001:2"},
            ]}),
        ),
    ]
}

/// The text within a ConfigMap.
fn config_map(config: &str) -> String {
    let indented: String = config.lines().map(|it| format!("    {it}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  namespace: metallb-system\n  name: config\n\
         data:\n  config: |\n{indented}"
    )
}

#[test]
fn all_sections_are_converted_from_a_config_map_and_from_its_text_alone() {
    assert_eq!(documents(CONFIG), expected());
    assert_eq!(documents(&config_map(CONFIG)), expected());
    // As `kubectl get -o json` prints it.
    let json = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"config": CONFIG},
        "metadata": {"name": "config", "namespace": "metallb-system"},
    });
    assert_eq!(documents(&json.to_string()), expected());
}

#[test]
fn what_is_converted_is_read_as_the_same_pools() {
    let text = file("config.yaml", CONFIG).expect("converts").yaml;
    let of = |text: &str| {
        let loaded = crate::source::manifest::parse("x.yaml", text).expect("valid");
        (loaded.desired.pools, loaded.desired.advertisements)
    };
    assert_eq!(of(&text), of(&config_map(CONFIG)));
}

#[test]
fn objects_are_where_the_config_map_is_and_other_kinds_are_left_out() {
    let text = config_map("address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/8]}]")
        .replace("namespace: metallb-system", "namespace: lan");
    let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: lan}}\n---\n{text}");
    let documents = documents(&text);
    assert_eq!(documents[0]["metadata"]["namespace"], "lan");
    let notes = file("config.yaml", &text).expect("converts").notes;
    assert_eq!(
        notes[0].to_string(),
        "config.yaml:1: Namespace metallb-system/lan: left out: it is no ConfigMap"
    );
}

#[test]
fn long_names_are_cut_and_nothing_is_lost_to_yaml() {
    let long = "a-".repeat(40);
    let text = format!(
        "address-pools: [{{name: {long}, protocol: layer2, addresses: [10.0.0.0/8]}}]\n\
         bgp-communities: {{'on': '1:2', 'null': 'yes'}}\n"
    );
    let documents = documents(&text);
    let name = documents[0]["metadata"]["name"].as_str().expect("a name");
    assert_eq!(name.len(), 63);
    let yaml = file("config.yaml", &text).expect("converts").yaml;
    for word in ["\"on\"", "\"yes\"", "\"null\"", "1:2"] {
        let single = word.replace('"', "'");
        assert!(
            yaml.contains(word) || yaml.contains(&single),
            "{word} in {yaml}"
        );
    }
}

#[test]
fn every_mistake_is_told_with_its_line_in_the_file() {
    let says = |text: &str| {
        let error = file("config.yaml", text).expect_err("refused");
        error.to_string()
    };
    let pool = "address-pools:\n- name: a\n  protocol: layer2\n  addresses: [10.0.0.0/8]\n";
    for (old, new, line, what) in [
        (
            "layer2",
            "layer3",
            2,
            "pool a: protocol `layer3` does not exist; write layer2 or bgp",
        ),
        (
            "name: a",
            "name: '12'",
            2,
            "`12` cannot be made a name that Kubernetes takes; ",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/99",
            2,
            "spec.addresses: `10.0.0.0/99` is neither a network",
        ),
        (
            "[10.0.0.0/8]",
            "[]",
            2,
            "spec.addresses is empty; name at least one range",
        ),
        ("addresses", "adresses", 4, "unknown field"),
        ("  protocol: layer2\n", "", 3, "missing field"),
        (
            "layer2\n",
            "layer2\n  bgp-advertisements: [{localpref: 1}]\n",
            2,
            "pool a is of layer2 and has bgp-advertisements; remove them",
        ),
    ] {
        let text = pool.replace(old, new);
        let (bare, mapped) = (says(&text), says(&config_map(&text)));
        assert!(bare.contains(what), "{bare}");
        assert!(bare.starts_with(&format!("config.yaml:{line}: ")), "{bare}");
        // Seven lines of the ConfigMap stand before its text.
        let line = line + 7;
        assert!(
            mapped.starts_with(&format!("config.yaml:{line}: ")),
            "{mapped}"
        );
    }
    let peer = "peers:\n- {my-asn: 1, peer-asn: 1, peer-address: 10.0.0.1}\n- my-asn: 1\n  \
                peer-asn: 1\n  peer-address: 10.0.0.2\n";
    for (more, what) in [
        (
            "hold-time: 90",
            "peer2: hold-time: `90` is not a span of time; write it as 90s",
        ),
        (
            "hold-time: 2s",
            "peer2: hold-time 2s is too short; write 0s for never, or at least 3s",
        ),
        (
            "router-id: nuc01",
            "peer2: router-id `nuc01` is not an IP address; write it as",
        ),
        (
            "bfd-profile: none",
            "peer2: bfd-profile none does not exist; name one of bfd-profiles",
        ),
    ] {
        let text = says(&format!("{peer}  {more}\n"));
        assert!(
            text.starts_with("config.yaml:3: ") && text.contains(what),
            "{text}"
        );
    }
    let nothing = "there is no configuration of MetalLB in it";
    assert!(says("").contains(nothing));
    assert!(says("apiVersion: v1\nkind: Namespace\nmetadata: {name: lan}\n").contains(nothing));
    assert!(
        says(&config_map("").replace("config: |", "other: |")).contains("data.config is missing")
    );
    assert!(says("just text").starts_with("config.yaml:1: "));
}

#[test]
fn a_password_is_in_no_message() {
    let text = "peers:\n- my-asn: 1\n  peer-asn: one\n  password: hunter2\n  peer-address: x\n";
    let error = file("config.yaml", text).expect_err("refused").to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let text = "peers:\n- my-asn: 1\n  password: {a: hunter2}\n";
    let error = file("config.yaml", text).expect_err("refused").to_string();
    assert!(!error.contains("hunter2"), "{error}");
}
