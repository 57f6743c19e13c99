//! The cells of the tables of flows, see [`lb_common::cell`]: how they are found, taken, changed
//! and given up, on several CPUs at a time.
//!
//! Whoever finds a cell reads its second word between two looks at its first one, so that both
//! are of one tuple. Whoever takes one puts [`Cell::BUSY`] there by compare-and-swap, which only
//! one can, fills in all else, and puts the tuple's mark there last. (That the order in memory is
//! this one, x86 sees to; elsewhere a packet that comes while its flow's cell changes hands may
//! be sent where the other flow goes.)
//!
//! There are no branches where a number will do: the verifier walks each side of each.

use aya_ebpf::btf_maps::Array;
use lb_common::{
    Cell, Reply, Tuple,
    cell::{Key, Layout, WAYS, reply_buckets},
    config::DEFAULT_BUCKETS,
    flow::{LONGEST_BITS, ticks_left},
};

use crate::{
    maps::{BUCKETS, MMAPABLE, SECRET},
    packet::opaque,
};

/// A table of buckets.
pub type Table<B> = Array<B, DEFAULT_BUCKETS, MMAPABLE>;

/// What a cell that nobody may take is worth.
const KEPT: u64 = 1 << 40;
/// What that of a flow is, and as much more as it has ticks left.
const OCCUPIED: u64 = 16;
/// Bits of the number of a cell in two buckets.
const PLACES: u32 = 4;

/// A cell, and what it said when it was read.
#[derive(Clone, Copy)]
pub struct Found {
    /// Its bucket times [`WAYS`], and which one it is of that.
    pub place: u32,
    /// What it said.
    pub cell: Cell,
}

/// Where a client's packet may stand in `FLOWS`.
#[inline(always)]
pub fn key(client: &Tuple) -> Key {
    Key::new(client, secret(), BUCKETS.load())
}

/// Where a backend's packet may stand in `REPLIES`.
#[inline(always)]
pub fn reply_key(reply: &Tuple) -> Key {
    Key::new(reply, secret(), reply_buckets(BUCKETS.load()))
}

#[inline(always)]
fn secret() -> u64 {
    SECRET.get(0).copied().unwrap_or_default()
}

/// The cell with the mark of a key. That it is the tuple's is nearly certain; where it matters,
/// the tuple itself stands in [`lb_common::Ends`].
#[inline(always)]
pub fn find<B: Layout>(table: &'static Table<B>, key: &Key) -> Option<Found> {
    // Both are on their way then, should it stand in the second one.
    touch(table, key.second);
    let mut bucket = key.first;
    let mut ways = marked(table, bucket, key.mark);
    if ways == 0 {
        bucket = key.second;
        ways = marked(table, bucket, key.mark);
        if ways == 0 {
            return None;
        }
    }
    let place = bucket.wrapping_mul(WAYS) | first(ways);
    let cell = read(table, place)?;
    (cell.0[0] & Cell::MARK == key.mark).then_some(Found { place, cell })
}

/// What a cell says now.
#[inline(always)]
pub fn read<B: Layout>(table: &'static Table<B>, place: u32) -> Option<Cell> {
    let [first, second] = words(table, place)?;
    // SAFETY: two aligned words of a map value. The first one is read last, see above.
    let second = unsafe { second.read_volatile() };
    // SAFETY: as above.
    Some(Cell([unsafe { first.read_volatile() }, second]))
}

/// Whether a cell is still of the tuple that it was found for, and so what has been read beside it
/// since.
#[inline(always)]
pub fn is_still<B: Layout>(table: &'static Table<B>, found: Found) -> bool {
    let now = read(table, found.place).map_or(Cell::FREE, |cell| cell.0[0]);
    (now ^ found.cell.0[0]) & Cell::MARK == 0
}

