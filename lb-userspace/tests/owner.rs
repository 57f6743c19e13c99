//! `naru owner` offline, against another implementation of the hash that decides.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// In hexadecimal, by coreutils.
fn sha256(text: &str) -> String {
    let mut command = Command::new("sha256sum");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap().stdout;
    String::from_utf8(output).unwrap()[..64].to_owned()
}

/// The owner, and all nodes in the order in which they would announce the address.
fn order(ip: &str, nodes: &[String]) -> (String, Vec<String>) {
    let mut naru = Command::new(env!("CARGO_BIN_EXE_naru"));
    naru.args(["owner", ip, "--offline", "-o", "json", "--nodes"]);
    let output = naru.arg(nodes.join(",")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    let places = told["order"].as_array().unwrap();
    let order = places.iter().map(|it| name(&it["node"])).collect();
    (name(&told["owner"]), order)
}

#[test]
fn nodes_are_ordered_as_the_hash_of_name_and_address_says() {
    for count in [1, 3, 7] {
        let nodes: Vec<String> = (1..=count).map(|n| format!("node-{n}.example")).collect();
        for ip in ["192.0.2.1", "10.0.0.240", "2001:db8::1", "fd00:0:0:1::a"] {
            let mut expected = nodes.clone();
            expected.sort_by_key(|node| sha256(&format!("{node}#{ip}")));
            let (owner, order) = order(ip, &nodes);
            assert_eq!(order, expected, "{ip}");
            assert_eq!(owner, expected[0]);
            // In whatever order they are named.
            let turned: Vec<String> = nodes.iter().rev().cloned().collect();
            assert_eq!(self::order(ip, &turned).1, expected);
        }
    }
}
