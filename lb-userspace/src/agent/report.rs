//! Answers to the CLI.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{ABI_VERSION, Addr, BackendId, Port, Protocol, Verdict};

use super::state::State;
use crate::{
    announce::AnnounceState,
    control::{
        Announced, Backend, Explanation, Flow, Flows, Health, Question, Reply, Request, Service,
        Status, VerdictCount,
    },
    datapath::{DatapathError, Probe},
    desired::{Condition, Endpoint, ServiceName},
};

impl State {
    pub(super) async fn answer(&mut self, request: Request) -> Reply {
        let reply = match request {
            Request::Status => self.status().map(|status| Reply::Status(Box::new(status))),
            Request::Services => self.services().map(Reply::Services),
            Request::Backends => self.backends().map(Reply::Backends),
            Request::Pools => {
                let pools = self.pools();
                return pools.map_or_else(|error| Reply::Failed(error.to_string()), Reply::Pools);
            }
            Request::Owner { ip, nodes } => {
                return Reply::Owner(self.owner(ip, nodes.as_deref()));
            }
            Request::Flows(limit) => self.flows(limit).map(Reply::Flows),
            Request::Explain(question) => return self.explain(&question),
            Request::Drain { backend, undo } => {
                let drained = self.drain(&backend, undo).await;
                return drained
                    .map_or_else(|error| Reply::Failed(error.to_string()), Reply::Drained);
            }
        };
        reply.unwrap_or_else(|error| Reply::Failed(error.to_string()))
    }

