//! Flows: which backend serves one, how one begins, and whose a reply is.

use std::net::{IpAddr, SocketAddr};

use lb_common::{Algorithm, Verdict};

use super::{
    Choices, Decided, Input, Plan, Stop, hand_over,
    parse::{Fragment, Packet},
    records::{Flow, Last, Reply, Seen},
    refuse, remember, routed, send,
    source::unspecified,
    state::{Backend, State, Table, handed, is_dsr},
    towards,
};
use crate::{
    node,
    wire::{FIN, RST, SYN, TCP, Tuple, UDP},
};

/// Slots tried for a new flow whose tuple a backend serves already.
const TRIES: usize = 4;

impl State {
    /// The service whose frontend a packet is for.
    pub(super) fn service(&self, packet: &Packet) -> Option<u32> {
        let to = SocketAddr::new(packet.dst, packet.tuple().dport);
        self.frontends.get(&(to, packet.protocol)).copied()
    }

    /// The flow that a backend's packet belongs to, kept fresh.
    pub(super) fn reply(&mut self, packet: &Packet, now: u32) -> Option<Reply> {
        let reply = self.replies.get_mut(&packet.tuple())?;
        let flags = packet.flags();
        // Once a tick is enough, but for packets that change what the flow is.
        if reply.seen == now && flags & (SYN | FIN | RST) == 0 {
            return Some(*reply);
        }
        if let Some(flow) = self.flows.get_mut(&reply.flow) {
            // A backend that opens a connection answers somebody who reached it directly,
            // by a port that a flow had before: so is all that follows.
            if flags & SYN != 0 && (flow.seen.closing() || now > flow.expires) {
                self.replies.remove(&packet.tuple());
                return None;
            }
            if flow.backend == reply.backend {
                flow.seen = flow.seen.after_backend(flags);
                flow.expires = now + flow.seen.timeout(packet.protocol == TCP);
            }
        }
        reply.seen = now;
        Some(*reply)
    }

    /// Decides over a client's packet to a service.
    pub(super) fn request(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        service: u32,
        choices: &dyn Choices,
    ) -> Decided {
        if packet.ttl <= 1 {
            return Err(Verdict::TtlExpired.into());
        }
        let tuple = packet.tuple();
        let tcp = packet.protocol == TCP;
        let known = self.flows.get(&tuple).copied().filter(|flow| {
            let anew = packet.opens() && flow.seen.closing();
            input.now <= flow.expires && !anew
        });
        let handed = input.is_handed();
        // Connections alone stay with a backend that does not answer.
        let movable = packet.opens() || packet.protocol == UDP;
        let keeps = |backend: &&Backend| backend.answers || !movable;
        let kept = |flow: &Flow| self.backends.get(&flow.backend).filter(keeps).copied();
        let orphan = known.is_some_and(|flow| kept(&flow).is_none());
        // What is looked up is refreshed, also where it is of no use.
        let known = known.map(|mut flow| {
            if let Some(backend) = &kept(&flow) {
                flow.seen = match is_dsr(backend, &flow) {
                    true => flow.seen.after_client_alone(packet.flags()),
                    false => flow.seen.after_client(packet.flags()),
                };
                flow.expires = input.now + flow.seen.timeout(tcp);
                self.flows.insert(tuple, flow);
            }
            flow
        });
        let elsewhere = known.is_some_and(|flow| {
            let backend = self.backends.get(&flow.backend);
            handed && backend.is_some_and(|backend| !backend.local)
        });
        let flow = match known {
            Some(flow) if !orphan && !elsewhere => flow,
            // A connection that lost its backend cannot go on elsewhere.
            Some(_) if orphan && tcp && !packet.opens() => return Ok(refuse(packet)),
            _ => {
                let stray = tcp && !packet.opens();
                if let Some(decided) = give_back(input, packet).filter(|_| stray) {
                    let decided = decided?;
                    remember(self, packet, input.now);
                    return Ok(decided);
                }
                if packet.fragment == Fragment::Later {
                    return Err(Verdict::VipFragment.into());
                }
                match self.begin(input, packet, service, choices)? {
                    Some(flow) => flow,
                    None => return Ok(refuse(packet)),
                }
            }
        };
        let backend = self.backends[&flow.backend];
        let to = self.towards(&tuple, &backend, &flow);
        let decided = if backend.local {
            (Verdict::ForwardLocal, Plan::Deliver(to))
        } else if let Some(via) = backend.via.filter(|_| flow.snat.is_none()) {
            hand_over(input, packet, via, Verdict::ForwardDsr)?
        } else {
            send(input, packet, to, Verdict::ForwardNat)?
        };
        remember(self, packet, input.now);
        let bytes = packet.end as u64;
        self.count(service, flow.backend, |count| {
            count.packets_in += 1;
            count.bytes_in += bytes;
        });
        Ok(decided)
    }

