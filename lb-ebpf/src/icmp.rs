//! ICMP errors about flows, and pings.
//!
//! An error quotes the packet that it is about as that looked where the error arose.
//! Whoever sent that packet must find in it what he sent, or he takes the error for
//! somebody else's (RFC 5508 section 4): outer and quoted headers are translated alike.

use lb_common::{Addr, AddressUse, Family, Flow, Mode, Protocol, Tuple, Verdict, checksum::Delta};

use crate::{
    direct, flow,
    frame::{
        Context, Frame, IPV4_CHECKSUM, IPV4_TTL, IPV6_HOPS, address_offsets, transport_checksum,
    },
    headers::Headers,
    lookup::{self, Plan, Step},
    packet::Wire,
    record, request, table,
    transport::icmp_of,
    work::Work,
};

/// Offset of the checksum in an ICMP header.
const CHECKSUM: usize = 2;
/// TTL of what the program itself originates.
pub const TTL: u8 = 64;

/// Plans for an error that came in.
#[inline(always)]
pub fn inbound(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if let Some(plan) = about(ctx, headers, work)? {
        return Ok(plan);
    }
    let tcp = headers.quoted.protocol == Protocol::Tcp as u8;
    if work.usage.contains(AddressUse::VIP) && tcp && request::may_give_back(ctx, headers, work) {
        return Ok(Step::GiveBack.with(Verdict::Returned));
    }
    Err(lookup::unserved(work.usage, Verdict::VipError))
}

/// Plans for an error about a packet of the VIP to a client, or of this node to a backend. The
/// outer addresses are then in [`Work::to`], the packet to be quoted in [`Work::quoted`]. None
/// where it is about no flow.
#[inline(always)]
fn about(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<Option<Plan>, Verdict> {
    work.to = headers.tuple;
    work.reply_key = headers.quoted.reversed();
    if let Some((found, ends)) = record::find(&work.reply_key) {
        let flow = Flow::read(found.cell);
        let Some(backend) = flow::kept_backend(flow.backend, work.reply_key.protocol) else {
            return Ok(None);
        };
        let mode = flow::mode(backend, flow.state);
        if mode != Mode::Local && ctx.is_handover() {
            return Err(Verdict::NotHere);
        }
        if mode == Mode::Dsr {
            work.hop = backend.via;
            return Ok(Some(Step::HandOver.with(Verdict::ErrorDsr)));
        }
        work.to.dst = backend.addr;
        if mode == Mode::Local {
            flow::redirect(&mut work.quoted, &work.reply_key, backend, mode);
            work.quoted = work.quoted.reversed();
            return Ok(Some(Plan {
                step: Step::Deliver,
                verdict: Verdict::ErrorLocal,
            }));
        }
        work.quoted = ends.to.reversed();
        work.to.src = ends.to.src;
        work.hop = backend.addr;
        return Ok(Some(Step::Send.with(Verdict::ErrorNat)));
    }
    let ends = match record::find_reply(&work.reply_key) {
        Some((_, ends)) if !ctx.is_handover() => ends,
        _ => return unrecorded(ctx, work),
    };
    work.quoted = ends.from;
    work.to.src = ends.from.dst;
    work.to.dst = ends.from.src;
    work.hop = ends.from.src;
    Ok(Some(Step::Send.with(Verdict::ErrorReply)))
}

/// The same, about a packet of a connection without a record.
#[inline(always)]
fn unrecorded(ctx: Context<'_>, work: &mut Work) -> Result<Option<Plan>, Verdict> {
    let Some(backend) = table::unrecorded(&work.reply_key) else {
        return Ok(None);
    };
    if backend.mode() == Mode::Local {
        flow::redirect(&mut work.quoted, &work.reply_key, backend, Mode::Local);
        work.quoted = work.quoted.reversed();
        work.to.dst = backend.addr;
        return Ok(Some(Step::Deliver.with(Verdict::ErrorLocal)));
    }
    if ctx.is_handover() {
        return Err(Verdict::NotHere);
    }
    work.hop = backend.via;
    Ok(Some(Step::HandOver.with(Verdict::ErrorDsr)))
}

/// Plans for an error that leaves, about a client's packet to a local backend: it is then
/// the VIP's, about a packet to the VIP.
#[inline(always)]
pub fn outbound(headers: &Headers, work: &mut Work) -> Result<Plan, Verdict> {
    work.reply_key = headers.quoted.reversed();
    work.to = headers.tuple;
    if let Some((_, ends)) = record::find_reply(&work.reply_key) {
        work.quoted = ends.from;
    } else {
        let primary = direct::primary(&work.reply_key).ok_or(Verdict::NotOurs)?;
        if !direct::restores(primary) || direct::is_known(&work.reply_key) {
            return Err(Verdict::NotOurs);
        }
        work.quoted = headers.quoted;
        work.quoted.dst = primary.addr;
        work.quoted.dst_port = primary.port;
    }
    work.to.src = work.quoted.dst;
    Ok(Step::Deliver.with(Verdict::ErrorReply))
}

/// Rewrites an error's addresses to those of [`Work::to`] and the quoted packet to
/// [`Work::quoted`], with all checksums.
#[inline(always)]
pub fn translate<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    work: &Work,
    hop: bool,
) -> Result<(), Verdict> {
    let (from, to) = (&headers.tuple, &work.to);
    let family = from.family();
    let addresses = Delta::NONE
        .addr(&from.src, &to.src)
        .addr(&from.dst, &to.dst);
    let mut message = quoted(frame, headers, &work.quoted, family)?;
    let ttl = headers.ttl - u8::from(hop);
    match family {
        Family::V4 => {
            let old = u16::from_ne_bytes([headers.ttl, from.protocol]);
            let new = u16::from_ne_bytes([ttl, from.protocol]);
            let at = headers.l3() + IPV4_CHECKSUM;
            let sum: u16 = load(frame, at)?;
            frame.overwrite(headers.l3() + IPV4_TTL, new)?;
            frame.overwrite(at, addresses.word16(old, new).apply(sum))?;
        }
        Family::V6 => {
            frame.overwrite(headers.l3() + IPV6_HOPS, ttl)?;
            // Its checksum covers the addresses.
            message = message.addr(&from.src, &to.src).addr(&from.dst, &to.dst);
        }
    }
    let (src, dst) = address_offsets(family);
    address(frame, headers.l3() + src, &to.src, family)?;
    address(frame, headers.l3() + dst, &to.dst, family)?;
    change(frame, headers.l4() + CHECKSUM, |sum| message.apply(sum)).map(drop)
}

