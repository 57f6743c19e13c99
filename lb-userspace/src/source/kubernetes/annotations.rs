//! Naru's own choices for a Service, `naru.dev/…`.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{Algorithm, Mode, maglev};

use crate::{
    desired::HealthCheck,
    source::{Findings, Origin, health, rules},
};

pub(super) const PREFIX: &str = "naru.dev/";
const KNOWN: [&str; 5] = [
    "naru.dev/algorithm",
    "naru.dev/health-check",
    "naru.dev/maglev-slots",
    "naru.dev/mode",
    "naru.dev/weights",
];

/// What a Service's annotations choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choices {
    pub(super) algorithm: Algorithm,
    pub(super) maglev_slots: u32,
    pub(super) elsewhere: Mode,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) weights: Weights,
}

/// Weights by endpoint address, or by what the endpoint is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    by_address: BTreeMap<IpAddr, u32>,
    by_name: BTreeMap<String, u32>,
}

impl Weights {
    /// The weight of an endpoint; its address says more than its name.
    pub(super) fn of(&self, address: IpAddr, name: Option<&str>) -> u32 {
        let by_name = || self.by_name.get(name?);
        let weight = self.by_address.get(&address).or_else(by_name);
        weight.copied().unwrap_or(1)
    }

    /// The keys that no endpoint of `(address, name)` answers to.
    pub(super) fn unused(&self, endpoints: &[(IpAddr, Option<String>)]) -> Vec<String> {
        let addresses = self.by_address.keys();
        let names = self.by_name.keys();
        addresses
            .filter(|key| !endpoints.iter().any(|(address, _)| address == *key))
            .map(IpAddr::to_string)
            .chain(
                names
                    .filter(|key| !endpoints.iter().any(|(_, name)| name.as_ref() == Some(key)))
                    .cloned(),
            )
            .collect()
    }
}

/// Reads the annotations that are naru's.
pub(super) fn choices(
    annotations: Option<&BTreeMap<String, String>>,
    origin: &Origin,
    object: &str,
    findings: &mut Findings,
) -> Choices {
    let mut choices = Choices {
        algorithm: Algorithm::default(),
        maglev_slots: maglev::DEFAULT_SLOTS,
        elsewhere: Mode::Nat,
        health_check: None,
        weights: Weights::default(),
    };
    let ours = annotations.into_iter().flatten();
    for (key, value) in ours.filter(|(key, _)| key.starts_with(PREFIX)) {
        let read = match &key[PREFIX.len()..] {
            "algorithm" => rules::algorithm(value).map(|it| choices.algorithm = it),
            "maglev-slots" => value
                .trim()
                .parse()
                .map_err(|_| not_a_number(value))
                .and_then(rules::maglev_slots)
                .map(|it| choices.maglev_slots = it),
            "health-check" => health::read(value).map(|it| choices.health_check = Some(it)),
            "mode" => rules::mode(value).map(|it| choices.elsewhere = it),
            "weights" => weights(value).map(|it| choices.weights = it),
            _ => Err(rules::Objection::new(
                "naru knows no such annotation",
                format!("use one of {}", KNOWN.join(", ")),
            )),
        };
        if let Err(objection) = read {
            let what = format!("annotation {key}: {}", objection.what);
            findings.problem(origin, object, what, objection.remedy);
        }
    }
    let sized = annotations.is_some_and(|all| all.contains_key("naru.dev/maglev-slots"));
    if sized && choices.algorithm != Algorithm::Maglev {
        let what = "naru.dev/maglev-slots has no effect without `naru.dev/algorithm: maglev`";
        findings.note(origin, object, what);
    }
    choices
}

fn not_a_number(value: &str) -> rules::Objection {
    let sizes: Vec<_> = maglev::LADDER.iter().map(u32::to_string).collect();
    rules::Objection::new(
        format!("`{value}` is not a number of slots"),
        format!("use one of {}", sizes.join(", ")),
    )
}

/// Reads `10.244.1.2=3,pod-name=0`.
fn weights(text: &str) -> Result<Weights, rules::Objection> {
    let mut weights = Weights::default();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let Some((key, weight)) = item.split_once('=') else {
            return Err(rules::Objection::new(
                format!("`{item}` is not ENDPOINT=WEIGHT"),
                "write it as 10.244.1.2=3,pod-name=0",
            ));
        };
        let (key, weight) = (key.trim(), rules::weight(weight)?);
        let former = match key.parse::<IpAddr>() {
            Ok(address) => weights.by_address.insert(address, weight),
            Err(_) => weights.by_name.insert(key.to_owned(), weight),
        };
        if former.is_some() || key.is_empty() {
            return Err(rules::Objection::new(
                format!("`{key}` has no weight, or more than one"),
                "name each endpoint once",
            ));
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_go_by_address_then_by_name() {
        let weights = weights(" 10.244.1.2=3, pod-b=0,").expect("valid");
        let of = |ip: [u8; 4], name| weights.of(IpAddr::from(ip), name);
        assert_eq!(of([10, 244, 1, 2], Some("pod-b")), 3);
        assert_eq!(of([10, 244, 1, 3], Some("pod-b")), 0);
        assert_eq!(of([10, 244, 1, 3], Some("pod-c")), 1);
        assert_eq!(of([10, 244, 1, 3], None), 1);
        let endpoints = [(IpAddr::from([10, 244, 1, 2]), Some("pod-a".to_owned()))];
        assert_eq!(weights.unused(&endpoints), ["pod-b"]);
    }

    #[test]
    fn weights_that_cannot_be_are_refused() {
        for text in ["a", "a=", "a=-1", "a=1001", "a=1,a=2", "=3", "a=1.5"] {
            assert!(weights(text).is_err(), "{text}");
        }
    }
}
