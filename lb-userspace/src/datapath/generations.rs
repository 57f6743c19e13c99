//! What changes are followed by: flows that began before keep their backend without a record
//! until the drain window has passed.
//!
//! A slot that changes names its previous backend for a window, and is looked up afterwards
//! until no record is left that names another one (see [`Slot`]). A service that gets another
//! table, or none, keeps its former one for as long. Where a VIP comes from another node, flows
//! without a record are that one's for a window. A new local backend's replies are restored
//! without a record a window later, when connections that came by no frontend are known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use imbl::{OrdMap, ordmap::DiffItem};
use lb_common::{
    Addr, Algorithm, Backend, BackendId, Frontend, Slot, SlotTable, config::MAX_SERVICES,
    service::former_table,
};

use super::{
    Datapath, DatapathError,
    apply::{Applied, Change},
    difference::{absent, differing, put, take},
    load::Maps,
};
use crate::compile::image::MapImage;

/// How long replies of a backend that is gone still get the VIP back: they were on their way.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// What waits for its drain window to pass.
#[derive(Default)]
pub(super) struct Generations {
    /// Slots that have changed, since when: in tenths of seconds after `started`, since they may be
    /// many.
    changing: BTreeMap<u32, u32>,
    started: Started,
    /// Former tables by service, since when they are.
    former: BTreeMap<u32, (SlotTable, Instant)>,
    /// Local backends by index, since when there is a primary for them.
    learning: BTreeMap<u32, Instant>,
    /// Local backends that are gone, since when.
    going: BTreeMap<Frontend, Instant>,
    /// Counts changes of slots, so that a scan knows of those that came between.
    serial: Arc<AtomicU64>,
}

/// What a scan of the flow table found: slots whose flows have no records any more.
#[derive(Debug, Default)]
pub struct Unrecorded {
    pub(super) slots: Vec<(u32, Slot)>,
    pub(super) serial: u64,
}

impl Unrecorded {
    /// Whether it found none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// When the agent began: tenths of seconds are counted from there.
struct Started(Instant);

impl Default for Started {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Started {
    fn tenths(&self) -> u32 {
        tenths(self.0.elapsed())
    }
}

fn tenths(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX - 1)
}

impl Generations {
    /// What an earlier agent left to be waited for; the windows begin anew.
    pub(super) fn read(maps: &Maps, services: &OrdMap<u32, SlotTable>) -> Self {
        let now = Instant::now();
        let mut read = Self::default();
        for (&index, table) in services.range(..MAX_SERVICES as u32) {
            let former = SlotTable(maps.services.get(former_table(index) as usize));
            if !former.is_empty() {
                read.former.insert(index, (former, now));
            }
            if table.algorithm() == Algorithm::Maglev {
                let range = table.offset()..table.offset() + table.len();
                let changing =
                    range.filter(|&slot| Slot(maps.slots.get(slot as usize)).is_changing());
                read.changing.extend(changing.map(|slot| (slot, 0)));
            }
        }
        read
    }

    /// Tables that flows of an earlier time go by.
    pub(super) fn former_tables(&self) -> impl Iterator<Item = &SlotTable> {
        self.former.values().map(|(table, _)| table)
    }

    /// Waits no more for the slots of a table that is given up.
    pub(super) fn forget(&mut self, table: SlotTable) {
        let range = table.offset()..table.offset() + table.len();
        let there: Vec<u32> = self.changing.range(range).map(|(&slot, _)| slot).collect();
        for slot in there {
            self.changing.remove(&slot);
        }
    }

    /// Waits no more for a backend that is gone: another one that has its index must wait for a
    /// window of its own.
    pub(super) fn retire(&mut self, backend: u32) {
        self.learning.remove(&backend);
    }

