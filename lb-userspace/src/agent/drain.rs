//! `naru drain`: backends that an operator takes out by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::desired::{Desired, Endpoint, ServiceName};

/// How a backend is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// One port of an address.
    Socket(SocketAddr),
    /// All ports of an address.
    Address(IpAddr),
    /// A pod by its name, in one namespace or, without one, in any.
    Pod {
        namespace: Option<String>,
        name: String,
    },
}

/// Why a backend cannot be drained, or taken back; every text says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("no backend {0}; `naru backends` lists those that there are")]
    Unknown(Target),
    #[error("{target} may be any of {}; say which, with its namespace", pods.join(", "))]
    Ambiguous { target: Target, pods: Vec<String> },
    #[error("{target} is not drained; drained: {}", if drained.is_empty() { "none" } else { drained })]
    NotDrained { target: Target, drained: String },
}

impl Target {
    /// Whether it names this endpoint of `service`.
    pub(super) fn names(
        &self,
        service: &ServiceName,
        addr: SocketAddr,
        endpoint: &Endpoint,
    ) -> bool {
        match self {
            Self::Socket(socket) => *socket == addr,
            Self::Address(ip) => *ip == addr.ip(),
            Self::Pod { namespace, name } => {
                endpoint.name.as_ref() == Some(name)
                    && namespace.as_deref().is_none_or(|it| it == of(service))
            }
        }
    }

    /// Whether it names any endpoint.
    pub(super) fn is_known(&self, desired: &Desired) -> bool {
        endpoints(desired).any(|(service, addr, endpoint)| self.names(service, addr, endpoint))
    }

    /// The same with the namespace of the one pod of that name, so that a later one of
    /// another namespace is left alone.
    pub(super) fn settle(self, desired: &Desired) -> Result<Self, DrainError> {
        if !self.is_known(desired) {
            return Err(DrainError::Unknown(self));
        }
        let Self::Pod {
            namespace: None,
            name,
        } = &self
        else {
            return Ok(self);
        };
        let namespaces: BTreeSet<&str> = endpoints(desired)
            .filter(|(service, addr, endpoint)| self.names(service, *addr, endpoint))
            .map(|(service, ..)| of(service))
            .collect();
        let pods: Vec<Self> = namespaces
            .into_iter()
            .map(|namespace| Self::Pod {
                namespace: Some(namespace.to_owned()),
                name: name.clone(),
            })
            .collect();
        match <[Self; 1]>::try_from(pods) {
            Ok([one]) => Ok(one),
            Err(several) => Err(DrainError::Ambiguous {
                pods: several.iter().map(ToString::to_string).collect(),
                target: self,
            }),
        }
    }

    /// Those of `drained` that this takes back: itself, or the pods of that name.
    pub(super) fn taken_back(
        &self,
        drained: &BTreeSet<Self>,
    ) -> Result<BTreeSet<Self>, DrainError> {
        let same = |other: &&Self| match (self, other) {
            (
                Self::Pod {
                    namespace: None,
                    name,
                },
                Self::Pod { name: other, .. },
            ) => name == other,
            (one, other) => one == *other,
        };
        let found: BTreeSet<Self> = drained.iter().filter(same).cloned().collect();
        if found.is_empty() {
            let drained: Vec<_> = drained.iter().map(ToString::to_string).collect();
            return Err(DrainError::NotDrained {
                target: self.clone(),
                drained: drained.join(", "),
            });
        }
        Ok(found)
    }
}

/// Gives every drained endpoint the weight 0.
pub(super) fn apply(desired: &mut Desired, drained: &BTreeSet<Target>) {
    if drained.is_empty() {
        return;
    }
    let named = |name: &ServiceName, addr: SocketAddr, endpoint: &Endpoint| {
        drained.iter().any(|it| it.names(name, addr, endpoint))
    };
    desired.services.change(
        |name, service| {
            let mut endpoints = service.endpoints.iter();
            endpoints.any(|(&addr, endpoint)| named(name, addr, endpoint))
        },
        |name, service| {
            for (&addr, endpoint) in &mut service.endpoints {
                if named(name, addr, endpoint) {
                    endpoint.weight = 0;
                }
            }
        },
    );
}

/// The backends that are named, by address, and the services that have nobody left to
/// take new flows.
pub(super) fn effect(desired: &Desired, target: &Target) -> (Vec<SocketAddr>, Vec<String>) {
    let mut services: BTreeMap<&ServiceName, bool> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for (name, addr, endpoint) in endpoints(desired) {
        if target.names(name, addr, endpoint) {
            named.insert(addr);
            let all = desired.services[name].endpoints.values();
            services.insert(name, all.map(|it| it.weight).all(|weight| weight == 0));
        }
    }
    let empty = services.into_iter().filter(|(_, empty)| *empty);
    let empty = empty.map(|(name, _)| name.to_string()).collect();
    (named.into_iter().collect(), empty)
}

