//! Constants that the agent sets when it loads the program, by the names of the
//! program's read-only globals. The verifier folds them, so a switch that is off
//! costs nothing.

use crate::cell;

/// `u8`, 1 in the twin that `naru explain` runs: nothing is counted, advanced or recorded.
pub const DRY_RUN: &str = "DRY_RUN";
/// `u8`, 1 where packets that need nothing else take the short way: not in that twin, nor where
/// every packet is logged.
pub const FAST: &str = "FAST";
/// `u8`, 1 where TCP flows are left to backends that are gone.
pub const LEAVE_GONE: &str = "LEAVE_GONE";
/// `u32`, entries of map `FLOWS`.
pub const BUCKETS: &str = "BUCKETS";
/// `u64`, the seed of the flow hash.
pub const SEED: &str = "SEED";

/// The default seed: every node computes the same tables and hashes without being told.
pub const DEFAULT_SEED: u64 = 0x6e61_7275_0000_0001;
/// Default SNAT ports: above Linux's ephemeral range (32768–60999), clear of NodePorts.
pub const DEFAULT_SNAT_PORTS: core::ops::RangeInclusive<u16> = 61_001..=65_535;
/// SNAT ports of an address that is for nothing else: all but the privileged ones.
pub const DEDICATED_SNAT_PORTS: core::ops::RangeInclusive<u16> = 1_024..=65_535;

/// Refusals (RST, ICMP unreachable) that a CPU sends per second at most.
pub const REFUSALS_PER_SECOND: u32 = 10_000;

/// Entries of map `ADDRESSES`.
pub const MAX_ADDRESSES: usize = 1 << 17;
/// Entries of map `FRONTENDS`.
pub const MAX_FRONTENDS: usize = 1 << 16;
/// Entries of map `SERVICE_STATS`.
pub const MAX_SERVICES: usize = 1 << 16;
/// Entries of map `SERVICES`: three tables for every service, see
/// [`crate::service::handover_table`] and [`crate::service::former_table`].
pub const MAX_TABLES: usize = 3 * MAX_SERVICES;
/// Entries of map `TURNS`: the tables that flows begin in.
pub const MAX_TURNS: usize = 2 * MAX_SERVICES;
/// Entries of map `SLOTS`.
pub const MAX_SLOTS: usize = 1 << 21;
/// Entries of maps `BACKENDS` and `BACKEND_STATS`.
pub const MAX_BACKENDS: usize = 1 << 17;
/// Entries of map `PRIMARIES`: local backends, in service or left to their connections.
pub const MAX_PRIMARIES: usize = 1 << 16;
/// Entries of map `DIRECT`: connections to local backends that came by no frontend.
pub const MAX_DIRECT: usize = 1 << 16;
/// Entries of map `DEVICES`.
pub const MAX_DEVICES: usize = 256;
/// Flows that are recorded at a time, unless the agent is told otherwise.
pub const DEFAULT_MAX_FLOWS: usize = 1 << 18;
/// Entries of map `FLOWS` then.
pub const DEFAULT_BUCKETS: usize = cell::buckets(DEFAULT_MAX_FLOWS as u32) as usize;
/// Entries of map `ENDS` then.
pub const DEFAULT_CELLS: usize = DEFAULT_BUCKETS * cell::WAYS as usize;
/// Fragmented packets whose ports are remembered at a time.
pub const MAX_FRAGMENTED: usize = 1 << 14;
/// Entries of map `SOURCES`: networks that may use a service, of all services.
pub const MAX_SOURCES: usize = 1 << 16;
/// Clients of services with session affinity that are remembered at a time.
pub const MAX_AFFINE_CLIENTS: usize = 1 << 16;
/// Entries of map `INTERNAL`: all frontends of packets, and cluster IPs beside them.
pub const MAX_INTERNAL: usize = 1 << 17;
/// Sockets of this node that are remembered at a time.
pub const MAX_SOCKETS: usize = 1 << 16;
/// Entries of map `FORMERS`: VIPs that have moved to this node.
pub const MAX_FORMERS: usize = MAX_ADDRESSES;
/// Entries of map `CLAIMS`: addresses times the interfaces that they are claimed on.
pub const MAX_CLAIMS: usize = 1 << 17;
