//! The kernel part on the host, and what must hold of it whatever a packet is.
//!
//! The sources of `lb-ebpf` are compiled as they stand. What they ask of aya and of the
//! kernel comes from [`machine`], a kernel with nothing in its maps: parsing, rewriting
//! and answering look nothing up. `packet.rs` alone is another one here, since reading
//! packets safely is the verifier's business there and bounds checks' here.
#![feature(core_intrinsics)]
#![allow(internal_features)]

// What the sources of lb-ebpf call `aya_ebpf` is this crate.
extern crate self as aya_ebpf;

/// Modules of the kernel part, which name each other from the root of their crate.
macro_rules! kernel {
    ($($name:ident = $path:literal)*) => {$(
        #[path = $path]
        #[allow(clippy::all, dead_code, missing_docs, unused_imports)]
        mod $name;
    )*};
}

kernel! {
    announce = "../../lb-ebpf/src/announce.rs"
    block = "../../lb-ebpf/src/block.rs"
    cells = "../../lb-ebpf/src/cells.rs"
    client = "../../lb-ebpf/src/client.rs"
    count = "../../lb-ebpf/src/count.rs"
    direct = "../../lb-ebpf/src/direct.rs"
    exceptions = "../../lb-ebpf/src/exceptions.rs"
    fast = "../../lb-ebpf/src/fast.rs"
    flow = "../../lb-ebpf/src/flow.rs"
    fragment = "../../lb-ebpf/src/fragment.rs"
    frame = "../../lb-ebpf/src/frame.rs"
    headers = "../../lb-ebpf/src/headers.rs"
    icmp = "../../lb-ebpf/src/icmp.rs"
    lookup = "../../lb-ebpf/src/lookup.rs"
    maps = "../../lb-ebpf/src/maps.rs"
    parse = "../../lb-ebpf/src/parse.rs"
    plain = "../../lb-ebpf/src/plain.rs"
    record = "../../lb-ebpf/src/record.rs"
    refuse = "../../lb-ebpf/src/refuse.rs"
    request = "../../lb-ebpf/src/request.rs"
    route = "../../lb-ebpf/src/route.rs"
    table = "../../lb-ebpf/src/table.rs"
    tc = "../../lb-ebpf/src/tc.rs"
    trace = "../../lb-ebpf/src/trace.rs"
    transport = "../../lb-ebpf/src/transport.rs"
    work = "../../lb-ebpf/src/work.rs"
    xdp = "../../lb-ebpf/src/xdp.rs"
}

/// Plain arithmetic of checksums, which the model has for the same reason.
#[path = "../../tests/tests/model/wire.rs"]
#[allow(clippy::expect_used, dead_code)]
mod wire;

mod answer;
mod machine;
mod packet;
mod properties;
mod questions;
mod stage;
mod sums;
mod witness;

pub(crate) use machine::{EbpfContext, Global, btf_maps, helpers, macros, programs};

pub(crate) use aya_ebpf_bindings::bindings;

pub use properties::check;