    /// The count of changes, to be read by other threads.
    pub(super) fn serial(&self) -> Arc<AtomicU64> {
        self.serial.clone()
    }
}

impl Datapath {
    /// Stores what the slots of all tables shall name, and when flows began is told by them.
    pub(super) fn store_slots(&mut self, change: &Change<'_>, applied: &mut Applied) {
        let Change { before, image } = change;
        let now = self.live.generations.started.tenths();
        let mut stored = 0;
        let formers = &self.live.formers;
        let entries = (!formers.is_empty()).then(|| image.frontends.iter());
        let entries = entries.into_iter().flatten();
        let given_back = entries.filter(|(it, _)| formers.contains_key(&it.addr));
        let given_back: BTreeSet<u32> = given_back.map(|(_, entry)| entry.service()).collect();
        let rewritten: BTreeSet<u32> = changed_tables(before, image);
        for (&index, table) in &image.services {
            let Some(wanted) = image.tables.get(&table.offset()) else {
                continue;
            };
            let same = before.services.get(&index) == Some(table);
            if table.is_empty() || same && !rewritten.contains(&table.offset()) {
                continue;
            }
            let mut began = self.began(index, *table);
            if matches!(began, Began::Never) && given_back.contains(&index) && computes(*table) {
                began = Began::There;
            }
            for (slot, &wanted) in (table.offset()..).zip(&**wanted) {
                let live = Slot(self.maps.slots.get(slot as usize));
                let next = match began {
                    Began::Here => live.changed(wanted),
                    Began::Never => wanted,
                    Began::There => wanted.taken_over(),
                    Began::Recorded => wanted.looked_up(),
                    Began::Elsewhere => {
                        let recorded = wanted.recorded(false) != wanted;
                        Slot::of(wanted.current(), BackendId::NONE).recorded(recorded)
                    }
                };
                if self.maps.slots.set(slot as usize, next.0) {
                    stored += 1;
                    let changing = &mut self.live.generations.changing;
                    if !next.is_changing() {
                        changing.remove(&slot);
                    } else if matches!(began, Began::Here) {
                        changing.entry(slot).or_insert(now);
                    } else {
                        changing.insert(slot, now);
                    }
                }
            }
        }
        if stored > 0 {
            let serial = &self.live.generations.serial;
            serial.fetch_add(1, Ordering::AcqRel);
        }
        applied.slots += stored;
    }

    /// Has flows without a record go back to where these VIPs come from, for a window.
    pub(super) fn take_over(&mut self, gained: &BTreeSet<Addr>) {
        let now = self.live.generations.started.tenths();
        let slots = self.mark(gained, Slot::taken_over);
        let changing = &mut self.live.generations.changing;
        changing.extend(slots.into_iter().map(|slot| (slot, now)));
    }

    /// Has flows of these VIPs looked up: while another node had them it may have handed over
    /// some that are not their slots' own, and they have records.
    pub(super) fn look_up(&mut self, gained: &BTreeSet<Addr>) {
        self.mark(gained, |slot| match slot.is_settled() {
            true => slot.looked_up(),
            false => slot,
        });
    }

    /// Changes the slots by which flows of these VIPs go without records, and tells which those
    /// are.
    fn mark(&mut self, vips: &BTreeSet<Addr>, change: impl Fn(Slot) -> Slot) -> Vec<u32> {
        if vips.is_empty() {
            return Vec::new();
        }
        let entries = self.live.frontends.iter();
        let services = entries.filter(|(frontend, _)| vips.contains(&frontend.addr));
        let services: BTreeSet<u32> = services.map(|(_, entry)| entry.service()).collect();
        let tables = services.iter().filter_map(|it| self.live.services.get(it));
        let tables = tables.filter(|table| computes(**table));
        let slots = tables.flat_map(|table| table.offset()..table.offset() + table.len());
        let slots: Vec<u32> = slots.collect();
        for &slot in &slots {
            let live = Slot(self.maps.slots.get(slot as usize));
            self.maps.slots.set(slot as usize, change(live).0);
        }
        if !slots.is_empty() {
            // A scan that has begun by now does not say that they have no records.
            let serial = &self.live.generations.serial;
            serial.fetch_add(1, Ordering::AcqRel);
        }
        slots
    }

