//! Where programs send frames by what they remember.

use std::collections::BTreeSet;

use lb_common::{config::MAX_BACKENDS, hop};

use super::Datapath;

/// Words of an entry of map `HOPS`, the first of which has the link address.
pub(super) const HOP_WORDS: usize = 2;
/// The same of map `CLIENT_HOPS`.
pub(super) const CLIENT_HOP_WORDS: usize = 3;

impl Datapath {
    /// The link addresses to which frames of backends and clients are sent, or were, since all was
    /// loaded: nothing else tells the kernel that it is asked for them.
    pub fn next_hops(&self) -> BTreeSet<[u8; 6]> {
        let backends = (0..MAX_BACKENDS).map(|it| self.maps.hops.get(it * HOP_WORDS));
        let clients =
            (0..hop::CLIENT_HOPS).map(|it| self.maps.client_hops.get(it * CLIENT_HOP_WORDS));
        let words = backends.chain(clients).filter(|it| *it != 0);
        words
            .map(|word| {
                let [a, b, c, d, e, f, ..] = word.to_le_bytes();
                [a, b, c, d, e, f]
            })
            .collect()
    }
}
