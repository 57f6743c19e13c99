//! The agent of Naru: sources → desired → compile → map image → apply → kernel.
//!
//! Data flows in one direction; ARCHITECTURE.md draws it. Only [`datapath`] speaks
//! to BPF and may use `unsafe`.
#![deny(unsafe_code)]

pub mod agent;
pub mod announce;
pub mod cli;
pub mod compile;
pub mod control;
pub mod controller;
pub mod datapath;
pub mod desired;
pub mod election;
pub mod health;
pub mod herald;
mod http;
pub mod ipam;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod source;
