//! Marks the map types as plain old data for aya.

use crate::{
    Addr, AddressUse, Affinity, Backend, Claim, ClaimCount, Client, Device, Direct, Entry,
    Frontend, Hop, Peer, Primary, Slot, SlotTable, Socket, Stats, Trace, Tuple, VerdictCount,
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
    Frontend,
    Hop,
    Peer,
    Plan,
    Primary,
    Seen,
    Watch,
    Slot,
    SlotTable,
    Socket,
    Stats,
    Trace,
    Tuple,
    VerdictCount,
);
