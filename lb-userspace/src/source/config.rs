//! A configuration file for plain Linux.
//!
//! ```yaml
//! services:
//!   - name: web                      # optional
//!     frontend: 192.168.56.11:80     # …:53/udp
//!     algorithm: maglev              # or round-robin, the default
//!     maglev_slots: 65537            # optional
//!     session_affinity: 3600         # optional: seconds that a client keeps its backend
//!     source_ranges: [10.0.0.0/8]    # optional: the networks that may use it
//!     health_check:                  # optional, as are all its fields but the first
//!       check: http:/healthz         # or tcp
//!       interval: 2s
//!       timeout: 1s
//!       rise: 2
//!       fall: 3
//!       port: 8081
//!     mode: dsr                      # optional: hand over to nodes that run naru too; or nat
//!     backends:
//!       - 10.0.0.11:8080
//!       - {address: 10.0.0.12:8080, weight: 2, node: nuc02}
//! nodes:                             # optional: who they are, on the same LAN
//!   nuc02: 192.168.56.102
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use lb_common::{Algorithm, Mode, maglev};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::Spanned;

use super::{Findings, Origin, Outcome, health, manifest, plain, rules, yaml};
use crate::desired::{Desired, HealthCheck, Node};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    services: Vec<Spanned<ServiceEntry>>,
    #[serde(default)]
    nodes: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    name: Option<String>,
    frontend: Spanned<String>,
    algorithm: Option<Spanned<String>>,
    maglev_slots: Option<Spanned<u32>>,
    session_affinity: Option<Spanned<i64>>,
    #[serde(default)]
    source_ranges: Vec<Spanned<String>>,
    #[serde(alias = "healthCheck")]
    health_check: Option<HealthEntry>,
    mode: Option<Spanned<String>>,
    backends: Vec<Spanned<BackendEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthEntry {
    check: Spanned<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    rise: Option<Spanned<u32>>,
    fall: Option<Spanned<u32>>,
    port: Option<Spanned<u32>>,
}

impl HealthEntry {
    /// The check; every mistake goes to `object_to` with its line.
    fn read(
        &self,
        frontend: &str,
        mut object_to: impl FnMut(u64, rules::Objection),
    ) -> HealthCheck {
        let mut check = HealthCheck::default();
        match health::probe(&self.check.value) {
            Ok(probe) => check.probe = probe,
            Err(objection) => object_to(self.check.referenced.line(), objection),
        }
        let text = |it: &Spanned<String>| (it.value.clone(), it.referenced.line());
        let number = |it: &Spanned<u32>| (it.value.to_string(), it.referenced.line());
        let options = [
            ("interval", self.interval.as_ref().map(text)),
            ("timeout", self.timeout.as_ref().map(text)),
            ("rise", self.rise.as_ref().map(number)),
            ("fall", self.fall.as_ref().map(number)),
            ("port", self.port.as_ref().map(number)),
        ];
        for (key, value) in options {
            if let Some((value, line)) = value
                && let Err(objection) = health::set(&mut check, key, &value)
            {
                object_to(line, objection);
            }
        }
        if let Ok(frontend) = rules::frontend(frontend)
            && let Err(objection) = health::fits(&check, frontend.protocol)
        {
            object_to(self.check.referenced.line(), objection);
        }
        check
    }
}

