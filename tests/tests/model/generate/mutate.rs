//! Damage: flipped bits, cut frames, lengths that contradict each other.

use crate::{
    rng::Rng,
    wire::{get16, put16},
};

/// Damages a frame in one way or two. It stays long enough for the kernel to take it.
pub(super) fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(2) {
        match rng.below(8) {
            0..=2 => flip(rng, frame),
            3 => {
                let at = rng.below(frame.len().min(120));
                frame[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, rng.clone().byte()]);
            }
            4 => frame.truncate(
                super::packets::LEAST + rng.below(frame.len() - super::packets::LEAST + 1),
            ),
            5 | 6 => length(rng, frame),
            _ => {
                let word = 2 * rng.below(frame.len().min(120) / 2);
                let value = rng.pick(&[0, 0xffff, rng.clone().word()]);
                put16(frame, word, value);
            }
        }
    }
}

fn flip(rng: &mut Rng, frame: &mut [u8]) {
    // Mostly behind the link addresses, where there is more to go wrong.
    let from = if rng.percent(90) {
        12.min(frame.len() - 1)
    } else {
        0
    };
    let at = from + rng.below(frame.len().min(130) - from);
    frame[at] ^= 1 << rng.below(8);
}

/// Changes a length: IPv4's total length or header length, IPv6's payload length, the
/// TCP header's, UDP's.
fn length(rng: &mut Rng, frame: &mut [u8]) {
    let mut l3 = 14;
    while l3 + 4 < frame.len() && matches!(get16(frame, l3 - 2), 0x8100 | 0x88a8) {
        l3 += 4;
    }
    if frame.len() < l3 + 74 {
        return;
    }
    let v6 = frame[l3] >> 4 == 6;
    let l4 = l3
        + if v6 {
            40
        } else {
            usize::from(frame[l3] & 15) * 4
        };
    let change = |rng: &mut Rng, frame: &mut [u8], at: usize| {
        let by = rng.pick(&[1, 2, 4, 8, 20, 0xffff, 0xfffe, 0xfffc, 0xfff8, 0xffec]);
        let value = get16(frame, at).wrapping_add(by);
        put16(frame, at, value);
    };
    match rng.below(5) {
        0 | 1 if v6 => change(rng, frame, l3 + 4),
        0 | 1 => change(rng, frame, l3 + 2),
        2 if !v6 => frame[l3] = frame[l3] & 0xf0 | rng.byte() & 0x0f,
        2 => frame[l4 + 1] = rng.pick(&[0, 1, 3, 30, 31, 255]),
        3 => frame[l4 + 12] = rng.byte(),
        _ => change(rng, frame, l4 + 4),
    }
}
