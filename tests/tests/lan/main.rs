//! The tier `lan`: the real agent between real servers and real clients, judged from
//! outside. Each test builds a LAN of its own (`naru_lab`), so they run side by side.
//!
//! `NARU_BIN` and `NARU_LAB_BIN` name the programs; without them those beside the test
//! program are used.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod capture;
mod cgroup;
mod probe;
mod scene;

mod agent_gone;
mod agreement;
mod announcing;
mod balancing;
mod changes;
mod cluster_ips;
mod command_line;
mod drain;
mod dsr;
mod endpoints;
mod errors;
mod every_way;
mod failover;
mod health;
mod host_address;
mod instruments;
mod interfaces;
mod pools;
mod reply_path;
mod sockets;
mod terminal;
mod vxlan;
mod ways_in;
mod whole_path;
