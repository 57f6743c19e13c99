//! ICMP errors about packets of flows.

use super::{
    Generator,
    build::{self, Piece, transport},
    packets::{Draft, flags, inbound, outbound, parts, payload, to_backend},
    worlds::{client, towards},
};
use crate::{
    node::{self, find, host_of},
    reference::State,
    wire::Tuple,
};

/// What an error is about: a packet of a frontend to a client, or one that a backend was sent.
fn about(generator: &mut Generator, state: &State) -> Option<Tuple> {
    if !state.replies.is_empty() && generator.rng.percent(55) {
        let rng = &mut generator.rng;
        let (key, reply) = state.replies.iter().nth(rng.below(state.replies.len()))?;
        return Some(match rng.percent(50) {
            true => reply.flow.reversed(),
            false => key.reversed(),
        });
    }
    if generator.rng.percent(35) {
        return to_backend(generator, false);
    }
    let rng = &mut generator.rng;
    let services = &generator.services;
    let service = services.get(rng.below(services.len().max(1)))?;
    let frontend = rng.pick(&service.frontends);
    let (dst, dport) = client(rng, &generator.clients, frontend.is_ipv6());
    Some(Tuple {
        src: frontend.ip(),
        sport: frontend.port(),
        dst,
        dport,
        protocol: service.protocol,
    })
}

/// An ICMP error about a packet of a flow that there is, or that may go without a record.
pub(super) fn error(generator: &mut Generator, state: &State) -> Option<Draft> {
    let quoted = about(generator, state)?;
    let rng = &mut generator.rng;
    let v6 = quoted.dst.is_ipv6();
    let router = match rng.below(4) {
        0 => host_of(find("uplink"), 1, v6),
        1 => host_of(find("uplink"), 250, v6),
        _ => quoted.dst,
    };
    let mut draft = if node::is_pod(quoted.dst) || rng.percent(5) {
        outbound(find("uplink"), router, quoted.src)
    } else {
        inbound(rng, towards(quoted.dst), router, quoted.src)
    };
    let mut inner = parts([[0; 6]; 2], quoted.src, quoted.dst);
    inner.protocol = quoted.protocol;
    let bytes = payload(rng);
    let flags = flags(rng);
    inner.message = transport(&quoted, flags, &bytes, rng);
    if rng.percent(10) {
        inner.options = vec![1; 4 * rng.below(11)];
    }
    if rng.percent(8) {
        inner.fragment = Some(Piece {
            id: 7,
            offset: rng.pick(&[0, 0, 185]),
            more: true,
        });
    }
    if rng.percent(5) {
        inner.extensions.push((60, 8));
    }
    let mut quote = inner.packet();
    let headers = if v6 { 40 } else { 20 };
    match rng.below(4) {
        0 => quote.truncate(headers + 8),
        1 => quote.truncate(headers + rng.below(40)),
        _ => {}
    }
    let (kind, code) = if v6 {
        rng.pick(&[(1, 4), (2, 0), (3, 0), (4, 1), (5, 0)])
    } else {
        rng.pick(&[(3, 3), (3, 4), (3, 1), (11, 0), (12, 0), (4, 0), (5, 1)])
    };
    let mut rest = vec![0, 0, 5, 0];
    rest.extend(quote);
    let (src, dst) = (draft.parts.src, draft.parts.dst);
    (draft.parts.protocol, draft.parts.message) = build::icmp(src, dst, kind, code, &rest);
    Some(draft)
}
