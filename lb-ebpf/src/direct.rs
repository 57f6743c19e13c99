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
        record(&work.reply_key, headers.tcp_flags, now);
    }
}

/// Notes a connection, by its backend's packets, after one with `tcp_flags` from its client.
#[inline(always)]
pub fn record(reply: &Tuple, tcp_flags: u8, now: u32) {
    // SAFETY: its fields are words and bytes that are stored as a whole, and no decision needs two
    // of them to be of the same moment.
    let before = unsafe { DIRECT.get(reply) }.copied().unwrap_or_default();
    let after = before.after_client(tcp_flags, now);
    if dry_run() || after.is_same(before) {
        return;
    }
    exceptions::note(reply);
    // It evicts the one that was silent for longest; without any room, replies are restored.
    let _ = DIRECT.insert(reply, &after, 0);
}

/// Whether a backend's packet is of such a connection.
#[inline(always)]
pub fn is_known(reply: &Tuple) -> bool {
    // SAFETY: nothing of it is read.
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
