//! The tier `cluster`: the real agent beside a real control plane, judged from outside.
//!
//! `NARU_CONTROLPLANE` names the directory with a control plane's programs, `NARU_BIN` the agent's
//! program; without the latter the one beside the test program is used.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod scene;

mod asked;
mod deploy;
mod figures;
mod following;
mod tutorials;