/// Rewrites the quoted packet; gives what that changes in the message's checksum.
#[inline(always)]
fn quoted<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    to: &Tuple,
    family: Family,
) -> Result<Delta, Verdict> {
    let from = &headers.quoted;
    let (l3, l4) = (headers.quoted_l3(), headers.quoted_l4());
    let addresses = Delta::NONE
        .addr(&from.src, &to.src)
        .addr(&from.dst, &to.dst);
    let both = addresses
        .port(from.src_port, to.src_port)
        .port(from.dst_port, to.dst_port);
    let mut message = both;
    if family == Family::V4 {
        message = message.and(change(frame, l3 + IPV4_CHECKSUM, |sum| {
            addresses.apply(sum)
        })?);
    }
    let (src, dst) = address_offsets(family);
    address(frame, l3 + src, &to.src, family)?;
    address(frame, l3 + dst, &to.dst, family)?;
    frame.overwrite(l4, [to.src_port.word(), to.dst_port.word()])?;
    if let Some(offset) = transport_checksum(from.protocol) {
        // Routers need not quote that far.
        let there = l4 + offset + 2 <= headers.end();
        if there && frame.context().view.load::<u16>(l4 + offset).is_some() {
            let tcp = headers.quoted.protocol == Protocol::Tcp as u8;
            let delta = change(frame, l4 + offset, |sum| {
                if tcp {
                    both.apply(sum)
                } else {
                    both.apply_udp(sum)
                }
            })?;
            message = message.and(delta);
        }
    }
    Ok(message)
}

/// Makes an echo request the reply to it.
#[inline(always)]
pub fn echo<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(), Verdict> {
    let family = headers.tuple.family();
    let [dst, src]: [[u8; 6]; 2] = load(frame, 0)?;
    frame.store(0, [src, dst])?;
    let (old_type, new_type): (u8, u8) = match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    };
    let types = Delta::NONE.word16(
        u16::from_ne_bytes([old_type, 0]),
        u16::from_ne_bytes([new_type, 0]),
    );
    let protocol = icmp_of(family);
    match family {
        Family::V4 => {
            let old = u16::from_ne_bytes([headers.ttl, protocol]);
            let new = u16::from_ne_bytes([TTL, protocol]);
            frame.overwrite(headers.l3() + IPV4_TTL, new)?;
            change(frame, headers.l3() + IPV4_CHECKSUM, |sum| {
                Delta::NONE.word16(old, new).apply(sum)
            })?;
        }
        Family::V6 => frame.overwrite(headers.l3() + IPV6_HOPS, TTL)?,
    }
    let (at_src, at_dst) = address_offsets(family);
    address(frame, headers.l3() + at_src, &headers.tuple.dst, family)?;
    address(frame, headers.l3() + at_dst, &headers.tuple.src, family)?;
    frame.overwrite(headers.l4(), new_type)?;
    change(frame, headers.l4() + CHECKSUM, |sum| types.apply(sum)).map(drop)
}

#[inline(always)]
fn load<F: Frame, T: Wire>(frame: &F, offset: usize) -> Result<T, Verdict> {
    frame.context().view.load(offset).ok_or(Verdict::EmitFailed)
}

/// Replaces a checksum; gives what that changes in a sum over it.
#[inline(always)]
fn change<F: Frame>(
    frame: &mut F,
    offset: usize,
    new: impl Fn(u16) -> u16,
) -> Result<Delta, Verdict> {
    let old: u16 = load(frame, offset)?;
    let new = new(old);
    frame.overwrite(offset, new)?;
    Ok(Delta::NONE.word16(old, new))
}

#[inline(always)]
fn address<F: Frame>(
    frame: &mut F,
    offset: usize,
    addr: &Addr,
    family: Family,
) -> Result<(), Verdict> {
    match family {
        Family::V4 => frame.overwrite(offset, addr.v4_word()),
        Family::V6 => frame.overwrite(offset, addr.words()),
    }
}
