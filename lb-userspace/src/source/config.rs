//! A configuration file for plain Linux.
//!
//! ```yaml
//! services:
//!   - name: web                      # optional
//!     frontend: 192.168.56.11:80     # …:53/udp
//!     algorithm: maglev              # or round-robin, the default
//!     maglev_slots: 65537            # optional
//!     backends:
//!       - 10.0.0.11:8080
//!       - {address: 10.0.0.12:8080, weight: 2}
//! ```

use std::{fmt, path::Path, sync::Arc};

use lb_common::{Algorithm, maglev};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::Spanned;

use super::{Findings, Origin, Outcome, manifest, plain, rules, yaml};
use crate::desired::Desired;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    services: Vec<Spanned<ServiceEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    name: Option<String>,
    frontend: Spanned<String>,
    algorithm: Option<Spanned<String>>,
    maglev_slots: Option<Spanned<u32>>,
    backends: Vec<Spanned<BackendEntry>>,
}

/// `10.0.0.11:8080`, or a mapping with a weight.
struct BackendEntry {
    address: String,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedBackend {
    address: String,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

// An untagged enum would answer every mistake with "matches no variant".
impl<'de> Deserialize<'de> for BackendEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = BackendEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("10.0.0.11:8080, or a mapping of address and weight")
            }

            fn visit_str<E: de::Error>(self, address: &str) -> Result<BackendEntry, E> {
                Ok(BackendEntry {
                    address: address.to_owned(),
                    weight: 1,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendEntry, A::Error> {
                let entry = WeightedBackend::deserialize(MapAccessDeserializer::new(map))?;
                Ok(BackendEntry {
                    address: entry.address,
                    weight: entry.weight,
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Reads the file.
pub fn load(path: &Path) -> Outcome {
    let file = path.display().to_string();
    match manifest::contents(path) {
        Ok(text) => read(&file, &text),
        Err(error) => {
            let mut findings = Findings::default();
            findings.problem(
                &Origin::file(&file),
                "",
                format!("the file cannot be read: {error}"),
                "name a file of UTF-8 text that exists and that naru may read",
            );
            findings.outcome(Desired::default())
        }
    }
}

fn read(file: &str, text: &str) -> Outcome {
    let mut findings = Findings::default();
    let file: Arc<str> = Arc::from(file);
    let parsed: File = match yaml::parse(text, 1) {
        Ok(parsed) => parsed,
        Err(error) => {
            let origin = Origin::line(&file, error.line.unwrap_or(0));
            let remedy = "write `services:` and below it a list, as in `naru agent --help`";
            findings.problem(&origin, "", error.what, remedy);
            return findings.outcome(Desired::default());
        }
    };
    let entries = parsed
        .services
        .into_iter()
        .filter_map(|service| entry(&file, service, &mut findings))
        .collect();
    plain::translate(entries, findings)
}

/// One service of the file; `None` where its frontend is invalid.
fn entry(
    file: &Arc<str>,
    service: Spanned<ServiceEntry>,
    findings: &mut Findings,
) -> Option<plain::Entry> {
    let origin = Origin::line(file, service.referenced.line());
    let service = service.value;
    let object = match &service.name {
        Some(name) => format!("service {name}"),
        None => format!("service {}", service.frontend.value),
    };
    let mut object_to = |line, objection: rules::Objection| {
        let origin = Origin::line(file, line);
        findings.problem(&origin, &object, objection.what, objection.remedy);
    };
    let mut algorithm = Algorithm::default();
    if let Some(text) = &service.algorithm {
        match rules::algorithm(&text.value) {
            Ok(read) => algorithm = read,
            Err(objection) => object_to(text.referenced.line(), objection),
        }
    }
    let mut maglev_slots = maglev::DEFAULT_SLOTS;
    if let Some(slots) = &service.maglev_slots {
        match rules::maglev_slots(slots.value) {
            Ok(read) => maglev_slots = read,
            Err(objection) => object_to(slots.referenced.line(), objection),
        }
    }
    let mut backends = Vec::new();
    for backend in &service.backends {
        let line = backend.referenced.line();
        let weight = rules::weight(&backend.value.weight.to_string());
        match rules::backend(&backend.value.address).and_then(|addr| Ok((addr, weight?))) {
            Ok((addr, weight)) => backends.push((Origin::line(file, line), addr, weight)),
            Err(objection) => object_to(line, objection),
        }
    }
    if service
        .name
        .as_deref()
        .is_some_and(|name| name.trim().is_empty())
    {
        let objection = rules::Objection::new("its name is empty", "write one, or leave it out");
        object_to(service.frontend.referenced.line(), objection);
    }
    match rules::frontend(&service.frontend.value) {
        Ok(frontend) => Some(plain::Entry {
            origin,
            name: service.name,
            frontend,
            algorithm,
            maglev_slots,
            backends,
        }),
        Err(objection) => {
            object_to(service.frontend.referenced.line(), objection);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_documentation_is_read() {
        let example: String = include_str!("config.rs")
            .lines()
            .skip_while(|line| *line != "//! ```yaml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//! ")))
            .collect();
        let loaded = read("naru.yaml", &example).expect("valid");
        let (name, service) = loaded.desired.services.first_key_value().expect("one");
        assert_eq!(name.0, "-/web:80");
        assert_eq!(service.algorithm, Algorithm::Maglev);
        let weights: Vec<_> = service.endpoints.values().map(|e| e.weight).collect();
        assert_eq!(weights, [1, 2]);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "\
services:
  - frontend: 192.168.56.11:80
    algorithm: fastest
    backends:
      - 10.0.0.11
      - {address: 10.0.0.12:8080, weight: 2000}
  - frontend: 192.168.56.11:53/udp
    maglev_slots: 100
    backends: [192.168.56.11:53]
  - frontend: 192.168.56.11:80
    backends: []
";
        let error = read("naru.yaml", text).expect_err("refused");
        insta::assert_snapshot!(error, @"");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = "services:\n- frontend: 192.168.56.11:80\n  backend: []\n  backends: []\n";
        let error = read("naru.yaml", text).expect_err("refused").to_string();
        insta::assert_snapshot!(error, @"");
        let text = "services:\n- frontend: 192.168.56.11:80\n  backends:\n  - {adress: x}\n";
        let error = read("naru.yaml", text).expect_err("refused").to_string();
        insta::assert_snapshot!(error, @"");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(services|frontend|backends|[ \n:\\-\\[\\]{}&*!a-z0-9./])*") {
            let _ = read("naru.yaml", &text);
        }
    }
}
