//! The records of flows, in memory that is shared with the programs, see [`lb_common::cell`].

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    io,
    marker::PhantomData,
    path::Path,
};

use aya::maps::{MapData, MapInfo};
use lb_common::{
    Addr, Bucket, Cell, Ends, Flow, FlowState, Port, Reply, ReplyBucket, Tuple,
    cell::{Layout, WAYS, reply_buckets},
    flow,
};

use super::{DatapathError, causes, load::maps_dir, words::Words};

/// Words of what `ENDS` has of a flow.
const ENDS: usize = size_of::<Ends>() / size_of::<u64>();
/// Words of a tuple, of which `ENDS` begins with two.
const TUPLE: usize = size_of::<Tuple>() / size_of::<u64>();

/// The words of a cell.
const FIRST: usize = 0;
const SECOND: usize = 1;
/// Ticks after which any flow is over.
const OVER: u32 = 1 << 20;

/// The tables `FLOWS`, `ENDS` and `REPLIES` of a datapath.
pub struct Records {
    flows: Table<Bucket>,
    ends: Words,
    replies: Table<ReplyBucket>,
}

/// A table of buckets.
struct Table<B> {
    words: Words,
    cells: u32,
    layout: PhantomData<B>,
}

/// What they have of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    place: u32,
    cell: Cell,
    /// The client's packet.
    pub tuple: Tuple,
    /// Its replies, where they are looked up.
    pub reply: Option<Tuple>,
    /// Until when they need not keep it fresh, see [`flow::fresh_until`].
    pub fresh_until: u32,
    to: Tuple,
    /// What is known of it.
    pub flow: Flow,
    /// Index of its service.
    pub service: u32,
}

/// A cell that somebody has in hand, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stuck {
    /// In `FLOWS`.
    Flow(u32),
    /// In `REPLIES`.
    Reply(u32),
}

impl Record {
    /// The source that the backend sees in place of the client, of a flow by `nat`.
    pub fn snat(&self) -> Option<(Addr, Port)> {
        let nat = self.flow.state.has(FlowState::NAT);
        nat.then_some((self.to.src, self.to.src_port))
    }
}

impl Records {
    /// The tables of the datapath that is pinned below `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        let dir = maps_dir(pin_dir);
        let buckets = pinned_buckets(&dir)?.ok_or_else(|| DatapathError::Object {
            what: format!("map FLOWS below {}", dir.display()),
        })?;
        let ends = (buckets * WAYS) as usize * ENDS;
        Ok(Self {
            flows: Table::open(&dir, "FLOWS", buckets)?,
            ends: words(&dir, "ENDS", ends)?,
            replies: Table::open(&dir, "REPLIES", reply_buckets(buckets))?,
        })
    }

    /// The flows that are recorded, also those that are over. Others come and go meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        (0..self.flows.cells).filter_map(|place| self.read(place))
    }

    /// The tuples of the replies that are looked up.
    pub fn replies(&self) -> impl Iterator<Item = Tuple> {
        self.iter().filter_map(|record| record.reply)
    }

    /// Removes a record, unless it has changed since it was read; tells whether it did.
    pub fn remove(&self, record: &Record) -> bool {
        let place = record.place;
        let Cell([first, second]) = record.cell;
        // A client's packet finds it expired then, and puts another in its place; a backend's
        // would keep it fresh. Either changes it.
        let over = Flow {
            expires: record.flow.expires.wrapping_sub(OVER),
            ..record.flow
        };
        let flows = &self.flows;
        let removed = flows.exchange(place, SECOND, second, over.cell(first).0[1])
            && flows.exchange(place, FIRST, first, Cell::BUSY);
        if removed {
            let [_, reply] = self.service_and_reply(place);
            self.withdraw(reply, place);
            flows.free(place);
        }
        removed
    }

    /// Frees the cells that somebody has had in hand since `before`, which was killed then: it takes
    /// less than a moment. Leaves there which ones are in somebody's hand now.
    pub(super) fn free_stuck(&self, before: &mut BTreeSet<Stuck>) {
        let flows = (0..self.flows.cells).map(Stuck::Flow);
        let replies = (0..self.replies.cells).map(Stuck::Reply);
        let stuck = flows
            .chain(replies)
            .filter(|&it| self.in_hand(it).is_some());
        let stuck: BTreeSet<Stuck> = stuck.collect();
        for &it in before.intersection(&stuck) {
            let Some(first) = self.in_hand(it) else {
                continue;
            };
            // What led to it is stray from then on.
            match it {
                Stuck::Flow(place) => self.flows.exchange(place, FIRST, first, Cell::FREE),
                Stuck::Reply(place) => self.replies.exchange(place, FIRST, first, Cell::FREE),
            };
        }
        *before = stuck;
    }

    /// The first word of a cell that is about to be somebody's, or nobody's.
    fn in_hand(&self, it: Stuck) -> Option<u64> {
        let (first, given_up) = match it {
            Stuck::Flow(place) => (self.flows.first(place), false),
            Stuck::Reply(place) => {
                let first = self.replies.first(place);
                // Most are free, and their lines far away.
                let given_up = || self.replies.cell(place).0[1] == Reply::GIVEN_UP;
                (first, first != Cell::FREE && given_up())
            }
        };
        (first == Cell::BUSY || given_up).then_some(first)
    }

    /// Removes what leads to flows that are no more; tells how much that was.
    pub fn remove_stray(&self) -> usize {
        let strays = (0..self.replies.cells).filter(|&reply| {
            let first = self.replies.first(reply);
            if !Cell([first, 0]).is_taken() {
                return false;
            }
            let owner = self.replies.cell(reply).0[1] as u32;
            let leads = || {
                let flow = self.flows.cell(owner);
                // Who has taken a flow's cell sees to what leads there.
                flow.0[0] == Cell::BUSY
                    || flow.is_taken() && self.service_and_reply(owner)[1] == reply
            };
            owner < self.flows.cells && !leads() && self.withdraw(reply, owner)
        });
        strays.count()
    }

    fn read(&self, place: u32) -> Option<Record> {
        let cell = self.flows.cell(place);
        if !cell.is_taken() {
            return None;
        }
        let start = place as usize * ENDS;
        let tuple = |n: usize| {
            let words: [u64; TUPLE] =
                std::array::from_fn(|word| self.ends.get(start + n * TUPLE + word));
            Tuple::from_words(words)
        };
        let to = tuple(1);
        let [service, reply] = self.service_and_reply(place);
        let leads = self.replies.cell(reply);
        let looked_up = leads.is_taken() && leads.0[1] as u32 == place;
        let record = Record {
            place,
            cell,
            tuple: tuple(0),
            reply: looked_up.then(|| to.reversed()),
            fresh_until: leads.0[0] as u32 & flow::TICK,
            to,
            flow: Flow::read(cell),
            service,
        };
        // Else it is another's by now.
        let mark = self.flows.cell(place).0[0] & Cell::MARK;
        (mark == cell.0[0] & Cell::MARK).then_some(record)
    }

    /// What follows the tuples in an entry of `ENDS`.
    fn service_and_reply(&self, place: u32) -> [u32; 2] {
        let word = self.ends.get(place as usize * ENDS + 2 * TUPLE);
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
    }

    fn withdraw(&self, reply: u32, owner: u32) -> bool {
        let replies = &self.replies;
        let cell = replies.cell(reply);
        let owned = cell.is_taken() && cell.0[1] as u32 == owner;
        let withdrawn = owned && replies.exchange(reply, SECOND, cell.0[1], Reply::GIVEN_UP);
        if withdrawn {
            replies.free(reply);
        }
        withdrawn
    }
}

