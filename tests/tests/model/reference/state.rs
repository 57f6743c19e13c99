//! What the balancer knows: services, and what it remembers of flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::Mode;
use naru::compile::image::MapImage;

use super::{
    direct::Primary,
    records::{Count, Direct, Flow, Last, Note, Reply, Yields},
    slots::{Table, handed},
};
use crate::{
    node,
    scene::{Service, Share},
    wire::{TCP, Tuple, octets},
};

/// First of the ports that `nat` flows are sent from. Their number is a power of two no
/// larger than the program's patience, so that it finds every port that is free.
pub(crate) const FIRST_PORT: u16 = 65_520;
/// Last of those ports.
pub(crate) const LAST_PORT: u16 = 65_535;

/// What the agent says of flows that go without records: words of the program's maps. What
/// stands there is not in question here, but what the program makes of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Tables in force by index, those for what peers hand over and former ones among them.
    pub(crate) tables: BTreeMap<u32, Table>,
    /// By the local backends' own addresses and protocols.
    pub(crate) primaries: BTreeMap<(SocketAddr, u8), Primary>,
    /// Backends whose replies are restored by that.
    pub(crate) restored: BTreeSet<u32>,
}

/// A frontend's way to its service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) service: u32,
    /// Whether replies of its flows need records, being restored to another frontend without.
    pub(crate) recorded: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    /// On this node.
    pub(crate) local: bool,
    /// Whether it answers, as far as any service that names it knows.
    pub(crate) answers: bool,
    /// Whether flows of some service begin with it.
    pub(crate) open: bool,
    /// Whether its replies are restored without a record.
    pub(crate) restored: bool,
    /// Elsewhere, the peer that packets are handed over to; none for `nat`.
    pub(crate) via: Option<IpAddr>,
}

/// What an address means.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    pub(crate) vip: bool,
    pub(crate) host: bool,
    pub(crate) snat: bool,
    pub(crate) local_backend: bool,
    /// Some service of it has a backend.
    pub(crate) pinged: bool,
}

/// All that [`State::note`] is told; long runs see each.
pub(crate) const CASES: [&str; 20] = [
    "local, settled",
    "local, settled, but not restored",
    "local, settled, but by a recorded frontend",
    "dsr, settled",
    "dsr, settled, but from the backend's node",
    "slot looked up, known by its record",
    "previous backend of the slot",
    "previous backend of the former table",
    "begins restored, recorded",
    "begins restored, without a record",
    "begins by dsr without a record",
    "takes a direct connection's place",
    "clash without a record",
    "reply by its primary",
    "direct connection's reply",
    "connection of a backend",
    "error without a record",
    "record of an earlier flow replaced",
    "began at the node before, recorded",
    "began at the node before, known by its record",
];

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) frontends: BTreeMap<(SocketAddr, u8), Entry>,
    pub(crate) tables: BTreeMap<u32, Table>,
    pub(super) primaries: BTreeMap<(SocketAddr, u8), Primary>,
    /// For how many ticks a client comes back to its backend, by service.
    pub(super) sticky: BTreeMap<u32, u32>,
    /// How many flows a round-robin service has begun, by service.
    pub(crate) turns: BTreeMap<u32, u64>,
    /// Those that serve, by full id.
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) flows: BTreeMap<Tuple, Flow>,
    pub(crate) replies: BTreeMap<Tuple, Reply>,
    pub(crate) direct: BTreeMap<Tuple, Direct>,
    pub(crate) fragments: BTreeMap<Tuple, Note>,
    /// By service and client.
    pub(crate) last: BTreeMap<(u32, IpAddr), Last>,
    /// The networks that may use a service, where not all may.
    sources: BTreeMap<u32, Vec<(IpAddr, u8)>>,
    pub(crate) services: BTreeMap<u32, Count>,
    pub(crate) backend_counts: BTreeMap<u32, Count>,
    local_addresses: BTreeSet<IpAddr>,
    /// How often what happened that no verdict tells apart.
    pub(crate) cases: BTreeMap<&'static str, u64>,
}

impl State {
    /// Whether an address is claimed, as all of services are.
    pub(super) fn is_claimed(&self, ip: IpAddr) -> bool {
        self.frontends.keys().any(|(addr, _)| addr.ip() == ip)
    }

