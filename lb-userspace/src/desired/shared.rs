//! A map whose copies share what they do not change.
//!
//! What is wanted exists several times over: as the source says it, with addresses, with
//! health and drains laid over it, as it was compiled. All but a few entries are the same in
//! all of them; so a copy costs a reference, and comparing two looks at what differs alone.

use std::{
    fmt::{self, Debug},
    ops::Index,
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};

/// A map in the order of its keys.
pub struct Shared<K, V>(OrdMap<K, Arc<V>>);

impl<K: Ord, V> Shared<K, V> {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, &**value))
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| &**value)
    }

    /// Whether there is an entry.
    pub fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|value| &**value)
    }

    /// The entry of a key.
    pub fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let found = self.0.get_key_value(key);
        found.map(|(key, value)| (key, &**value))
    }
}

impl<K: Ord, V: Eq> Shared<K, V> {
    /// The entries that differ from those of `other`, as they are here and there; none where the
    /// keys are others.
    pub fn changes<'a>(&'a self, other: &'a Self) -> Option<Vec<(&'a K, &'a V, &'a V)>> {
        let differences = other.0.diff(&self.0);
        let changes = differences.map(|it| match it {
            DiffItem::Update {
                old: (_, other),
                new: (key, one),
            } => Some((key, &**one, &**other)),
            DiffItem::Add(..) | DiffItem::Remove(..) => None,
        });
        changes.collect()
    }
}

impl<K: Ord, V: Eq> Shared<K, V> {
    /// The values that `other` has not, or not by the same keys, and those that it has instead.
    pub fn exchanged<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a V>, Option<&'a V>)> {
        let differences = other.0.diff(&self.0);
        differences.map(|it| match it {
            DiffItem::Add(_, one) => (Some(&**one), None),
            DiffItem::Update { old, new } => (Some(&**new.1), Some(&**old.1)),
            DiffItem::Remove(_, other) => (None, Some(&**other)),
        })
    }
}

impl<K: Ord + Clone, V> Shared<K, V> {
    /// Those entries that satisfy `keep`, shared.
    pub fn filtered(&self, keep: impl Fn(&K, &V) -> bool) -> Self {
        let kept = self.0.iter().filter(|(key, value)| keep(key, value));
        kept.map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
    }
}

impl<K: Ord + Clone, V: Clone> Shared<K, V> {
    /// The value of a key, to be changed: it is shared no more.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.contains_key(key) {
            return None;
        }
        self.0.get_mut(key).map(Arc::make_mut)
    }

    /// Takes an entry over from another map, and shares it with that.
    pub fn share(&mut self, key: &K, from: &Self) {
        if let Some((key, value)) = from.0.get_key_value(key) {
            self.0.insert(key.clone(), Arc::clone(value));
        }
    }

    /// Adds an entry, or replaces one.
    pub fn insert(&mut self, key: K, value: impl Into<Arc<V>>) -> Option<Arc<V>> {
        self.0.insert(key, value.into())
    }

    /// Takes an entry away.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        self.0.remove(key)
    }

    /// Takes away what does not satisfy `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let dropped = self.iter().filter(|(key, value)| !keep(key, value));
        let dropped: Vec<K> = dropped.map(|(key, _)| key.clone()).collect();
        for key in dropped {
            self.0.remove(&key);
        }
    }

    /// Changes those entries of which `concerns` is true, and shares the others as before.
    pub fn change(
        &mut self,
        concerns: impl Fn(&K, &V) -> bool,
        mut change: impl FnMut(&K, &mut V),
    ) {
        let concerned = self.iter().filter(|(key, value)| concerns(key, value));
        let concerned: Vec<K> = concerned.map(|(key, _)| key.clone()).collect();
        for key in concerned {
            if let Some(value) = self.0.get_mut(&key) {
                change(&key, Arc::make_mut(value));
            }
        }
    }
}

impl<K, V> Clone for Shared<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Debug, V: Debug> Debug for Shared<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Ord, V: Eq> PartialEq for Shared<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord, V: Eq> Eq for Shared<K, V> {}

impl<K: Ord + Clone, V, S: Into<Arc<V>>> FromIterator<(K, S)> for Shared<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, S)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        Self(entries.map(|(key, it)| (key, it.into())).collect())
    }
}

impl<K: Ord + Clone, V, S: Into<Arc<V>>, const N: usize> From<[(K, S); N]> for Shared<K, V> {
    fn from(entries: [(K, S); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord, V> Index<&K> for Shared<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        &self.0[key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_changed_alone_and_shares_the_rest() {
        let first: Shared<u8, String> = (1..=3).map(|n| (n, n.to_string())).collect();
        let mut second = first.clone();
        assert!(second.get_mut(&9).is_none());
        second.change(|key, _| *key > 9, |_, _| panic!("there is none"));
        second.retain(|_, _| true);
        assert!(first.0.ptr_eq(&second.0), "nothing was changed");

        second.change(|key, _| *key == 2, |_, it| it.push('!'));
        assert_eq!((first[&2].as_str(), second[&2].as_str()), ("2", "2!"));
        assert_ne!(first, second);
        assert!(Arc::ptr_eq(&first.0[&1], &second.0[&1]));
        second.insert(2, "2".to_owned());
        assert_eq!(first, second, "by what they hold");
        second.retain(|key, _| *key != 2);
        assert_eq!((first.len(), second.len()), (3, 2));
        assert_ne!(first, second);
    }
}
