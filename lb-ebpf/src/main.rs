//! Naru's kernel program: packet → parse → lookup → rewrite → emit → verdict.
//!
//! Every stage returns a typed outcome; only [`run`] turns it into the hook's action.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features)]

mod announce;
mod block;
mod cells;
mod client;
mod count;
mod direct;
mod exceptions;
mod fast;
mod flow;
mod fragment;
mod frame;
mod headers;
mod icmp;
mod lookup;
mod maps;
mod packet;
mod parse;
mod plain;
mod record;
mod refuse;
mod request;
mod route;
mod socket;
mod stage;
mod table;
mod tc;
mod trace;
mod transport;
mod work;
mod xdp;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::debug;
use lb_common::{Addr, Family, Hook, Mode, Verdict, verdict::Fate};

use crate::{
    frame::Frame,
    headers::{Headers, Payload},
    lookup::Step,
    tc::TcFrame,
    work::{Counted, Work},
    xdp::XdpFrame,
};

/// On every interface, for what comes in.
#[xdp(frags)]
fn naru_xdp(ctx: XdpContext) -> u32 {
    xdp(ctx)
}

/// On interfaces whose driver has no XDP. Without `frags`: to those programs the kernel
/// gives a copy of the packet that has lost the length of its link header, which TC
/// ingress then misses (seen with Linux 6.18).
#[xdp]
fn naru_xdp_generic(ctx: XdpContext) -> u32 {
    xdp(ctx)
}

#[inline(always)]
fn xdp(ctx: XdpContext) -> u32 {
    match stage::fast(&ctx) {
        Some(action) => action,
        None => run(&mut XdpFrame::new(ctx)) as u32,
    }
}

/// On every interface, for what XDP could not emit itself.
#[classifier]
fn naru_tc_ingress(ctx: TcContext) -> i32 {
    let frame = &mut TcFrame::<false>::new(ctx);
    if stage::passes(frame.context()) {
        return TcFrame::<false>::PASS;
    }
    run(frame)
}

/// On every interface, for the replies of local backends.
#[classifier]
fn naru_tc_egress(ctx: TcContext) -> i32 {
    let frame = &mut TcFrame::<true>::new(ctx);
    if stage::leaves(frame.context()) {
        return TcFrame::<true>::PASS;
    }
    run(frame)
}

#[inline(always)]
fn run<F: Frame>(frame: &mut F) -> i32 {
    let len = frame.context().view.len() as u64;
    match parsed(frame) {
        Ok(()) => {
            // Never unset, whatever the path: the verifier takes the compiler at its word.
            let mut action = F::DROP;
            let verdict = match process(frame, &mut action) {
                Ok(verdict) => verdict,
                Err(verdict) => {
                    action = stop::<F>(verdict);
                    verdict
                }
            };
            if let Ok(headers) = Headers::of(F::HOOK) {
                log(frame, headers, verdict);
                count::verdict(F::HOOK, verdict, headers.frame_len());
            }
            action
        }
        Err(mut verdict) => {
            let mut action = stop::<F>(verdict);
            if F::HOOK == Hook::Xdp && verdict == Verdict::NotIp {
                verdict = match announce::arp(frame) {
                    Ok(()) => {
                        action = frame.send_back();
                        Verdict::ArpAnswered
                    }
                    Err(verdict) => {
                        action = stop::<F>(verdict);
                        verdict
                    }
                };
            }
            count::verdict(F::HOOK, verdict, len);
            action
        }
    }
}

/// Reads the packet's headers. No closure, which would be a function of its own: kernel 6.1
/// counts the stacks of all functions under way together, in steps of 32 bytes.
#[inline(always)]
fn parsed<F: Frame>(frame: &F) -> Result<(), Verdict> {
    if F::HOOK == Hook::TcEgress {
        parse::parse(frame.context(), Headers::of(F::HOOK)?)?;
    } else {
        stage::parse(frame.context())?;
    }
    let (headers, work) = (Headers::of(F::HOOK)?, Work::of(F::HOOK)?);
    work.counted = Counted::Not as u32;
    trace::begin(&headers.tuple);
    Ok(())
}