impl<B: Layout> Table<B> {
    fn open(dir: &Path, name: &'static str, buckets: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            words: words(dir, name, buckets as usize * B::WORDS)?,
            cells: buckets * WAYS,
            layout: PhantomData,
        })
    }

    /// Where the words of a cell stand.
    fn places(place: u32) -> [usize; 2] {
        let (bucket, way) = ((place / WAYS) as usize, (place % WAYS) as usize);
        let first = way * B::FIRST_STEP;
        let second = B::SECOND + way * B::SECOND_STEP;
        [first, second].map(|it| bucket * B::WORDS + it)
    }

    fn first(&self, place: u32) -> u64 {
        self.words.get(Self::places(place)[FIRST])
    }

    fn cell(&self, place: u32) -> Cell {
        Cell(Self::places(place).map(|at| self.words.get(at)))
    }

    /// Puts another one in place of a word of a cell, unless it has changed; tells whether it did.
    fn exchange(&self, place: u32, word: usize, old: u64, new: u64) -> bool {
        self.words.exchange(Self::places(place)[word], old, new)
    }

    /// Gives a cell up that nobody else has.
    fn free(&self, place: u32) {
        self.words.set(Self::places(place)[FIRST], Cell::FREE);
    }
}

fn words(dir: &Path, name: &'static str, words: usize) -> Result<Words, DatapathError> {
    let data = MapData::from_pin(dir.join(name)).map_err(DatapathError::map(name))?;
    Words::new(name, data, words)
}

/// Removes the tables that are pinned in `dir`, if they are.
pub(super) fn unpin(dir: &Path) -> Result<(), DatapathError> {
    for name in ["FLOWS", "ENDS", "REPLIES"] {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DatapathError::file(&path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Entries of the tables that are pinned in `dir`; none where there are none.
pub(super) fn pinned_buckets(dir: &Path) -> Result<Option<u32>, DatapathError> {
    let path = dir.join("FLOWS");
    if !path.exists() {
        return Ok(None);
    }
    let info = MapInfo::from_pin(&path).map_err(|error| DatapathError::Map {
        map: "FLOWS",
        reason: causes(&error),
    })?;
    Ok(Some(info.max_entries()))
}

/// A number that nobody can guess: the standard library keys its hash tables with such.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0_u64) | 1
}
