//! What any packet may have, whatever it is.

use super::build::{Parts, Piece};
use crate::rng::Rng;

/// Tags, options, extensions, an odd TTL, fragments, padding.
pub(super) fn decorate(rng: &mut Rng, parts: &mut Parts, ids: &mut [u32]) {
    if rng.percent(8) {
        let tags = rng.pick(&[1, 1, 1, 2, 2, 3]);
        let kinds = [0x8100, 0x8100, 0x88a8];
        parts.tags = (0..tags).map(|_| (rng.pick(&kinds), rng.word())).collect();
    }
    if rng.percent(8) {
        parts.ttl = rng.pick(&[0, 1, 2, 255]);
    }
    parts.class = rng.pick(&[0, 0, 0, 0x10, 0xff]);
    parts.dont_cut = rng.percent(70);
    if rng.percent(8) {
        parts.options = vec![1; 4 * rng.below(11)];
        for _ in 0..1 + rng.below(5) {
            let kind = rng.pick(&[0, 43, 60, 60]);
            let len = rng.pick(&[8, 8, 8, 16, 64, 128]);
            parts.extensions.push((kind, len));
        }
    }
    if rng.percent(10) {
        let at = rng.below(ids.len());
        if rng.percent(20) {
            ids[at] = rng.next() as u32;
        }
        let (offset, more) = rng.pick(&[
            (0, true),
            (0, true),
            (0, false),
            (185, true),
            (370, false),
            (1, false),
        ]);
        parts.fragment = Some(Piece {
            id: ids[at],
            offset,
            more,
        });
    }
    if rng.percent(15) {
        parts.padding = rng.below(46);
    }
}
