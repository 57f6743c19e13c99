//! The objects of one kind, as a watch tells of them, and as they were when they were valid.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    core::Status,
    runtime::watcher::{self, Event},
};

use crate::source::kubernetes::{Key, Sourced};

/// HTTP's status of a kind that is not installed.
const NOT_FOUND: u16 = 404;
/// The same of a watch that asks for what is not remembered any more.
const EXPIRED: u16 = 410;
/// Characters of an error that are told; a proxy may answer with a page.
const MOST_SAID: usize = 300;

/// The name of an object of some kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Empty for a kind without.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Table<T> {
    pub(super) kind: &'static str,
    /// Whether the kind may not be installed.
    optional: bool,
    /// Since when there is one, as far as its kind says so.
    born: fn(&T) -> Option<&Time>,
    /// As the API server has them.
    objects: BTreeMap<Name, Arc<Sourced<T>>>,
    /// What counts in place of those that are not valid and never were.
    bare: BTreeMap<Name, Arc<Sourced<T>>>,
    /// What those counted as the last time that did not count as they are here; none: as nothing.
    former: BTreeMap<Name, Option<Arc<Sourced<T>>>>,
    /// A list that is not complete yet.
    coming: BTreeMap<Name, Arc<Sourced<T>>>,
    /// Whether there has been a complete one.
    pub(super) listed: bool,
    /// What is wrong with its watch.
    pub(super) error: Option<String>,
}

/// What a watch told of objects of one kind.
pub(super) type Told<T> = Result<Event<(Name, Arc<Sourced<T>>)>, watcher::Error>;

/// What counts in place of an object that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Instead {
    /// What it was when it was.
    Former,
    /// What is left without that which may be wrong.
    Bare,
    /// Nothing.
    Nothing,
}

/// By what messages call an object.
pub(super) type Refused = BTreeMap<String, Instead>;

impl<T> Table<T> {
    pub(super) fn new(kind: &'static str, born: fn(&T) -> Option<&Time>) -> Self {
        Self {
            kind,
            optional: false,
            born,
            objects: BTreeMap::new(),
            bare: BTreeMap::new(),
            former: BTreeMap::new(),
            coming: BTreeMap::new(),
            listed: false,
            error: None,
        }
    }

    pub(super) fn optional(kind: &'static str, born: fn(&T) -> Option<&Time>) -> Self {
        Self {
            optional: true,
            ..Self::new(kind, born)
        }
    }

    /// Takes what its watch told; says whether anything is another now.
    pub(super) fn take(&mut self, told: Told<T>) -> bool {
        match told {
            Ok(Event::Init) => self.coming.clear(),
            Ok(Event::InitApply((name, object))) => {
                self.coming.insert(name, object);
            }
            Ok(Event::InitDone) => {
                let before = std::mem::take(&mut self.objects);
                self.objects = std::mem::take(&mut self.coming);
                for name in self.objects.keys().filter(|it| !before.contains_key(it)) {
                    self.former.entry(name.clone()).or_insert(None);
                }
                for (name, object) in before {
                    self.former.entry(name).or_insert(Some(object));
                }
                // What counted as nothing and is nothing now.
                let objects = &self.objects;
                self.former
                    .retain(|name, it| it.is_some() || objects.contains_key(name));
                (self.listed, self.error) = (true, None);
                return true;
            }
            Ok(Event::Apply((name, object))) => {
                let before = self.objects.insert(name.clone(), object);
                self.former.entry(name).or_insert(before);
                return true;
            }
            Ok(Event::Delete((name, _))) => {
                let before = self.objects.remove(&name);
                let was_there = before.is_some();
                match self.former.entry(name) {
                    Entry::Vacant(entry) => {
                        entry.insert(before);
                    }
                    Entry::Occupied(entry) if entry.get().is_none() => {
                        entry.remove();
                    }
                    Entry::Occupied(_) => {}
                }
                return was_there;
            }
            // Its objects were deleted before the kind was.
            Err(error) if self.optional && self.objects.is_empty() && is_not_installed(&error) => {
                let known = std::mem::replace(&mut self.listed, true);
                return self.error.take().is_some() || !known;
            }
            // It has fallen behind, and lists them all again, which is no fault.
            Err(watcher::Error::WatchError(status)) if status.code == EXPIRED => {}
            Err(error) => {
                let error = said(&error);
                let differs = self.error.as_ref().is_none_or(|it| !is_alike(it, &error));
                if differs {
                    self.error = Some(error);
                }
                return differs;
            }
        }
        false
    }

