//! The records of flows: their cells in `FLOWS`, where they begin and end in `ENDS`, and the cells
//! in `REPLIES` for what their backends send.

use lb_common::{
    BackendId, Cell, Ends, FlowState, Protocol, Reply, Tuple, Verdict,
    cell::{Key, WAYS},
    flow::{LONGEST, fresh_until, is_fresh, quiet, stale, ticks_left},
};

use crate::{
    cells::{self, Found},
    count, exceptions,
    headers::Headers,
    maps::{ENDS, FLOWS, REPLIES, dry_run},
    packet::opaque,
    work::{Recorded, Work},
};

/// The record of a client's packet, if there is one, be it of a flow that is over.
#[inline(always)]
pub fn find(client: &Tuple) -> Option<(Found, &'static Ends)> {
    let found = cells::find(&FLOWS, &cells::key(client))?;
    let ends = ends(found.place)?;
    ends.from.is_same(client).then_some((found, ends))
}

/// What is known of a backend's packet.
pub struct Answer {
    /// Its cell in `REPLIES`.
    found: Found,
    /// What that is rewritten by, which counts where the packet [`Self::is_still`] known.
    pub reply: &'static Reply,
}

/// What is known of a backend's packet, if it is.
#[inline(always)]
pub fn answer(packet: &Tuple) -> Option<Answer> {
    let key = cells::reply_key(packet);
    let found = cells::find(&REPLIES, &key)?;
    // SAFETY: a map value outlives the program run. Other CPUs may write it when the cell changes
    // hands; whoever has read it then looks at the cell once more.
    let reply = unsafe { &*reply(found.place)? };
    let known = (reply.hash == key.hash) & (found.cell.0[1] != Reply::GIVEN_UP);
    known.then_some(Answer { found, reply })
}

impl Answer {
    /// Whether the packet need not keep its flow fresh in tick `now`, as another one did.
    #[inline(always)]
    pub fn is_fresh(&self, now: u32) -> bool {
        is_fresh(self.found.cell.0[0] as u32, now)
    }

    /// Notes that it did, and has brought it to `state`.
    #[inline(always)]
    pub fn note(&self, now: u32, state: FlowState, tcp: bool) {
        if dry_run() {
            return;
        }
        let Cell([mark, owner]) = self.found.cell;
        let first = mark & Cell::MARK | u64::from(fresh_until(now, state, tcp));
        cells::change(&REPLIES, self.found, Cell([first, owner]));
    }

    /// Whether what was read since it was found is of this packet, and of one client.
    #[inline(always)]
    pub fn is_still(&self) -> bool {
        let Cell([mark, owner]) = self.found.cell;
        let Cell(now) = cells::read(&REPLIES, self.found.place).unwrap_or_default();
        ((now[0] ^ mark) & Cell::MARK) | (now[1] ^ owner) == 0
    }
}

#[inline(always)]
fn reply(place: u32) -> Option<*mut Reply> {
    let bucket: *mut Reply = REPLIES.get_ptr_mut(place / WAYS)?.cast();
    // SAFETY: within the bucket: its marks are as long as one of these.
    Some(unsafe { bucket.add(1 + (place % WAYS) as usize) })
}

/// The record of the flow that a backend's packet is of; what is found is the flow's cell.
#[inline(always)]
pub fn find_reply(packet: &Tuple) -> Option<(Found, &'static Ends)> {
    let (found, ends, _) = answered(packet)?;
    found.cell.is_taken().then_some((found, ends))
}

/// The same, also where the flow's cell is changing hands, and the place in `REPLIES`.
#[inline(always)]
fn answered(reply: &Tuple) -> Option<(Found, &'static Ends, u32)> {
    let leads = cells::find(&REPLIES, &cells::reply_key(reply))?;
    let place = leads.cell.0[1] as u32;
    let ends = ends(place)?;
    let cell = cells::read(&FLOWS, place)?;
    let found = Found { place, cell };
    ends.to
        .is_reverse(reply)
        .then_some((found, ends, leads.place))
}

#[inline(always)]
fn ends(place: u32) -> Option<&'static Ends> {
    // SAFETY: a map value outlives the program run. Other CPUs may write it when the flow's cell
    // changes hands; whoever reads half of that finds another tuple than it looks for.
    ENDS.get_ptr(place).map(|ends| unsafe { &*ends })
}

/// What makes room for a flow that wants its tuple, beside what is over or was reset; each does so
/// as well as those before it.
#[derive(Clone, Copy)]
pub enum Yields {
    /// Nothing.
    Nothing = 0,
    /// Connections that were closed by FIN.
    Closed = 1,
    /// Flows of which both sides do not yet know, and that have been silent for a while.
    Quiet = 2,
    /// Such flows at any time.
    Unassured = 3,
}

/// Whether no other live flow has the tuple that replies to [`Work::to`] have, which is left in
/// [`Work::reply_key`]; what counts as over `yields` says, as a [`Yields`]. One that is over and has
/// it, or an earlier one of the same client's, is left in [`Work::held`].
#[inline(always)]
pub fn is_free(headers: &Headers, now: u32, yields: u32, work: &mut Work) -> bool {
    work.reply_key = work.to.reversed();
    work.held = Ends::NONE;
    let Some((found, ends, leads)) = answered(&work.reply_key) else {
        return true;
    };
    let own = ends.from.is_same(&headers.tuple);
    let Cell([word, _]) = found.cell;
    let over = is_over(found.cell, now, headers.tuple.protocol, yields);
    // Who is about to have it has it.
    let has_it = (1 - over) | (1 - (word >> 63)) & (word >> Cell::MARK_FROM);
    if !own & (has_it & 1 != 0) {
        return false;
    }
    work.held = found.place;
    work.held_reply = leads;
    true
}