    /// Puts services into force. Which number everything has and what stands in the slots
    /// is the compiler's choice; what the addresses mean is worked out here.
    pub(crate) fn configure(&mut self, services: &[Service], image: &MapImage, said: Said) {
        let mut backends = BTreeMap::new();
        for backend in image.backends.values() {
            let ip = backend.addr.to_ip();
            let local = node::is_host(ip) || node::is_pod(ip);
            let addr = SocketAddr::new(ip, backend.port.get());
            let dsr = backend.mode() == Mode::Dsr;
            let via = dsr.then(|| node::peer_of(ip).expect("a peer").1);
            let named = services.iter().filter(|it| it.protocol == backend.protocol);
            let mut named = named
                .flat_map(|it| &it.backends)
                .filter(|it| it.addr == addr);
            let answers = named.any(|it| it.share != Share::Failed);
            let known = Backend {
                addr,
                local,
                answers,
                open: image
                    .tables
                    .values()
                    .flat_map(|slots| slots.iter())
                    .any(|slot| slot.current() == backend.id),
                restored: false,
                via,
            };
            backends.insert(backend.id.0, known);
        }
        self.local_addresses = backends
            .values()
            .filter(|backend| backend.local)
            .map(|backend| backend.addr.ip())
            .collect();
        self.backends = backends;
        self.frontends = image
            .frontends
            .iter()
            .map(|(frontend, entry)| {
                let addr = SocketAddr::new(frontend.addr.to_ip(), frontend.port.get());
                let entry = Entry {
                    service: entry.service(),
                    recorded: entry.is_recorded(),
                };
                ((addr, frontend.protocol), entry)
            })
            .collect();
        let wanted: usize = services.iter().map(|service| service.frontends.len()).sum();
        assert_eq!(self.frontends.len(), wanted, "the compiler lost a frontend");
        self.sticky = image.affinity.clone().into_iter().collect();
        let before = std::mem::take(&mut self.tables);
        self.take(said);
        let indices: Vec<u32> = image.services.keys().copied().collect();
        // Clients forget backends that take no new flows of their service any more.
        let tables = &self.tables;
        if indices
            .iter()
            .any(|index| before.get(index) != tables.get(index))
            || before.keys().any(|index| !tables.contains_key(index))
        {
            self.last.retain(|(service, _), last| {
                let table = tables.get(service).filter(|table| table.affine);
                table.is_some_and(|table| table.names(last.backend))
            });
        }
        self.sources = services
            .iter()
            .filter(|service| !service.sources.is_empty())
            .map(|service| {
                let entry = self.frontends[&(service.frontends[0], service.protocol)];
                (entry.service, service.sources.clone())
            })
            .collect();
        self.turns = indices
            .iter()
            .map(|&index| (index, self.turns.get(&index).copied().unwrap_or(0)))
            .collect();
        self.services = indices
            .into_iter()
            .filter(|&index| index < handed(0))
            .map(|index| {
                (
                    index,
                    self.services.get(&index).copied().unwrap_or_default(),
                )
            })
            .collect();
        self.backend_counts = self
            .backends
            .keys()
            .map(|id| {
                (
                    *id,
                    self.backend_counts.get(id).copied().unwrap_or_default(),
                )
            })
            .collect();
    }

    /// Takes over what the agent says by now.
    pub(crate) fn take(&mut self, said: Said) {
        self.tables = said.tables;
        self.primaries = said.primaries;
        for (id, backend) in &mut self.backends {
            backend.restored = said.restored.contains(id);
        }
    }

    /// What an address means; None where the program leaves it alone.
    pub(super) fn usage(&self, ip: IpAddr) -> Option<Use> {
        let mut usage = Use::default();
        for ((addr, _), entry) in &self.frontends {
            if addr.ip() == ip {
                usage.vip = true;
                usage.host = node::is_host(ip);
                usage.pinged |= !usage.host && !self.tables[&entry.service].slots.is_empty();
            }
        }
        usage.snat = node::DEVICES.iter().any(|device| {
            let v6 = device.snat_v6 && ip == IpAddr::V6(device.v6);
            device.attached && (v6 || ip == IpAddr::V4(device.v4))
        });
        usage.local_backend = self.local_addresses.contains(&ip);
        (usage.vip || usage.snat || usage.local_backend).then_some(usage)
    }

    /// Whether a client may use a service.
    pub(super) fn admits(&self, service: u32, client: IpAddr) -> bool {
        let contains = |(ip, len): &(IpAddr, u8)| {
            let (net, host) = (octets(*ip), octets(client));
            let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
            net.len() == host.len()
                && (0..usize::from(*len)).all(|at| bit(&net, at) == bit(&host, at))
        };
        let sources = self.sources.get(&service);
        sources.is_none_or(|sources| sources.iter().any(contains))
    }

    /// The client's packet of the flow that has a reply tuple, if that still has it.
    pub(super) fn holder(&self, reply: &Tuple) -> Option<Tuple> {
        let held = self.replies.get(reply)?;
        let flow = self.flows.get(&held.flow)?;
        let moved =
            flow.backend != held.backend || flow.snat.is_some_and(|(_, port)| port != reply.dport);
        (!moved).then_some(held.flow)
    }

    /// Whether a reply tuple is taken by another flow than `flow`. One that was reset is over.
    pub(crate) fn is_taken(&self, reply: &Tuple, flow: &Tuple, yields: Yields, now: u32) -> bool {
        let Some(holder) = self.holder(reply).filter(|holder| holder != flow) else {
            return false;
        };
        let of = self.flows[&holder];
        let closed = of.seen.reset() || yields >= Yields::Closed && of.seen.closed();
        let unassured = yields == Yields::Unassured && !of.seen.assured();
        let over = holder.protocol == TCP && closed || unassured;
        !over && now <= of.expires
    }

    /// Notes that this happened.
    pub(super) fn note(&mut self, case: &'static str) {
        debug_assert!(CASES.contains(&case), "{case}");
        *self.cases.entry(case).or_default() += 1;
    }

    /// Counts at a service and a backend, where those still are.
    pub(super) fn count(&mut self, service: u32, backend: u32, add: impl Fn(&mut Count)) {
        self.services.get_mut(&service).map(&add);
        self.backend_counts.get_mut(&backend).map(&add);
    }

    /// The client's packet as the backend of its flow sees it.
    pub(super) fn towards(&self, client: &Tuple, backend: &Backend, flow: &Flow) -> Tuple {
        if is_dsr(backend, flow) {
            return *client;
        }
        let (src, sport) = flow.snat.unwrap_or((client.src, client.sport));
        Tuple {
            src,
            sport,
            dst: backend.addr.ip(),
            dport: backend.addr.port(),
            protocol: client.protocol,
        }
    }
}

/// Whether the packets of a flow are handed over: not where its client is on the very node
/// that the backend is on.
pub(super) fn is_dsr(backend: &Backend, flow: &Flow) -> bool {
    backend.via.is_some() && flow.snat.is_none()
}