fn endpoints(desired: &Desired) -> impl Iterator<Item = (&ServiceName, SocketAddr, &Endpoint)> {
    desired.services.iter().flat_map(|(name, service)| {
        let endpoints = service.endpoints.iter();
        endpoints.map(move |(&addr, endpoint)| (name, addr, endpoint))
    })
}

/// The namespace of a service, and so of its pods.
fn of(service: &ServiceName) -> &str {
    service.0.split('/').next().unwrap_or_default()
}

// === impl Target ===

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let text = text.trim();
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::Address(ip));
        }
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, text),
        };
        Ok(Self::Pod {
            namespace,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Address(ip) => ip.fmt(f),
            Self::Pod { namespace, name } => match namespace {
                Some(namespace) => write!(f, "{namespace}/{name}"),
                None => f.write_str(name),
            },
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::desired::Condition;

    fn target(text: &str) -> Target {
        text.parse().expect("any text")
    }

    /// `namespace/service pod address`, a line an endpoint.
    fn desired(lines: &[(&str, &str, &str)]) -> Desired {
        let mut desired = Desired::default();
        for (service, pod, addr) in lines {
            let endpoint = Endpoint {
                weight: 1,
                condition: Condition::Ready,
                node: None,
                name: Some((*pod).to_owned()),
            };
            let name = ServiceName((*service).to_owned());
            let mut service = desired.services.get(&name).cloned().unwrap_or_default();
            let addr = addr.parse().expect("address");
            service.endpoints.insert(addr, endpoint);
            desired.services.insert(name, service);
        }
        desired
    }

    fn taking(desired: &Desired) -> Vec<String> {
        endpoints(desired)
            .filter(|(.., endpoint)| endpoint.weight > 0)
            .map(|(service, addr, _)| format!("{service} {addr}"))
            .collect()
    }

    #[test]
    fn a_backend_goes_by_port_by_address_and_by_name() {
        let all = desired(&[
            ("default/web:80", "web-0", "10.0.0.1:80"),
            ("default/web:443", "web-0", "10.0.0.1:443"),
            ("test/web:80", "web-0", "10.0.0.2:80"),
        ]);
        let without = |text: &str| {
            let mut desired = all.clone();
            apply(&mut desired, &BTreeSet::from([target(text)]));
            taking(&desired)
        };
        let [a, b, c] = [
            "default/web:443 10.0.0.1:443",
            "default/web:80 10.0.0.1:80",
            "test/web:80 10.0.0.2:80",
        ];
        assert_eq!(without("10.0.0.1:80"), [a, c]);
        assert_eq!(without("10.0.0.1"), [c]);
        assert_eq!(without("default/web-0"), [c]);
        assert_eq!(without("test/web-0"), [a, b]);
        assert_eq!(without("10.0.0.9"), [a, b, c]);
    }

    #[test]
    fn what_is_unknown_ambiguous_or_not_drained_is_told() {
        let all = desired(&[
            ("default/web:80", "web-0", "10.0.0.1:80"),
            ("test/web:80", "web-0", "10.0.0.2:80"),
            ("test/web:80", "web-1", "10.0.0.3:80"),
        ]);
        let settle = |text: &str| {
            let settled = target(text).settle(&all);
            settled.map_or_else(|error| error.to_string(), |it| it.to_string())
        };
        assert_eq!(settle("web-1"), "test/web-1");
        assert_eq!(settle("10.0.0.3"), "10.0.0.3");
        assert_eq!(
            settle("web-0"),
            "web-0 may be any of default/web-0, test/web-0; say which, with its namespace"
        );
        assert_eq!(
            settle("10.0.0.1:81"),
            "no backend 10.0.0.1:81; `naru backends` lists those that there are"
        );
        let drained = BTreeSet::from([target("test/web-1"), target("10.0.0.1")]);
        let back = |text: &str| {
            let back = target(text).taken_back(&drained);
            back.map_or_else(|error| error.to_string(), |it| format!("{it:?}"))
        };
        assert!(back("web-1").contains("web-1"));
        assert_eq!(
            back("10.0.0.1:80"),
            "10.0.0.1:80 is not drained; drained: 10.0.0.1, test/web-1"
        );
    }

    #[test]
    fn who_is_left_without_anybody_is_told() {
        let mut all = desired(&[
            ("a/web:80", "web-0", "10.0.0.1:80"),
            ("a/api:80", "web-0", "10.0.0.1:80"),
            ("a/api:80", "web-1", "10.0.0.2:80"),
        ]);
        let target = target("a/web-0");
        apply(&mut all, &BTreeSet::from([target.clone()]));
        let (named, empty) = effect(&all, &target);
        assert_eq!(named, ["10.0.0.1:80".parse().expect("address")]);
        assert_eq!(empty, ["a/web:80"]);
    }

    proptest! {
        #[test]
        fn every_target_reads_as_it_prints(text in "[a-z0-9.:/\\[\\]-]{1,24}") {
            let read = target(&text);
            prop_assert_eq!(target(&read.to_string()), read);
        }
    }
}