/// Whether a flow of this cell makes room, 1 or 0: every branch here would double what the verifier
/// walks.
#[inline(always)]
fn is_over(cell: Cell, now: u32, protocol: u8, yields: u32) -> u64 {
    let Cell([word, second]) = cell;
    let word = opaque(word);
    let seen = |state: FlowState| opaque(word >> state.0.trailing_zeros()) & 1;
    // 0 alone is less than 1.
    let tcp = opaque(u64::from(protocol ^ Protocol::Tcp as u8)).wrapping_sub(1) >> 63;
    let left = opaque(ticks_left((second >> 40) as u32, now).into());
    let expired = u64::from(LONGEST).wrapping_sub(left) >> 63;
    let reset = seen(FlowState::CLIENT_RST) | seen(FlowState::BACKEND_RST);
    let closed = seen(FlowState::CLIENT_FIN) & seen(FlowState::BACKEND_FIN);
    let replied = seen(FlowState::REPLIED);
    let assured = replied & seen(FlowState::CONFIRMED);
    let active = quiet(tcp, replied).wrapping_sub(left) >> 63;
    // Bit 0 of it, of which nothing else is kept.
    let yields = u64::from(yields);
    let (closed_too, quiet_too) = (yields | yields >> 1, yields >> 1);
    let unassured_too = yields & yields >> 1 | quiet_too & (1 - active);
    let over = (1 - (word >> 63)) | expired | tcp & (reset | closed_too & closed);
    (over | unassured_too & (1 - assured)) & 1
}

/// Takes the tuple of its replies from the flow in [`Work::held`], and its record with it: what its
/// client still sends would go where the tuple does.
#[inline(always)]
pub fn forget_held(work: &Work) {
    if dry_run() || work.held == Ends::NONE {
        return;
    }
    forget_reply(work.held_reply, work.held);
    let Some(cell) = cells::read(&FLOWS, work.held) else {
        return;
    };
    let place = work.held;
    // Unless it has changed hands since.
    let has_it = ends(place).is_some_and(|ends| ends.reply == work.held_reply);
    if has_it && cell.is_taken() && cells::claim(&FLOWS, Found { place, cell }) {
        cells::release(&FLOWS, place);
    }
}

/// Takes the tuple of its replies from the flow at `owner`, if it still has that by this cell.
#[inline(always)]
pub fn forget_reply(reply: u32, owner: u32) {
    cells::withdraw(&REPLIES, reply, owner);
}

/// Records [`Work::flow`] as [`Work::recorded`] says, its replies as those to [`Work::to`], which
/// [`is_free`] has looked at.
#[inline(always)]
pub fn store(headers: &Headers, work: &Work) -> Result<(), Verdict> {
    if dry_run() {
        return Ok(());
    }
    forget_held(work);
    let key = cells::key(&headers.tuple);
    let found = match cells::find(&FLOWS, &key) {
        Some(found) => {
            // Another tuple with the same mark: one of the two must do without.
            let same = ends(found.place).is_some_and(|ends| ends.from.is_same(&headers.tuple));
            if !same {
                return Err(Verdict::TupleClash);
            }
            cells::claim(&FLOWS, found).then_some(found)
        }
        None => {
            let now = work.now;
            cells::take(&FLOWS, &key, |first, second| {
                cells::by_ticks_left(first, second, now)
            })
        }
    };
    let place = found.ok_or(Verdict::TableFull)?.place;
    let ends = ENDS.get_ptr_mut(place).ok_or(Verdict::TableFull)?;
    // SAFETY: a map value outlives the program run, and the cell is this run's.
    let ends = unsafe { &mut *ends };
    // The flow that was here before.
    forget_reply(ends.reply, place);
    ends.from = headers.tuple;
    ends.to = work.to;
    ends.service = work.flow_service;
    ends.reply = Ends::NONE;
    if work.recorded == Recorded::BothWays as u32 {
        let taken = lead(place, &key, &headers.tuple, work);
        if taken.is_none() {
            cells::release(&FLOWS, place);
        }
        ends.reply = taken.ok_or(Verdict::TupleClash)?;
    } else {
        ends.to.protocol = 0;
    }
    let cell = work.flow.cell(key.mark);
    cells::publish(&FLOWS, place, cell);
    // Of two CPUs that record the same flow at least one finds the other here.
    if cells::is_contested(&FLOWS, &key, place) {
        if cells::claim(&FLOWS, Found { place, cell }) {
            forget_reply(ends.reply, place);
            cells::release(&FLOWS, place);
        }
        return Err(Verdict::TupleClash);
    }
    if work.flow.backend != BackendId::FORMER {
        count::flow(work.flow_service, work.flow.backend);
    }
    Ok(())
}

/// Makes [`Work::reply_key`] known as of the flow at `place`, which is `from` its client; gives the
/// cell of it.
#[inline(always)]
fn lead(place: u32, client: &Key, from: &Tuple, work: &Work) -> Option<u32> {
    exceptions::note(&work.reply_key);
    let key = cells::reply_key(&work.reply_key);
    let leads = cells::take(&REPLIES, &key, cells::only_free)?.place;
    // SAFETY: a map value outlives the program run, and the cell is this run's.
    let known = unsafe { &mut *reply(leads)? };
    known.hash = key.hash;
    known.from = *from;
    known.backend = work.flow.backend;
    known.service = work.flow_service;
    let first = key.mark | u64::from(stale(work.now));
    let owner = Reply::owned(place, client);
    cells::publish(&REPLIES, leads, Cell([first, owner]));
    // Of two CPUs that want the same tuple at least one finds the other here.
    if cells::is_contested(&REPLIES, &key, leads) {
        forget_reply(leads, place);
        return None;
    }
    Some(leads)
}
