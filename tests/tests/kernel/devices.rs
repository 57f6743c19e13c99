//! Devices that take TC: a VLAN, a bond, a tunnel.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use naru_lab::Http;

use crate::{
    machine::{self, Machine, active_cable, inside},
    node_agent::{self, NodeAgent},
    requests,
    site::{self, Site},
};

/// How long the load goes on on each side of the cut.
const WHILE: Duration = Duration::from_secs(2);
/// More than the bond takes to see that a cable is cut.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn vlan() -> Result<(), Failed> {
    let machine = crate::machine();
    let agent = node_agent::on_all(machine);
    carries(machine, &agent, &site::VLAN, &machine.vlan);
    Ok(())
}

pub(crate) fn bond() -> Result<(), Failed> {
    let machine = crate::machine();
    let agent = node_agent::on_all(machine);
    carries(machine, &agent, &site::BOND, machine::BOND);
    Ok(())
}

pub(crate) fn tunnel() -> Result<(), Failed> {
    let machine = crate::machine();
    let agent = node_agent::on_all(machine);
    assert_eq!(agent.attachment(&machine.uplink)["native"], true);
    let by_xdp = agent.packets("xdp", "forward_nat");
    carries(machine, &agent, &site::TUNNEL, machine::TUNNEL);
    // The card could send, the tunnel cannot.
    assert_eq!(agent.packets("xdp", "forward_nat"), by_xdp);
    Ok(())
}

/// TCP and UDP in turn, to servers on the node and one elsewhere, where TC does the work.
fn carries(machine: &Machine, agent: &NodeAgent, site: &Site, device: &str) {
    let attachment = agent.attachment(device);
    assert_eq!(attachment["native"], false, "{attachment}");
    assert_eq!(attachment["tc"], machine::tc_of_this_kernel());
    // The first packet to a neighbour that is not known waits for ARP; its turn counts.
    requests::by_tcp(machine, site, 3);
    let count = |verdict| agent.packets("tc-ingress", verdict);
    let before = ["forward_nat", "reply_nat"].map(count);
    let local = agent.packets("tc-egress", "reply_local");
    requests::in_turn(site, &requests::by_tcp(machine, site, 12));
    requests::in_turn(site, &requests::by_udp(machine, site, 12));
    // Four connections and four questions of twelve.
    let after = ["forward_nat", "reply_nat"].map(count);
    for (before, after) in before.into_iter().zip(after) {
        assert!(after >= before + 8, "{before} packets, then {after}");
    }
    assert!(agent.packets("tc-egress", "reply_local") >= local + 16);
    let warnings = &agent.status()["warnings"];
    assert_eq!(*warnings, serde_json::json!([]), "{warnings}");
}

/// Requests through the balancer, and beside them to a server itself by the same cables.
pub(crate) fn cut() -> Result<(), Failed> {
    let machine = crate::machine();
    let _agent = node_agent::on_all(machine);
    let (direct, port) = (Ipv4Addr::new(10, 245, 1, 3), 3000);
    // From another address: the server tells connections apart by that and the port alone,
    // whatever way they came.
    let way = format!("{direct}/32 via 192.168.59.101 src 192.168.59.102");
    machine.client.ip(&format!("route add {way}"));
    let balanced = format!("http://{}/", site::BOND.vip);
    let plain = format!("http://{direct}:{port}/");
    let stop = AtomicBool::new(false);
    let (lost, lost_plainly) = thread::scope(|scope| {
        let (stop, on_the_way_out) = (&stop, Stop(&stop));
        let load = |url| scope.spawn(move || ask_until(machine, url, stop));
        let (balanced, plain) = (load(&balanced), load(&plain));
        thread::sleep(WHILE);
        let cut = machine.cut_active_cable();
        let deadline = Instant::now() + PATIENCE;
        while active_cable() == cut && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(WHILE);
        let now = active_cable();
        drop(on_the_way_out);
        let result = (balanced.join().unwrap(), plain.join().unwrap());
        assert_ne!(now, cut, "the bond goes on by the other cable");
        result
    });
    machine.mend_cables();
    machine.client.ip(&format!("route delete {way}"));
    assert_eq!(lost_plainly, 0, "by the bond alone");
    assert_eq!(lost, 0, "through the balancer");
    Ok(())
}

/// Ends the load, also where a check fails meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until told to stop; how many requests failed.
fn ask_until(machine: &Machine, url: &str, stop: &AtomicBool) -> usize {
    inside(&machine.client, || {
        let http = Http::per_request(requests::PATIENCE);
        let (mut asked, mut failed) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            asked += 1;
            if let Err(error) = http.get(url) {
                println!("{error}");
                failed += 1;
            }
        }
        println!("{url}: {asked} requests, {failed} failed");
        assert!(asked > 10, "{asked} requests");
        failed
    })
}
