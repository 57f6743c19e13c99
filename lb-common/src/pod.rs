//! Marks the map types as plain old data for aya.

use crate::{
    Addr, AddressUse, Affinity, Backend, Claim, ClaimCount, Client, Device, Direct, Entry, Flow,
    Frontend, Hop, Peer, Primary, Reply, Slot, SlotTable, Socket, Stats, Trace, Tuple,
    VerdictCount,
    bench::{Plan, Seen, Watch},
};

macro_rules! pod {
    ($($ty:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers; any bit pattern is
            // valid, and padding is an explicit field that the constructors zero.
            unsafe impl aya::Pod for $ty {}
        )*
    };
}

pod!(
    Addr,
    AddressUse,
    Affinity,
    Backend,
    Claim,
    ClaimCount,
    Client,
    Device,
    Direct,
    Entry,
    Flow,
    Frontend,
    Hop,
    Peer,
    Plan,
    Primary,
    Seen,
    Watch,
    Reply,
    Slot,
    SlotTable,
    Socket,
    Stats,
    Trace,
    Tuple,
    VerdictCount,
);