    fn status(&self) -> Result<Status, DatapathError> {
        let verdicts = self.datapath.verdicts()?;
        let mut source = self.source.clone();
        source.age = self.taken_over.map(|since| since.elapsed().as_secs());
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            node: self.options.node.clone(),
            abi: ABI_VERSION,
            pin_dir: self.options.datapath.pin_dir.clone(),
            attachments: self.attachments.values().cloned().collect(),
            missing_interfaces: self.missing_interfaces.clone(),
            cgroup: self.options.cgroup.clone(),
            source,
            services: self.image.service_count(),
            backends: self.image.backends.len(),
            gossip: self.gossip_status(),
            announced: self.announced()?,
            drained: self
                .memory
                .drained
                .iter()
                .map(ToString::to_string)
                .collect(),
            verdicts: verdicts
                .into_iter()
                .map(|(hook, verdict, count)| VerdictCount {
                    hook: hook.name().to_owned(),
                    verdict: verdict.name().to_owned(),
                    packets: count.packets,
                    bytes: count.bytes,
                })
                .collect(),
            warnings: self.warnings(),
        })
    }

    fn announced(&self) -> Result<Vec<Announced>, DatapathError> {
        let counts = self.datapath.claim_counts()?;
        let status = self.announcer.status(&counts);
        let announced = status.into_iter().map(|status| Announced {
            vip: status.vip,
            interface: status.interface,
            state: match status.state {
                AnnounceState::Pending => "starting".to_owned(),
                AnnounceState::Answering => "answering".to_owned(),
                AnnounceState::Skipped(reason) => format!("silent: {reason}"),
                AnnounceState::Failed(reason) => format!("failed: {reason}"),
            },
            requests_received: status.requests_received,
            responses_sent: status.responses_sent,
            gratuitous_sent: status.gratuitous_sent,
            conflicts: status.conflicts,
        });
        Ok(announced.collect())
    }

    fn services(&self) -> Result<Vec<Service>, DatapathError> {
        let mut services = Vec::new();
        for (&index, name) in &self.image.names {
            let (Some(service), Some(table)) = (
                self.desired.services.get(name),
                self.image.services.get(&index),
            ) else {
                continue;
            };
            let slots = self.image.tables.get(&table.offset());
            let mut taking: Vec<_> = slots
                .filter(|_| !table.is_empty())
                .into_iter()
                .flat_map(|slots| slots.iter())
                .map(|slot| slot.current())
                .collect();
            taking.sort_unstable();
            taking.dedup();
            let frontends = self.image.frontends.iter();
            services.push(Service {
                name: name.to_string(),
                frontends: frontends
                    .filter(|(_, entry)| entry.service() == index)
                    .map(|(it, _)| frontend(it))
                    .collect(),
                internal: self.image.internal_of(index).map(frontend).collect(),
                node_port: service.node_port.as_ref().map(|it| it.port),
                algorithm: table.algorithm().name().to_owned(),
                slots: table.len(),
                backends: taking.len(),
                external_policy: service.external_policy.name().to_owned(),
                internal_policy: service.internal_policy.name().to_owned(),
                session_affinity: service.affinity.map(|it| it.as_secs()),
                health_check: service.health_check.as_ref().map(ToString::to_string),
                source_ranges: service
                    .source_ranges
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                without_address: None,
                traffic: self.datapath.service_stats(index)?.into(),
            });
        }
        self.tell_without_address(&mut services);
        let key = |it: &Service| (it.name.clone(), it.frontends.clone(), it.internal.clone());
        services.sort_by_cached_key(key);
        Ok(services)
    }

    fn backends(&self) -> Result<Vec<Backend>, DatapathError> {
        // One endpoint may be reached in two ways, for two services.
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let backends = self.image.backends.iter();
        for (&index, it) in backends.filter(|(index, _)| !self.image.former.contains(*index)) {
            let key = (socket(it.addr, it.port), it.protocol);
            known.entry(key).or_default().push((index, it));
        }
        let mut backends = Vec::new();
        for (name, service) in self.desired.services.iter() {
            let Some(protocol) = service.protocol() else {
                continue;
            };
            for (&address, endpoint) in &service.endpoints {
                // None where no frontend is of its family.
                let ways = known.get(&(address, protocol as u8)).into_iter().flatten();
                let Some(&(index, entry)) =
                    ways.max_by_key(|(_, it)| it.mode() == service.elsewhere)
                else {
                    continue;
                };
                backends.push(Backend {
                    service: name.to_string(),
                    address,
                    name: endpoint.name.clone(),
                    node: endpoint.node.clone(),
                    mode: entry.mode().name().to_owned(),
                    weight: endpoint.weight,
                    condition: self.condition(name, address, endpoint).to_owned(),
                    health: self.ledger.get(&(name.clone(), address)).map(|it| Health {
                        state: match (it.healthy, it.proven) {
                            (true, true) => "healthy",
                            (true, false) => "unknown",
                            (false, _) => "unhealthy",
                        }
                        .to_owned(),
                        since: it.since.elapsed().as_secs(),
                        error: it.error.clone(),
                    }),
                    id: entry.id.to_string(),
                    traffic: self.datapath.backend_stats(index)?.into(),
                });
            }
        }
        Ok(backends)
    }

    /// What an endpoint may be used for, and whose word that is.
    fn condition(
        &self,
        service: &ServiceName,
        address: SocketAddr,
        endpoint: &Endpoint,
    ) -> &'static str {
        let mut drained = self.memory.drained.iter();
        if drained.any(|it| it.names(service, address, endpoint)) {
            return "drained";
        }
        if endpoint.node.as_ref().is_some_and(|it| self.is_lost(it)) {
            return "lost";
        }
        match endpoint.condition {
            Condition::Ready => "ready",
            Condition::Draining => "draining",
            Condition::Unhealthy => "unhealthy",
        }
    }

    fn flows(&self, limit: usize) -> Result<Flows, DatapathError> {
        let (entries, more) = self.datapath.flows(limit)?;
        let mut flows: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let tuple = entry.tuple;
                let backend = entry.backend;
                Flow {
                    protocol: protocol_name(tuple.protocol),
                    client: socket(tuple.src, tuple.src_port),
                    frontend: socket(tuple.dst, tuple.dst_port),
                    backend: backend.map(|backend| socket(backend.addr, backend.port)),
                    snat: entry.snat.map(|(addr, port)| socket(addr, port)),
                    state: if entry.flow.backend == BackendId::FORMER {
                        Verdict::Returned.name().to_owned()
                    } else {
                        let tcp = tuple.protocol == Protocol::Tcp as u8;
                        entry.flow.state.name(tcp).to_owned()
                    },
                    idle: entry.idle,
                }
            })
            .collect();
        flows.sort_by_key(|flow| (flow.frontend, flow.client));
        Ok(Flows { flows, more })
    }

    fn explain(&mut self, question: &Question) -> Reply {
        let wanted = question.interface.as_deref();
        let Some(attachment) = self
            .attachments
            .values()
            .find(|it| wanted.is_none_or(|name| name == it.interface))
            .cloned()
        else {
            let names: Vec<_> = self.attachments.keys().map(String::as_str).collect();
            return Reply::Failed(format!(
                "not attached to {}; attached to: {}",
                wanted.unwrap_or("any interface"),
                names.join(", ")
            ));
        };
        let probe = Probe {
            client: question.client,
            frontend: question.frontend,
            protocol: question.protocol,
            ifindex: attachment.ifindex,
            mac: self
                .image
                .devices
                .get(&attachment.ifindex)
                .map_or([0; 6], |device| device.mac),
        };
        match self.datapath.explain(&probe) {
            Ok(explanation) => {
                let explanation = self.explanation(&attachment.interface, explanation);
                Reply::Explain(Box::new(explanation))
            }
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    fn explanation(
        &self,
        interface: &str,
        explanation: crate::datapath::Explanation,
    ) -> Explanation {
        let name = explanation.service.map(|index| {
            self.image
                .names
                .get(&index)
                .map_or_else(|| format!("service #{index}"), ToString::to_string)
        });
        let egress = explanation.egress.map(|index| {
            self.attachments
                .values()
                .find(|it| it.ifindex == index)
                .map_or_else(|| format!("interface #{index}"), |it| it.interface.clone())
        });
        let backend = explanation.backend;
        Explanation {
            verdict: explanation.verdict.name().to_owned(),
            meaning: explanation.verdict.text().to_owned(),
            interface: interface.to_owned(),
            service: name,
            slot: explanation.slot,
            from_flow: explanation.from_flow,
            backend: backend.map(|backend| socket(backend.addr, backend.port)),
            mode: backend.map(|backend| backend.mode().name().to_owned()),
            source: explanation.rewritten.map(|to| socket(to.src, to.src_port)),
            destination: explanation.rewritten.map(|to| socket(to.dst, to.dst_port)),
            egress,
        }
    }
}

fn socket(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.to_ip(), port.get())
}

fn frontend(it: &lb_common::Frontend) -> String {
    let addr = socket(it.addr, it.port);
    format!("{addr}/{}", protocol_name(it.protocol))
}

fn protocol_name(number: u8) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |it| it.name().to_owned())
}
