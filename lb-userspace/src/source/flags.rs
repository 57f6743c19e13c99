//! `--vip` and `--backend`: a service in one line.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr};

use lb_common::{Algorithm, Mode, maglev};

use super::{Findings, Origin, Outcome, plain, rules};
use crate::desired::Frontend;

/// What the flags ask for: every `--vip` with all backends behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--vip`, repeated.
    pub vips: Vec<Vip>,
    /// `--backend`, repeated.
    pub backends: Vec<Backend>,
    /// `--algorithm`.
    pub algorithm: Algorithm,
}

/// The value of `--vip`: `IP:PORT`, `IP:PORT/tcp` or `IP:PORT/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip(pub Frontend);

/// The value of `--backend`: `IP:PORT`, or `IP:PORT=WEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share of new flows, 1 unless said otherwise.
    pub weight: u32,
}

/// A value that is not what its flag asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlagError(String);

impl FromStr for Vip {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        rules::frontend(text).map(Self).map_err(told)
    }
}

impl FromStr for Backend {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let (addr, weight) = match text.split_once('=') {
            Some((addr, weight)) => (addr, rules::weight(weight).map_err(told)?),
            None => (text, 1),
        };
        let addr = rules::backend(addr).map_err(told)?;
        Ok(Self { addr, weight })
    }
}

fn told(objection: rules::Objection) -> FlagError {
    FlagError(objection.to_string())
}

impl Flags {
    /// What the flags ask for.
    pub fn desired(&self) -> Outcome {
        let entry = |vip: &Vip| plain::Entry {
            origin: Origin::CommandLine,
            name: None,
            frontend: vip.0,
            algorithm: self.algorithm,
            maglev_slots: maglev::DEFAULT_SLOTS,
            elsewhere: Mode::Nat,
            affinity: None,
            source_ranges: Vec::new(),
            health_check: None,
            backends: self
                .backends
                .iter()
                .map(|backend| plain::Backend {
                    origin: Origin::CommandLine,
                    addr: backend.addr,
                    weight: backend.weight,
                    node: None,
                })
                .collect(),
        };
        let entries = self.vips.iter().map(entry).collect();
        plain::translate(entries, BTreeMap::new(), Findings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(vips: &[&str], backends: &[&str]) -> Flags {
        Flags {
            vips: vips.iter().map(|v| v.parse().expect("vip")).collect(),
            backends: backends
                .iter()
                .map(|b| b.parse().expect("backend"))
                .collect(),
            algorithm: Algorithm::RoundRobin,
        }
    }

    #[test]
    fn all_virtual_ips_share_the_backends() {
        let flags = flags(
            &["192.168.56.11:53", "192.168.56.11:53/udp"],
            &["10.0.0.11:53", "10.0.0.12:53=3"],
        );
        let desired = flags.desired().expect("valid").desired;
        let names: Vec<_> = desired.services.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["-/192.168.56.11:53", "-/192.168.56.11:53/udp"]);
        for service in desired.services.values() {
            let weights: Vec<_> = service.endpoints.values().map(|e| e.weight).collect();
            assert_eq!(weights, [1, 3]);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let says = |text: &str| text.parse::<Backend>().expect_err("refused").to_string();
        assert_eq!(
            says("10.0.0.11"),
            "10.0.0.11: a port is missing; write 10.0.0.11:8080"
        );
        assert_eq!(
            says("10.0.0.11:80=x"),
            "`x` is not a weight; use a number from 0 (takes no new flows) to 1000"
        );
        let twice = flags(&["192.168.56.11:80"], &["10.0.0.1:80", "10.0.0.1:80"]).desired();
        assert_eq!(
            twice.expect_err("refused").to_string(),
            "command line: service 192.168.56.11:80/tcp: backend 10.0.0.1:80 is named twice; \
             name it once, with a weight if it counts more"
        );
    }
}
