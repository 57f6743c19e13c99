//! The ConfigMap that MetalLB up to 0.12 was configured by, as it is written.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    NAMESPACE, NO_BGP,
    convert::{self, Resources},
    types::{IpAddressPool, L2Advertisement},
};
use crate::source::{
    Findings, Origin,
    kubernetes::Sourced,
    yaml::{self, YamlError},
};

/// Its name.
pub const CONFIG_MAP: &str = "config";
/// The key in its `data`.
const KEY: &str = "config";

/// `data.config`, or a file that holds nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    #[serde(default)]
    pub(super) peers: Vec<Spanned<Peer>>,
    #[serde(default)]
    pub(super) bgp_communities: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) address_pools: Vec<Spanned<AddressPool>>,
    #[serde(default)]
    pub(super) bfd_profiles: Vec<Spanned<BfdProfile>>,
}

/// One of `address-pools`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AddressPool {
    pub(super) name: String,
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    pub(super) auto_assign: Option<bool>,
    pub(super) avoid_buggy_ips: Option<bool>,
    #[serde(default)]
    pub(super) bgp_advertisements: Vec<Advertisement>,
}

/// One of a pool's `bgp-advertisements`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Advertisement {
    pub(super) aggregation_length: Option<i32>,
    pub(super) aggregation_length_v6: Option<i32>,
    pub(super) localpref: Option<u32>,
    #[serde(default)]
    pub(super) communities: Vec<String>,
}

/// One of `peers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Peer {
    pub(super) my_asn: u32,
    pub(super) peer_asn: u32,
    pub(super) peer_address: String,
    pub(super) source_address: Option<String>,
    pub(super) peer_port: Option<u16>,
    pub(super) hold_time: Option<String>,
    pub(super) keepalive_time: Option<String>,
    pub(super) router_id: Option<String>,
    #[serde(default)]
    pub(super) node_selectors: Vec<NodeSelector>,
    pub(super) password: Option<String>,
    pub(super) bfd_profile: Option<String>,
    #[serde(default)]
    pub(super) ebgp_multihop: bool,
}

/// One of a peer's `node-selectors`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NodeSelector {
    #[serde(default)]
    pub(super) match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) match_expressions: Vec<Requirement>,
}

/// One of a node selector's `match-expressions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) operator: String,
    #[serde(default)]
    pub(super) values: Vec<String>,
}

/// One of `bfd-profiles`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BfdProfile {
    pub(super) name: String,
    pub(super) receive_interval: Option<u32>,
    pub(super) transmit_interval: Option<u32>,
    pub(super) detect_multiplier: Option<u32>,
    pub(super) echo_interval: Option<u32>,
    #[serde(default)]
    pub(super) echo_mode: bool,
    #[serde(default)]
    pub(super) passive_mode: bool,
    pub(super) minimum_ttl: Option<u32>,
}

/// A ConfigMap of a cluster, as the objects that it stands for.
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    pools: Vec<Sourced<IpAddressPool>>,
    advertisements: Vec<Sourced<L2Advertisement>>,
    findings: Findings,
}

impl Legacy {
    /// What a configuration stands for.
    pub(crate) fn of(written: &Written) -> Self {
        let mut findings = Findings::default();
        let Resources {
            peers,
            pools,
            bgp_advertisements: _,
            l2_advertisements: advertisements,
            bfd_profiles: _,
            communities: _,
        } = convert::convert(written, NAMESPACE, &mut findings);
        for peer in peers {
            findings.note(&peer.origin, &written.object, format!("peers: {NO_BGP}"));
        }
        Self {
            pools,
            advertisements,
            findings,
        }
    }

    /// The pools.
    pub(crate) fn pools(&self) -> &[Sourced<IpAddressPool>] {
        &self.pools
    }

    /// The advertisements.
    pub(crate) fn advertisements(&self) -> &[Sourced<L2Advertisement>] {
        &self.advertisements
    }

    /// What is wrong with it, and what is to be said of it.
    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }
}

impl From<ConfigMap> for Legacy {
    fn from(object: ConfigMap) -> Self {
        let name = format!("ConfigMap {NAMESPACE}/{CONFIG_MAP}");
        let text = object.data.unwrap_or_default().remove(KEY);
        let Some(text) = text.filter(|it| !it.trim().is_empty()) else {
            let what = format!("data.{KEY} is missing or empty");
            let remedy = format!("write MetalLB's configuration there, below `{KEY}: |`");
            let mut findings = Findings::default();
            findings.problem(&Origin::Cluster, &name, what, remedy);
            return Self {
                findings,
                ..Self::default()
            };
        };
        let written = Written {
            text,
            object: name,
            file: Arc::from(format!("data.{KEY}")),
            line: 1,
            line_by_line: true,
        };
        Self::of(&written)
    }
}

/// A configuration's text and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// What messages call it.
    pub(crate) object: String,
    pub(crate) file: Arc<str>,
    /// Line of the file that its first one is.
    pub(crate) line: u64,
    /// Whether its other lines are the ones that follow in the file: a block scalar.
    pub(crate) line_by_line: bool,
}

impl Written {
    /// Finds the configuration in a document that is a ConfigMap and begins on a line of
    /// `file`.
    pub(crate) fn in_config_map(
        file: &Arc<str>,
        object: &str,
        (document, line): (&str, u64),
        findings: &mut Findings,
    ) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            data: BTreeMap<String, Spanned<String>>,
        }
        let found = match yaml::parse::<Document>(document, line) {
            Ok(mut it) => it.data.remove(KEY),
            Err(YamlError { line: at, what }) => {
                let origin = Origin::line(file, at.unwrap_or(line));
                let remedy = format!("make `data.{KEY}` a text, with `{KEY}: |`");
                findings.problem(&origin, object, what, remedy);
                return None;
            }
        };
        let Some(found) = found.filter(|it| !it.value.trim().is_empty()) else {
            let what = format!("data.{KEY} is missing or empty");
            let remedy = format!("write MetalLB's configuration there, below `{KEY}: |`");
            findings.problem(&Origin::line(file, line), object, what, remedy);
            return None;
        };
        // A block scalar begins after the line with its indicator; of other scalars only the
        // first line is known.
        let at = found.referenced.line().max(1);
        let before = usize::try_from(at - 1).unwrap_or_default();
        let before: Vec<&str> = document.lines().take(before).collect();
        let before = before.iter().rev().find(|it| !it.trim().is_empty());
        let opening = before.and_then(|it| it.rsplit(':').next());
        let line_by_line = opening.is_some_and(|it| it.trim_start().starts_with('|'));
        Some(Self {
            text: found.value,
            object: object.to_owned(),
            file: Arc::clone(file),
            line: line + at - 1,
            line_by_line,
        })
    }

    /// Where a line of the text stands.
    pub(super) fn origin(&self, line: Option<u64>) -> Origin {
        let after = line.filter(|_| self.line_by_line);
        let after = after.map_or(0, |line| line.saturating_sub(1));
        Origin::line(&self.file, self.line + after)
    }

    /// Reads it.
    pub(super) fn read(&self, findings: &mut Findings) -> Option<Config> {
        match yaml::parse(&self.text, 1) {
            Ok(config) => Some(config),
            Err(error) => {
                let origin = self.origin(error.line);
                let remedy = "write it as MetalLB 0.12 read it";
                findings.problem(&origin, &self.object, error.what, remedy);
                None
            }
        }
    }
}
