//! The benchmark's generator and sink of frames.
//!
//! The generator writes every header anew and runs a candidate on the frame: a repeated test
//! run gives a program the frame as the last run has left it, and recycled live frames keep
//! what was done to them. What the generator itself costs is measured with a stub as the
//! candidate. The sink is at the far end of the node's devices and counts what arrives there.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[expect(dead_code, reason = "the agent's program needs more of it")]
mod packet;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::generated::bpf_get_prandom_u32,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::bench::{Plan, Seen, Watch};

use crate::packet::View;

/// Ethernet types as they are read from memory.
const IPV4: u16 = 0x0800_u16.to_be();
/// See [`IPV4`].
const IPV6: u16 = 0x86dd_u16.to_be();
const TCP: u8 = 6;

#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();
/// The program to measure, at XDP.
#[btf_map]
static CANDIDATE: ProgramArray<1> = ProgramArray::new();
/// The program to measure, at TC.
#[btf_map]
static CLASSIFIER: ProgramArray<1> = ProgramArray::new();
/// How many frames arrived.
#[btf_map]
static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static WATCH: Array<Watch, 1> = Array::new();
/// The frames that arrived; as many as there are flows.
#[btf_map]
static SEEN: Array<Seen, 1> = Array::new();
#[btf_map]
static LAST: Array<Seen, 1> = Array::new();

/// Makes a frame and runs the candidate on it.
#[xdp(frags)]
fn bench_generate(ctx: XdpContext) -> u32 {
    // SAFETY: of this run's context; nothing moves the packet.
    let view = unsafe { View::new(ctx.data(), ctx.data_end()) };
    if generate(view).is_some() {
        // SAFETY: nothing is held that would have to be dropped.
        unsafe { CANDIDATE.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same at TC.
#[classifier]
fn bench_generate_tc(ctx: TcContext) -> i32 {
    // SAFETY: of this run's context; nothing moves the packet.
    let view = unsafe { View::new(ctx.data(), ctx.data_end()) };
    if generate(view).is_some() {
        // SAFETY: nothing is held that would have to be dropped.
        unsafe { CLASSIFIER.tail_call(&ctx, 0) };
    }
    TC_ACT_SHOT
}

/// Sends back what comes.
#[xdp(frags)]
fn bench_tx(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Drops what comes, and counts it as arrived.
#[xdp(frags)]
fn bench_drop(_: XdpContext) -> u32 {
    count();
    xdp_action::XDP_DROP
}

/// Gives what comes to the stack.
#[xdp(frags)]
fn bench_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Leaves what comes alone.
#[classifier]
fn bench_pass_tc(_: TcContext) -> i32 {
    TC_ACT_OK
}

/// Where frames end.
#[xdp(frags)]
fn bench_sink(ctx: XdpContext) -> u32 {
    // SAFETY: of this run's context; nothing moves the packet.
    let view = unsafe { View::new(ctx.data(), ctx.data_end()) };
    // Other frames are the kernel's own, for its neighbours.
    if take(view).is_some() {
        count();
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn count() {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own; nothing interrupts a program with itself.
        unsafe { *arrived += 1 };
    }
}

/// Takes a frame of TCP down, where that is wanted; nothing where it is another.
#[inline(always)]
fn take(view: View<'_>) -> Option<()> {
    let (protocol, source, destination, tcp) = match view.load::<u16>(12)? {
        IPV4 => (23, 26, 30, 34),
        IPV6 => (20, 34, 50, 54),
        _ => return None,
    };
    if view.load::<u8>(protocol)? != TCP {
        return None;
    }
    let watch = WATCH.get_ptr_mut(0)?;
    // SAFETY: the benchmark runs on one CPU, and writes between runs.
    let watch = unsafe { &mut *watch };
    let place = match watch.what {
        Watch::EACH => SEEN.get_ptr_mut(watch.place())?,
        Watch::LAST => LAST.get_ptr_mut(0)?,
        _ => return Some(()),
    };
    let seen = Seen {
        source: view.load(source)?,
        destination: view.load(destination)?,
        port: view.load(tcp + 2 * (watch.replies as usize & 1))?,
        there: 1,
    };
    // SAFETY: as above.
    unsafe { *place = seen };
    watch.taken = watch.taken.wrapping_add(1);
    Some(())
}

#[inline(always)]
fn generate(view: View<'_>) -> Option<()> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: the benchmark runs on one CPU, and writes the plan between runs.
    let plan = unsafe { &mut *plan };
    let number = if plan.order == Plan::RANDOM {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    } else {
        plan.made = plan.made.wrapping_add(1);
        plan.made.wrapping_sub(1)
    } & plan.mask;
    let (source, destination, port) = if plan.order == Plan::REPLIES {
        let seen = SEEN.get(number)?;
        (seen.destination, seen.source, seen.port)
    } else {
        let (source, destination, port) = plan.ends(number);
        (source.to_be(), destination.to_be(), port.to_be())
    };
    for (index, word) in plan.template.iter().enumerate() {
        if 4 * index as u32 >= plan.len {
            break;
        }
        if !view.store(4 * index, *word) {
            return None;
        }
    }
    let addresses = halves(source) + halves(destination);
    if plan.ip_checksum != 0 && !view.store(at(plan.ip_checksum), folded(plan.ip_sum + addresses)) {
        return None;
    }
    let tcp = folded(plan.tcp_sum + addresses + u32::from(port));
    let written = view.store(at(plan.source), source)
        && view.store(at(plan.destination), destination)
        && view.store(at(plan.port), port)
        && view.store(at(plan.tcp_checksum), tcp);
    written.then_some(())
}

/// An offset that the verifier knows to be small.
#[inline(always)]
fn at(offset: u32) -> usize {
    offset as usize & 0x7f
}

#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The checksum field of a sum of 16-bit words (RFC 1071).
#[inline(always)]
fn folded(sum: u32) -> u16 {
    !(halves(halves(sum)) as u16)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
