//! Connections to local backends that came by no frontend: what leaves to them stays as it is.

use lb_common::{Frontend, Primary, Tuple};

use crate::{
    exceptions,
    headers::{Fragment, Headers},
    maps::{BACKENDS, DIRECT, PRIMARIES, dry_run},
    work::Work,
};

/// What replies from this address and port are restored to without a record.
#[inline(always)]
pub fn primary(from: &Tuple) -> Option<&'static Primary> {
    let backend = Frontend::new(from.src, from.src_port, from.protocol);
    // SAFETY: entries are replaced as a whole.
    unsafe { PRIMARIES.get(backend) }
}

/// Whether replies that have no record are restored to `primary`: not before connections that
/// came by no frontend are known.
#[inline(always)]
pub fn restores(primary: &Primary) -> bool {
    let backend = BACKENDS.get(primary.backend.index());
    let learned = backend.is_some_and(|it| it.is(primary.backend) && it.restored != 0);
    learned && !primary.is_none()
}

/// Notes a packet to a backend's own address, if its replies would be taken for a frontend's.
#[inline(always)]
pub fn note(headers: &Headers, now: u32, work: &mut Work) {
    if !headers.is_tcp() || headers.fragment == Fragment::Later {
        return;
    }
    work.reply_key = headers.tuple.reversed();
    if primary(&work.reply_key).is_some_and(|primary| !primary.is_none()) {
        record(&work.reply_key, now);
    }
}

/// Notes a connection by its backend's packets.
#[inline(always)]
pub fn record(reply: &Tuple, now: u32) {
    // SAFETY: one word.
    if dry_run() || unsafe { DIRECT.get(reply) }.is_some_and(|last| *last == now) {
        return;
    }
    exceptions::note(reply);
    // It evicts the one that was silent for longest; without any room, replies are restored.
    let _ = DIRECT.insert(reply, &now, 0);
}

/// Whether a backend's packet is of such a connection.
#[inline(always)]
pub fn is_known(reply: &Tuple) -> bool {
    // SAFETY: one word.
    unsafe { DIRECT.get(reply) }.is_some()
}

/// Forgets what the client had by the same ports before it came by a frontend.
#[inline(always)]
pub fn forget(reply: &Tuple) {
    if !dry_run() {
        // Mostly there is nothing.
        let _ = DIRECT.remove(reply);
    }
}
