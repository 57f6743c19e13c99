//! One YAML document of a manifest file: which kind it is, and what naru does with it.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::source::{
    Findings, Origin,
    kubernetes::{Objects, Sourced},
    metallb::{
        self, NO_BGP, bgp,
        legacy::{self, Legacy, Written},
    },
    yaml::{self, YamlError},
};

/// A document as it stands in its file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text, the `---` before it included.
    pub(crate) text: &'a str,
    /// Line of the file, from 1, on which `text` begins.
    pub(crate) line: u64,
    /// Line of the file on which its content begins.
    pub(crate) content: u64,
}

/// Splits a file at YAML's document markers and leaves out what is empty.
///
/// A marker can stand nowhere but at the start of a line, and nothing else can start
/// a line so (YAML 1.2.2 section 9.1.2), so an error of one document leaves the
/// others readable and knows its line.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut start = (0, 1);
    let mut at = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        if at > start.0 && is_marker(content) {
            documents.extend(document(&text[start.0..at], start.1));
            start = (at, line);
        }
        at += content.len();
    }
    documents.extend(document(&text[start.0..], start.1));
    documents
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The document that begins on `line`, if it says anything.
fn document(text: &str, line: u64) -> Option<Document<'_>> {
    let says_something = |line: &str| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
    };
    let skipped = text.lines().position(says_something)?;
    Some(Document {
        text,
        line,
        content: line + skipped as u64,
    })
}

/// Reads one document into `objects`, with what is to be said about it.
pub(crate) fn read(
    file: &Arc<str>,
    document: &Document<'_>,
    objects: &mut Objects,
    findings: &mut Findings,
) {
    let raw: Value = match yaml::parse(document.text, document.line) {
        Ok(raw) => raw,
        Err(error) => {
            let origin = Origin::line(file, error.line.unwrap_or(document.content));
            return findings.problem(&origin, "", error.what, "correct the YAML");
        }
    };
    let object = Object {
        file,
        line: document.content,
        body: Body::Text(document),
        raw: &raw,
    };
    object.read(objects, findings);
}

/// One Kubernetes object, its kind still unknown.
struct Object<'a> {
    file: &'a Arc<str>,
    /// Line of the file on which it begins.
    line: u64,
    body: Body<'a>,
    raw: &'a Value,
}

/// Where the typed object is read from.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// A whole document: errors know their line.
    Text(&'a Document<'a>),
    /// An item of a List: errors carry the line of the item.
    Item,
}

