//! The stages of the program that the kernel's verifier walks by themselves, as plain functions.

use lb_common::{Hook, Verdict};

use crate::{
    announce,
    frame::{Context, Frame},
    headers::Headers,
    icmp,
    lookup::{self, Plan, Step},
    parse, refuse, request, route,
    work::Work,
};

/// The scratch memory of a run at `hook`.
fn memory(hook: Hook) -> Result<(&'static mut Headers, &'static mut Work), Verdict> {
    Ok((Headers::of(hook)?, Work::of(hook)?))
}

macro_rules! stage {
    ($($name:ident = |$ctx:ident, $headers:ident, $work:ident| $body:expr;)*) => {$(
        pub(crate) fn $name($ctx: Context<'_>) -> Result<Plan, Verdict> {
            let ($headers, $work) = memory($ctx.hook)?;
            $body
        }
    )*};
}

stage! {
    arrive = |ctx, headers, work| lookup::arrive(ctx, headers, work);
    find = |ctx, headers, work| request::find(ctx, headers, work);
    begin = |_ctx, headers, work| request::begin(headers, work);
    take = |_ctx, headers, work| request::take(headers, work);
    elsewhere = |ctx, headers, work| request::elsewhere(ctx, headers, work);
    find_quoted = |ctx, headers, work| icmp::inbound(ctx, headers, work);
    parse = |ctx, headers, _work| {
        parse::parse(ctx, headers).map(|()| Step::Find.with(Verdict::NotOurs))
    };
}

pub(crate) fn leave(ctx: Context<'_>, plan: Plan) -> Result<Plan, Verdict> {
    let (headers, work) = memory(ctx.hook)?;
    route::leave(ctx, headers, work, plan)
}

pub(crate) fn rewrite<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    work: &Work,
    hop: bool,
) -> Result<(), Verdict> {
    frame.rewrite(headers, &work.to, hop)
}

pub(crate) fn make<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    work: &mut Work,
    plan: Plan,
) -> Result<(), Verdict> {
    match plan.step {
        Step::Advertise => announce::advertise(frame, work),
        Step::Echo => icmp::echo(frame, headers),
        Step::Refuse => refuse::refuse(frame, headers),
        Step::TooBig => refuse::too_big(frame, headers, work),
        Step::Deliver | Step::Send => {
            icmp::translate(frame, headers, work, plan.step == Step::Send)
        }
        _ => Ok(()),
    }
}
