//! What the metrics of an agent and of a controller are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use lb_common::Verdict;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, histogram::Histogram},
};
use tokio::sync::{mpsc, oneshot};

use super::rows::{Kind, Labels, metric};
use crate::{
    control::{Backend, Reply, Request, Service, Status, Traffic, VerdictCount, server::Call},
    ipam::PoolUse,
};

/// An agent's.
#[derive(Debug)]
pub struct AgentPage {
    status: Box<Status>,
    services: Vec<Service>,
    backends: Vec<Backend>,
    /// None where a controller tells of them.
    pools: Vec<PoolUse>,
    /// How long changes took, in seconds.
    durations: Histogram,
}

/// A controller's.
#[derive(Clone, Debug, Default)]
pub struct ControllerPage {
    /// Whether it is the one that works.
    pub leads: bool,
    /// Whether there was a valid configuration, and whether the newest one counts as it is.
    pub config: Option<bool>,
    /// The pools, of the one that works.
    pub pools: Vec<PoolUse>,
    /// Services without an address, of the one that works.
    pub without_address: usize,
}

impl AgentPage {
    /// Asks an agent, as a client of its socket would; none where it is about to end. `pools`:
    /// whether it gives addresses out itself; `durations`: where it counts how long changes take.
    pub async fn ask(calls: mpsc::Sender<Call>, pools: bool, durations: Histogram) -> Option<Self> {
        let Reply::Status(status) = ask(&calls, Request::Status).await? else {
            return None;
        };
        let Reply::Services(services) = ask(&calls, Request::Services).await? else {
            return None;
        };
        let Reply::Backends(backends) = ask(&calls, Request::Backends).await? else {
            return None;
        };
        let pools = match pools {
            true => ask(&calls, Request::Pools).await?,
            false => Reply::Failed(String::new()),
        };
        Some(Self {
            status,
            services,
            backends,
            pools: match pools {
                Reply::Pools(pools) => pools.pools,
                // Before the first valid configuration there are none.
                _ => Vec::new(),
            },
            durations,
        })
    }

