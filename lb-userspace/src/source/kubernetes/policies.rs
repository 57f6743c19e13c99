//! Who may use a Service, and which endpoints serve whom.

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::Sourced;
use crate::{
    desired::TrafficPolicy,
    source::{Findings, Origin, rules},
};

/// The older form of `spec.loadBalancerSourceRanges`; the field wins over it.
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY: i32 = 10_800;

/// What a Service says about its clients and its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) external: TrafficPolicy,
    pub(super) internal: TrafficPolicy,
    pub(super) affinity: Option<Duration>,
    pub(super) source_ranges: Vec<IpNet>,
    /// Where nodes are asked whether they have endpoints.
    pub(super) health_check_port: Option<u16>,
}

/// Reads them.
pub(super) fn read(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    findings: &mut Findings,
) -> Policies {
    let origin = &service.origin;
    let mut policy = |field: &str, text: Option<&String>| match text.map(String::as_str) {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let what = format!("spec.{field} `{other}` does not exist");
            findings.problem(origin, object, what, "write Cluster or Local");
            TrafficPolicy::Cluster
        }
    };
    let external = policy(
        "externalTrafficPolicy",
        spec.external_traffic_policy.as_ref(),
    );
    Policies {
        external,
        internal: policy(
            "internalTrafficPolicy",
            spec.internal_traffic_policy.as_ref(),
        ),
        affinity: affinity(object, origin, spec, findings),
        source_ranges: source_ranges(object, service, spec, findings),
        health_check_port: health_check_port(object, origin, spec, external, findings),
    }
}

/// It has a meaning for load balancers' Services whose nodes keep to their own endpoints.
fn health_check_port(
    object: &str,
    origin: &Origin,
    spec: &ServiceSpec,
    external: TrafficPolicy,
    findings: &mut Findings,
) -> Option<u16> {
    let is_meant =
        spec.type_.as_deref() == Some("LoadBalancer") && external == TrafficPolicy::Local;
    let port = spec
        .health_check_node_port
        .filter(|&it| is_meant && it != 0)?;
    let read = rules::port(port);
    let read = read.inspect_err(|objection| {
        let what = format!("spec.healthCheckNodePort: {}", objection.what);
        findings.problem(origin, object, what, objection.remedy.clone());
    });
    read.ok()
}

fn affinity(
    object: &str,
    origin: &Origin,
    spec: &ServiceSpec,
    findings: &mut Findings,
) -> Option<Duration> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let what = format!("spec.sessionAffinity `{other}` does not exist");
            findings.problem(origin, object, what, "write None or ClientIP");
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    match rules::affinity(seconds.unwrap_or(DEFAULT_AFFINITY).into()) {
        Ok(affinity) => Some(affinity),
        Err(objection) => {
            let what = format!("sessionAffinityConfig: {}", objection.what);
            findings.problem(origin, object, what, objection.remedy);
            None
        }
    }
}

/// Whether it says, if at all, in a way that is understood who may use its addresses.
pub(in crate::source) fn is_guarded(service: &Sourced<Service>) -> bool {
    let mut findings = Findings::default();
    if let Some(spec) = &service.object.spec {
        source_ranges("", service, spec, &mut findings);
    }
    findings.problems.is_empty()
}

/// Whether only some may use its load balancer's addresses.
pub(super) fn has_ranges(service: &Service, spec: &ServiceSpec) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let annotated = annotations.is_some_and(|all| all.contains_key(SOURCE_RANGES_ANNOTATION));
    let ranges = spec.load_balancer_source_ranges.as_deref();
    annotated || !ranges.unwrap_or_default().is_empty()
}

/// The networks that may use the load balancer's addresses; all where none is named.
fn source_ranges(
    object: &str,
    service: &Sourced<Service>,
    spec: &ServiceSpec,
    findings: &mut Findings,
) -> Vec<IpNet> {
    let origin = &service.origin;
    let field = spec.load_balancer_source_ranges.as_deref();
    let annotations = service.object.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(SOURCE_RANGES_ANNOTATION));
    let (place, texts): (&str, Vec<&str>) = match (field.unwrap_or_default(), annotated) {
        ([], None) => return Vec::new(),
        ([], Some(list)) => {
            let texts = list.split(',').filter(|text| !text.trim().is_empty());
            (SOURCE_RANGES_ANNOTATION, texts.collect())
        }
        (ranges, _) => (
            "spec.loadBalancerSourceRanges",
            ranges.iter().map(String::as_str).collect(),
        ),
    };
    if spec.type_.as_deref() != Some("LoadBalancer") {
        let what = format!("{place} has no effect: it is about Services of type LoadBalancer");
        findings.note(origin, object, what);
        return Vec::new();
    }
    let mut networks = Vec::new();
    for text in texts {
        match rules::network(text) {
            Ok(network) => networks.push(network),
            Err(objection) => {
                let what = format!("{place}: {}", objection.what);
                findings.problem(origin, object, what, objection.remedy);
            }
        }
    }
    rules::networks(networks)
}
