//! What a cluster's objects are, and what they were when they were valid last.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use k8s_openapi::{
    api::core::v1::{Namespace, Node, Service},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::Resource;

use super::{
    Loaded, Outcome, Problem, Rejected, bare, kubernetes,
    table::{Instead, Refused, Table},
};
use crate::source::{
    Note, Origin,
    kubernetes::{Known, Objects, Slice, Terms},
    metallb::{
        self,
        legacy::{self, Legacy},
        types::{IpAddressPool, L2Advertisement},
    },
};

/// The objects of all kinds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) services: Table<Service>,
    pub(super) slices: Table<Slice>,
    pub(super) nodes: Table<Node>,
    pub(super) namespaces: Table<Namespace>,
    pub(super) pools: Table<IpAddressPool>,
    pub(super) advertisements: Table<L2Advertisement>,
    pub(super) legacy: Table<Legacy>,
    terms: Terms,
    judged: Option<Judged>,
    /// Those that did not count as they are the last time.
    refused: BTreeSet<String>,
}

/// How firmly what is called so stands beside another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It has come, or counted as nothing of what it ever was.
    New,
    /// As it is it was refused, and what it was before counted.
    Refused,
    /// It has changed since it counted.
    Changed,
    /// It counted as it is.
    Settled,
}

/// Which objects were valid the last time.
#[derive(Debug)]
struct Judged {
    /// All of them, as the API server had them.
    objects: Objects,
    refused: Refused,
    /// What is to be said of those.
    notes: Vec<Note>,
}