    /// The Services, `namespace/name`, whose frontends have this address.
    fn services_of(&self, address: &str) -> BTreeSet<&str> {
        let of = |it: &&Service| {
            let mut hosts = it.frontends.iter().filter_map(|it| it.rsplit_once(':'));
            hosts.any(|(host, _)| host.trim_matches(['[', ']']) == address)
        };
        let services = self.services.iter().filter(of);
        services
            .filter_map(|it| Some(it.name.rsplit_once(':')?.0))
            .collect()
    }
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Option<Reply> {
    let (sender, reply) = oneshot::channel();
    calls.send((request, sender)).await.ok()?;
    reply.await.ok()
}

/// The counters of services or backends, summed up by their labels.
fn traffic(rows: impl Iterator<Item = (Labels, Traffic)>) -> BTreeMap<Labels, Traffic> {
    let mut all: BTreeMap<Labels, Traffic> = BTreeMap::new();
    for (labels, more) in rows {
        let sum = all.entry(labels).or_default();
        sum.packets_in = sum.packets_in.saturating_add(more.packets_in);
        sum.bytes_in = sum.bytes_in.saturating_add(more.bytes_in);
        sum.packets_out = sum.packets_out.saturating_add(more.packets_out);
        sum.bytes_out = sum.bytes_out.saturating_add(more.bytes_out);
        sum.flows = sum.flows.saturating_add(more.flows);
    }
    all
}

/// A metric for each of these counters; `of` is what they are of.
fn write_traffic(
    encoder: &mut DescriptorEncoder<'_>,
    of: &str,
    all: &BTreeMap<Labels, Traffic>,
) -> fmt::Result {
    type Value = fn(&Traffic) -> u64;
    let metrics: [(&str, &str, Value); 5] = [
        ("received_packets", "Packets from clients", |it| {
            it.packets_in
        }),
        ("received_bytes", "Bytes from clients", |it| it.bytes_in),
        ("sent_packets", "Packets to clients", |it| it.packets_out),
        ("sent_bytes", "Bytes to clients", |it| it.bytes_out),
        ("flows", "Flows begun", |it| it.flows),
    ];
    for (name, help, value) in metrics {
        let name = format!("naru_{of}_{name}");
        let rows = all.iter().map(|(labels, it)| (labels.clone(), value(it)));
        metric(encoder, Kind::Counter, &name, help, rows)?;
    }
    Ok(())
}

/// MetalLB's metrics of its pools, by its names.
fn write_pools(encoder: &mut DescriptorEncoder<'_>, pools: &[PoolUse]) -> fmt::Result {
    let rows = |value: fn(&PoolUse) -> u64| {
        let rows = pools.iter();
        rows.map(move |it| (vec![("pool", it.name.clone())], value(it)))
    };
    let in_use = rows(|it| it.in_use.v4.saturating_add(it.in_use.v6));
    metric(
        encoder,
        Kind::Gauge,
        "metallb_allocator_addresses_in_use_total",
        "Addresses of a pool that are given out",
        in_use,
    )?;
    metric(
        encoder,
        Kind::Gauge,
        "metallb_allocator_addresses_total",
        "Addresses of a pool",
        rows(|it| it.size.v4.saturating_add(it.size.v6)),
    )
}

/// MetalLB's metrics of its configuration, by its names.
fn write_config(encoder: &mut DescriptorEncoder<'_>, loaded: bool, stale: bool) -> fmt::Result {
    let one = |value: bool| [(Labels::new(), u64::from(value))];
    metric(
        encoder,
        Kind::Gauge,
        "metallb_k8s_client_config_loaded_bool",
        "Whether a valid configuration is in force",
        one(loaded),
    )?;
    metric(
        encoder,
        Kind::Gauge,
        "metallb_k8s_client_config_stale_bool",
        "Whether the newest configuration, or a part of it, was refused, and an older one is in force",
        one(stale),
    )
}

impl Collector for AgentPage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Self {
            status,
            services,
            backends,
            pools,
            durations,
        } = self;
        let node = || ("node", status.node.clone());
        let build = vec![("version", status.version.clone()), node()];
        metric(
            encoder,
            Kind::Gauge,
            "naru_build",
            "Which agent this is",
            [(build, 1)],
        )?;
        let verdicts = || status.verdicts.iter();
        let labels = |it: &VerdictCount| {
            let fate = Verdict::from_name(&it.verdict).map(|it| it.fate().name());
            vec![
                ("hook", it.hook.clone()),
                ("verdict", it.verdict.clone()),
                ("fate", fate.unwrap_or_default().to_owned()),
            ]
        };
        let packets = verdicts().map(|it| (labels(it), it.packets));
        let help = "Packets by how they left the program";
        metric(encoder, Kind::Counter, "naru_packets", help, packets)?;
        let bytes = verdicts().map(|it| (labels(it), it.bytes));
        let help = "Bytes by how they left the program";
        metric(encoder, Kind::Counter, "naru_bytes", help, bytes)?;

        let by_service = services.iter().map(|it| {
            let frontend = it
                .frontends
                .first()
                .or_else(|| it.internal.first())
                .cloned();
            let frontend = frontend.or_else(|| it.node_port.map(|port| format!("*:{port}")));
            let labels = vec![
                ("service", it.name.clone()),
                ("frontend", frontend.unwrap_or_default()),
            ];
            (labels, it.traffic)
        });
        write_traffic(encoder, "service", &traffic(by_service))?;
        let usable = services
            .iter()
            .map(|it| (it.name.clone(), it.backends as u64));
        let usable: BTreeMap<String, u64> = usable.collect();
        let usable = usable
            .into_iter()
            .map(|(name, it)| (vec![("service", name)], it));
        let help = "Backends of a service that take new flows";
        metric(encoder, Kind::Gauge, "naru_service_backends", help, usable)?;