    /// Where flows of a service may have begun that is to have this table now.
    fn began(&self, index: u32, table: SlotTable) -> Began {
        if index >= MAX_SERVICES as u32 || table.algorithm() == Algorithm::RoundRobin {
            // What is handed over to another than the slot's own backend is recorded, too.
            return Began::Never;
        }
        let Some(old) = self.live.services.get(&index) else {
            return Began::Never;
        };
        if is_same_place(*old, table) {
            return Began::Here;
        }
        if self.live.generations.former.contains_key(&index) || computes(*old) {
            return Began::Elsewhere;
        }
        Began::Recorded
    }

    /// Keeps the table that a service had where flows may have begun by it that nobody has
    /// recorded; true where it is kept.
    pub(super) fn keep_former(&mut self, index: u32, old: SlotTable, new: SlotTable) -> bool {
        let generations = &mut self.live.generations;
        let moved = index < MAX_SERVICES as u32 && !is_same_place(old, new);
        if !moved || !computes(old) || generations.former.contains_key(&index) {
            return false;
        }
        generations.former.insert(index, (old, Instant::now()));
        let former = former_table(index) as usize;
        self.maps.services.set(former, old.0);
        true
    }

    /// Takes the former table of a service away.
    pub(super) fn forget_former(&mut self, index: u32) {
        if let Some((table, _)) = self.live.generations.former.remove(&index) {
            let none = SlotTable::default();
            self.maps.services.set(former_table(index) as usize, none.0);
            self.rest_slots(table);
        }
    }

    /// Waits no more for backends whose replies are not to be restored.
    pub(super) fn forget_learning(&mut self, image: &MapImage) {
        let learning = &mut self.live.generations.learning;
        learning.retain(|index, _| {
            let wanted = image.backends.get(index);
            wanted.is_none_or(|it| it.restored != 0)
        });
    }

    /// The entry of a wanted backend as it may be now: with its replies restored only if they
    /// have been before.
    pub(super) fn learning(&mut self, wanted: &Backend) -> Backend {
        let index = wanted.id.index();
        let live = self.live.backends.get(index);
        let restored = live.is_some_and(|live| live.id == wanted.id && live.restored != 0);
        if restored || wanted.restored == 0 {
            return *wanted;
        }
        let learning = &mut self.live.generations.learning;
        learning.entry(index).or_insert_with(Instant::now);
        let mut unlearned = *wanted;
        unlearned.restored = 0;
        unlearned
    }

    /// Says what replies are restored to: before any backend counts on it.
    pub(super) fn set_primaries(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        let entries = differing(&change.before.primaries, &change.image.primaries);
        let (map, live) = (&mut self.maps.primaries, &mut self.live.primaries);
        applied.backends += put("PRIMARIES", map, live, entries)?;
        Ok(())
    }

    /// Lets what was said of backends that are gone go as well, when nothing of them is on its
    /// way any more.
    pub(super) fn let_primaries_go(&mut self, Change { before, image }: &Change<'_>) {
        let going = &mut self.live.generations.going;
        going.retain(|addr, _| !image.primaries.contains_key(addr));
        for addr in absent(&before.primaries, &image.primaries) {
            going.entry(addr).or_insert_with(Instant::now);
        }
    }

    fn remove_primaries(&mut self) -> Result<(), DatapathError> {
        let going = self.live.generations.going.iter();
        let gone = going.filter(|(_, since)| since.elapsed() >= LAST_REPLIES);
        let gone: Vec<Frontend> = gone.map(|(&addr, _)| addr).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let (map, live) = (&mut self.maps.primaries, &mut self.live.primaries);
        take("PRIMARIES", map, live, gone.clone())?;
        for addr in gone {
            self.live.generations.going.remove(&addr);
        }
        self.live.filter_is_wide = true;
        Ok(())
    }