    /// Begins a flow; None where no backend is there for it.
    fn begin(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        service: u32,
        choices: &dyn Choices,
    ) -> Result<Option<Flow>, Stop> {
        let index = if input.is_handed() {
            handed(service)
        } else {
            service
        };
        let table = match self.tables.get(&index) {
            Some(table) if !table.slots.is_empty() => table.clone(),
            _ if input.is_handed() => return Err(Verdict::NotHere.into()),
            _ => return Ok(None),
        };
        let stray = packet.protocol == TCP && !packet.opens();
        if stray && table.algorithm == Algorithm::RoundRobin {
            return Ok(None);
        }
        let last = table.sticky.and_then(|_| {
            let last = self.last.get(&(service, packet.src))?;
            let open = table.slots.contains(&last.backend);
            (open && input.now <= last.expires).then_some(last.backend)
        });
        let id = match (last, table.algorithm) {
            // Where the client was; no turn is taken.
            (Some(last), _) => {
                let slots = table.slots.iter().cycle().copied();
                self.first_of(input, packet, [last].into_iter().chain(slots))?
            }
            (None, Algorithm::RoundRobin) => self.in_turn(input, packet, index, &table)?,
            (None, Algorithm::Maglev) => self.by_hash(input, packet, index, &table, choices)?,
        };
        let backend = self.backends[&id];
        let tuple = packet.tuple();
        let mut flow = Flow {
            backend: id,
            snat: None,
            seen: Seen::default().after_client(packet.flags()),
            expires: 0,
        };
        let alone = match backend.via {
            Some(via) => !comes_by(input, packet, via)?,
            None => false,
        };
        if alone {
            flow.seen = flow.seen.after_client_alone(packet.flags());
        }
        flow.expires = input.now + flow.seen.timeout(packet.protocol == TCP);
        if alone {
            self.record_alone(service, tuple, flow);
        } else {
            if !backend.local {
                flow.snat = Some(self.source(input, packet, &backend, choices)?);
            }
            let reply = self.towards(&tuple, &backend, &flow).reversed();
            self.record(service, tuple, reply, flow);
        }
        if let Some(ticks) = table.sticky {
            let last = Last {
                backend: id,
                expires: input.now + ticks,
            };
            self.last.insert((service, packet.src), last);
        }
        Ok(Some(flow))
    }

    /// Whether a local backend would take the packet for another flow's.
    fn clashes(&self, input: &Input<'_>, packet: &Packet, backend: &Backend) -> bool {
        let tuple = packet.tuple();
        let reply = Tuple {
            dst: backend.addr.ip(),
            dport: backend.addr.port(),
            ..tuple
        };
        self.is_taken(&reply.reversed(), &tuple, true, input.now)
    }

    /// The backend whose turn it is. Each new flow takes a turn, whatever becomes of it.
    fn in_turn(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        service: u32,
        table: &Table,
    ) -> Result<u32, Stop> {
        let turns = self.turns.entry(service).or_default();
        let first = (*turns % table.slots.len() as u64) as usize;
        *turns += 1;
        let slots = table.slots.iter().cycle().skip(first);
        self.first_of(input, packet, slots.copied())
    }

