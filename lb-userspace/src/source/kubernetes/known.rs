//! What Services came to the last time that the objects were looked at.
//!
//! A Service depends on its own objects and on whether there are pools, so what it came to
//! is good for as long as those are the same ones: the very same, by their place in memory.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::{Key, Slice, Sourced, again::Last, service::Found};
use crate::source::Findings;

/// What each Service came to, and what all of them did.
#[derive(Debug, Default)]
pub struct Known {
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) last: Option<Last>,
}

/// What one came to, and of what.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) input: Input,
    pub(super) found: Found,
    /// What is to be said about it.
    pub(super) findings: Findings,
}

/// All that a Service depends on.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) service: Arc<Sourced<Service>>,
    pub(super) slices: Vec<Arc<Sourced<Slice>>>,
    /// Where there are no slices.
    pub(super) legacy: Option<Arc<Sourced<Endpoints>>>,
    /// Whether addresses come from pools.
    pub(super) pooled: bool,
}

impl Known {
    /// Forgets all, and gives what was known, to be handed over one by one.
    pub(super) fn begin(&mut self) -> Self {
        std::mem::take(self)
    }

    /// What `input` comes to: as it is known from `before`, or else by `work`.
    pub(super) fn renew(
        &mut self,
        before: &mut Self,
        key: Key,
        input: Input,
        work: impl FnOnce(&Key, &Input, &mut Findings) -> Found,
    ) -> &mut Entry {
        let entry = before.entries.remove(&key).filter(|it| it.input == input);
        let entry = entry.unwrap_or_else(|| {
            let mut findings = Findings::default();
            let found = work(&key, &input, &mut findings);
            Entry {
                input,
                found,
                findings,
            }
        });
        self.entries.entry(key).insert_entry(entry).into_mut()
    }
}

impl PartialEq for Input {
    fn eq(&self, other: &Self) -> bool {
        let one = |it: &Option<Arc<Sourced<Endpoints>>>| it.as_ref().map(Arc::as_ptr);
        let all = |it: &[Arc<Sourced<Slice>>]| it.iter().map(Arc::as_ptr).collect::<Vec<_>>();
        Arc::ptr_eq(&self.service, &other.service)
            && all(&self.slices) == all(&other.slices)
            && one(&self.legacy) == one(&other.legacy)
            && self.pooled == other.pooled
    }
}
