//! The kinds of `metallb.io` that say who gets which address and who announces it.
//!
//! Fields that were not written are `None`, so that an object is written back as it was
//! read. The specs are what a derive of `kube::CustomResource` asks for.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object of a custom kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource<S> {
    /// Group and version.
    pub api_version: String,
    /// The kind's name.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What its author wants. An L2Advertisement needs none: it is about everything.
    #[serde(default)]
    pub spec: S,
    /// What a controller wrote back; not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Value>,
}

/// What tells a custom kind by its spec.
pub trait Spec {
    /// The kind's name.
    const KIND: &'static str;
    /// The same of several, as it stands in addresses of the API.
    const PLURAL: &'static str;
}

impl Spec for IpAddressPoolSpec {
    const KIND: &'static str = "IPAddressPool";
    const PLURAL: &'static str = "ipaddresspools";
}

impl Spec for L2AdvertisementSpec {
    const KIND: &'static str = "L2Advertisement";
    const PLURAL: &'static str = "l2advertisements";
}

impl<S: Spec> kube_core::Resource for Resource<S> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        S::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "metallb.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        S::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Spec for ServiceL2StatusSpec {
    const KIND: &'static str = "ServiceL2Status";
    const PLURAL: &'static str = "servicel2statuses";
}

/// Addresses for Services of type LoadBalancer.
pub type IpAddressPool = Resource<IpAddressPoolSpec>;

/// How the addresses of pools are announced on the LAN.
pub type L2Advertisement = Resource<L2AdvertisementSpec>;

/// Which node announces the addresses of a Service; agents write it.
pub type ServiceL2Status = Resource<ServiceL2StatusSpec>;

/// The addresses of an IPAddressPool, and who may have them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpAddressPoolSpec {
    /// Networks (`192.168.56.0/28`) and ranges (`192.168.56.11-192.168.56.13`).
    #[schemars(length(min = 1))]
    pub addresses: Vec<String>,
    /// Whether Services get one without asking for this pool; true unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Whether to leave out IPv4 addresses that end in .0 or .255; false unless said.
    #[serde(
        default,
        rename = "avoidBuggyIPs",
        skip_serializing_if = "Option::is_none"
    )]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services may have one; unsaid: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocationSpec>,
}

/// Whom a pool is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocationSpec {
    /// Pools with a lower one come first; 0 comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selectors: Option<Vec<LabelSelector>>,
    /// Services by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

/// What an L2Advertisement is about: all pools, by all nodes, unless it says less.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Pools by name; without these and selectors: all pools.
    #[serde(
        default,
        rename = "ipAddressPools",
        skip_serializing_if = "Option::is_none"
    )]
    pub ip_address_pools: Option<Vec<String>>,
    /// Pools by label.
    #[serde(
        default,
        rename = "ipAddressPoolSelectors",
        skip_serializing_if = "Option::is_none"
    )]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// The nodes that may announce; unsaid: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// The interfaces to announce on; unsaid: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
    /// The Services that it is about; unsaid: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
    /// The nodes that should rather announce than others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_node_selectors: Option<Vec<PreferredNodeSelector>>,
}

/// A weight for nodes of some labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodeSelector {
    /// 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i64,
    /// The nodes.
    pub preference: LabelSelector,
}

/// Nobody wants anything of a ServiceL2Status: it tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceL2StatusSpec {}

/// What a controller writes into an [`IpAddressPool`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpAddressPoolStatus {
    /// IPv4 addresses that were given out.
    #[serde(rename = "assignedIPv4")]
    pub assigned_v4: i64,
    /// IPv6 addresses that were given out.
    #[serde(rename = "assignedIPv6")]
    pub assigned_v6: i64,
    /// IPv4 addresses that are left.
    #[serde(rename = "availableIPv4")]
    pub available_v4: i64,
    /// IPv6 addresses that are left.
    #[serde(rename = "availableIPv6")]
    pub available_v6: i64,
}

/// What an agent writes into a [`ServiceL2Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedStatus {
    /// The node that announces.
    pub node: String,
    /// The Service.
    pub service_name: String,
    /// Its namespace.
    pub service_namespace: String,
    /// The interfaces that it announces on; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<AnnouncedInterface>,
}

/// An interface by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnnouncedInterface {
    /// Its name.
    pub name: String,
}
