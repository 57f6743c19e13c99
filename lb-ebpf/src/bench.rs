//! The benchmark's generator: writes every header of a frame anew, and runs a candidate on it.
//!
//! A repeated test run gives a program the frame as the last run has left it. What the
//! generator itself costs is measured with [`bench_tx`] as the candidate.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod packet;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::generated::bpf_get_prandom_u32,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::bench::Plan;

use crate::packet::View;

#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();
/// The program to measure.
#[btf_map]
static CANDIDATE: ProgramArray<1> = ProgramArray::new();

/// Makes a frame and runs the candidate on it.
#[xdp(frags)]
fn bench_generate(ctx: XdpContext) -> u32 {
    if generate(&ctx).is_some() {
        // SAFETY: nothing is held that would have to be dropped.
        unsafe { CANDIDATE.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Sends back what comes.
#[xdp(frags)]
fn bench_tx(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Drops what comes.
#[xdp(frags)]
fn bench_drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Gives what comes to the stack.
#[xdp(frags)]
fn bench_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn generate(ctx: &XdpContext) -> Option<()> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: the benchmark runs on one CPU, and writes the plan between runs.
    let plan = unsafe { &mut *plan };
    let number = if plan.in_turn != 0 {
        plan.made += 1;
        plan.made - 1
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    };
    let (source, port) = plan.source_of(number & plan.mask);
    // SAFETY: of this run's context; nothing moves the packet.
    let view = unsafe { View::new(ctx.data(), ctx.data_end()) };
    for (index, word) in plan.template.iter().enumerate() {
        if 4 * index as u32 >= plan.len {
            break;
        }
        if !view.store(4 * index, *word) {
            return None;
        }
    }
    let at = |offset: u32| offset as usize & 0x7f;
    (view.store(at(plan.source), source.to_be()) && view.store(at(plan.port), port.to_be()))
        .then_some(())
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
