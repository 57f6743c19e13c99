//! What a cluster's objects are, and what they were when they were valid last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use kube::runtime::watcher::{self, Event};

use super::{Outcome, Problem, Rejected, kubernetes};
use crate::source::{
    Note, Origin,
    kubernetes::{Known, Objects, Slice, Sourced},
    metallb::types::{IpAddressPool, L2Advertisement},
};

/// HTTP's status of a kind that is not installed.
const NOT_FOUND: u16 = 404;

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
    kind: &'static str,
    /// As the API server has them.
    objects: BTreeMap<Name, Arc<Sourced<T>>>,
    /// As far as they were used the last time.
    valid: BTreeMap<Name, Arc<Sourced<T>>>,
    /// A list that is not complete yet.
    coming: BTreeMap<Name, Arc<Sourced<T>>>,
    /// Whether there has been a complete one.
    listed: bool,
    /// What is wrong with its watch.
    error: Option<String>,
}

/// What a watch told of objects of one kind.
pub(super) type Told<T> = Result<Event<(Name, Arc<Sourced<T>>)>, watcher::Error>;

/// What counts in place of an object that is not valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Instead {
    /// What it was when it was.
    Former,
    /// Nothing.
    Nothing,
}

/// By what messages call an object.
type Refused = BTreeMap<String, Instead>;

/// The objects of all kinds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) services: Table<Service>,
    pub(super) slices: Table<Slice>,
    pub(super) nodes: Table<Node>,
    pub(super) namespaces: Table<Namespace>,
    pub(super) pools: Table<IpAddressPool>,
    pub(super) advertisements: Table<L2Advertisement>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            services: Table::new("Service"),
            slices: Table::new("EndpointSlice"),
            nodes: Table::new("Node"),
            namespaces: Table::new("Namespace"),
            pools: Table::new("IPAddressPool"),
            advertisements: Table::new("L2Advertisement"),
        }
    }
}

impl Kept {
    /// Whether each kind has been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.watches().all(|(_, listed, _)| listed)
    }

    /// Why not.
    pub(super) fn unreachable(&self) -> Rejected {
        let waiting = self.watches().filter(|(_, listed, _)| !listed);
        let problems = waiting.map(|(kind, _, error)| Problem {
            origin: Origin::Cluster,
            object: String::new(),
            what: match error {
                Some(error) => format!("its {kind} objects cannot be listed: {error}"),
                None => format!("it has not listed its {kind} objects yet"),
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
        let mut refused = Refused::new();
        let mut notes = self.stale();
        loop {
            let objects = self.objects(&refused);
            match kubernetes::translate(std::iter::once(&objects), known) {
                Ok(loaded) => {
                    self.keep(&refused);
                    return super::loaded(loaded, notes);
                }
                Err(rejected) => {
                    let before = refused.clone();
                    for problem in &rejected.problems {
                        notes.extend(self.refuse(problem, &mut refused));
                    }
                    if refused == before {
                        return Err(rejected);
                    }
                }
            }
        }
    }

    /// Lets something else count in place of what a problem is about; the same twice means that
    /// its former self is no better.
    fn refuse(&self, problem: &Problem, refused: &mut Refused) -> Option<Note> {
        let label = &problem.object;
        let former = match refused.get(label) {
            Some(_) => false,
            None => self.has_former(label),
        };
        let (instead, what) = match former {
            true => (Instead::Former, "what it was before stays in force"),
            false => (Instead::Nothing, "it does not count"),
        };
        let known = refused.insert(label.clone(), instead);
        (known != Some(instead)).then(|| Note {
            origin: problem.origin.clone(),
            object: label.clone(),
            what: format!("{}; {}; {what} until then", problem.what, problem.remedy),
        })
    }

    /// What is to be said of watches that fail.
    fn stale(&self) -> Vec<Note> {
        let mut errors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (kind, _, error) in self.watches() {
            if let Some(error) = error {
                errors.entry(error).or_default().insert(kind);
            }
        }
        let notes = errors.into_iter().map(|(error, kinds)| {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            Note {
                origin: Origin::Cluster,
                object: String::new(),
                what: format!(
                    "{} cannot be followed: {error}; what the API server said last stays in force",
                    kinds.join(", ")
                ),
            }
        });
        notes.collect()
    }
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
        }
    }

    fn keep(&mut self, refused: &Refused) {
        each!(self, table => table.keep(refused));
    }

    fn has_former(&self, label: &str) -> bool {
        let mut has = false;
        each!(self, table => has |= table.has_former(label));
        has
    }
}

impl<T> Table<T> {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            objects: BTreeMap::new(),
            valid: BTreeMap::new(),
            coming: BTreeMap::new(),
            listed: false,
            error: None,
        }
    }

    /// Takes what its watch told.
    pub(super) fn take(&mut self, told: Told<T>) {
        match told {
            Ok(Event::Init) => self.coming.clear(),
            Ok(Event::InitApply((name, object))) => {
                self.coming.insert(name, object);
            }
            Ok(Event::InitDone) => {
                self.objects = std::mem::take(&mut self.coming);
                (self.listed, self.error) = (true, None);
            }
            Ok(Event::Apply((name, object))) => {
                self.objects.insert(name, object);
                self.error = None;
            }
            Ok(Event::Delete((name, _))) => {
                self.objects.remove(&name);
                self.error = None;
            }
            Err(error) if is_not_installed(&error) => {
                self.objects.clear();
                (self.listed, self.error) = (true, None);
            }
            // Where it has fallen behind it lists them all again, which is no fault.
            Err(watcher::Error::WatchError(status)) if status.code == EXPIRED => {}
            Err(error) => self.error = Some(causes(&error)),
        }
    }

    /// The objects that count.
    fn counting(&self, refused: &Refused) -> Vec<Arc<Sourced<T>>> {
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
            Some(Instead::Former) => self.valid.get(name),
            Some(Instead::Nothing) => None,
        }
    }

    /// Remembers which ones counted.
    fn keep(&mut self, refused: &Refused) {
        let objects = self.objects.iter();
        let counting = objects.filter_map(|(name, object)| {
            let counts = self.instead(name, object, refused)?;
            Some((name.clone(), Arc::clone(counts)))
        });
        self.valid = counting.collect();
    }

    /// Whether what is called so was another one when it was valid.
    fn has_former(&self, label: &str) -> bool {
        self.valid.iter().any(|(name, valid)| {
            let now = self.objects.get(name);
            self.label(name) == label && now.is_some_and(|now| !Arc::ptr_eq(now, valid))
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

/// HTTP's status of a watch that asks for what is not remembered any more.
const EXPIRED: u16 = 410;

fn is_not_installed(error: &watcher::Error) -> bool {
    let listing = match error {
        watcher::Error::InitialListFailed(error) => error,
        watcher::Error::WatchStartFailed(error) => error,
        _ => return false,
    };
    matches!(listing, kube::Error::Api(status) if status.code == NOT_FOUND)
}

/// An error with what it comes from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
