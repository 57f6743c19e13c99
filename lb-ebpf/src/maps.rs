//! All maps and load-time constants of the program. `lb-common` defines what they hold.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    Addr, AddressUse, Affinity, Backend, Bucket, Claim, ClaimCount, Client, ClientHop, Device,
    Direct, Ends, Entry, Frontend, Hop, Near, NearFrontend, Peer, Primary, ReplyBucket, Slot,
    SlotTable, Socket, Stats, Trace, Tuple, Verdict, VerdictCount,
    config::{
        DEFAULT_BUCKETS, DEFAULT_CELLS, DEFAULT_SEED, MAX_ADDRESSES, MAX_AFFINE_CLIENTS,
        MAX_BACKENDS, MAX_CLAIMS, MAX_DEVICES, MAX_DIRECT, MAX_FORMERS, MAX_FRAGMENTED,
        MAX_FRONTENDS, MAX_INTERNAL, MAX_PRIMARIES, MAX_SERVICES, MAX_SLOTS, MAX_SOCKETS,
        MAX_SOURCES, MAX_TABLES, MAX_TURNS,
    },
    exceptions, filter, flow, hop,
};

use crate::{block::Block, cells};

/// `BPF_F_NO_PREALLOC`: memory for entries that exist only.
const NO_PREALLOC: usize = 1;
/// `BPF_F_MMAPABLE`: the agent stores single words in place.
pub const MMAPABLE: usize = 1 << 10;