    /// The objects as the API server has them, also those that are not valid.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Sourced<T>>> {
        self.objects.values()
    }

    /// Whether there is an object that messages call so.
    pub(super) fn has(&self, label: &str) -> bool {
        self.objects.keys().any(|it| self.label(it) == label)
    }

    /// The objects that count.
    pub(super) fn counting(&self, refused: &Refused) -> Vec<Arc<Sourced<T>>> {
        let objects = self.objects.iter();
        let counting = objects.filter_map(|(name, object)| self.instead(name, object, refused));
        counting.cloned().collect()
    }

    fn instead<'a>(
        &'a self,
        name: &Name,
        object: &'a Arc<Sourced<T>>,
        refused: &Refused,
    ) -> Option<&'a Arc<Sourced<T>>> {
        if refused.is_empty() {
            return Some(object);
        }
        match refused.get(&self.label(name)) {
            None => Some(object),
            Some(Instead::Former) => self.valid(name, object),
            Some(Instead::Bare) => self.bare.get(name),
            Some(Instead::Nothing) => None,
        }
    }

    /// What an object counted as the last time.
    fn valid<'a>(
        &'a self,
        name: &Name,
        object: &'a Arc<Sourced<T>>,
    ) -> Option<&'a Arc<Sourced<T>>> {
        match self.former.get(name) {
            Some(former) => former.as_ref(),
            None => Some(object),
        }
    }

    /// Remembers which ones counted.
    pub(super) fn keep(&mut self, refused: &Refused) {
        let objects = self.objects.iter().filter(|_| !refused.is_empty());
        let others = objects.filter_map(|(name, object)| {
            let counts = match refused.get(&self.label(name)) {
                // It never was in that state: what is left of it is worked out anew each time.
                Some(Instead::Bare) => None,
                _ => self.instead(name, object, refused),
            };
            let same = counts.is_some_and(|it| Arc::ptr_eq(it, object));
            (!same).then(|| (name.clone(), counts.cloned()))
        });
        self.former = others.collect();
        let former = &self.former;
        self.bare.retain(|name, _| former.contains_key(name));
    }

    /// Makes what is left of what is called so; false where nothing is.
    pub(super) fn strip(
        &mut self,
        label: &str,
        strip: impl FnOnce(&Sourced<T>) -> Option<T>,
    ) -> bool {
        let mut objects = self.objects.iter();
        let Some((name, whole)) = objects.find(|(name, _)| self.label(name) == label) else {
            return false;
        };
        let Some(object) = strip(whole) else {
            return false;
        };
        let origin = whole.origin.clone();
        let bare = Arc::new(Sourced { origin, object });
        self.bare.insert(name.clone(), bare);
        true
    }

    /// Since when there is what is called so.
    pub(super) fn born(&self, label: &str) -> Option<&Time> {
        let mut objects = self.objects.iter();
        let (_, it) = objects.find(|(name, _)| self.label(name) == label)?;
        (self.born)(&it.object)
    }

    /// Whether what is called so is the very one that was valid; none where none was.
    pub(super) fn was_valid(&self, label: &str) -> Option<bool> {
        let mut objects = self.objects.iter();
        let (name, now) = objects.find(|(name, _)| self.label(name) == label)?;
        Some(Arc::ptr_eq(self.valid(name, now)?, now))
    }

    /// The same of what has this key.
    pub(super) fn label_of(&self, Key { namespace, name }: &Key) -> String {
        self.label(&Name {
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }

    /// What messages call an object.
    fn label(&self, Name { namespace, name }: &Name) -> String {
        match namespace.as_str() {
            "" => format!("{} {name}", self.kind),
            _ => format!("{} {namespace}/{name}", self.kind),
        }
    }
}

fn is_not_installed(error: &watcher::Error) -> bool {
    let listing = match error {
        watcher::Error::InitialListFailed(error) => error,
        watcher::Error::WatchStartFailed(error) => error,
        _ => return false,
    };
    matches!(listing, kube::Error::Api(status) if status.code == NOT_FOUND)
}

/// What an error says, in one line.
fn said(error: &watcher::Error) -> String {
    let asked = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::WatchError(status) => return answer(status),
        watcher::Error::NoResourceVersion => return error.to_string(),
    };
    if let kube::Error::Api(status) = asked {
        return answer(status);
    }
    let mut text = asked.to_string();
    let mut cause = std::error::Error::source(asked);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    one_line(&text)
}

fn answer(status: &Status) -> String {
    one_line(&format!("{} {}", status.code, status.message))
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST_SAID).collect()
}

/// Whether two errors say the same but for how long it has been so.
fn is_alike(one: &str, other: &str) -> bool {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    fn name(name: &str) -> Name {
        Name {
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    fn applied(of: &str) -> Told<()> {
        let (origin, object) = (Origin::Cluster, ());
        Ok(Event::Apply((
            name(of),
            Arc::new(Sourced { origin, object }),
        )))
    }

    fn deleted(of: &str) -> Told<()> {
        let Ok(Event::Apply(object)) = applied(of) else {
            unreachable!("it is applied");
        };
        Ok(Event::Delete(object))
    }

    #[test]
    fn of_what_came_and_went_nothing_is_remembered_and_of_what_counted_all() {
        let mut table = Table::new("Thing", |()| None);
        table.take(applied("kept"));
        table.keep(&Refused::new());
        table.take(applied("kept"));
        assert_eq!(table.was_valid("Thing kept"), Some(false));
        // Where nothing is valid for long, names come and go.
        for n in 0..100 {
            table.take(applied(&n.to_string()));
            table.take(deleted(&n.to_string()));
            table.take(Ok(Event::Init));
            table.take(applied(&n.to_string()));
            table.take(Ok(Event::InitDone));
        }
        assert_eq!(table.former.len(), 1, "{:?}", table.former);
        table.take(applied("kept"));
        assert_eq!(table.was_valid("Thing kept"), Some(false));
        table.take(deleted("kept"));
        table.take(applied("kept"));
        assert_eq!(table.was_valid("Thing kept"), Some(false), "it was another");
    }
}
