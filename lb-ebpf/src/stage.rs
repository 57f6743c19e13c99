//! The stages that the verifier walks by themselves.
//!
//! Of what calls a global function the verifier walks each path only up to the call and on from
//! any result that there may be; the function it walks once, whoever calls it and how often.
//! Inlined, the paths of one stage would multiply by those of the next. (The kernel's
//! documentation has it in Documentation/bpf/verifier.rst; since Linux 5.6.)
//!
//! Arguments and results are numbers; all else stands in scratch memory ([`Headers`], [`Work`]),
//! which whoever calls a stage must take hold of anew afterwards.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use lb_common::{Hook, Verdict};

use crate::{
    announce, fast,
    frame::{Context, Frame},
    headers::Headers,
    icmp,
    lookup::{self, Plan, Step},
    maps::FAST,
    parse, record, refuse, request, route,
    tc::TcFrame,
    work::Work,
    xdp::XdpFrame,
};

/// In place of a step: there is no plan, and the verdict says why.
const STOPPED: u32 = 0xff;

/// What a stage comes to, as a number: the verdict in bits 0–7, the step in 8–15.
#[inline(always)]
fn number(outcome: Result<Plan, Verdict>) -> u32 {
    match outcome {
        Ok(Plan { step, verdict }) => (step as u32) << 8 | verdict as u32,
        Err(verdict) => STOPPED << 8 | verdict as u32,
    }
}

#[inline(always)]
fn outcome(number: u32) -> Result<Plan, Verdict> {
    let verdict = number & 0xff;
    if verdict >= Verdict::COUNT as u32 {
        return Err(Verdict::EmitFailed);
    }
    // SAFETY: verdicts are numbered from 0 to there.
    let verdict = unsafe { core::mem::transmute::<u8, Verdict>(verdict as u8) };
    let step = number >> 8;
    if step > Step::LAST as u32 {
        return Err(verdict);
    }
    // SAFETY: as above.
    let step = unsafe { core::mem::transmute::<u8, Step>(step as u8) };
    Ok(step.with(verdict))
}

/// A pointer to the context that counts as used: the compiler passes no argument that is not,
/// and the verifier wants it.
#[inline(always)]
fn used<T>(raw: *mut T) -> *mut T {
    let mut raw = raw;
    // SAFETY: copies a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) raw, options(nostack)) };
    raw
}