/// Takes a cell for a key that has none: a free one, or that of the flow which ends soonest.
/// It is [`Cell::BUSY`] then, and what it said before is what is given.
///
/// Of two buckets with room it takes the one with more of it: with any preference for the first one
/// both would be full sooner. Of flows that end in the same tick it takes any one, since the newest
/// may be a client's that is answered next.
#[inline(always)]
pub fn take<B: Layout>(
    table: &'static Table<B>,
    key: &Key,
    worth: impl Fn(u64, *const u64) -> u64 + Copy,
) -> Option<Found> {
    let turn = (key.mark >> Cell::MARK_FROM) as u32;
    let first = cheapest(table, key.first, worth, turn)?;
    let second = cheapest(table, key.second, worth, turn)? | u64::from(WAYS);
    let least = lesser(first, second);
    let (wanted, which) = (least >> PLACES, least as u32 & (2 * WAYS - 1));
    if wanted >= KEPT {
        return None;
    }
    let elsewhere = 0_u32.wrapping_sub(opaque(u64::from(which / WAYS)) as u32);
    let bucket = key.first ^ (key.first ^ key.second) & elsewhere;
    let place = bucket.wrapping_mul(WAYS) + which.wrapping_add(turn) % WAYS;
    let found = Found {
        place,
        cell: read(table, place)?,
    };
    // Another CPU may have been first.
    let now = worth(found.cell.0[0], &raw const found.cell.0[1]);
    let same = now == wanted || now == 0 && wanted < OCCUPIED;
    (same && claim(table, found)).then_some(found)
}

/// Takes the very cell that was found, to put another in its place.
#[inline(always)]
pub fn claim<B: Layout>(table: &'static Table<B>, found: Found) -> bool {
    words(table, found.place).is_some_and(|[first, _]| exchange(first, found.cell.0[0], Cell::BUSY))
}

/// What a cell is worth where free ones are wanted alone.
#[inline(always)]
pub fn only_free(first: u64, _second: *const u64) -> u64 {
    (opaque(first >> 63) | opaque(first >> Cell::MARK_FROM & 1)) * KEPT
}

/// The same where flows make room that end soonest, see [`lb_common::Flow`].
#[inline(always)]
pub fn by_ticks_left(first: u64, second: *const u64, now: u32) -> u64 {
    let taken = 0_u64.wrapping_sub(opaque(first >> 63));
    // SAFETY: a word of a map value.
    let left = ticks_left((unsafe { second.read_volatile() } >> 40) as u32, now);
    // 1 where any of the upper bits is set: they are seven.
    let over = opaque((u64::from(left >> LONGEST_BITS) + 127) >> 7);
    let over = 0_u32.wrapping_sub(over as u32);
    let busy = !taken & opaque(first >> Cell::MARK_FROM & 1);
    (taken & (OCCUPIED + u64::from(left & !over))) + busy * KEPT
}

/// Puts the words of a cell that was taken in place.
#[inline(always)]
pub fn publish<B: Layout>(table: &'static Table<B>, place: u32, cell: Cell) {
    if let Some([first, second]) = words(table, place) {
        // SAFETY: two aligned words of a map value; nobody else changes a busy cell.
        unsafe { second.write_volatile(cell.0[1]) };
        // It orders all that was written before, and all that is read after.
        exchange(first, Cell::BUSY, cell.0[0]);
    }
}

/// Gives a cell that was taken up.
#[inline(always)]
pub fn release<B: Layout>(table: &'static Table<B>, place: u32) {
    if let Some([first, _]) = words(table, place) {
        // SAFETY: as above.
        unsafe { first.write_volatile(Cell::FREE) };
    }
}

/// Takes and gives up a cell whose second word begins with `owner`, if it still does.
#[inline(always)]
pub fn withdraw<B: Layout>(table: &'static Table<B>, place: u32, owner: u32) {
    let Some([first, second]) = words(table, place) else {
        return;
    };
    // SAFETY: words of the cell. Nobody takes one that is taken: it stays so until here.
    unsafe {
        let taken = Cell([first.read_volatile(), 0]).is_taken();
        let old = second.read_volatile();
        if taken && old as u32 == owner && exchange(second, old, Reply::GIVEN_UP) {
            first.write_volatile(Cell::FREE);
        }
    }
}

/// Changes a cell, unless it has changed since it was found; tells whether it is `to` then.
#[inline(always)]
pub fn change<B: Layout>(table: &'static Table<B>, found: Found, to: Cell) -> bool {
    let Cell(old) = found.cell;
    if to == found.cell {
        return true;
    }
    let Some([first, second]) = words(table, found.place) else {
        return false;
    };
    // What fails was overtaken by another packet, whose word is as good, or the cell is not the
    // tuple's any more.
    if old[1] != to.0[1] && !exchange(second, old[1], to.0[1]) {
        return false;
    }
    old[0] == to.0[0] || exchange(first, old[0], to.0[0])
}

/// Whether another cell than the one at `place` has the mark of a key, too.
#[inline(always)]
pub fn is_contested<B: Layout>(table: &'static Table<B>, key: &Key, place: u32) -> bool {
    let own = |bucket: u32| u32::from(place / WAYS == bucket) << (place % WAYS);
    let first = marked(table, key.first, key.mark) & !own(key.first);
    let second = marked(table, key.second, key.mark) & !own(key.second);
    first | second != 0
}

