//! `naru check`: is a source valid, and what is there to know about it?

use std::{collections::BTreeMap, fmt};

use super::{Outcome, Source};
use crate::{
    compile::{self, CompileError, image},
    desired::{BalancerName, Desired, Surroundings},
    ipam::{self, Assignment, Authority, Ledger},
};

/// The answer of a check, for people.
#[derive(Clone, Debug)]
pub struct Report {
    /// What reading the source gave.
    pub outcome: Outcome,
    /// A valid source with the addresses that its pools would give, if none had any.
    pub assignment: Option<Assignment>,
    /// Why a valid source does not fit into the kernel's maps, if so.
    pub misfit: Option<CompileError>,
}

/// Reads `source` and compiles it as on an empty machine; the kernel is not touched.
pub fn check(source: &Source) -> Report {
    let outcome = source.load();
    let loaded = outcome.as_ref().ok();
    let assignment =
        loaded.map(|it| ipam::assign(&it.desired, &Ledger::default(), Authority::This));
    let misfit = assignment.as_ref().and_then(|assignment| {
        let nothing = image::InUse::default();
        let surroundings = Surroundings {
            sockets: true,
            ..Surroundings::default()
        };
        compile::compile(&assignment.desired, &surroundings, &nothing).err()
    });
    Report {
        outcome,
        assignment,
        misfit,
    }
}

impl Report {
    /// The report for programs: `valid`, `services`, `problems`, `notes`, and by the names of
    /// Services of type LoadBalancer `addresses` or the reason in `without_address`.
    pub fn json(&self) -> serde_json::Value {
        let (services, notes, mut problems) = match &self.outcome {
            Ok(loaded) => (
                loaded.desired.services.len(),
                loaded.notes.iter().map(ToString::to_string).collect(),
                Vec::new(),
            ),
            Err(rejected) => (
                0,
                Vec::new(),
                rejected.problems.iter().map(ToString::to_string).collect(),
            ),
        };
        problems.extend(self.misfit.iter().map(ToString::to_string));
        serde_json::json!({
            "valid": self.is_valid(),
            "services": services,
            "problems": problems,
            "notes": notes,
            "addresses": self.assignment.as_ref().map(|it| &it.addresses),
            "without_address": self.without_address().collect::<BTreeMap<_, _>>(),
        })
    }

    /// Who would have no address, and why.
    fn without_address(&self) -> impl Iterator<Item = (&BalancerName, String)> {
        let refused = self.assignment.iter().flat_map(|it| &it.refused);
        refused.map(|(name, why)| (name, why.to_string()))
    }

    /// Whether the agent would take it.
    pub fn is_valid(&self) -> bool {
        self.outcome.is_ok() && self.misfit.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(loaded) => {
                for note in &loaded.notes {
                    writeln!(f, "note: {note}")?;
                }
                if let Some(misfit) = &self.misfit {
                    writeln!(f, "problem: {misfit}")?;
                    return writeln!(f, "refused: 1 problem");
                }
                for (name, why) in self.without_address() {
                    writeln!(f, "note: {name} has no address: {why}")?;
                }
                let assigned = self.assignment.as_ref().map(|it| &it.desired);
                summary(f, assigned.unwrap_or(&loaded.desired))
            }
            Err(rejected) => {
                for problem in &rejected.problems {
                    writeln!(f, "problem: {problem}")?;
                }
                let n = rejected.problems.len();
                writeln!(f, "refused: {n} problem{}", plural(n))
            }
        }
    }
}

fn summary(f: &mut fmt::Formatter<'_>, desired: &Desired) -> fmt::Result {
    for (name, service) in desired.services.iter() {
        let frontends: Vec<_> = service
            .named()
            .map(ToString::to_string)
            .chain(service.node_port.iter().map(ToString::to_string))
            .collect();
        let n = service.endpoints.len();
        writeln!(
            f,
            "{name}: {} → {n} endpoint{}, {}",
            frontends.join(", "),
            plural(n),
            service.algorithm
        )?;
    }
    let n = desired.services.len();
    writeln!(f, "valid: {n} service{}", plural(n))
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn golden(case: &str) -> Source {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        Source::Manifests(root.join("tests/golden").join(case))
    }

    #[test]
    fn a_valid_source_is_summed_up() {
        let report = check(&golden("tutorial"));
        assert!(report.is_valid());
        assert_eq!(
            report.to_string(),
            "default/nest-server:80: 192.168.56.11:80/tcp → 5 endpoints, round-robin\n\
             valid: 1 service\n"
        );
    }

    #[test]
    fn an_invalid_source_is_refused_with_a_count() {
        let report = check(&golden("refused-together"));
        assert!(!report.is_valid());
        assert!(
            report.to_string().ends_with("\nrefused: 2 problems\n"),
            "{report}"
        );
    }

    #[test]
    fn a_source_that_fits_no_map_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("naru.yaml");
        let services = (0..33).map(|n| {
            format!(
                "- {{frontend: 10.1.0.1:{}, algorithm: maglev, backends: [10.0.0.1:80]}}\n",
                n + 1
            )
        });
        let text: String = std::iter::once("services:\n".to_owned())
            .chain(services)
            .collect();
        fs::write(&file, text).expect("write");
        let report = check(&Source::Config(file));
        assert!(!report.is_valid());
        assert!(
            report.to_string().starts_with("problem: no room for"),
            "{report}"
        );
    }
}
