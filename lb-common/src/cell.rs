//! The tables of flows: buckets of cells.
//!
//! A tuple stands in one of two buckets, whose lines are fetched at once, and says all that most
//! packets ask: a client's in two lines of its bucket, so that one of a million flows costs the time
//! of one miss; a backend's in one line of marks and, beside it, one of what they are of. In a hash
//! table of the kernel's it costs several, one after the other: its bucket, and what is chained
//! there, each with the key that is compared.

use crate::{BackendId, Tuple, hash};

/// Cells of a bucket.
pub const WAYS: u32 = 8;

/// Value of map `FLOWS`, 128 bytes: some of its cells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [Cell; WAYS as usize]);

/// Value of map `REPLIES`, 576 bytes: some of its cells. Word 0 of a cell is among the marks, and in
/// bits 0–23 until when such replies need not keep their flow fresh; word 1 is [`Reply::owner`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyBucket {
    /// Words 0, one line.
    pub marks: [u64; WAYS as usize],
    /// A line of each.
    pub replies: [Reply; WAYS as usize],
}

/// What is known of a backend's packet, 64 bytes: all that makes it its frontend's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The place of its flow's cell in `FLOWS` (bits 0–31), and some of that cell's mark: one client's
    /// is not another's at the same place. [`Self::GIVEN_UP`] where the cell is about to be nobody's.
    pub owner: u64,
    /// All of the packet's [`Key::hash`].
    pub hash: u64,
    /// The packet of its flow's client.
    pub from: Tuple,
    /// The backend that it is from.
    pub backend: BackendId,
    /// Index of its service, for the counters.
    pub service: u32,
}

impl Reply {
    /// See [`Self::owner`].
    pub const GIVEN_UP: u64 = u64::MAX;

    /// What [`Self::owner`] is of the flow at this place, whose client's packet has that key.
    #[inline(always)]
    pub const fn owned(place: u32, client: &Key) -> u64 {
        place as u64 | client.mark >> Cell::MARK_FROM << 32
    }
}

/// How the words of cells stand in a bucket.
pub trait Layout: Sized {
    /// Words of a bucket.
    const WORDS: usize = size_of::<Self>() / size_of::<u64>();
    /// From word 0 of a cell to that of the next.
    const FIRST_STEP: usize;
    /// Where word 1 of the first cell stands.
    const SECOND: usize;
    /// From word 1 of a cell to that of the next.
    const SECOND_STEP: usize;
}

impl Layout for Bucket {
    const FIRST_STEP: usize = 2;
    const SECOND: usize = 1;
    const SECOND_STEP: usize = 2;
}

impl Layout for ReplyBucket {
    const FIRST_STEP: usize = 1;
    const SECOND: usize = WAYS as usize;
    const SECOND_STEP: usize = size_of::<Reply>() / size_of::<u64>();
}

/// What a table has of one tuple, two words, each read and written as a whole.
///
/// Word 0 says whose it is, in bits 24–63, see [`Key::mark`]; its lower bits and word 1 are the
/// table's. A cell with word 0 of [`Self::FREE`] is nobody's, one of [`Self::BUSY`] is about to
/// be somebody's: whoever has put that there owns the cell.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell(pub [u64; 2]);

impl Cell {
    /// Word 0 of one that is nobody's.
    pub const FREE: u64 = 0;
    /// Word 0 of one that is about to be somebody's.
    pub const BUSY: u64 = 1 << Self::MARK_FROM;
    /// The bits of word 0 that say whose it is.
    pub const MARK: u64 = u64::MAX << Self::MARK_FROM;
    /// The lowest of them.
    pub const MARK_FROM: u32 = 24;
    /// Set in every mark, and in neither of the others.
    pub const TAKEN: u64 = 1 << 63;

    /// Whether it is somebody's.
    #[inline(always)]
    pub const fn is_taken(self) -> bool {
        self.0[0] & Self::TAKEN != 0
    }
}

/// Where a tuple may stand in a table, and what tells it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The tuple's hash under the node's secret.
    pub hash: u64,
    /// What word 0 of its cell says, in bits 24–63; the others are 0. They are other bits of a hash
    /// than those that choose the first bucket, so that among a million flows hardly ever two share
    /// a bucket and a mark (16 neighbours have one of 2³⁹: 2⁻¹⁶ in all); who stores a tuple finds
    /// out.
    pub mark: u64,
    /// The bucket where it is looked for first.
    pub first: u32,
    /// The other one, which rarely is the same.
    pub second: u32,
}

