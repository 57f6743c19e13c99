//! What only a kernel of our own can show: native XDP in the driver of a network card,
//! and what the verifier counts. `cargo xtask test kernel` runs this program, and the
//! packet tier, in virtual machines with kernels of several series.
//!
//! The machine has two cards on one hub, with nothing of the host's network:
//!
//! ```text
//!  this machine: the node                               namespace: the client
//!  pod a ─┐
//!  pod b ─┴─ pods (10.245.1.1/24)
//!            eth0 (192.168.57.101/24, the agent) ─ hub ─ eth1 (192.168.57.1/24)
//!            virtio-net                                  192.168.57.102: a server "far"
//! ```
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod machine;
mod node_agent;
mod requests;
mod verifier;

use std::{process::ExitCode, sync::OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{machine::Machine, node_agent::NodeAgent};

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
    trials.push(Trial::test(
        "the verifier accepts every program with room to spare",
        verifier::counts,
    ));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The network, made by the first case that needs it.
fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(Machine::new)
}

fn traffic(way: &Way) -> Result<(), Failed> {
    let machine = machine();
    let agent = NodeAgent::start(machine, way.args);
    let status = agent.status();
    let attachment = &status["attachments"][0];
    assert_eq!(attachment["interface"], machine.uplink.as_str());
    assert_eq!(attachment["native"], way.native, "{}", agent.log());
    let tc = way.tc.unwrap_or_else(machine::tc_of_this_kernel);
    assert_eq!(attachment["tc"], tc, "{}", agent.log());

    // The first packet to a neighbour that is not known waits for ARP; its turn counts.
    requests::by_tcp(machine, 1);
    let before = agent.packets("xdp", "forward_nat");
    requests::in_turn(&requests::by_tcp(machine, 12));
    requests::in_turn(&requests::by_udp(machine, 12));
    let forwarded = agent.packets("xdp", "forward_nat") - before;
    if way.native {
        // Four connections by TCP and four questions by UDP, back out of the same card.
        assert!(forwarded >= 8, "XDP sent {forwarded} packets by the card");
        assert!(agent.packets("xdp", "reply_nat") >= 8);
    } else {
        assert!(agent.packets("tc-ingress", "forward_nat") >= 8);
    }
    assert!(agent.packets("tc-egress", "reply_local") >= 16);
    let warnings = &status["warnings"];
    assert_eq!(*warnings, serde_json::json!([]), "{warnings}");
    agent.end();
    Ok(())
}
