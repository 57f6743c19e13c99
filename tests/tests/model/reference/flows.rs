//! Flows: which backend serves one, and whose a reply is.

use std::net::{IpAddr, SocketAddr};

use lb_common::Verdict;

use super::{
    Choices, Decided, Input, Plan, Stop,
    fragments::remember,
    parse::{Fragment, Packet},
    records::{Flow, Reply, Seen},
    refuse,
    slots::{FORMER, Slot},
    state::{Backend, Entry, State, is_dsr},
    ways::{hand_over, routed, send, towards},
};
use crate::{
    node,
    wire::{FIN, RST, SYN, TCP, Tuple, UDP},
};

impl State {
    /// The frontend that a packet is for.
    pub(super) fn entry(&self, packet: &Packet) -> Option<Entry> {
        let to = SocketAddr::new(packet.dst, packet.tuple().dport);
        self.frontends.get(&(to, packet.protocol)).copied()
    }

    /// The flow that a backend's packet belongs to, kept fresh.
    pub(super) fn reply(&mut self, packet: &Packet, now: u32) -> Option<Reply> {
        let reply = *self.replies.get(&packet.tuple())?;
        let flags = packet.flags();
        if flags & (SYN | FIN | RST) == 0 && reply.is_fresh(now) {
            return Some(reply);
        }
        let flow = self.flows.get_mut(&reply.flow)?;
        // A backend that opens a connection answers somebody who reached it directly,
        // by a port that a flow had before: so is all that follows.
        // By nat, only the flow has it.
        let left = flow.seen.reset() || flow.seen.backend_fin || now > flow.expires;
        if flags & SYN != 0 && left && flow.snat.is_none() {
            self.replies.remove(&packet.tuple());
            return None;
        }
        flow.seen = flow.seen.after_backend(flags);
        flow.expires = now + flow.seen.timeout(packet.protocol == TCP);
        let fresh_until = match (flow.seen.closing(), packet.protocol == TCP) {
            (true, _) => Reply::never(now),
            (false, true) => now + 64,
            (false, false) => now + 16,
        };
        let fresh = Reply {
            fresh_until: fresh_until & 0xff_ffff,
            ..reply
        };
        self.replies.insert(packet.tuple(), fresh);
        Some(reply)
    }

    /// Decides over a client's packet to a service.
    pub(super) fn request(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        entry: Entry,
        choices: &dyn Choices,
    ) -> Decided {
        if packet.ttl <= 1 {
            return Err(Verdict::TtlExpired.into());
        }
        let tuple = packet.tuple();
        let place = self.place(entry.service, &tuple);
        let flow = if let Some(id) = self.alone(input, packet, entry, place)? {
            let local = self.backends[&id].local;
            self.note(if local {
                "local, settled"
            } else {
                "dsr, settled"
            });
            if packet.opens() {
                self.count(entry.service, id, |count| count.flows += 1);
            }
            Flow {
                backend: id,
                snat: None,
                seen: Seen::default(),
                expires: 0,
            }
        } else {
            let known = self.known(input, packet);
            if known.is_some() && place.is_some_and(Slot::is_looked_up) {
                self.note("slot looked up, known by its record");
            }
            if let Some(Known::Live(flow)) = known {
                return self.forward(input, packet, entry, &flow);
            }
            if matches!(known, Some(Known::Orphan)) {
                // A connection that lost its backend cannot go on elsewhere.
                return Ok(refuse(packet));
            }
            let goes_on = packet.protocol == TCP && !packet.opens();
            let taken_over = place.is_some_and(Slot::is_taken_over);
            let there = known.is_some() || taken_over || place.is_none_or(Slot::knows_all);
            if goes_on
                && there
                && let Some(decided) = give_back(input, packet)
            {
                let decided = decided?;
                remember(self, packet, input.now);
                if matches!(decided.1, Plan::GiveBack(_)) {
                    self.left(packet, known.is_none() && taken_over, input.now);
                }
                return Ok(decided);
            }
            if packet.fragment == Fragment::Later {
                return Err(Verdict::VipFragment.into());
            }
            match self.begin(input, packet, entry, choices)? {
                Some(flow) => flow,
                None => return Ok(refuse(packet)),
            }
        };
        self.forward(input, packet, entry, &flow)
    }

    /// A packet of a connection that began at the node which had the VIP before has gone there;
    /// `anew`: for the first time.
    fn left(&mut self, packet: &Packet, anew: bool, now: u32) {
        if !anew {
            return;
        }
        self.note("began at the node before, recorded");
        let mut flow = Flow {
            backend: FORMER,
            snat: None,
            seen: Seen::default().after_client_alone(packet.flags()),
            expires: 0,
        };
        flow.expires = now + flow.seen.timeout(true);
        self.replies.retain(|_, it| it.flow != packet.tuple());
        self.flows.insert(packet.tuple(), flow);
    }