    /// Does what the passing of the drain window brings; call it about once a second.
    pub fn settle(&mut self) -> Result<(), DatapathError> {
        self.remove_primaries()?;
        self.close_filter();
        let window = self.options.drain_window;
        let due = |since: &Instant| since.elapsed() >= window;
        let generations = &mut self.live.generations;
        // One more, since they are counted whole.
        let until = generations.started.tenths().checked_sub(tenths(window) + 1);
        let slots = &self.maps.slots;
        generations.changing.retain(|&slot, since| {
            let over = until.is_some_and(|until| *since <= until);
            if over {
                slots.set(slot as usize, Slot(slots.get(slot as usize)).aged().0);
            }
            !over
        });
        let former: Vec<u32> = generations
            .former
            .iter()
            .filter(|(_, (_, since))| due(since))
            .map(|(&index, _)| index)
            .collect();
        for index in former {
            self.age_table(index);
            self.forget_former(index);
        }
        let learned: Vec<u32> = self
            .live
            .generations
            .learning
            .iter()
            .filter(|(_, since)| due(since))
            .map(|(&index, _)| index)
            .collect();
        for index in learned {
            if let Some(mut backend) = self.live.backends.get(index).copied() {
                backend.restored = 1;
                let set = self.maps.backends.set(index, backend, 0);
                set.map_err(DatapathError::map("BACKENDS"))?;
                self.live.backends.insert(backend);
            }
            self.live.generations.learning.remove(&index);
        }
        Ok(())
    }

    /// Ends the window of all slots that count on the service's former table.
    fn age_table(&mut self, index: u32) {
        let table = self.live.services.get(&index).copied().unwrap_or_default();
        if !computes(table) {
            return;
        }
        for slot in table.offset()..table.offset() + table.len() {
            let live = Slot(self.maps.slots.get(slot as usize));
            if live.previous().is_none() && !live.is_taken_over() {
                self.maps.slots.set(slot as usize, live.aged().0);
                self.live.generations.changing.remove(&slot);
            }
        }
    }

    /// Settles slots of which a scan has found no records, unless anything changed meanwhile.
    /// Gives how many.
    pub fn unrecorded(&mut self, found: &Unrecorded) -> usize {
        let serial = self.live.generations.serial.load(Ordering::Acquire);
        if serial != found.serial {
            return 0;
        }
        let settled = found.slots.iter().filter(|(index, slot)| {
            let live = Slot(self.maps.slots.get(*index as usize));
            live == *slot && self.maps.slots.set(*index as usize, slot.cleared().0)
        });
        settled.count()
    }

    /// How many slots of Maglev tables are settled, and how many there are.
    pub fn settled(&self) -> (usize, usize) {
        let tables = self.live.services.range(..MAX_SERVICES as u32);
        let tables = tables.filter(|(_, table)| computes(**table));
        let slots = tables.flat_map(|(_, table)| table.offset()..table.offset() + table.len());
        slots.fold((0, 0), |(settled, all), slot| {
            let slot = Slot(self.maps.slots.get(slot as usize));
            (settled + usize::from(slot.is_settled()), all + 1)
        })
    }
}

/// Where flows of a service began that go by one of its tables now.
enum Began {
    /// By this very table.
    Here,
    /// Nowhere: it had none.
    Never,
    /// At the node that had a VIP of it before, if anywhere.
    There,
    /// By turns: they have records.
    Recorded,
    /// By a former table.
    Elsewhere,
}

/// The first slots of tables whose contents differ.
fn changed_tables(before: &MapImage, image: &MapImage) -> BTreeSet<u32> {
    let differences = before.tables.diff(&image.tables);
    let differing = differences.filter_map(|it| match it {
        DiffItem::Add(&first, _) => Some(first),
        DiffItem::Update {
            new: (&first, _), ..
        } => Some(first),
        DiffItem::Remove(..) => None,
    });
    differing.collect()
}

/// Whether flows of a table need not have records.
fn computes(table: SlotTable) -> bool {
    !table.is_empty() && table.algorithm() == Algorithm::Maglev
}

/// Whether a table takes the place of another one, slot by slot.
fn is_same_place(old: SlotTable, new: SlotTable) -> bool {
    old.offset() == new.offset()
        && old.len() == new.len()
        && old.algorithm() == new.algorithm()
        && !old.is_empty()
}
