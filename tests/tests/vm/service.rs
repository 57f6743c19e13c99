//! The package's service: its rights, its restarts, what it remembers.

use std::time::Duration;

use libtest_mimic::Failed;

use crate::{
    guest::Guest,
    site::{Site, site, tally, tally_over},
};

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF, by their bits.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
/// How often an address moves as its agent goes and comes: to another node, and back.
const MOVES: usize = 2;
/// How long an agent may take to be back.
const BACK: Duration = Duration::from_secs(180);
/// How long a machine may take to boot again.
const REBOOT: Duration = Duration::from_secs(240);

pub(crate) fn rights() -> Result<(), Failed> {
    let node = &site().nodes[0];
    let status = node.sh(&format!("cat /proc/{}/status", main_pid(node)));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let held = u64::from_str_radix(&field(set), 16)?;
        assert_eq!(held, CAPABILITIES, "{set} {held:x}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");

    // Where it is, nothing can be written to but what is its own.
    let inside = format!("nsenter --target {} --mount", main_pid(node));
    for dir in [
        "/etc/naru",
        "/usr/bin",
        "/proc/sys/net/ipv4",
        "/sys/fs/cgroup",
    ] {
        let (status, output) = node.run(&format!("{inside} touch {dir}/probe"));
        assert_ne!(status, 0, "{dir} can be written to: {output}");
    }
    for dir in ["/run/naru", "/var/lib/naru"] {
        node.sh(&format!("{inside} touch {dir}/probe && rm {dir}/probe"));
        assert_eq!(node.sh(&format!("stat -c %a {dir}")), "700");
    }
    // What is pinned there is seen out here as well, which is how it outlives the agent.
    assert!(node.sh("ls /sys/fs/bpf/naru").contains('v'));
    Ok(())
}

pub(crate) fn killed() -> Result<(), Failed> {
    let site = site();
    let owner = site.owner();
    let before = main_pid(owner);
    site.begin_asking();
    owner.sh("systemctl kill --signal KILL naru");
    back(owner, &before);
    let requests = site.end_asking();
    assert!(
        tally_over(MOVES, &requests).len() == site.nodes.len(),
        "{requests:?}"
    );
    Ok(())
}

pub(crate) fn upgraded() -> Result<(), Failed> {
    let site = site();
    let owner = site.owner();
    let before = main_pid(owner);
    let all: Vec<&Guest> = site.nodes.iter().collect();
    let drained = drain(site, owner, &all);
    site.begin_asking();
    owner.sh("dpkg --install /vagrant/naru.deb");
    back(owner, &before);
    let requests = site.end_asking();
    let counts = tally_over(MOVES, &requests);
    assert!(counts.values().sum::<usize>() >= 10, "{counts:?}");
    assert!(!counts.contains_key(drained), "{counts:?}");
    assert!(owner.sh("cat /etc/naru/naru.env").contains("eth1"));
    undrain(site, &all, drained);
    Ok(())
}

pub(crate) fn rebooted() -> Result<(), Failed> {
    let site = site();
    // Not the one that announces: what becomes of the address is the last case's affair.
    let owner = site.owner().link.clone();
    let node = site.nodes.iter().find(|node| node.link != owner);
    let node = node.expect("another node");
    let drained = drain(site, node, &[node]);
    let boot = node.sh("cat /proc/sys/kernel/random/boot_id");
    // The answer may get lost with the machine.
    node.sh("systemd-run --on-active=1 systemctl reboot");
    node.wait_up();
    assert_ne!(node.sh("cat /proc/sys/kernel/random/boot_id"), boot);
    site.prepare(node);
    node.wait_for("the agent answers", REBOOT, "naru status");
    let status = node.naru("status");
    assert_eq!(
        status["drained"],
        serde_json::json!([backend(site, drained)])
    );
    node.sh(&format!("naru drain {} --undo", backend(site, drained)));
    // Its server is in turn again.
    let deadline = std::time::Instant::now() + REBOOT;
    while tally_all(site) != site.nodes.len() {
        assert!(std::time::Instant::now() < deadline, "it does not serve");
    }
    Ok(())
}

/// How many nodes answer twelve requests, if all are answered.
fn tally_all(site: &Site) -> usize {
    let requests = site.ask(12);
    if requests.iter().all(|request| request.who.is_ok()) {
        tally(&requests).len()
    } else {
        0
    }
}

/// Takes the server of another node than this one out, by these agents; gives its name.
fn drain<'a>(site: &'a Site, node: &Guest, by: &[&Guest]) -> &'a str {
    let mut names = site.nodes.iter().map(|other| other.machine.name.as_str());
    let drained = names.rfind(|name| *name != node.machine.name);
    let drained = drained.expect("another node");
    for guest in by {
        guest.sh(&format!("naru drain {}", backend(site, drained)));
    }
    drained
}

fn undrain(site: &Site, by: &[&Guest], drained: &str) {
    for guest in by {
        guest.sh(&format!("naru drain {} --undo", backend(site, drained)));
    }
    assert_eq!(tally(&site.ask(12)).len(), site.nodes.len());
}

/// The address of a node's server.
fn backend(site: &Site, node: &str) -> String {
    let mut machines = site.testbed.nodes();
    let machine = machines.find(|machine| machine.name == node);
    format!("{}:3000", machine.expect("a node").address)
}

/// Waits for an agent that is another process than before.
fn back(node: &Guest, before: &str) {
    let pid = "systemctl show --property MainPID --value naru";
    node.wait_for(
        "the agent is back",
        BACK,
        &format!("p=$({pid}); test $p != 0 && test $p != {before} && naru status"),
    );
}

fn main_pid(node: &Guest) -> String {
    node.sh("systemctl show --property MainPID --value naru")
}