/// The action for a packet that is not sent.
#[inline(always)]
fn stop<F: Frame>(verdict: Verdict) -> i32 {
    match verdict.fate() {
        Fate::Pass => F::PASS,
        Fate::Forward | Fate::Refuse | Fate::Drop => F::DROP,
    }
}

/// Plans and carries out; an error is the verdict on a packet that is not sent.
#[inline(always)]
fn process<F: Frame>(frame: &mut F, action: &mut i32) -> Result<Verdict, Verdict> {
    let plan = match F::HOOK {
        Hook::Xdp | Hook::TcIngress => lookup::ingress(frame)?,
        Hook::TcEgress => lookup::egress(Headers::of(F::HOOK)?, Work::of(F::HOOK)?)?,
    };
    // As the stages have left them: no reference to them lives while one runs.
    let (headers, work) = (Headers::of(F::HOOK)?, Work::of(F::HOOK)?);
    let refuses = matches!(plan.step, Step::Refuse | Step::TooBig);
    let sent_on = refuses && !headers.is_tagged() && frame.context().is_sent_on();
    if sent_on {
        route::way_back(frame.context(), headers, work)?;
    }
    match plan.step {
        Step::Deliver | Step::Send => {
            let hop = plan.step == Step::Send;
            if headers.payload == Payload::Error {
                stage::make(frame, headers, work, plan)?;
            } else {
                trace::rewritten(&work.to);
                stage::rewrite(frame, headers, work, hop)?;
            }
            if !hop {
                *action = F::PASS;
                return Ok(plan.verdict);
            }
            frame.untag(headers)?;
            let link = [work.fib.dmac, work.fib.smac];
            *action = frame.send(work.fib.ifindex, link)?;
            if F::HOOK == Hook::Xdp && plan.verdict == Verdict::ForwardNat {
                fast::learn(frame.context().ifindex, Mode::Nat, work);
            }
            return Ok(plan.verdict);
        }
        Step::HandOver | Step::GiveBack => {
            frame.untag(headers)?;
            work.link = [work.fib.dmac, work.fib.smac];
            *action = frame.hand_over(work.fib.ifindex, &work.link)?;
            if F::HOOK == Hook::Xdp && plan.verdict == Verdict::ForwardDsr {
                fast::learn(frame.context().ifindex, Mode::Dsr, work);
            }
            return Ok(plan.verdict);
        }
        _ => stage::make(frame, headers, work, plan)?,
    }
    *action = if sent_on {
        frame.send(work.fib.ifindex, [work.fib.dmac, work.fib.smac])?
    } else {
        frame.send_back()
    };
    Ok(plan.verdict)
}

/// A line for every packet that concerns a service, at level debug. The level is a
/// load-time constant: switched off, the verifier removes all of this.
#[inline(always)]
fn log<F: Frame>(frame: &F, headers: &Headers, verdict: Verdict) {
    if verdict == Verdict::NotOurs {
        return;
    }
    let tuple = &headers.tuple;
    match tuple.family() {
        Family::V4 => debug!(
            frame.logger(),
            "hook {}: {:i}:{} -> {:i}:{} protocol {}: verdict {}",
            F::HOOK as u32,
            u32::from_be(tuple.src.v4_word()),
            tuple.src_port.get(),
            u32::from_be(tuple.dst.v4_word()),
            tuple.dst_port.get(),
            tuple.protocol,
            verdict as u8,
        ),
        Family::V6 => debug!(
            frame.logger(),
            "hook {}: [{:x} {:x} {:x} {:x}]:{} -> [{:x} {:x} {:x} {:x}]:{} protocol {}: verdict {}",
            F::HOOK as u32,
            word(&tuple.src, 0),
            word(&tuple.src, 1),
            word(&tuple.src, 2),
            word(&tuple.src, 3),
            tuple.src_port.get(),
            word(&tuple.dst, 0),
            word(&tuple.dst, 1),
            word(&tuple.dst, 2),
            word(&tuple.dst, 3),
            tuple.dst_port.get(),
            tuple.protocol,
            verdict as u8,
        ),
    }
}

/// A quarter of an IPv6 address as a number. In words, since an array of its bytes would
/// not fit on the stack beside all else.
#[inline(always)]
fn word(addr: &Addr, quarter: usize) -> u32 {
    u32::from_be(addr.words()[quarter])
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that the program calls are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