    /// The first of some backends that would not take the packet for another flow's.
    fn first_of(
        &self,
        input: &Input<'_>,
        packet: &Packet,
        ids: impl Iterator<Item = u32>,
    ) -> Result<u32, Stop> {
        for id in ids.take(TRIES) {
            let backend = self.backends[&id];
            if !backend.local || !self.clashes(input, packet, &backend) {
                return Ok(id);
            }
        }
        Err(Verdict::TupleClash.into())
    }

    /// The backend that a hash of the tuple names: any of the table's, but always the
    /// same, unless it would take the packet for another flow's.
    fn by_hash(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        service: u32,
        table: &Table,
        choices: &dyn Choices,
    ) -> Result<u32, Stop> {
        let tuple = packet.tuple();
        // With affinity the client's address alone is hashed.
        let hashed = match table.sticky {
            None => tuple,
            Some(_) => Tuple {
                sport: 0,
                dst: unspecified(packet.v6),
                dport: 0,
                ..tuple
            },
        };
        if let Some(verdict) = choices.dropped()
            && self.may_fail(input, packet, table, verdict, choices)
        {
            return Err(verdict.into());
        }
        let flow = choices.flow(&tuple);
        let breach = |what: &str| Err(Stop::Breach(format!("Maglev: {what}: {tuple:?}")));
        let Some(flow) = flow else {
            return breach("no flow was recorded");
        };
        if !table.slots.contains(&flow.backend) {
            return breach("a backend that the table does not have");
        }
        let backend = self.backends[&flow.backend];
        if backend.local && self.clashes(input, packet, &backend) {
            return breach("a backend that serves this tuple already");
        }
        match self.choices.get(&(service, hashed)) {
            Some(first) if *first != flow.backend => {
                let first = self.backends[first];
                if !first.local || !self.clashes(input, packet, &first) {
                    return breach("another backend than before");
                }
            }
            Some(_) => {}
            None => {
                let certain = table.slots.iter().all(|id| {
                    let backend = self.backends[id];
                    !backend.local || !self.clashes(input, packet, &backend)
                });
                if certain {
                    self.choices.insert((service, hashed), flow.backend);
                }
            }
        }
        Ok(flow.backend)
    }

    /// Whether a new flow by hash may end so, for some backend of the table.
    fn may_fail(
        &self,
        input: &Input<'_>,
        packet: &Packet,
        table: &Table,
        verdict: Verdict,
        choices: &dyn Choices,
    ) -> bool {
        table.slots.iter().any(|id| {
            let backend = self.backends[id];
            if backend.local {
                return verdict == Verdict::TupleClash && self.clashes(input, packet, &backend);
            }
            let alone = backend.via.map(|via| comes_by(input, packet, via));
            let failure = match alone {
                Some(Ok(false)) => None,
                Some(Err(failure)) => Some(failure),
                Some(Ok(true)) | None => self.source(input, packet, &backend, choices).err(),
            };
            matches!(failure, Some(Stop::Verdict(failure)) if failure == verdict)
        })
    }
}

/// Whether a packet comes from the node that has this address: an answer that this one's
/// backend gave would never leave it.
fn comes_by(input: &Input<'_>, packet: &Packet, via: IpAddr) -> Result<bool, Stop> {
    let route = routed(input.device, &towards(packet, via))?;
    Ok(route
        .neighbour
        .is_some_and(|link| input.frame[6..12] == link))
}

/// What becomes of a connection that is not known here, or of an error about one, where another
/// node had the address before, its link address is known, and it does not come from there.
pub(super) fn give_back(input: &Input<'_>, packet: &Packet) -> Option<Decided> {
    let former = node::former_of(packet.dst)?;
    if input.is_handed() || input.returns() > 1 {
        return None;
    }
    match hand_over(input, packet, former, Verdict::Returned) {
        Ok((_, Plan::HandOver(way))) if input.frame[6..12] == way.link => None,
        Ok((verdict, Plan::HandOver(way))) => Some(Ok((verdict, Plan::GiveBack(way)))),
        Err(Stop::Verdict(verdict))
            if !matches!(
                verdict,
                Verdict::LeftToTc | Verdict::Uncut | Verdict::TtlExpired
            ) =>
        {
            None
        }
        decided => Some(decided),
    }
}
