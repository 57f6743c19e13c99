//! Slots of two generations: where flows that nobody has recorded go.
//!
//! A Maglev slot names a backend for every packet of its flows, so nothing needs to be
//! remembered of them while it goes on naming the same one. When it changes it names the old
//! backend as well: until the drain window has passed, a flow that is not recorded is taken to
//! be of the old one, and recorded. Afterwards only records can be of another backend than the
//! slot's, and once a scan has found none the slot is settled again.
//! (Compare Beamer, NSDI'18, and JET, CoNEXT'20.)

use crate::BackendId;

/// Entry of map `SLOTS` (index: the slot's), one 8-byte store each.
///
/// Bits 0–29 are the current backend, where flows begin; 32–61 the previous one, where flows
/// are that began before the slot changed (no backend: the service had another table then).
/// Bit 31: current and previous are one, but flows of earlier ones have records. Bit 62: a VIP
/// has come from another node, and flows without a record may have begun there. Bit 63: all
/// flows have records. Slots of round-robin tables are always settled: their flows have them
/// anyway.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    const BACKEND: u64 = (1 << 30) - 1;
    const LOOKED_UP: u64 = 1 << 31;
    const TAKEN_OVER: u64 = 1 << 62;
    const RECORDED: u64 = 1 << 63;

    /// A slot whose flows need no record: all of them are `backend`'s.
    #[inline(always)]
    pub const fn settled(backend: BackendId) -> Self {
        Self::of(backend, backend)
    }

    /// A slot that names two backends, or whose flows had another table before where
    /// `previous` is none.
    #[inline(always)]
    pub const fn of(current: BackendId, previous: BackendId) -> Self {
        Self(current.0 as u64 & Self::BACKEND | (previous.0 as u64 & Self::BACKEND) << 32)
    }

    /// The same, but each of its flows is recorded, or not any more.
    #[inline(always)]
    #[must_use]
    pub const fn recorded(self, recorded: bool) -> Self {
        if recorded {
            Self(self.0 & !Self::LOOKED_UP | Self::RECORDED)
        } else {
            Self(self.0 & !Self::RECORDED)
        }
    }

    /// The same, but some of its flows may have records that name other backends.
    #[inline(always)]
    #[must_use]
    pub const fn looked_up(self) -> Self {
        if self.0 & Self::RECORDED != 0 {
            self
        } else {
            Self(self.0 | Self::LOOKED_UP)
        }
    }

    /// The backend that flows of the slot begin with.
    #[inline(always)]
    pub const fn current(self) -> BackendId {
        BackendId((self.0 & Self::BACKEND) as u32)
    }

    /// The backend of those of its flows that are not recorded.
    #[inline(always)]
    pub const fn previous(self) -> BackendId {
        BackendId((self.0 >> 32 & Self::BACKEND) as u32)
    }

    /// Whether no flow of the slot has a record that counts.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        // Of the bits none is set in both halves.
        self.0 as u32 == (self.0 >> 32) as u32
    }

    /// Whether flows of the slot are recorded from now on.
    #[inline(always)]
    pub const fn records(self) -> bool {
        self.0 & Self::RECORDED != 0 || self.is_changing()
    }

    /// Whether a flow that has no record cannot have begun here: all of them have one.
    #[inline(always)]
    pub const fn knows_all(self) -> bool {
        self.0 & Self::RECORDED != 0 || self.current().is_none()
    }

    /// Whether the slot has changed within the drain window, or was taken over.
    #[inline(always)]
    pub const fn is_changing(self) -> bool {
        self.current().0 != self.previous().0 || self.is_taken_over()
    }

    /// Whether flows without a record may have begun at the node that had the VIP before, which
    /// is asked first; those that it knows as little began here.
    #[inline(always)]
    pub const fn is_taken_over(self) -> bool {
        self.0 & Self::TAKEN_OVER != 0
    }

    /// What the slot becomes when a VIP of its service comes here from another node.
    #[must_use]
    pub const fn taken_over(self) -> Self {
        Self(self.0 | Self::TAKEN_OVER)
    }

    /// What the slot becomes where it shall name `wanted`, which is settled or recorded.
    ///
    /// Flows without a record stay with the backend that they began with: the one from before
    /// the first change of this window. Where all had records none of them began here.
    #[must_use]
    pub const fn changed(self, wanted: Self) -> Self {
        let (now, new) = (self.current(), wanted.current());
        let recorded = wanted.0 & Self::RECORDED != 0;
        let has_unrecorded = self.0 & Self::RECORDED == 0 || self.is_changing();
        let previous = if has_unrecorded { self.previous() } else { new };
        let mut next = Self::of(new, previous).recorded(recorded);
        next.0 |= self.0 & Self::TAKEN_OVER;
        if now.0 != new.0 {
            // It may be as it was before, but what began in between has records.
            return if next.is_changing() {
                next
            } else {
                next.looked_up()
            };
        }
        let records = self.0 & (Self::LOOKED_UP | Self::RECORDED) != 0;
        if records && !next.is_changing() {
            next.looked_up()
        } else {
            next
        }
    }

    /// What the slot becomes once the drain window has passed.
    #[must_use]
    pub const fn aged(self) -> Self {
        if !self.is_changing() {
            return self;
        }
        let recorded = self.0 & Self::RECORDED != 0;
        Self::settled(self.current()).recorded(recorded).looked_up()
    }

    /// What was asked of the slot: its current backend, and whether all flows are recorded.
    #[must_use]
    pub const fn wanted(self) -> Self {
        Self::settled(self.current()).recorded(self.0 & Self::RECORDED != 0)
    }

    /// Whether flows of earlier backends may have records, and no others: what a scan that
    /// finds none may end.
    #[inline(always)]
    pub const fn is_looked_up(self) -> bool {
        self.0 & Self::LOOKED_UP != 0
    }

    /// What a slot becomes that is looked up, once no record names another backend.
    #[must_use]
    pub const fn cleared(self) -> Self {
        Self(self.0 & !Self::LOOKED_UP)
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.current())?;
        if self.is_changing() {
            write!(f, "<{:?}", self.previous())?;
        }
        if self.is_looked_up() {
            f.write_str("?")?;
        }
        if self.is_taken_over() {
            f.write_str("^")?;
        }
        if self.0 & Self::RECORDED != 0 {
            f.write_str("!")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendId = BackendId::new(1, 3);
    const B: BackendId = BackendId::new(2, BackendId::GENERATIONS - 1);
    const C: BackendId = BackendId::new((1 << BackendId::INDEX_BITS) - 1, 0);

    #[test]
    fn a_slot_that_changes_remembers_where_its_flows_began() {
        let slot = Slot::settled(A);
        assert!(slot.is_settled() && !slot.records());
        let slot = slot.changed(Slot::settled(B));
        assert_eq!((slot.current(), slot.previous()), (B, A));
        assert!(!slot.is_settled() && slot.records());
        let further = slot.changed(Slot::settled(C));
        assert_eq!(
            (further.current(), further.previous()),
            (C, A),
            "since before"
        );
        let aged = further.aged();
        assert_eq!((aged.current(), aged.previous()), (C, C));
        assert!(!aged.is_settled() && !aged.records() && aged.is_looked_up());
        assert_eq!(aged.cleared(), Slot::settled(C));
    }

    #[test]
    fn a_slot_that_is_as_before_still_has_records_of_the_time_between() {
        let between = Slot::settled(A).changed(Slot::settled(B));
        let back = between.changed(Slot::settled(A));
        assert_eq!((back.current(), back.previous()), (A, A));
        assert!(!back.is_settled() && back.is_looked_up() && !back.records());
        assert_eq!(back.changed(Slot::settled(A)), back, "until a scan");
    }

    #[test]
    fn records_outlast_the_time_in_which_all_flows_had_some() {
        let recorded = Slot::settled(A).recorded(true);
        assert!(!recorded.is_settled() && recorded.records());
        let slot = recorded.changed(Slot::settled(A));
        assert!(slot.is_looked_up() && !slot.records());
        assert_eq!(slot.changed(recorded), recorded);
        let slot = recorded.changed(Slot::settled(B));
        assert_eq!(slot, Slot::settled(B).looked_up(), "none began here");
        let slot = recorded.changed(Slot::settled(B).recorded(true));
        assert_eq!(slot.aged(), Slot::settled(B).recorded(true));
    }

    #[test]
    fn flows_of_another_node_are_told_apart_for_a_window() {
        let slot = Slot::settled(A).taken_over();
        assert!(slot.is_taken_over() && slot.is_changing() && slot.records());
        assert!(!slot.is_settled());
        assert_eq!(slot.taken_over(), slot);
        let slot = slot.changed(Slot::settled(B));
        assert!(slot.is_taken_over(), "{slot:?}");
        // What that node does not know either began here.
        assert_eq!((slot.current(), slot.previous()), (B, A));
        let aged = slot.aged();
        assert!(!aged.is_taken_over() && aged.is_looked_up(), "{aged:?}");
        let aged = Slot::settled(A).taken_over().aged();
        assert!(aged.is_looked_up() && !aged.is_changing(), "{aged:?}");
        let recorded = Slot::settled(A).recorded(true);
        assert_eq!(recorded.taken_over().aged(), recorded);
    }

    #[test]
    fn what_is_wanted_already_changes_nothing() {
        let slots = [
            Slot::settled(A),
            Slot::of(A, B),
            Slot::of(A, BackendId::NONE),
        ];
        for slot in slots.map(|slot| slot.changed(Slot::settled(A))) {
            assert_eq!(slot.changed(Slot::settled(A)), slot);
            assert_eq!(slot.aged().aged(), slot.aged());
        }
    }
}