impl Kept {
    /// Nothing yet, to be read on these terms.
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            services: Table::new("Service", born),
            slices: Table::new("EndpointSlice", |_| None),
            nodes: Table::new("Node", born),
            namespaces: Table::new("Namespace", born),
            pools: Table::optional("IPAddressPool", born),
            advertisements: Table::optional("L2Advertisement", born),
            legacy: Table::new("ConfigMap", |_| None),
            terms,
            judged: None,
            refused: BTreeSet::new(),
        }
    }

    /// Whether each kind has been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.watches().all(|(_, listed, _)| listed)
    }

    /// Why not.
    pub(super) fn unreachable(&self) -> Rejected {
        let waiting = self.watches().filter(|(_, listed, _)| !listed);
        let problems = grouped(waiting).into_iter().map(|(error, kinds)| Problem {
            origin: Origin::Cluster,
            object: String::new(),
            against: String::new(),
            what: match error {
                Some(error) => format!("{kinds} objects cannot be listed: {error}"),
                None => format!("{kinds} objects have not been listed yet"),
            },
            remedy: "see that `kubectl get` lists them with the same --kubeconfig, or the same \
                     service account"
                .to_owned(),
        });
        Rejected {
            problems: problems.collect(),
        }
    }

    /// What the objects come to, those that are valid.
    pub(super) fn outcome(&mut self, known: &mut Known) -> Outcome {
        let objects = self.objects(&Refused::new());
        if let Some((loaded, Judged { refused, notes, .. })) = self.as_before(&objects, known) {
            return self.judge(loaded, objects, refused, notes);
        }
        let mut refused = Refused::new();
        let mut notes: BTreeMap<String, Vec<Note>> = BTreeMap::new();
        loop {
            let counting = self.objects(&refused);
            let rejected = match kubernetes::translate(counting, &self.terms, known) {
                Ok(loaded) => {
                    let notes = notes.into_values().flatten().collect();
                    return self.judge(loaded, objects, refused, notes);
                }
                Err(rejected) => rejected,
            };
            let found = self.refuse(&rejected, &mut refused);
            if found.is_empty() {
                return Err(rejected);
            }
            // What was said of its former self is in force no more.
            notes.extend(found);
        }
    }

    /// What the objects come to where what was not valid the last time still is not, since nothing
    /// but slices of valid Services is another; and what that was.
    fn as_before(&mut self, objects: &Objects, known: &mut Known) -> Option<(Loaded, Judged)> {
        let last = self.judged.take()?;
        let Judged { refused, .. } = &last;
        for service in last.objects.differing(objects)? {
            if refused.contains_key(&self.services.label_of(service?)) {
                return None;
            }
        }
        // One slice may be at odds with another.
        if refused.keys().any(|it| it.starts_with(self.slices.kind)) {
            return None;
        }
        let loaded = match refused.is_empty() {
            true => known.again(objects, &self.terms),
            false => known.again(&self.objects(refused), &self.terms),
        };
        Some((loaded?, last))
    }

    fn judge(
        &mut self,
        loaded: Loaded,
        objects: Objects,
        refused: Refused,
        notes: Vec<Note>,
    ) -> Outcome {
        self.keep(&refused);
        self.refused = refused.keys().cloned().collect();
        let said = notes.clone().into_iter().chain(self.stale());
        let outcome = super::loaded(loaded, said);
        self.judged = Some(Judged {
            objects,
            refused,
            notes,
        });
        outcome
    }

    /// Lets something else count in place of what the problems are about, a step further than
    /// before; gives what is to be said of each. Objects that are wrong in themselves come first:
    /// without them there may be no conflict.
    fn refuse(
        &mut self,
        rejected: &Rejected,
        refused: &mut Refused,
    ) -> BTreeMap<String, Vec<Note>> {
        let before = refused.clone();
        let alone = rejected.problems.iter().any(|it| it.against.is_empty());
        let mut notes: BTreeMap<String, Vec<Note>> = BTreeMap::new();
        for problem in &rejected.problems {
            if alone && !problem.against.is_empty() {
                continue;
            }
            let label = self.newcomer(problem, &before);
            let instead = match before.get(&label) {
                None if self.has_former(&label) => Instead::Former,
                None | Some(Instead::Former) if self.strip(&label) => Instead::Bare,
                None | Some(Instead::Former | Instead::Bare) => Instead::Nothing,
                Some(Instead::Nothing) => continue,
            };
            refused.insert(label.clone(), instead);
            let what = match label == problem.object {
                true => problem.what.clone(),
                false => format!("{}, says {}", problem.what, problem.object),
            };
            let until = match instead {
                Instead::Former => "what it was before stays in force until then",
                Instead::Bare if label.starts_with(self.pools.kind) => {
                    "until then it is of no more addresses than Services have of it"
                }
                Instead::Bare => {
                    "until then it counts without that: by its cluster IP, its node ports and the \
                     addresses that it was given"
                }
                Instead::Nothing => "it does not count until then",
            };
            notes.entry(label.clone()).or_default().push(Note {
                origin: problem.origin.clone(),
                object: label,
                what: format!("{what}; {}; {until}", problem.remedy),
                refused: true,
            });
        }
        notes
    }

    /// Which of the objects that a problem is about has to give way: one that counts as it is does
    /// not, to one that has changed since, nor that one to one that was refused already or is new;
    /// and of two that stand alike the older one does not.
    ///
    /// What stands in no table is out of MetalLB's ConfigMap, which gives way to all that came
    /// after it; so are two of one name.
    fn newcomer(&self, problem: &Problem, refused: &Refused) -> String {
        let Problem {
            object, against, ..
        } = problem;
        let derived = |it: &String| !it.is_empty() && !self.has(it);
        let config = format!("ConfigMap {}/{}", metallb::NAMESPACE, legacy::CONFIG_MAP);
        if self.has(&config) && (derived(object) || derived(against) || object == against) {
            return config;
        }
        if against.is_empty() {
            return object.clone();
        }
        let older = match (self.born(object), self.born(against)) {
            (Some(object), Some(against)) => against.cmp(object),
            _ => Ordering::Equal,
        };
        let standing = |it| self.standing(it, refused);
        match standing(object).cmp(&standing(against)).then(older) {
            Ordering::Greater => against.clone(),
            Ordering::Less | Ordering::Equal => object.clone(),
        }
    }

    fn standing(&self, label: &str, refused: &Refused) -> Standing {
        match self.was_valid(label) {
            Some(true) => Standing::Settled,
            // It is about what counted.
            Some(false) if refused.get(label) == Some(&Instead::Former) => Standing::Settled,
            Some(false) if self.refused.contains(label) => Standing::Refused,
            Some(false) => Standing::Changed,
            None => Standing::New,
        }
    }

    /// Makes what is left of an object that is not valid; false where there is nothing to leave out,
    /// or nothing left.
    fn strip(&mut self, label: &str) -> bool {
        let Self {
            services,
            pools,
            terms,
            ..
        } = self;
        services.strip(label, |it| bare::service(it, terms))
            || pools.strip(label, |it| bare::pool(&it.object, services.all()))
    }

    /// What is to be said of watches that fail.
    fn stale(&self) -> Vec<Note> {
        let failing = self.watches().filter(|(_, _, error)| error.is_some());
        let notes = grouped(failing).into_iter().map(|(error, kinds)| Note {
            origin: Origin::Cluster,
            object: String::new(),
            what: format!(
                "{kinds} objects cannot be followed: {}; what the API server said last stays in \
                 force",
                error.unwrap_or_default()
            ),
            refused: false,
        });
        notes.collect()
    }
}