#[btf_map]
pub static ADDRESSES: HashMap<Addr, AddressUse, MAX_ADDRESSES, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static FRONTENDS: HashMap<Frontend, Entry, MAX_FRONTENDS, NO_PREALLOC> = HashMap::new();
/// The same by a short key, see [`lb_common::near`].
#[btf_map]
pub static NEAR_FRONTENDS: Block<NearFrontend, { NearFrontend::LEN }> = Block::new();
/// What the node's own sockets may speak to, and the index of the service that it is to
/// them: cluster IPs, and all that packets come by.
#[btf_map]
pub static INTERNAL: HashMap<Frontend, u32, MAX_INTERNAL, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static SERVICES: Block<SlotTable, MAX_TABLES> = Block::new();
#[btf_map]
pub static SLOTS: Block<Slot, MAX_SLOTS> = Block::new();
/// How many flows a round-robin table has begun: whose turn it is.
#[btf_map]
pub static TURNS: Array<u64, MAX_TURNS> = Array::new();
/// Ticks for which a service's clients come back to their backend; see [`SlotTable`].
#[btf_map]
pub static AFFINITY_TICKS: Array<u32, MAX_SERVICES> = Array::new();
#[btf_map]
pub static AFFINITY: LruHashMap<Client, Affinity, MAX_AFFINE_CLIENTS> = LruHashMap::new();
/// What sockets of this node call their backends: by what they would be told, and of
/// UDP sockets that are not connected by what they said.
#[btf_map]
pub static SOCKETS: LruHashMap<Socket, Peer, MAX_SOCKETS> = LruHashMap::new();
/// Who may use a guarded [`Entry`]; the value means nothing.
#[btf_map]
pub static SOURCES: LpmTrie<Client, u32, MAX_SOURCES> = LpmTrie::new();
/// Nobody maps it; but of those that may be mapped each entry is a line of the cache.
#[btf_map]
pub static BACKENDS: Array<Backend, MAX_BACKENDS, MMAPABLE> = Array::new();
/// Local backends by their own address, port and protocol.
#[btf_map]
pub static PRIMARIES: HashMap<Frontend, Primary, MAX_PRIMARIES, NO_PREALLOC> = HashMap::new();
/// Connections to local backends that came by no frontend, as the backend's packets are.
#[btf_map]
pub static DIRECT: LruHashMap<Tuple, Direct, MAX_DIRECT> = LruHashMap::new();
#[btf_map]
pub static DEVICES: HashMap<u32, Device, MAX_DEVICES> = HashMap::new();
/// Which addresses need not be looked up, see [`filter`].
#[btf_map]
pub static FILTER: Block<u64, { filter::LEN }> = Block::new();
/// The interfaces in `DEVICES`, by a key of one byte.
#[btf_map]
pub static NEAR: Block<Near, { Near::LEN }> = Block::new();
/// Where flows by `nat` come from, as their backends see them, see [`flow::source`].
#[btf_map]
pub static NEAR_SOURCES: Block<Addr, { flow::SOURCES }> = Block::new();
/// How frames leave to backends elsewhere.
#[btf_map]
pub static HOPS: Block<Hop, MAX_BACKENDS> = Block::new();
/// The same by clients.
#[btf_map]
pub static CLIENT_HOPS: Block<ClientHop, { hop::CLIENT_HOPS }> = Block::new();
/// The agent's count of what might have changed in both.
#[btf_map]
pub static EPOCH: Array<u64, 1, MMAPABLE> = Array::new();
/// Which replies may have records, see [`exceptions`].
#[btf_map]
pub static EXCEPTIONS: Array<[u8; exceptions::LEN], 1, MMAPABLE> = Array::new();
/// The agent's count of its looks at them.
#[btf_map]
pub static ROUND: Array<u64, 1, MMAPABLE> = Array::new();
/// What is answered for, and where.
#[btf_map]
pub static CLAIMS: HashMap<Claim, ClaimCount, MAX_CLAIMS, NO_PREALLOC> = HashMap::new();
/// Which node had a VIP before this one: VIP → that node's own address on the LAN.
#[btf_map]
pub static FORMERS: HashMap<Addr, Addr, MAX_FORMERS, NO_PREALLOC> = HashMap::new();
/// Until when, in nanoseconds of the clock that also runs while the machine sleeps.
#[btf_map]
pub static LEASE: Array<u64, 1, MMAPABLE> = Array::new();
/// Flows that are recorded, by their client's packets, see [`lb_common::cell`].
#[btf_map]
pub static FLOWS: cells::Table<Bucket> = cells::Table::new();
/// Where they begin and end, by the place of a flow's cell.
#[btf_map]
pub static ENDS: Array<Ends, DEFAULT_CELLS, MMAPABLE> = Array::new();
/// By their backend's packets, as far as these are looked up.
#[btf_map]
pub static REPLIES: cells::Table<ReplyBucket> = cells::Table::new();
/// Under which tuples stand where they do in both: a random number, drawn with the maps.
#[btf_map]
pub static SECRET: Array<u64, 1, MMAPABLE> = Array::new();
/// Ports of fragmented packets by [`crate::headers::Headers::fragment_key`]: source in
/// bits 0–15, destination in 16–31, the last tick that counts in 32–63.
#[btf_map]
pub static FRAGMENTS: LruHashMap<Tuple, u64, MAX_FRAGMENTED> = LruHashMap::new();
#[btf_map]
pub static VERDICTS: PerCpuArray<VerdictCount, { Verdict::COUNTERS }> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_STATS: PerCpuArray<Stats, MAX_SERVICES> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_STATS: PerCpuArray<Stats, MAX_BACKENDS> = PerCpuArray::new();
/// The tick that this CPU last read off the flows' clock (bits 0–31), and the lower half of the
/// jiffy in which it did.
#[btf_map]
pub static CLOCK: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Answers of each [`crate::count::Answer`] sent in the tick that the upper half names, on this CPU.
#[btf_map]
pub static REFUSALS: PerCpuArray<u64, 2> = PerCpuArray::new();
#[btf_map]
pub static TRACE: Array<Trace, 1> = Array::new();

/// See [`lb_common::config::DRY_RUN`].
#[unsafe(no_mangle)]
pub static DRY_RUN: Global<u8> = Global::new(0);
/// See [`lb_common::config::FAST`].
#[unsafe(no_mangle)]
pub static FAST: Global<u8> = Global::new(0);
/// See [`lb_common::config::LEAVE_GONE`].
#[unsafe(no_mangle)]
pub static LEAVE_GONE: Global<u8> = Global::new(0);
/// See [`lb_common::config::SEED`].
#[unsafe(no_mangle)]
pub static SEED: Global<u64> = Global::new(DEFAULT_SEED);

/// See [`lb_common::config::BUCKETS`].
#[unsafe(no_mangle)]
pub static BUCKETS: Global<u32> = Global::new(DEFAULT_BUCKETS as u32);

/// Whether this is the twin that `naru explain` runs.
#[inline(always)]
pub fn dry_run() -> bool {
    DRY_RUN.load() != 0
}
