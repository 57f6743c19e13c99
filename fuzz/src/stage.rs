//! The stages of the program that the kernel's verifier walks by themselves, as plain functions.

use lb_common::{Hook, Verdict};

use crate::{
    frame::Context,
    headers::Headers,
    icmp,
    lookup::{self, Plan, Step},
    record, request, route,
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
    record = |_ctx, headers, work| {
        record::store(headers, work).map(|()| Step::Find.with(Verdict::NotOurs))
    };
    take = |_ctx, headers, work| request::take(headers, work);
    elsewhere = |ctx, headers, work| request::elsewhere(ctx, headers, work);
    find_quoted = |ctx, headers, work| icmp::inbound(ctx, headers, work);
}

pub(crate) fn leave(ctx: Context<'_>, plan: Plan) -> Result<Plan, Verdict> {
    let (headers, work) = memory(ctx.hook)?;
    route::leave(ctx, headers, work, plan)
}
