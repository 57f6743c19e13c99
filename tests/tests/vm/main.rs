//! The testbed of vagrant/ as virtual machines, by `cargo xtask test vm`: the package, its
//! service, and what a client on the LAN notices of them.
//!
//! ```text
//!            hub: 192.168.56.0/24, eth1 of each        eth0 of each: 10.0.2.15, to nowhere
//!   nuc01 .101 ─┐
//!   nuc02 .102 ─┼─ client .254      the virtual IP 192.168.56.11:80 leads to port 3000
//!   nuc03 .103 ─┘                   of the three nodes, where each tells its name
//! ```
//!
//! The cases build on each other, in this order; the last one kills a machine.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod guest;
mod hub;
mod service;
mod site;

use std::{env, process::ExitCode, thread::sleep, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    guest::Guest,
    site::{Request, site, tally},
};

/// A case by its name.
type Case = (&'static str, fn() -> Result<(), Failed>);

const CASES: [Case; 7] = [
    (
        "1 Vagrant's scripts make three nodes and a client",
        provisioned,
    ),
    (
        "2 requests by the virtual IP come to all nodes in turn, by native XDP",
        balanced,
    ),
    (
        "3 the service has the rights that it needs and no others",
        service::rights,
    ),
    (
        "4 a killed agent is started anew, and no request fails but what a move interrupts",
        service::killed,
    ),
    (
        "5 an upgrade of the package forgets nobody who is drained",
        service::upgraded,
    ),
    (
        "6 a node that is rebooted serves again, and has forgotten nobody who is drained",
        service::rebooted,
    ),
    (
        "7 the node that announces dies, and another one takes over",
        taken_over,
    ),
];

/// How long clients may wait for another node. The machines are emulated, and share two
/// processors with all that goes on on the host.
const TAKEOVER: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if env::var_os("NARU_VM_DISK").is_none() && !arguments.list {
        eprintln!("this needs a disk and a kernel: cargo xtask test vm");
        return ExitCode::FAILURE;
    }
    // They share the machines.
    arguments.test_threads = Some(1);
    let trials = CASES.map(|(name, case)| Trial::test(name, case)).into();
    let conclusion = libtest_mimic::run(&arguments, trials);
    site::end();
    conclusion.exit_code()
}

fn provisioned() -> Result<(), Failed> {
    let site = site();
    let first = |guest: &Guest| guest.sh("ip -o -4 address show dev eth0");
    for node in &site.nodes {
        assert_eq!(
            node.sh("systemctl is-active naru nest-server"),
            "active\nactive"
        );
        assert_eq!(node.sh("hostname"), node.machine.name);
        // As with Vagrant: whoever took the first interface for the LAN would be wrong.
        assert_eq!(first(node), first(&site.client));
    }
    Ok(())
}

fn balanced() -> Result<(), Failed> {
    let site = site();
    // The first packet to a neighbour that is not known waits for ARP; its turn counts.
    tally(&site.ask(3));
    let requests = site.ask(12);
    let even = site
        .nodes
        .iter()
        .map(|node| (node.machine.name.as_str(), 4));
    assert_eq!(tally(&requests), even.collect(), "{requests:?}");

    let owner = site.owner();
    let status = owner.naru("status");
    let attachment = &status["attachments"][0];
    assert_eq!(attachment["interface"], "eth1", "{status:#}");
    assert_eq!(attachment["native"], true, "{status:#}");
    assert_eq!(status["warnings"], serde_json::json!([]), "{status:#}");
    let verdicts = status["verdicts"].as_array().expect("verdicts");
    let sent = verdicts
        .iter()
        .find(|count| count["hook"] == "xdp" && count["verdict"] == "forward_nat");
    // Eight connections to other nodes, of more than one packet each.
    let sent = sent.and_then(|count| count["packets"].as_u64());
    assert!(sent.is_some_and(|sent| sent >= 16), "{status:#}");
    Ok(())
}

fn taken_over() -> Result<(), Failed> {
    let site = site();
    let owner = site.owner();
    site.begin_asking();
    owner.kill();
    // A round of answers by those that are left, and none of the dead one's turns.
    let calm = |requests: &[Request]| {
        requests.len() >= 20 && requests.iter().rev().take(20).all(|it| it.who.is_ok())
    };
    let bound = std::time::Instant::now() + TAKEOVER;
    sleep(Duration::from_secs(2));
    while !calm(&site.asked()) {
        assert!(std::time::Instant::now() < bound, "{:#?}", site.asked());
        sleep(Duration::from_secs(1));
    }
    let requests = site.end_asking();
    println!("{}", account(&requests));
    let after = site.ask(12);
    let left = site.nodes.iter().filter(|node| node.is_on());
    let even = left.map(|node| (node.machine.name.as_str(), 6));
    assert_eq!(tally(&after), even.collect(), "{after:?}");
    assert_ne!(site.owner().link, owner.link);
    Ok(())
}

/// How many requests failed, and the longest time without an answer.
fn account(requests: &[Request]) -> String {
    let answered: Vec<f64> = requests
        .iter()
        .filter(|it| it.who.is_ok())
        .map(|it| it.ended)
        .collect();
    let gaps = answered.windows(2).map(|pair| pair[1] - pair[0]);
    format!(
        "{} requests, {} failed, the longest time without an answer {:.1} s",
        requests.len(),
        requests.len() - answered.len(),
        gaps.fold(0.0, f64::max)
    )
}
