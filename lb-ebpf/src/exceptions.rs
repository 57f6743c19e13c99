//! Which replies may have a record, or be of connections that came by no frontend: of all others
//! one byte says that nothing needs to be looked up.

use lb_common::{Tuple, exceptions, hash};

use crate::maps::{EXCEPTIONS, ROUND, SEED, dry_run};

/// Says that there may be something about a backend's packet: before there is.
#[inline(always)]
pub fn note(reply: &Tuple) {
    if dry_run() {
        return;
    }
    let round = ROUND.get(0).copied().unwrap_or_default() as u8;
    if let Some(byte) = byte(reply) {
        // SAFETY: one byte of a map value. Other CPUs write the same.
        unsafe { byte.write_volatile(exceptions::noted(round)) };
    }
}

/// Whether there may be something about a backend's packet.
#[inline(always)]
pub fn may_be(reply: &Tuple) -> bool {
    // SAFETY: as above.
    byte(reply).is_none_or(|byte| unsafe { byte.read_volatile() } != 0)
}

#[inline(always)]
fn byte(reply: &Tuple) -> Option<*mut u8> {
    let place = exceptions::place(hash::tuple_hash(reply, SEED.load()));
    let bytes = EXCEPTIONS.get_ptr_mut(0)?;
    // SAFETY: within the value.
    Some(unsafe { bytes.cast::<u8>().add(place) })
}
