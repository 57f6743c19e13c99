//! The legacy ConfigMap → custom resources, for `naru convert` and for manifests.

mod peers;

use std::{collections::BTreeSet, io, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    NAMESPACE,
    bgp::{
        BfdProfile, BfdProfileSpec, BgpAdvertisement, BgpAdvertisementSpec, BgpPeer, Community,
        CommunityAlias, CommunitySpec,
    },
    legacy::{self, Written},
    types::{IpAddressPool, IpAddressPoolSpec, L2Advertisement, L2AdvertisementSpec, Resource},
};
use crate::source::{
    Findings, Loaded, Note, Origin, Rejected, kubernetes::Sourced, manifest::document, yaml,
};

/// Longest name of an object.
const LONGEST_NAME: usize = 63;

/// What a configuration is in the newer form.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// `peer1` and so on.
    pub peers: Vec<Sourced<BgpPeer>>,
    /// By the names of the pools.
    pub pools: Vec<Sourced<IpAddressPool>>,
    /// `bgpadvertisement1` and so on.
    pub bgp_advertisements: Vec<Sourced<BgpAdvertisement>>,
    /// `l2advertisement1` and so on.
    pub l2_advertisements: Vec<Sourced<L2Advertisement>>,
    /// By the names of the profiles.
    pub bfd_profiles: Vec<Sourced<BfdProfile>>,
    /// All communities in one.
    pub communities: Vec<Sourced<Community>>,
}

/// A file that was converted.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The custom resources, a document each.
    pub yaml: String,
    /// What was left out.
    pub notes: Vec<Note>,
}

/// Converts a file's text: ConfigMaps, or the `config` of one alone.
///
/// # Errors
/// Everything that is wrong with it, with file and line.
pub fn file(name: &str, text: &str) -> Result<Converted, Rejected> {
    let file: Arc<str> = Arc::from(name);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::default();
    let mut resources = Resources::default();
    let mut any = false;
    for document in &document::split(text) {
        if let Some((written, namespace)) = written(&file, document, &mut findings) {
            resources.extend(convert(&written, &namespace, &mut findings));
            any = true;
        }
    }
    if !any && findings.problems.is_empty() {
        let what = "there is no configuration of MetalLB in it";
        let remedy = "give the ConfigMap `config` of MetalLB, or its text";
        findings.problem(&Origin::line(&file, 0), "", what, remedy);
    }
    // What the kinds ask for beyond their form: ranges above all. Whether anything
    // announces them is no matter here.
    let mut examined = Findings::default();
    super::read(
        &resources.pools,
        &resources.l2_advertisements,
        &[],
        &mut examined,
    );
    findings.problems.extend(examined.problems);
    let yaml = resources.yaml().unwrap_or_else(|error| {
        let what = format!("the result cannot be written as YAML: {error}");
        findings.problem(&Origin::line(&file, 0), "", what, "simplify what it holds");
        String::new()
    });
    let Loaded { notes, .. } = findings.outcome(Default::default())?;
    Ok(Converted { yaml, notes })
}

/// The configuration in one document, with the namespace that its objects shall be in.
fn written(
    file: &Arc<str>,
    document: &document::Document<'_>,
    findings: &mut Findings,
) -> Option<(Written, String)> {
    let raw: Value = match yaml::parse(document.text, document.line) {
        Ok(raw) => raw,
        Err(error) => {
            let origin = Origin::line(file, error.line.unwrap_or(document.content));
            findings.problem(&origin, "", error.what, "correct the YAML");
            return None;
        }
    };
    let Some(kind) = raw.get("kind").and_then(Value::as_str) else {
        let written = Written {
            text: document.text.to_owned(),
            object: "MetalLB's configuration".to_owned(),
            file: Arc::clone(file),
            line: document.line,
            line_by_line: true,
        };
        return Some((written, NAMESPACE.to_owned()));
    };
    let metadata = |key: &str| raw.get("metadata")?.get(key)?.as_str();
    let namespace = metadata("namespace").unwrap_or(NAMESPACE);
    let object = format!("{kind} {namespace}/{}", metadata("name").unwrap_or("?"));
    if kind != "ConfigMap" {
        let origin = Origin::line(file, document.content);
        findings.note(&origin, &object, "left out: it is no ConfigMap");
        return None;
    }
    let text = (document.text, document.line);
    let written = Written::in_config_map(file, &object, text, findings)?;
    Some((written, namespace.to_owned()))
}

/// Converts a configuration. Ranges are not examined here: that is done for all pools
/// alike.
pub(crate) fn convert(written: &Written, namespace: &str, findings: &mut Findings) -> Resources {
    let mut resources = Resources::default();
    let Some(config) = written.read(findings) else {
        return resources;
    };
    let mut names = BTreeSet::new();
    for profile in config.bfd_profiles {
        let origin = written.origin(Some(profile.referenced.line()));
        let profile = profile.value;
        let Some(name) = name(&profile.name, &origin, &written.object, findings) else {
            continue;
        };
        if !names.insert(name.clone()) {
            let what = format!("two BFD profiles would be called {name}");
            findings.problem(&origin, &written.object, what, "rename one of them");
        }
        let spec = BfdProfileSpec {
            receive_interval: profile.receive_interval,
            transmit_interval: profile.transmit_interval,
            detect_multiplier: profile.detect_multiplier,
            echo_interval: profile.echo_interval,
            echo_mode: Some(profile.echo_mode),
            passive_mode: Some(profile.passive_mode),
            minimum_ttl: profile.minimum_ttl,
        };
        let object = resource("v1beta1", "BFDProfile", (&name, namespace), spec);
        resources.bfd_profiles.push(Sourced { origin, object });
    }
    resources.peers = peers::convert(written, config.peers, namespace, &names, findings);
    for pool in config.address_pools {
        let origin = written.origin(Some(pool.referenced.line()));
        resources.pool(pool.value, (written, origin), namespace, findings);
    }
    let aliases = config.bgp_communities.into_iter();
    let aliases: Vec<_> = aliases
        .map(|(name, value)| CommunityAlias { name, value })
        .collect();
    if !aliases.is_empty() {
        let spec = CommunitySpec {
            communities: Some(aliases),
        };
        let name = ("communities", namespace);
        resources.communities.push(Sourced {
            origin: written.origin(None),
            object: resource("v1beta1", "Community", name, spec),
        });
    }
    resources
}

