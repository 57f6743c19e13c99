//! The records of flows, in memory that is shared with the programs, see [`lb_common::cell`].

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    io,
    path::Path,
};

use aya::maps::{MapData, MapInfo};
use lb_common::{
    Addr, Cell, Ends, Flow, FlowState, Port, Tuple,
    cell::{WAYS, reply_buckets},
};

use super::{DatapathError, causes, load::maps_dir, words::Words};

/// Words of a cell.
const CELL: usize = size_of::<Cell>() / size_of::<u64>();
/// Words of what `ENDS` has of a flow.
const ENDS: usize = size_of::<Ends>() / size_of::<u64>();
/// Words of a tuple, of which `ENDS` begins with two.
const TUPLE: usize = size_of::<Tuple>() / size_of::<u64>();

/// The second word of a cell in `REPLIES` that is about to be nobody's.
const GIVEN_UP: u64 = u64::MAX;
/// Ticks after which any flow is over.
const OVER: u32 = 1 << 20;

/// The tables `FLOWS`, `ENDS` and `REPLIES` of a datapath.
pub struct Records {
    flows: Words,
    ends: Words,
    replies: Words,
    cells: u32,
    reply_cells: u32,
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
        let words = |name: &'static str, words: usize| {
            let data = MapData::from_pin(dir.join(name)).map_err(DatapathError::map(name))?;
            Words::new(name, data, words)
        };
        let (cells, reply_cells) = (buckets * WAYS, reply_buckets(buckets) * WAYS);
        Ok(Self {
            flows: words("FLOWS", cells as usize * CELL)?,
            ends: words("ENDS", cells as usize * ENDS)?,
            replies: words("REPLIES", reply_cells as usize * CELL)?,
            cells,
            reply_cells,
        })
    }

    /// The flows that are recorded, also those that are over. Others come and go meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        (0..self.cells).filter_map(|place| self.read(place))
    }

    /// The tuples of the replies that are looked up.
    pub fn replies(&self) -> impl Iterator<Item = Tuple> {
        self.iter().filter_map(|record| record.reply)
    }

    /// Removes a record, unless it has changed since it was read; tells whether it did.
    pub fn remove(&self, record: &Record) -> bool {
        let at = record.place as usize * CELL;
        let Cell([first, second]) = record.cell;
        // A client's packet finds it expired then, and puts another in its place; a backend's
        // would keep it fresh. Either changes it.
        let over = Flow {
            expires: record.flow.expires.wrapping_sub(OVER),
            ..record.flow
        };
        let removed = self.flows.exchange(at + 1, second, over.cell(first).0[1])
            && self.flows.exchange(at, first, Cell::BUSY);
        if removed {
            let [_, reply] = self.service_and_reply(record.place);
            self.withdraw(reply, record.place);
            self.flows.set(at, Cell::FREE);
        }
        removed
    }

    /// Frees the cells that somebody has had in hand since `before`, which was killed then: it takes
    /// less than a moment. Leaves there which ones are in somebody's hand now.
    pub(super) fn free_stuck(&self, before: &mut BTreeSet<Stuck>) {
        let flows = (0..self.cells).map(Stuck::Flow);
        let replies = (0..self.reply_cells).map(Stuck::Reply);
        let stuck = flows
            .chain(replies)
            .filter(|&it| self.in_hand(it).is_some());
        let stuck: BTreeSet<Stuck> = stuck.collect();
        for &it in before.intersection(&stuck) {
            let (table, place) = self.at(it);
            if let Some(first) = self.in_hand(it) {
                // What led to it is stray from then on.
                table.exchange(place as usize * CELL, first, Cell::FREE);
            }
        }
        *before = stuck;
    }

    /// The first word of a cell that is about to be somebody's, or nobody's.
    fn in_hand(&self, it: Stuck) -> Option<u64> {
        let (table, place) = self.at(it);
        let Cell([first, second]) = cell_of(table, place);
        let given_up = matches!(it, Stuck::Reply(_)) && second == GIVEN_UP && first != Cell::FREE;
        (first == Cell::BUSY || given_up).then_some(first)
    }

    fn at(&self, it: Stuck) -> (&Words, u32) {
        match it {
            Stuck::Flow(place) => (&self.flows, place),
            Stuck::Reply(place) => (&self.replies, place),
        }
    }

    /// Removes what leads to flows that are no more; tells how much that was.
    pub fn remove_stray(&self) -> usize {
        let strays = (0..self.reply_cells).filter(|&reply| {
            let Cell([first, owner]) = cell_of(&self.replies, reply);
            let leads = || {
                let flow = cell_of(&self.flows, owner as u32);
                // Who has taken a flow's cell sees to what leads there.
                flow.0[0] == Cell::BUSY
                    || flow.is_taken() && self.service_and_reply(owner as u32)[1] == reply
            };
            let stray = Cell([first, owner]).is_taken() && owner < self.cells.into() && !leads();
            stray && self.withdraw(reply, owner as u32)
        });
        strays.count()
    }

    fn read(&self, place: u32) -> Option<Record> {
        let cell = cell_of(&self.flows, place);
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
        let leads = cell_of(&self.replies, reply);
        let looked_up = leads.is_taken() && leads.0[1] == u64::from(place);
        let record = Record {
            place,
            cell,
            tuple: tuple(0),
            reply: looked_up.then(|| to.reversed()),
            to,
            flow: Flow::read(cell),
            service,
        };
        // Else it is another's by now.
        let mark = cell_of(&self.flows, place).0[0] & Cell::MARK;
        (mark == cell.0[0] & Cell::MARK).then_some(record)
    }

    /// What follows the tuples in an entry of `ENDS`.
    fn service_and_reply(&self, place: u32) -> [u32; 2] {
        let word = self.ends.get(place as usize * ENDS + 2 * TUPLE);
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
    }

    fn withdraw(&self, reply: u32, owner: u32) -> bool {
        let at = reply as usize * CELL;
        let taken = cell_of(&self.replies, reply).is_taken();
        let withdrawn = taken && self.replies.exchange(at + 1, owner.into(), GIVEN_UP);
        if withdrawn {
            self.replies.set(at, Cell::FREE);
        }
        withdrawn
    }
}

fn cell_of(table: &Words, place: u32) -> Cell {
    let at = place as usize * CELL;
    Cell([table.get(at), table.get(at + 1)])
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