/// `10.0.0.11:8080`, or a mapping with a weight.
#[derive(Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
struct BackendEntry {
    address: String,
    #[serde(default = "one")]
    weight: u32,
    node: Option<String>,
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
                    node: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendEntry, A::Error> {
                BackendEntry::deserialize(MapAccessDeserializer::new(map))
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
    let parsed: File = match yaml::parse_public(text, 1) {
        Ok(parsed) => parsed,
        Err(error) => {
            let origin = Origin::line(&file, error.line.unwrap_or(0));
            let remedy = "below `services:` write `- {frontend: 192.168.56.11:80, backends: [10.0.0.11:8080]}`";
            findings.problem(&origin, "", error.what, remedy);
            return findings.outcome(Desired::default());
        }
    };
    let nodes = nodes(&file, &parsed.nodes, &mut findings);
    let entries = parsed
        .services
        .into_iter()
        .filter_map(|service| entry(&file, service, &mut findings))
        .collect();
    plain::translate(entries, nodes, findings)
}

/// The nodes of the file.
fn nodes(
    file: &Arc<str>,
    entries: &BTreeMap<String, Spanned<String>>,
    findings: &mut Findings,
) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    for (name, address) in entries {
        match address.value.trim().parse() {
            Ok(ip) => {
                let node = Node {
                    addresses: BTreeSet::from([ip]),
                    ..Node::default()
                };
                nodes.insert(name.clone(), node);
            }
            Err(_) => {
                let origin = Origin::line(file, address.referenced.line());
                let what = format!("`{}` is not an IP address", address.value);
                let remedy = "write the node's own on the LAN, such as 192.168.56.102";
                findings.problem(&origin, &format!("node {name}"), what, remedy);
            }
        }
    }
    nodes
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
    let mut elsewhere = Mode::Nat;
    if let Some(text) = &service.mode {
        match rules::mode(&text.value) {
            Ok(read) => elsewhere = read,
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
    let mut affinity = None;
    if let Some(seconds) = &service.session_affinity {
        match rules::affinity(seconds.value) {
            Ok(read) => affinity = Some(read),
            Err(objection) => object_to(seconds.referenced.line(), objection),
        }
    }
    let mut source_ranges = Vec::new();
    for range in &service.source_ranges {
        match rules::network(&range.value) {
            Ok(network) => source_ranges.push(network),
            Err(objection) => object_to(range.referenced.line(), objection),
        }
    }
    let health_check = service
        .health_check
        .as_ref()
        .map(|check| check.read(&service.frontend.value, &mut object_to));
    let mut backends = Vec::new();
    for backend in &service.backends {
        let line = backend.referenced.line();
        let weight = rules::weight(&backend.value.weight.to_string());
        match rules::backend(&backend.value.address).and_then(|addr| Ok((addr, weight?))) {
            Ok((addr, weight)) => backends.push(plain::Backend {
                origin: Origin::line(file, line),
                addr,
                weight,
                node: backend.value.node.clone(),
            }),
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
            elsewhere,
            affinity,
            source_ranges: rules::networks(source_ranges),
            health_check,
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
        let (name, service) = loaded.desired.services.iter().next().expect("one");
        assert_eq!(name.0, "-/web:80");
        assert_eq!(service.algorithm, Algorithm::Maglev);
        let weights: Vec<_> = service.endpoints.values().map(|e| e.weight).collect();
        assert_eq!(weights, [1, 2]);
        let check = service.health_check.as_ref().map(ToString::to_string);
        assert_eq!(
            check.as_deref(),
            Some("http:/healthz port=8081 interval=2000ms timeout=1000ms rise=2 fall=3")
        );
        assert_eq!(service.affinity.map(|it| it.as_secs()), Some(3600));
        assert_eq!(service.source_ranges, ["10.0.0.0/8".parse().expect("net")]);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "\
services:
  - frontend: 192.168.56.11:80
    session_affinity: 0
    source_ranges: [10.0.0.1]
    algorithm: fastest
    backends:
      - 10.0.0.11
      - {address: 10.0.0.12:8080, weight: 2000}
  - frontend: 192.168.56.11:53/udp
    maglev_slots: 100
    healthCheck:
      check: tcp
      fall: 0
    backends: [192.168.56.11:53]
  - frontend: 192.168.56.11:80
    backends: []
";
        let error = read("naru.yaml", text).expect_err("refused");
        insta::assert_snapshot!(error, @r"
        naru.yaml:3: service 192.168.56.11:80: an affinity of 0 seconds cannot be; use a number from 1 to 86400
        naru.yaml:4: service 192.168.56.11:80: `10.0.0.1` is not a network; write it as 10.0.0.1/32
        naru.yaml:5: service 192.168.56.11:80: `fastest` is not an algorithm; write round-robin or maglev
        naru.yaml:7: service 192.168.56.11:80: 10.0.0.11: a port is missing; write 10.0.0.11:8080
        naru.yaml:8: service 192.168.56.11:80: `2000` is not a weight; use a number from 0 (takes no new flows) to 1000
        naru.yaml:10: service 192.168.56.11:53/udp: 100 is not a size of a Maglev table; use one of 1021, 4093, 16381, 65537
        naru.yaml:12: service 192.168.56.11:53/udp: a health check of udp endpoints has to know a TCP port of theirs; add port=NUMBER
        naru.yaml:13: service 192.168.56.11:53/udp: `0` is not a number of checks; use a number from 1 to 100
        naru.yaml:14: service 192.168.56.11:53/udp: endpoint 192.168.56.11:53 is the service's own frontend, packets would go in a circle; give the endpoint another address or port
        naru.yaml:15: service 192.168.56.11:80/tcp: this frontend is already taken at naru.yaml:2; give one of the two another address or port
        ");
    }

    #[test]
    fn an_emptied_file_is_no_file_without_services() {
        // As a writer leaves it for a moment that truncates first.
        for text in ["", "\n", "# all gone\n"] {
            assert!(read("naru.yaml", text).is_err(), "{text:?}");
        }
        let empty = read("naru.yaml", "services: []\n").expect("valid");
        assert!(empty.desired.services.is_empty());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = "services:\n- frontend: 192.168.56.11:80\n  backend: []\n  backends: []\n";
        let error = read("naru.yaml", text).expect_err("refused").to_string();
        insta::assert_snapshot!(error, @"naru.yaml:3: unknown field `backend`, expected one of name, frontend, algorithm, maglev_slots, session_affinity, source_ranges, healthCheck, health_check, mode, backends, in `backend: []`; below `services:` write `- {frontend: 192.168.56.11:80, backends: [10.0.0.11:8080]}`");
        let text = "services:\n- frontend: 192.168.56.11:80\n  backends:\n  - {adress: x}\n";
        let error = read("naru.yaml", text).expect_err("refused").to_string();
        insta::assert_snapshot!(error, @"naru.yaml:4: unknown field `adress`, expected one of address, weight, node, in `- {adress: x}`; below `services:` write `- {frontend: 192.168.56.11:80, backends: [10.0.0.11:8080]}`");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(services|frontend|backends|[ \n:\\-\\[\\]{}&*!a-z0-9./])*") {
            let _ = read("naru.yaml", &text);
        }
    }
}
