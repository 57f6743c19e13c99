//! As much of a desired state as the maps have room for.
//!
//! A cluster has many authors: a Service too many, or too large, must not keep what concerns all
//! others from the maps. It is served by a smaller table where that will do, or less of it is.

use std::collections::BTreeMap;

use lb_common::Algorithm;

use super::{
    CompileError, Memo, SOURCE_RANGES, compile_again, compile_with,
    image::{InUse, MapImage},
    whole,
};
use crate::desired::{Desired, Service, ServiceName, Surroundings};

/// What was wanted, and as much of it as there was room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What was wanted.
    pub wanted: Desired,
    /// What is served.
    pub desired: Desired,
    /// What is lacking.
    pub lacking: BTreeMap<ServiceName, Lack>,
    /// Whether that was found before, and not looked for again.
    pub carried: bool,
}

/// What a service lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    how: How,
    /// In words, with the reason.
    pub what: String,
}

/// How a service is served that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By a table of a slot for each endpoint.
    Smaller,
    /// Not by the addresses that only some may use.
    Inside,
    /// Not at all.
    Not,
}

/// The same as [`compile_again`] where all has room; else what there is room for, and what that is.
///
/// What lives keeps its room, and of what is new, or all is after a start, the first by name come
/// first; of too many source ranges it is the service of most that lacks its addresses, one that is
/// new rather than one that was served. Equal input and equal use give the same.
///
/// # Errors
/// Where no single service is at fault.
pub fn compile_fitting(
    before: Option<((&Fit, &Surroundings), &MapImage)>,
    (wanted, surroundings): (&Desired, &Surroundings),
    in_use: &InUse,
    memo: &mut Memo,
) -> Result<(MapImage, Fit), CompileError> {
    let last = before.map(|((fit, _), _)| fit);
    let mut fit = Fit::begun(wanted, last);
    let now = (&fit.desired, surroundings);
    let mut compiled = match before {
        Some(((last, around), image)) => {
            compile_again(((&last.desired, around), image), now, in_use, memo)
        }
        None => compile_with(&fit.desired, surroundings, in_use, memo),
    };
    loop {
        match compiled {
            Ok(image) => return Ok((image, fit)),
            Err(error) => fit.do_without(error, last)?,
        }
        // Of the same compile, as far as tables go that are at hand.
        compiled =
            whole(&fit.desired, surroundings, in_use, &mut memo.tables).map(|(image, _)| image);
    }
}

impl Fit {
    /// All of it.
    pub fn whole(wanted: &Desired) -> Self {
        Self {
            wanted: wanted.clone(),
            desired: wanted.clone(),
            lacking: BTreeMap::new(),
            carried: false,
        }
    }

    /// Goes on with what was found the last time, where the services ask for as much as they did.
    fn begun(wanted: &Desired, before: Option<&Self>) -> Self {
        let mut fit = Self::whole(wanted);
        let Some(before) = before.filter(|it| !it.lacking.is_empty() && it.is_as_large(wanted))
        else {
            return fit;
        };
        for (name, lack) in &before.lacking {
            fit.lack(name.clone(), lack.clone());
        }
        fit.carried = true;
        fit
    }

    fn is_as_large(&self, wanted: &Desired) -> bool {
        let size = |it: &Service| (it.algorithm, it.maglev_slots, it.source_ranges.len());
        let all = |of: &Desired| -> Vec<_> {
            let services = of.services.iter();
            services
                .map(|(name, it)| (name.clone(), size(it)))
                .collect()
        };
        all(&self.wanted) == all(wanted)
    }

    /// Leaves out what an error is about.
    fn do_without(
        &mut self,
        error: CompileError,
        before: Option<&Self>,
    ) -> Result<(), CompileError> {
        let found = match &error {
            CompileError::NoSlots { service, .. } => {
                let services = &self.desired.services;
                let hashed = services
                    .get(service)
                    .is_some_and(|it| it.algorithm == Algorithm::Maglev);
                let how = if hashed { How::Smaller } else { How::Not };
                Some((service.clone(), how))
            }
            CompileError::FrontendTwice { other: name, .. }
            | CompileError::MixedProtocols(name)
            | CompileError::NoServiceIndex(name) => Some((name.clone(), How::Not)),
            CompileError::TooMany { what, .. } if *what == SOURCE_RANGES => {
                self.most_guarded(before).map(|name| (name, How::Inside))
            }
            CompileError::NoBackendIndex { .. } | CompileError::TooMany { .. } => None,
        };
        let Some((name, how)) = found.filter(|(it, _)| self.desired.services.contains_key(it))
        else {
            return Err(error);
        };
        let served = match how {
            How::Smaller => "served by round robin",
            How::Inside => "not served by its load balancer's addresses",
            How::Not => "not served",
        };
        let what = format!("{name} is {served}: {error}");
        self.lack(name, Lack { how, what });
        Ok(())
    }

    /// The service of most source ranges, of those that were not served with them if there is one.
    fn most_guarded(&self, before: Option<&Self>) -> Option<ServiceName> {
        let guards = |it: &Service| match it.frontends.is_empty() {
            true => 0,
            false => it.source_ranges.len(),
        };
        let served = |name: &ServiceName, ranges: usize| {
            let before = before.and_then(|it| it.desired.services.get(name));
            before.is_some_and(|it| guards(it) >= ranges)
        };
        let services = self.desired.services.iter();
        let guarded = services.map(|(name, it)| (name, guards(it)));
        let most = guarded
            .filter(|(_, ranges)| *ranges > 0)
            .max_by_key(|&(name, ranges)| (!served(name, ranges), ranges));
        most.map(|(name, _)| name.clone())
    }

    fn lack(&mut self, name: ServiceName, lack: Lack) {
        let services = &mut self.desired.services;
        match lack.how {
            How::Smaller => {
                if let Some(service) = services.get_mut(&name) {
                    service.algorithm = Algorithm::RoundRobin;
                }
            }
            How::Inside => {
                if let Some(service) = services.get_mut(&name) {
                    service.frontends.clear();
                }
            }
            How::Not => drop(services.remove(&name)),
        }
        self.lacking.insert(name, lack);
    }
}
