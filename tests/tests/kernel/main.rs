//! What only a kernel of our own can show: native XDP in the driver of a network card,
//! VLANs, bonds and SCTP, and what the verifier counts. `cargo xtask test kernel` runs this
//! program, and the packet tier, in virtual machines with kernels of several series.
//!
//! The machine has four cards on two hubs, with nothing of the host's network:
//!
//! ```text
//!  this machine: the node                            namespace: the client
//!  pod a ─┐
//!  pod b ─┴─ pods (10.245.1.1/24)
//!            eth0    192.168.57.101/24 ──── hub ──── eth1    192.168.57.1/24
//!            └ flannel.1  10.245.1.0 ─── VXLAN ───── └ flannel.1  10.245.2.0
//!            eth2.7  192.168.58.101/24 ──── hub ──── eth3.7  192.168.58.1/24
//!            bond1   192.168.59.101/24 ─ 2 cables ── switch  192.168.59.1/24
//! ```
//!
//! Behind each way the client has another server, at .102, and 10.245.2.2 for VXLAN.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod devices;
mod machine;
mod node_agent;
mod requests;
mod sctp;
mod site;
mod sockets;
mod verifier;

use std::{process::ExitCode, sync::OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{machine::Machine, site::CARD};

/// Set by the guest's script. Anywhere else this program would take the machine's own
/// network cards.
const GUEST: &str = "NARU_KERNEL_GUEST";

/// A case of real traffic: how the agent is started, and what it must make of it.
struct Way {
    name: &'static str,
    args: &'static [&'static str],
    native: bool,
    /// How the classifiers must be attached; none: as this kernel can.
    tc: Option<&'static str>,
}

const WAYS: [Way; 3] = [
    Way {
        name: "TCP and UDP in turn by native XDP, TC as the kernel can",
        args: &[],
        native: true,
        tc: None,
    },
    Way {
        name: "TCP and UDP in turn by native XDP, TC by filters of clsact",
        args: &["--tc", "clsact"],
        native: true,
        tc: Some("clsact"),
    },
    Way {
        name: "TCP and UDP in turn by generic XDP",
        args: &["--attach", "generic"],
        native: false,
        tc: None,
    },
];

/// A case by its name.
type Case = (&'static str, fn() -> Result<(), Failed>);

/// All other cases; those that share an agent one after the other.
const CASES: [Case; 8] = [
    (
        "the verifier accepts every program with room to spare",
        verifier::counts,
    ),
    ("TCP and UDP in turn by a VLAN", devices::vlan),
    ("TCP and UDP in turn by a bond", devices::bond),
    (
        "TCP and UDP in turn by a card and on through VXLAN",
        devices::tunnel,
    ),
    (
        "a bond whose active cable is cut loses no request",
        devices::cut,
    ),
    (
        "associations over SCTP by a card, their checksum as it was sent",
        sctp::by_card,
    ),
    ("associations over SCTP by a bond", sctp::by_bond),
    (
        "clients on the node and in its pods are served at their sockets",
        sockets::clients_on_the_node,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if std::env::var_os(GUEST).is_none() && !arguments.list {
        eprintln!("this runs in a virtual machine: cargo xtask test kernel");
        return ExitCode::FAILURE;
    }
    // One agent at a time has the card.
    arguments.test_threads = Some(1);
    let mut trials: Vec<_> = WAYS
        .iter()
        .map(|way| Trial::test(way.name, || traffic(way)))
        .collect();
    trials.extend(CASES.map(|(name, case)| Trial::test(name, case)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    node_agent::end();
    conclusion.exit_code()
}

/// The network, made by the first case that needs it.
fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(Machine::new)
}

fn traffic(way: &Way) -> Result<(), Failed> {
    let machine = machine();
    let agent = node_agent::on_card(machine, way.args);
    let attachment = agent.attachment(&machine.uplink);
    assert_eq!(attachment["native"], way.native, "{}", agent.log());
    let tc = way.tc.unwrap_or_else(machine::tc_of_this_kernel);
    assert_eq!(attachment["tc"], tc, "{}", agent.log());

    // The first packet to a neighbour that is not known waits for ARP; its turn counts.
    requests::by_tcp(machine, &CARD, 1);
    let before = agent.packets("xdp", "forward_nat");
    requests::in_turn(&CARD, &requests::by_tcp(machine, &CARD, 12));
    requests::in_turn(&CARD, &requests::by_udp(machine, &CARD, 12));
    let forwarded = agent.packets("xdp", "forward_nat") - before;
    if way.native {
        // Four connections by TCP and four questions by UDP, back out of the same card.
        assert!(forwarded >= 8, "XDP sent {forwarded} packets by the card");
        assert!(agent.packets("xdp", "reply_nat") >= 8);
    } else {
        assert!(agent.packets("tc-ingress", "forward_nat") >= 8);
    }
    assert!(agent.packets("tc-egress", "reply_local") >= 16);
    let warnings = &agent.status()["warnings"];
    assert_eq!(*warnings, serde_json::json!([]), "{warnings}");
    Ok(())
}
