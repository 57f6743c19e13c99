//! ICMP errors: which flow one is about, recorded or not.

use lb_common::Verdict;

use super::{
    Decided, Input, Plan, State, Stop,
    parse::{Packet, Quote},
    ways::{hand_over, send},
};
use crate::wire::Tuple;

/// Decides over an error about a packet of a flow; None where there is no such flow.
pub(super) fn error(
    state: &mut State,
    input: &Input<'_>,
    packet: &Packet,
    quote: Quote,
) -> Result<Option<(Verdict, Plan)>, Stop> {
    let key = quote.tuple.reversed();
    let mut outer = packet.tuple();
    let (verdict, quoted);
    if let Some(flow) = state.flows.get(&key) {
        // About a reply: it goes to the backend that sent it.
        let Some(backend) = state.backends.get(&flow.backend) else {
            return Ok(None);
        };
        quoted = state.towards(&key, backend, flow).reversed();
        outer.dst = backend.addr.ip();
        if backend.local {
            let plan = Plan::Translate(outer, quote, quoted, None);
            return Ok(Some((Verdict::ErrorLocal, plan)));
        }
        if input.is_handed() {
            return Err(Verdict::NotHere.into());
        }
        if let Some(via) = backend.via.filter(|_| flow.snat.is_none()) {
            return hand_over(input, packet, via, Verdict::ErrorDsr).map(Some);
        }
        outer.src = flow.snat.map_or(outer.src, |(addr, _)| addr);
        verdict = Verdict::ErrorNat;
    } else if let Some(reply) = state.replies.get(&key)
        && !input.is_handed()
    {
        // About a request: it goes to the client, from the VIP.
        quoted = reply.flow;
        (outer.src, outer.dst) = (quoted.dst, quoted.src);
        verdict = Verdict::ErrorReply;
    } else {
        return unrecorded(state, input, packet, quote);
    }
    Ok(Some(match send(input, packet, outer, verdict)? {
        (verdict, Plan::Send(outer, way)) => {
            (verdict, Plan::Translate(outer, quote, quoted, Some(way)))
        }
        other => other,
    }))
}

/// The same, where there is no record: it is about a reply to a client, of the backend that
/// the slot says.
fn unrecorded(
    state: &mut State,
    input: &Input<'_>,
    packet: &Packet,
    quote: Quote,
) -> Result<Option<(Verdict, Plan)>, Stop> {
    let client = quote.tuple.reversed();
    let Some(backend) = state.unrecorded(&client) else {
        return Ok(None);
    };
    state.note("error without a record");
    if let Some(via) = backend.via {
        if input.is_handed() {
            return Err(Verdict::NotHere.into());
        }
        return hand_over(input, packet, via, Verdict::ErrorDsr).map(Some);
    }
    let quoted = Tuple {
        src: backend.addr.ip(),
        sport: backend.addr.port(),
        ..quote.tuple
    };
    let mut outer = packet.tuple();
    outer.dst = backend.addr.ip();
    let plan = Plan::Translate(outer, quote, quoted, None);
    Ok(Some((Verdict::ErrorLocal, plan)))
}

/// Decides over an error that leaves, about a client's packet to a local backend: it becomes
/// the frontend's, about a packet to that.
pub(super) fn leaving(state: &State, packet: &Packet, quote: Quote) -> Decided {
    let key = quote.tuple.reversed();
    let quoted = match state.replies.get(&key) {
        Some(reply) => reply.flow,
        None => {
            let (frontend, _) = state.restored(&key).ok_or(Verdict::NotOurs)?;
            Tuple {
                dst: frontend.ip(),
                dport: frontend.port(),
                ..quote.tuple
            }
        }
    };
    let mut outer = packet.tuple();
    outer.src = quoted.dst;
    let plan = Plan::Translate(outer, quote, quoted, None);
    Ok((Verdict::ErrorReply, plan))
}