/// Since when there is an object.
fn born<K: Resource>(object: &K) -> Option<&Time> {
    object.meta().creation_timestamp.as_ref()
}

/// Kinds by what is wrong with their watches, in one line each.
fn grouped<'a>(
    watches: impl Iterator<Item = (&'static str, bool, Option<&'a str>)>,
) -> BTreeMap<Option<&'a str>, String> {
    let mut kinds: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (kind, _, error) in watches {
        kinds.entry(error).or_default().push(kind);
    }
    let joined = kinds
        .into_iter()
        .map(|(error, kinds)| (error, kinds.join(", ")));
    joined.collect()
}

/// Does the same with the tables of all kinds.
macro_rules! each {
    ($kept:expr, $table:ident => $work:expr) => {{
        let Kept {
            services,
            slices,
            nodes,
            namespaces,
            pools,
            advertisements,
            legacy,
            terms: _,
            judged: _,
            refused: _,
        } = $kept;
        {
            let $table = services;
            $work;
        }
        {
            let $table = slices;
            $work;
        }
        {
            let $table = nodes;
            $work;
        }
        {
            let $table = namespaces;
            $work;
        }
        {
            let $table = pools;
            $work;
        }
        {
            let $table = advertisements;
            $work;
        }
        {
            let $table = legacy;
            $work;
        }
    }};
}

impl Kept {
    /// Each kind, whether it has been listed, and what is wrong with its watch.
    fn watches(&self) -> impl Iterator<Item = (&'static str, bool, Option<&str>)> {
        let mut watches = Vec::new();
        each!(self, table => watches.push((table.kind, table.listed, table.error.as_deref())));
        watches.into_iter()
    }

    fn objects(&self, refused: &Refused) -> Objects {
        Objects {
            services: self.services.counting(refused),
            endpoints: Vec::new(),
            slices: self.slices.counting(refused),
            nodes: self.nodes.counting(refused),
            namespaces: self.namespaces.counting(refused),
            pools: self.pools.counting(refused),
            advertisements: self.advertisements.counting(refused),
            legacy: self.legacy.counting(refused),
        }
    }

    fn keep(&mut self, refused: &Refused) {
        each!(self, table => table.keep(refused));
    }

    fn has(&self, label: &str) -> bool {
        let mut has = false;
        each!(self, table => has |= table.has(label));
        has
    }

    fn has_former(&self, label: &str) -> bool {
        self.was_valid(label) == Some(false)
    }

    /// See [`Table::was_valid`].
    fn was_valid(&self, label: &str) -> Option<bool> {
        let mut was = None;
        each!(self, table => was = was.or(table.was_valid(label)));
        was
    }

    fn born(&self, label: &str) -> Option<&Time> {
        let mut born = None;
        each!(self, table => born = born.or(table.born(label)));
        born
    }
}

#[cfg(test)]
mod tests;