/// Defines a stage for both kinds of programs, and how it is called. It must use all of its
/// further arguments.
macro_rules! stage {
    ($(#[$doc:meta])* $name:ident = $xdp:ident, $tc:ident,
     |$frame:ident, $headers:ident, $work:ident $(, $argument:ident)*| $body:expr) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(ctx: Context<'_> $(, $argument: u32)*) -> Result<Plan, Verdict> {
            outcome(match ctx.hook {
                Hook::Xdp => $xdp(ctx.raw.cast() $(, $argument)*),
                Hook::TcIngress | Hook::TcEgress => $tc(ctx.raw.cast() $(, $argument)*),
            })
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $xdp(raw: *mut xdp_md $(, $argument: u32)*) -> u32 {
            let $frame = &mut XdpFrame::new(XdpContext::new(used(raw)));
            let (Ok($headers), Ok($work)) = (Headers::of(Hook::Xdp), Work::of(Hook::Xdp)) else {
                return STOPPED << 8 | Verdict::EmitFailed as u32;
            };
            number($body)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tc(raw: *mut __sk_buff $(, $argument: u32)*) -> u32 {
            const HOOK: Hook = Hook::TcIngress;
            let $frame = &mut TcFrame::<false>::again(TcContext::new(used(raw)));
            let (Ok($headers), Ok($work)) = (Headers::of(HOOK), Work::of(HOOK)) else {
                return STOPPED << 8 | Verdict::EmitFailed as u32;
            };
            number($body)
        }
    };
}

/// The short way of a frame; its action, or none where it takes the long one.
#[inline(always)]
pub fn fast(ctx: &XdpContext) -> Option<u32> {
    if FAST.load() == 0 {
        return None;
    }
    let action = naru_xdp_fast(ctx.as_ptr().cast());
    (action != STOPPED).then_some(action)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn naru_xdp_fast(raw: *mut xdp_md) -> u32 {
    let frame = XdpFrame::new(XdpContext::new(raw));
    fast::run(frame.context()).unwrap_or(STOPPED)
}

/// Whether a packet at TC ingress is for nobody here.
#[inline(always)]
pub fn passes(ctx: Context<'_>) -> bool {
    FAST.load() != 0 && naru_tc_fast(ctx.raw.cast()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn naru_tc_fast(raw: *mut __sk_buff) -> u32 {
    let frame = TcFrame::<false>::again(TcContext::new(raw));
    fast::passes(frame.context()).into()
}

/// Whether the short way is all for a packet at TC egress.
#[inline(always)]
pub fn leaves(ctx: Context<'_>) -> bool {
    FAST.load() != 0 && naru_tc_leave(ctx.raw.cast()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn naru_tc_leave(raw: *mut __sk_buff) -> u32 {
    let frame = &mut TcFrame::<true>::again(TcContext::new(raw));
    fast::reply(frame).is_some().into()
}

stage! {
    /// Reads the headers of the frame; the plan means nothing.
    parse = naru_xdp_parse, naru_tc_parse,
    |frame, headers, _work| {
        parse::parse(frame.context(), headers).map(|()| Step::Find.with(Verdict::NotOurs))
    }
}

stage! {
    /// Tells what a packet that came in is to a service.
    arrive = naru_xdp_arrive, naru_tc_arrive,
    |frame, headers, work| lookup::arrive(frame.context(), headers, work)
}

stage! {
    /// Finds the flow of a client's packet.
    find = naru_xdp_find, naru_tc_find,
    |frame, headers, work| request::find(frame.context(), headers, work)
}

stage! {
    /// Begins a flow, or goes on with one without a record.
    begin = naru_xdp_begin, naru_tc_begin,
    |_frame, headers, work| request::begin(headers, work)
}

stage! {
    /// Gives the flow that begins to a backend.
    take = naru_xdp_take, naru_tc_take,
    |_frame, headers, work| request::take(headers, work)
}

stage! {
    /// Gives it to one that is elsewhere.
    elsewhere = naru_xdp_elsewhere, naru_tc_elsewhere,
    |frame, headers, work| request::elsewhere(frame.context(), headers, work)
}

stage! {
    /// Records the flow that has begun; the plan means nothing.
    record = naru_xdp_record, naru_tc_record,
    |_frame, headers, work| {
        record::store(headers, work).map(|()| Step::Find.with(Verdict::NotOurs))
    }
}

stage! {
    /// Finds the flow that an ICMP error is about.
    find_quoted = naru_xdp_find_quoted, naru_tc_find_quoted,
    |frame, headers, work| icmp::inbound(frame.context(), headers, work)
}

stage! {
    /// Finds the way for a packet whose plan, as a number, says that it leaves.
    way = naru_xdp_way, naru_tc_way,
    |frame, headers, work, plan| {
        outcome(plan).and_then(|plan| route::leave(frame.context(), headers, work, plan))
    }
}

/// Finds the way for [`Work::to`] to leave towards [`Work::hop`]; gives the plan, or what to do
/// instead.
#[inline(always)]
pub fn leave(ctx: Context<'_>, plan: Plan) -> Result<Plan, Verdict> {
    way(ctx, number(Ok(plan)))
}

stage! {
    /// Rewrites the frame to [`Work::to`], on its next hop if `hop` is not 0; the plan means
    /// nothing.
    rewritten = naru_xdp_rewrite, naru_tc_rewrite,
    |frame, headers, work, hop| {
        let done = frame.rewrite(headers, &work.to, hop != 0);
        done.map(|()| Step::Deliver.with(Verdict::NotOurs))
    }
}

/// Rewrites the frame to [`Work::to`], on its next hop if `hop`.
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &mut F,
    headers: &mut Headers,
    work: &Work,
    hop: bool,
) -> Result<(), Verdict> {
    if F::HOOK == Hook::TcEgress {
        return frame.rewrite(headers, &work.to, hop);
    }
    rewritten(frame.context(), hop.into()).map(drop)
}

stage! {
    /// Makes the frame what a plan, as a number, asks for, where that is no packet of a flow as
    /// it came: an answer, or an ICMP error.
    compose = naru_xdp_compose, naru_tc_compose,
    |frame, headers, work, plan| {
        outcome(plan).and_then(|plan| composed(frame, headers, work, plan.step).map(|()| plan))
    }
}

#[inline(always)]
fn composed<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    work: &mut Work,
    step: Step,
) -> Result<(), Verdict> {
    match step {
        Step::Advertise => announce::advertise(frame, work),
        Step::Echo => icmp::echo(frame, headers),
        Step::Refuse => refuse::refuse(frame, headers),
        Step::TooBig => refuse::too_big(frame, headers, work),
        Step::Deliver | Step::Send => icmp::translate(frame, headers, work, step == Step::Send),
        _ => Ok(()),
    }
}

/// Makes the frame what a plan asks for that is no packet of a flow as it came.
#[inline(always)]
pub fn make<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    work: &mut Work,
    plan: Plan,
) -> Result<(), Verdict> {
    if F::HOOK == Hook::TcEgress {
        return composed(frame, headers, work, plan.step);
    }
    compose(frame.context(), number(Ok(plan))).map(drop)
}