impl Key {
    /// The key of a tuple in a table of that many `buckets`, under a secret of the node's, so
    /// that clients cannot tell which tuples share a bucket.
    #[inline(always)]
    pub const fn new(tuple: &Tuple, secret: u64, buckets: u32) -> Self {
        let hash = hash::tuple_hash(tuple, secret);
        Self {
            hash,
            mark: hash << Cell::MARK_FROM | Cell::TAKEN,
            first: hash::reduce(hash, buckets),
            second: hash::reduce(hash.wrapping_mul(APART), buckets),
        }
    }
}

/// Odd, so that no two hashes become one.
const APART: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many buckets a table has that is to hold `entries`: room for half as many more, since a
/// tuple that finds both of its buckets full takes another's place. With so many hardly one of ten
/// million does.
pub const fn buckets(entries: u32) -> u32 {
    let wanted = (entries as u64 * 3 / 2).div_ceil(WAYS as u64);
    // Places are numbers of 32 bits.
    if wanted < MOST as u64 {
        wanted as u32 + 1
    } else {
        MOST
    }
}

const MOST: u32 = 1 << 24;

/// How many buckets the table of replies has beside one of flows with `buckets`. It is never more
/// than half full, so that whoever has found room for a flow finds room for its replies.
#[inline(always)]
pub const fn reply_buckets(buckets: u32) -> u32 {
    2 * buckets
}

/// Value of map `ENDS`, 88 bytes, by the place of a flow's cell in `FLOWS`: bucket times
/// [`WAYS`], and which cell of it. All of the flow that most of its client's packets do not need.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Its client's packet.
    pub from: Tuple,
    /// That packet as its backend sees it; of protocol 0 where no replies are looked for.
    pub to: Tuple,
    /// Index of its service, for the counters.
    pub service: u32,
    /// The place of the cell in `REPLIES` that its replies are found by; [`Self::NONE`] without
    /// one.
    pub reply: u32,
}

impl Ends {
    /// No place.
    pub const NONE: u32 = u32::MAX;
}

const _: () = assert!(size_of::<Ends>() == 88 && size_of::<Bucket>() == 128);
const _: () = assert!(size_of::<Reply>() == 64 && size_of::<ReplyBucket>() == 576);

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::{Addr, Port};

    const BUCKETS: u32 = 1_000;

    fn keys() -> impl Iterator<Item = Key> {
        let vip = Addr::from(Ipv4Addr::new(192, 168, 56, 11));
        (0..16_u32).flat_map(move |client| {
            (0..4_000).map(move |port| {
                let src = Ipv4Addr::from(0x0a00_0000 + client).into();
                let tuple = Tuple::new(src, Port::new(port), vip, Port::new(80), 6);
                Key::new(&tuple, 7, BUCKETS)
            })
        })
    }

    #[test]
    fn tuples_spread_over_both_of_their_buckets() {
        // 64,000 tuples, 64 a bucket, of the first and of the second; also of the second among
        // those that share a first one.
        let mut counts = vec![[0_u32; 3]; BUCKETS as usize];
        for key in keys() {
            counts[key.first as usize][0] += 1;
            counts[key.second as usize][1] += 1;
            counts[(key.first ^ key.second) as usize % BUCKETS as usize][2] += 1;
        }
        // Six standard deviations.
        let even = |n: &u32| (16..=112).contains(n);
        assert!(counts.iter().all(|it| it[..2].iter().all(even)));
        assert!(counts[1..].iter().all(|it| it[2] < 300), "they go together");
    }

    #[test]
    fn a_mark_is_neither_free_nor_busy_and_leaves_room() {
        for key in keys() {
            assert!(Cell([key.mark, 0]).is_taken());
            assert_eq!(key.mark & !Cell::MARK, 0);
        }
        assert!(!Cell([Cell::FREE, 0]).is_taken() && !Cell([Cell::BUSY, 0]).is_taken());
    }

    #[test]
    fn a_table_has_room_for_what_it_is_to_hold() {
        for entries in [1, 3, 4, 1_000, 1 << 18, 1_000_000] {
            let room = buckets(entries) * WAYS;
            assert!(room * 2 >= entries * 3 && room <= entries * 3 / 2 + 16);
        }
        assert_eq!(buckets(u32::MAX), MOST);
    }
}
