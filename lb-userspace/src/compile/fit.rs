//! As much of a desired state as the maps have room for.
//!
//! A cluster has many authors: a Service too many, or too large, must not keep what concerns all
//! others from the maps. It is served by a smaller table where that will do, or left out.

use std::collections::BTreeMap;

use lb_common::Algorithm;

use super::{
    CompileError, SOURCE_RANGES, Tables, compile_again, compile_with,
    image::{InUse, MapImage},
};
use crate::desired::{Desired, Service, ServiceName, Surroundings};

/// What was wanted, and as much of it as there was room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What is served.
    pub desired: Desired,
    /// What is lacking, by the service that lacks it.
    pub lacking: BTreeMap<ServiceName, String>,
}

/// The same as [`compile_again`] where all has room; else what there is room for, and what that is.
///
/// What lives keeps its room, and of what is new, or all is after a start, the first by name come
/// first; but for too many source ranges it is the service of most that is left out. Equal input
/// and equal use give the same.
///
/// # Errors
/// Where no single service is at fault.
pub fn compile_fitting(
    before: Option<((&Fit, &Surroundings), &MapImage)>,
    (wanted, surroundings): (&Desired, &Surroundings),
    in_use: &InUse,
    tables: &mut Tables,
) -> Result<(MapImage, Fit), CompileError> {
    let mut fit = Fit::begun(wanted, before.map(|((fit, _), _)| fit));
    loop {
        let now = (&fit.desired, surroundings);
        let compiled = match before {
            Some(((last, around), image)) => {
                compile_again(((&last.desired, around), image), now, in_use, tables)
            }
            None => compile_with(&fit.desired, surroundings, in_use, tables),
        };
        match compiled {
            Ok(image) => return Ok((image, fit)),
            Err(error) => fit.do_without(error)?,
        }
    }
}

impl Fit {
    /// All of it.
    pub fn whole(wanted: &Desired) -> Self {
        Self {
            desired: wanted.clone(),
            lacking: BTreeMap::new(),
        }
    }

    /// Goes on with what was found the last time, where the services ask for as much as they did.
    fn begun(wanted: &Desired, before: Option<&Self>) -> Self {
        let mut fit = Self::whole(wanted);
        let Some(before) = before.filter(|it| !it.lacking.is_empty() && it.is_as_large(wanted))
        else {
            return fit;
        };
        for (name, what) in &before.lacking {
            match before.desired.services.contains_key(name) {
                true => fit.shrink(name),
                false => drop(fit.desired.services.remove(name)),
            }
            fit.lacking.insert(name.clone(), what.clone());
        }
        fit
    }

    fn is_as_large(&self, wanted: &Desired) -> bool {
        let size = |it: &Service| (it.algorithm, it.maglev_slots, it.source_ranges.len());
        let lacks = |name: &ServiceName| self.lacking.contains_key(name);
        let others = |of: &Desired| -> Vec<_> {
            let all = of.services.iter().filter(|(name, _)| !lacks(name));
            all.map(|(name, it)| (name.clone(), size(it))).collect()
        };
        let still = || {
            self.lacking
                .keys()
                .all(|it| wanted.services.contains_key(it))
        };
        still() && others(&self.desired) == others(wanted)
    }

    /// Leaves out what an error is about.
    fn do_without(&mut self, error: CompileError) -> Result<(), CompileError> {
        let services = &self.desired.services;
        let name = match &error {
            CompileError::NoSlots { service, .. } => Some(service),
            CompileError::FrontendTwice { other, .. } => Some(other),
            CompileError::MixedProtocols(name) | CompileError::NoServiceIndex(name) => Some(name),
            CompileError::TooMany { what, .. } if *what == SOURCE_RANGES => services
                .iter()
                .max_by_key(|(_, it)| it.source_ranges.len())
                .map(|(name, _)| name),
            CompileError::NoBackendIndex { .. } | CompileError::TooMany { .. } => None,
        };
        let Some((name, service)) = name.and_then(|it| services.get_key_value(it)) else {
            return Err(error);
        };
        let name = name.clone();
        let smaller =
            matches!(error, CompileError::NoSlots { .. }) && service.algorithm == Algorithm::Maglev;
        let how = if smaller {
            self.shrink(&name);
            "served by round robin"
        } else {
            self.desired.services.remove(&name);
            "not served"
        };
        let what = format!("{name} is {how}: {error}");
        self.lacking.insert(name, what);
        Ok(())
    }

    /// A table of a slot for each endpoint.
    fn shrink(&mut self, name: &ServiceName) {
        if let Some(service) = self.desired.services.get_mut(name) {
            service.algorithm = Algorithm::RoundRobin;
        }
    }
}