#[inline(always)]
fn words<B: Layout>(table: &'static Table<B>, place: u32) -> Option<[*mut u64; 2]> {
    let bucket: *mut u64 = table.get_ptr_mut(place / WAYS)?.cast();
    let way = (place % WAYS) as usize;
    // SAFETY: within the bucket.
    Some(unsafe {
        [
            bucket.add(way * B::FIRST_STEP),
            bucket.add(B::SECOND + way * B::SECOND_STEP),
        ]
    })
}

/// Has the marks of a bucket fetched into the cache, and does not wait for them.
#[inline(always)]
fn touch<B: Layout>(table: &'static Table<B>, bucket: u32) {
    if let Some(words) = table.get_ptr_mut(bucket) {
        // SAFETY: words of the bucket: of its first mark and of one in the middle, which is in
        // another line where marks take two.
        unsafe {
            let _ = words.cast::<u64>().read_volatile();
            let _ = words
                .cast::<u64>()
                .add(WAYS as usize / 2 * B::FIRST_STEP)
                .read_volatile();
        }
    }
}

/// Which cells of a bucket have a mark: one bit each.
#[inline(always)]
fn marked<B: Layout>(table: &'static Table<B>, bucket: u32, mark: u64) -> u32 {
    let Some(words) = table.get_ptr_mut(bucket) else {
        return 0;
    };
    let words: *mut u64 = words.cast();
    let mut ways = 0;
    for way in 0..WAYS {
        // SAFETY: a word of the bucket.
        let word = unsafe { words.add(way as usize * B::FIRST_STEP).read_volatile() };
        // 0 alone is less than 1.
        let differs = opaque((word ^ mark) >> Cell::MARK_FROM);
        ways |= ((differs.wrapping_sub(1) >> 63) as u32) << way;
    }
    ways
}

/// The lowest bit that is set of eight: of two cells with one mark everybody sees the same.
#[inline(always)]
const fn first(ways: u32) -> u32 {
    let lowest = ways & 0_u32.wrapping_sub(ways);
    // What a de Bruijn sequence makes of each of the eight, and which one that was.
    const SEQUENCE: u32 = 0b0001_1101;
    const WHICH: u32 = {
        let (mut which, mut way) = (0, 0);
        while way < 8 {
            which |= way << (4 * ((SEQUENCE << way) >> 5 & 7));
            way += 1;
        }
        which
    };
    WHICH >> (4 * (lowest.wrapping_mul(SEQUENCE) >> 5 & 7)) & 7
}

/// The cheapest cell of a bucket: its worth in bits 4 and up, in 0–2 which one it is, counted from
/// the one whose `turn` it is. A free one is worth how many are taken.
#[inline(always)]
fn cheapest<B: Layout>(
    table: &'static Table<B>,
    bucket: u32,
    worth: impl Fn(u64, *const u64) -> u64 + Copy,
    turn: u32,
) -> Option<u64> {
    let words: *mut u64 = table.get_ptr_mut(bucket)?.cast();
    // SAFETY: words of the bucket.
    let first = |way: usize| unsafe { words.add(way * B::FIRST_STEP).read_volatile() };
    let mut taken = 0;
    let mut least = u64::MAX >> 1;
    for way in 0..WAYS as usize {
        taken += opaque(first(way) >> 63);
    }
    for way in 0..WAYS as usize {
        let first = first(way);
        // SAFETY: a word of the bucket.
        let second = unsafe { words.add(B::SECOND + way * B::SECOND_STEP) };
        let free = opaque(first >> 63).wrapping_sub(1) & taken;
        let which = (way as u32).wrapping_sub(turn) % WAYS;
        least = lesser(
            least,
            (worth(first, second) + free) << PLACES | u64::from(which),
        );
    }
    Some(least)
}

/// The lesser of two numbers of less than 63 bits.
#[inline(always)]
fn lesser(a: u64, b: u64) -> u64 {
    let apart = b.wrapping_sub(a);
    let less = 0_u64.wrapping_sub(opaque(apart >> 63));
    a.wrapping_add(apart & less)
}

/// Compare-and-swap, which `core::sync::atomic` does not have for this target; the instruction
/// exists from kernel 5.12 on.
#[inline(always)]
fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};
    // SAFETY: an aligned word of a map value.
    unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(word, old, new) }.1
}