    /// A packet goes where its flow does.
    fn forward(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        entry: Entry,
        flow: &Flow,
    ) -> Decided {
        let backend = self.backends[&flow.backend];
        let to = self.towards(&packet.tuple(), &backend, flow);
        let decided = if backend.local {
            (Verdict::ForwardLocal, Plan::Deliver(to))
        } else if let Some(via) = backend.via.filter(|_| flow.snat.is_none()) {
            hand_over(input, packet, via, Verdict::ForwardDsr)?
        } else {
            send(input, packet, to, Verdict::ForwardNat)?
        };
        remember(self, packet, input.now);
        let bytes = packet.end as u64;
        self.count(entry.service, flow.backend, |count| {
            count.packets_in += 1;
            count.bytes_in += bytes;
        });
        Ok(decided)
    }

    /// The backend of a packet that goes on its way without a record, whether there is one or
    /// not: all packets of its slot do.
    fn alone(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        entry: Entry,
        place: Option<Slot>,
    ) -> Result<Option<u32>, Stop> {
        let Some(id) = place.filter(|slot| slot.is_settled()).map(|it| it.current) else {
            return Ok(None);
        };
        let Some(backend) = self.backends.get(&id).copied() else {
            return Ok(None);
        };
        let alone = match backend.via {
            // A connection that opens may meet what is left of an earlier one.
            _ if backend.local => !packet.opens() && self.is_restored(&backend, entry),
            Some(via) if !input.is_handed() => {
                let here = comes_by(input, packet, via)?;
                if here {
                    self.note("dsr, settled, but from the backend's node");
                }
                !here
            }
            _ => false,
        };
        Ok(alone.then_some(id))
    }

    /// Whether a local backend's replies to flows by a frontend are restored without a record.
    fn is_restored(&mut self, backend: &Backend, entry: Entry) -> bool {
        if !backend.restored {
            self.note("local, settled, but not restored");
        } else if entry.recorded {
            self.note("local, settled, but by a recorded frontend");
        }
        backend.restored && !entry.recorded
    }

    /// The flow of a client's packet, kept fresh; none where one is to begin.
    fn known(&mut self, input: &Input<'_>, packet: &Packet) -> Option<Known> {
        let tuple = packet.tuple();
        let tcp = packet.protocol == TCP;
        let mut flow = *self.flows.get(&tuple)?;
        let anew = packet.opens() && flow.seen.closing();
        if input.now > flow.expires || anew {
            return None;
        }
        // Connections alone stay with a backend that does not answer.
        let movable = packet.opens() || packet.protocol == UDP;
        let keeps = |backend: &&Backend| backend.answers || !movable;
        if flow.backend == FORMER && !packet.opens() {
            self.note("began at the node before, known by its record");
            flow.seen = flow.seen.after_client_alone(packet.flags());
            flow.expires = input.now + flow.seen.timeout(tcp);
            self.flows.insert(tuple, flow);
            return Some(Known::Former);
        }
        let Some(backend) = self.backends.get(&flow.backend).filter(keeps) else {
            return (tcp && !packet.opens()).then_some(Known::Orphan);
        };
        let here = !input.is_handed() || backend.local;
        let entry = self
            .frontends
            .get(&(SocketAddr::new(tuple.dst, tuple.dport), tuple.protocol));
        // Nobody sees which flow restored replies are of.
        let recorded = entry.is_none_or(|entry| entry.recorded);
        let restored = backend.local && backend.restored && !recorded;
        flow.seen = match restored || is_dsr(backend, &flow) {
            true => flow.seen.after_client_alone(packet.flags()),
            false => flow.seen.after_client(packet.flags()),
        };
        flow.expires = input.now + flow.seen.timeout(tcp);
        // What is looked up is refreshed, also where it is of no use.
        self.flows.insert(tuple, flow);
        here.then_some(Known::Live(flow))
    }

    /// The backend of a connection without a record, by its client's packet.
    pub(super) fn unrecorded(&self, client: &Tuple) -> Option<Backend> {
        let to = SocketAddr::new(client.dst, client.dport);
        let entry = self.frontends.get(&(to, client.protocol))?;
        let slot = self.place(entry.service, client)?;
        let backend = self.backends.get(&slot.previous)?;
        let restored = client.protocol == TCP && backend.restored && !entry.recorded;
        let alone = restored || backend.via.is_some();
        alone.then_some(*backend)
    }
}

/// What the record of a flow says.
enum Known {
    Live(Flow),
    /// Its backend is gone.
    Orphan,
    /// It began at the node that had the VIP before.
    Former,
}

/// Whether a packet comes from the node that has this address: an answer that this one's
/// backend gave would never leave it.
pub(super) fn comes_by(input: &Input<'_>, packet: &Packet, via: IpAddr) -> Result<bool, Stop> {
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