        let named = |it: &Backend| {
            vec![
                ("backend", it.address.to_string()),
                ("pod", it.name.clone().unwrap_or_default()),
                ("node", it.node.clone().unwrap_or_default()),
            ]
        };
        // Each service that shares an endpoint lists it with all that it has.
        let once: BTreeMap<&str, &Backend> =
            backends.iter().map(|it| (it.id.as_str(), it)).collect();
        let by_backend = once.values().map(|it| (named(it), it.traffic));
        write_traffic(encoder, "backend", &traffic(by_backend))?;
        let ready: BTreeMap<Labels, u64> = backends
            .iter()
            .map(|it| {
                let mut labels = named(it);
                labels.insert(0, ("service", it.service.clone()));
                (labels, u64::from(it.condition == "ready"))
            })
            .collect();
        let help = "Whether a backend takes new flows";
        metric(encoder, Kind::Gauge, "naru_backend_ready", help, ready)?;

        let announced = status.announced.iter().flat_map(|it| {
            let ip = it.vip.to_string();
            let services = self.services_of(&ip);
            let labels = move |service: &str| {
                vec![
                    ("service", service.to_owned()),
                    ("protocol", "layer2".to_owned()),
                    ("node", status.node.clone()),
                    ("ip", ip.clone()),
                ]
            };
            let labels: Vec<_> = services.into_iter().map(labels).collect();
            labels
        });
        let announced: BTreeSet<Labels> = announced.collect();
        let announced = announced.into_iter().map(|it| (it, 1));
        let help = "Services whose address this node announces";
        metric(
            encoder,
            Kind::Gauge,
            "metallb_speaker_announced",
            help,
            announced,
        )?;
        type Frames = fn(&crate::control::Announced) -> u64;
        let frames: [(&str, &str, Frames); 3] = [
            (
                "requests_received",
                "ARP and NDP requests for an address",
                |it| it.requests_received,
            ),
            ("responses_sent", "Answers to those", |it| it.responses_sent),
            ("gratuitous_sent", "ARP and NDP frames sent unasked", |it| {
                it.gratuitous_sent
            }),
        ];
        for (name, help, value) in frames {
            let mut by_ip: BTreeMap<String, u64> = BTreeMap::new();
            for it in &status.announced {
                let sum = by_ip.entry(it.vip.to_string()).or_default();
                *sum = sum.saturating_add(value(it));
            }
            let rows = by_ip.into_iter().map(|(ip, it)| (vec![("ip", ip)], it));
            let name = format!("metallb_layer2_{name}");
            metric(encoder, Kind::Gauge, &name, help, rows)?;
        }

        let help = "From the first word of a change of the source to maps that have it";
        let name = "naru_reconcile_seconds";
        let written = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        durations.encode(written)?;

        let source = &status.source;
        write_config(
            encoder,
            source.age.is_some(),
            !source.current || source.stale,
        )?;
        let help = "What there is to say of the source, and what does not work";
        let rows = [
            (vec![("kind", "note".to_owned())], source.notes.len() as u64),
            (
                vec![("kind", "warning".to_owned())],
                status.warnings.len() as u64,
            ),
        ];
        metric(encoder, Kind::Gauge, "naru_messages", help, rows)?;
        match pools.is_empty() {
            true => Ok(()),
            false => write_pools(encoder, pools),
        }
    }
}

impl Collector for ControllerPage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let one = |value: u64| [(Labels::new(), value)];
        let help = "Whether this controller is the one that works";
        metric(
            encoder,
            Kind::Gauge,
            "naru_controller_leads",
            help,
            one(self.leads.into()),
        )?;
        if !self.leads {
            return Ok(());
        }
        write_config(encoder, self.config.is_some(), self.config == Some(false))?;
        let help = "Services of type LoadBalancer without an address";
        let without = one(self.without_address as u64);
        metric(
            encoder,
            Kind::Gauge,
            "naru_services_without_address",
            help,
            without,
        )?;
        write_pools(encoder, &self.pools)
    }
}