/// An object as MetalLB's own converter writes it, its empty status included.
fn resource<S>(version: &str, kind: &str, (name, namespace): (&str, &str), spec: S) -> Resource<S> {
    Resource {
        api_version: format!("metallb.io/{version}"),
        kind: kind.to_owned(),
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        spec,
        status: Some(json!({})),
    }
}

/// A name as Kubernetes takes it, made of one that the ConfigMap took.
fn name(written: &str, origin: &Origin, object: &str, findings: &mut Findings) -> Option<String> {
    let name = written.to_lowercase().replace('_', "-");
    let name = name.trim_start_matches(|it: char| !it.is_ascii_lowercase());
    let name: String = name.chars().take(LONGEST_NAME).collect();
    let name = name.trim_end_matches(['-', '.']);
    if crate::source::kubernetes::is_name(name) {
        return Some(name.to_owned());
    }
    let what = format!("`{written}` cannot be made a name that Kubernetes takes");
    findings.problem(origin, object, what, "use letters, digits, `-` and `.`");
    None
}

// === impl Resources ===

impl Resources {
    /// Adds a pool and who announces it.
    fn pool(
        &mut self,
        pool: legacy::AddressPool,
        (written, origin): (&Written, Origin),
        namespace: &str,
        findings: &mut Findings,
    ) {
        let object = &written.object;
        let Some(name) = name(&pool.name, &origin, object, findings) else {
            return;
        };
        let of_pool = Some(vec![name.clone()]);
        match pool.protocol.as_str() {
            "layer2" if pool.bgp_advertisements.is_empty() => {
                let spec = L2AdvertisementSpec {
                    ip_address_pools: of_pool,
                    ..L2AdvertisementSpec::default()
                };
                let name = format!("l2advertisement{}", self.l2_advertisements.len() + 1);
                self.l2_advertisements.push(Sourced {
                    origin: origin.clone(),
                    object: resource("v1beta1", "L2Advertisement", (&name, namespace), spec),
                });
            }
            "layer2" => {
                let what = format!("pool {name} is of layer2 and has bgp-advertisements");
                let remedy = "remove them, or write `protocol: bgp`";
                findings.problem(&origin, object, what, remedy);
            }
            "bgp" => {
                let mut written = pool.bgp_advertisements;
                if written.is_empty() {
                    written.push(legacy::Advertisement {
                        aggregation_length: None,
                        aggregation_length_v6: None,
                        localpref: None,
                        communities: Vec::new(),
                    });
                }
                for it in written {
                    let spec = BgpAdvertisementSpec {
                        aggregation_length: it.aggregation_length,
                        aggregation_length_v6: it.aggregation_length_v6,
                        local_pref: it.localpref.filter(|it| *it != 0),
                        communities: Some(it.communities).filter(|it| !it.is_empty()),
                        ip_address_pools: of_pool.clone(),
                        ..BgpAdvertisementSpec::default()
                    };
                    let name = format!("bgpadvertisement{}", self.bgp_advertisements.len() + 1);
                    self.bgp_advertisements.push(Sourced {
                        origin: origin.clone(),
                        object: resource("v1beta1", "BGPAdvertisement", (&name, namespace), spec),
                    });
                }
            }
            other => {
                let what = format!("pool {name}: protocol `{other}` does not exist");
                findings.problem(&origin, object, what, "write layer2 or bgp");
            }
        }
        let spec = IpAddressPoolSpec {
            addresses: pool.addresses,
            auto_assign: pool.auto_assign,
            avoid_buggy_ips: pool.avoid_buggy_ips.filter(|avoid| *avoid),
            service_allocation: None,
        };
        let mut object = resource("v1beta1", "IPAddressPool", (&name, namespace), spec);
        object.status = Some(json!({
            "assignedIPv4": 0, "assignedIPv6": 0, "availableIPv4": 0, "availableIPv6": 0,
        }));
        self.pools.push(Sourced { origin, object });
    }

    fn extend(&mut self, more: Self) {
        self.peers.extend(more.peers);
        self.pools.extend(more.pools);
        self.bgp_advertisements.extend(more.bgp_advertisements);
        self.l2_advertisements.extend(more.l2_advertisements);
        self.bfd_profiles.extend(more.bfd_profiles);
        self.communities.extend(more.communities);
    }

    /// The objects as YAML documents.
    fn yaml(&self) -> io::Result<String> {
        fn push<T: Serialize>(
            documents: &mut Vec<Value>,
            objects: &[Sourced<T>],
        ) -> io::Result<()> {
            for it in objects {
                documents.push(serde_json::to_value(&it.object)?);
            }
            Ok(())
        }
        let mut documents = Vec::new();
        push(&mut documents, &self.peers)?;
        push(&mut documents, &self.pools)?;
        push(&mut documents, &self.bgp_advertisements)?;
        push(&mut documents, &self.l2_advertisements)?;
        push(&mut documents, &self.bfd_profiles)?;
        push(&mut documents, &self.communities)?;
        serde_saphyr::to_string_multiple(&documents).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests;