impl Object<'_> {
    fn read(&self, objects: &mut Objects, findings: &mut Findings) {
        let origin = Origin::line(self.file, self.line);
        let text = |name: &str| self.raw.get(name).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version.is_empty() || kind.is_empty() {
            let what = "this is no Kubernetes object: it lacks apiVersion or kind";
            let remedy = "write both, as in `apiVersion: v1` and `kind: Service`, or move it away";
            return findings.problem(&origin, "", what, remedy);
        }
        let name = format!("{kind} {}", self.name());
        match (version, kind) {
            ("v1", "Service") => objects
                .services
                .extend(self.take(&name, findings).map(Arc::new)),
            ("v1", "Endpoints") => objects
                .endpoints
                .extend(self.take(&name, findings).map(Arc::new)),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                let slice = self.take::<EndpointSlice>(&name, findings);
                objects.slices.extend(slice.map(|it| Arc::new(it.into())));
            }
            (_, "EndpointSlice") if version.starts_with("discovery.k8s.io/") => findings.problem(
                &origin,
                &name,
                format!("apiVersion {version} is not served by Kubernetes any more"),
                "write discovery.k8s.io/v1",
            ),
            (_, kind) if kind.ends_with("List") && self.raw.get("items").is_some() => {
                self.items(objects, findings);
            }
            ("v1", "Node") => objects
                .nodes
                .extend(self.take(&name, findings).map(Arc::new)),
            ("v1", "Namespace") => objects
                .namespaces
                .extend(self.take(&name, findings).map(Arc::new)),
            ("v1", "ConfigMap") if self.is_legacy() => self.convert(&name, objects, findings),
            ("v1", "Secret") => findings.note(&origin, &name, "not used by naru yet"),
            _ if version.starts_with("metallb.io/") => {
                self.metallb(&name, (version, kind), objects, findings);
            }
            _ => findings.note(&origin, &name, "not used by naru"),
        }
    }

    /// `namespace/name`, as far as the object says so.
    fn name(&self) -> String {
        let of = |key: &str| {
            let metadata = self.raw.get("metadata")?;
            metadata.get(key)?.as_str()
        };
        match (of("namespace"), of("name")) {
            (None, name) => format!("default/{}", name.unwrap_or("?")),
            (Some(namespace), name) => format!("{namespace}/{}", name.unwrap_or("?")),
        }
    }

    /// Reads an object of one of MetalLB's own kinds.
    fn metallb(
        &self,
        name: &str,
        (version, kind): (&str, &str),
        objects: &mut Objects,
        findings: &mut Findings,
    ) {
        let origin = Origin::line(self.file, self.line);
        match (version, kind) {
            ("metallb.io/v1beta1", "IPAddressPool") => {
                return objects
                    .pools
                    .extend(self.take(name, findings).map(Arc::new));
            }
            ("metallb.io/v1beta1", "L2Advertisement") => {
                return objects
                    .advertisements
                    .extend(self.take(name, findings).map(Arc::new));
            }
            (_, "IPAddressPool" | "L2Advertisement") => {
                let what = format!("apiVersion {version} of this kind is not known");
                return findings.problem(&origin, name, what, "write metallb.io/v1beta1");
            }
            ("metallb.io/v1beta1", "AddressPool") => {
                let what = "this kind is not served by MetalLB any more";
                let remedy = "write an IPAddressPool and an L2Advertisement";
                return findings.problem(&origin, name, what, remedy);
            }
            // Read, so that what is mistaken in them is told.
            (_, "BGPPeer") => drop(self.take::<bgp::BgpPeer>(name, findings)),
            (_, "BGPAdvertisement") => {
                drop(self.take::<bgp::BgpAdvertisement>(name, findings));
            }
            (_, "Community") => drop(self.take::<bgp::Community>(name, findings)),
            (_, "BFDProfile") => drop(self.take::<bgp::BfdProfile>(name, findings)),
            _ => return findings.note(&origin, name, "not used by naru"),
        }
        findings.note(&origin, name, NO_BGP);
    }

    /// Whether it is the ConfigMap that MetalLB was configured by.
    fn is_legacy(&self) -> bool {
        self.name() == format!("{}/{}", metallb::NAMESPACE, legacy::CONFIG_MAP)
    }

    /// Reads a legacy ConfigMap as the objects that it stands for.
    fn convert(&self, name: &str, objects: &mut Objects, findings: &mut Findings) {
        let json;
        let text = match self.body {
            Body::Text(document) => (document.text, document.line),
            Body::Item => {
                // Its lines are lost; all of it is at the item's.
                json = self.raw.to_string();
                (json.as_str(), self.line)
            }
        };
        let Some(written) = Written::in_config_map(self.file, name, text, findings) else {
            return;
        };
        let legacy = Sourced {
            origin: Origin::line(self.file, self.line),
            object: Legacy::of(&written),
        };
        objects.legacy.push(Arc::new(legacy));
    }

    /// Reads the object as what it says that it is.
    fn take<T: DeserializeOwned + Serialize>(
        &self,
        name: &str,
        findings: &mut Findings,
    ) -> Option<Sourced<T>> {
        let parsed = match self.body {
            Body::Text(document) => yaml::parse_public(document.text, document.line),
            Body::Item => T::deserialize(self.raw).map_err(|error| YamlError {
                line: None,
                what: error.to_string(),
            }),
        };
        match parsed {
            Ok(object) => {
                let origin = Origin::line(self.file, self.line);
                if let Ok(understood) = serde_json::to_value(&object) {
                    let mut unknown = Vec::new();
                    unknown_fields(self.raw, &understood, "", &mut unknown);
                    for path in unknown {
                        let what = format!("`{path}` is not a field of this kind, it was ignored");
                        findings.note(&origin, name, what);
                    }
                }
                Some(Sourced { origin, object })
            }
            Err(error) => {
                let origin = Origin::line(self.file, error.line.unwrap_or(self.line));
                let remedy = "see `kubectl explain` for the fields of this kind";
                findings.problem(&origin, name, error.what, remedy);
                None
            }
        }
    }

    /// Reads the items of a List.
    fn items(&self, objects: &mut Objects, findings: &mut Findings) {
        #[derive(Deserialize)]
        struct List {
            items: Vec<Spanned<Value>>,
        }
        let Body::Text(document) = self.body else {
            let origin = Origin::line(self.file, self.line);
            let what = "a List within a List";
            return findings.problem(&origin, "", what, "list the objects themselves");
        };
        match yaml::parse::<List>(document.text, document.line) {
            Ok(list) => {
                for item in &list.items {
                    let line = match item.referenced.line() {
                        0 => document.content,
                        line => line + document.line - 1,
                    };
                    let object = Object {
                        file: self.file,
                        line,
                        body: Body::Item,
                        raw: &item.value,
                    };
                    object.read(objects, findings);
                }
            }
            Err(error) => {
                let origin = Origin::line(self.file, error.line.unwrap_or(self.line));
                findings.problem(&origin, "", error.what, "make `items` a list of objects");
            }
        }
    }
}

/// Collects the paths in `raw` that its typed reading did not keep.
///
/// A misspelt field is dropped silently otherwise, and its author wonders.
fn unknown_fields(raw: &Value, understood: &Value, path: &str, unknown: &mut Vec<String>) {
    match (raw, understood) {
        (Value::Object(raw), Value::Object(understood)) => {
            for (key, value) in raw {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match understood.get(key) {
                    Some(understood) => unknown_fields(value, understood, &path, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(raw), Value::Array(understood)) => {
            for (i, (value, understood)) in raw.iter().zip(understood).enumerate() {
                unknown_fields(value, understood, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(text: &str) -> Vec<(u64, u64)> {
        split(text).iter().map(|d| (d.line, d.content)).collect()
    }

    #[test]
    fn documents_know_their_lines() {
        assert_eq!(starts("a: 1\n---\n# c\n\nb: 2\n"), [(1, 1), (2, 5)]);
        assert_eq!(starts("---\na: 1\n--- # next\nb: 2"), [(1, 2), (3, 4)]);
        assert_eq!(
            starts("--- {a: 1}\r\n---\r\n---\r\nb: 1\r\n"),
            [(1, 1), (3, 4)]
        );
        assert_eq!(starts("# only\n---\n---\n...\n"), []);
        assert_eq!(starts("a: |\n  ---\n----\n"), [(1, 1)]);
    }
}
