//! Flows that begin, or go on though nobody has recorded them.

use lb_common::{Algorithm, Verdict};

use super::{
    Choices, Input, Stop, flows,
    parse::Packet,
    records::{Flow, Last, Reply, Seen, Yields},
    slots::{Slot, Table, handed},
    state::{Backend, Entry, State},
};
use crate::wire::{TCP, Tuple};

/// Backends tried for a new flow whose tuple one serves already.
const TRIES: usize = 4;

impl State {
    /// Begins a flow, or goes on with one; none where no backend is there for it.
    pub(super) fn begin(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        entry: Entry,
        choices: &dyn Choices,
    ) -> Result<Option<Flow>, Stop> {
        let (service, tuple) = (entry.service, packet.tuple());
        let mut table = self.tables[&service].clone();
        let turns = table.algorithm == Algorithm::RoundRobin;
        // Turns do not tell whose connection it was.
        let lost = turns && packet.protocol == TCP && !packet.opens();
        let place = table.fixed(&tuple);
        let here = |state: &Self, id: &u32| !input.is_handed() || state.backends[id].local;
        let home = self.home(packet, service, place);
        let home = home.filter(|id| here(self, id));
        // A connection stays where it began, wherever its client has been since.
        let stays = packet.protocol == TCP && !packet.opens() && home.is_some();
        let last = self
            .last_backend(input, packet, service, &table)
            .filter(|id| !lost && !stays && here(self, id));
        let mut first = last.or(home);
        if last.is_none() && first.is_some() {
            let changes = place.is_some_and(|slot| slot.previous != 0);
            self.note(if changes {
                "previous backend of the slot"
            } else {
                "previous backend of the former table"
            });
        }
        // Where there are no slots, nothing else tells where a flow goes on.
        let mut records = place.is_none_or(|slot| slot.records());
        if place.is_some_and(Slot::is_looked_up) && self.flows.contains_key(&tuple) {
            self.note("record of an earlier flow replaced");
            records = true;
        }
        let mut index = service;
        if input.is_handed() && first.is_none() {
            let current = place.map(|slot| slot.current);
            first = current.filter(|id| here(self, id));
            if first.is_none() {
                index = handed(service);
                records = true;
                table = match self.tables.get(&index) {
                    Some(table) if !table.slots.is_empty() => table.clone(),
                    _ => return Err(Verdict::NotHere.into()),
                };
            }
        }
        if first.is_none() && (table.slots.is_empty() || lost) {
            return Ok(None);
        }
        let start = match first {
            // No turn is taken.
            Some(_) => 0,
            None if turns => self.turn(index, &table),
            None => table.index(&tuple),
        };
        let further = table.slots.iter().cycle().skip(start);
        let further = further.map(|slot| slot.current);
        let tried = first.into_iter().chain(further).take(TRIES);
        let id = self.free(input, packet, tried, records)?;
        let backend = self.backends[&id];
        if input.is_handed() && !backend.local {
            return Err(Verdict::NotHere.into());
        }
        let flow = self.started(input, packet, entry, (id, &backend), choices)?;
        self.remember_flow(entry, &tuple, &flow, records, packet.opens(), input.now);
        if table.affine {
            let ticks = self.sticky.get(&service).copied().unwrap_or_default();
            let last = Last {
                backend: id,
                expires: input.now + ticks,
            };
            self.last.insert((service, packet.src), last);
        }
        Ok(Some(flow))
    }

    /// Where the client's last flow went, if its next one may go there.
    fn last_backend(
        &self,
        input: &Input<'_>,
        packet: &Packet,
        service: u32,
        table: &Table,
    ) -> Option<u32> {
        let last = self.last.get(&(service, packet.src))?;
        let open = self.backends.get(&last.backend)?.open;
        (table.affine && open && input.now <= last.expires).then_some(last.backend)
    }

    /// The slot whose turn it is. Each new flow takes a turn, whatever becomes of it.
    fn turn(&mut self, index: u32, table: &Table) -> usize {
        let turns = self.turns.entry(index).or_default();
        let first = (*turns % table.slots.len() as u64) as usize;
        *turns += 1;
        first
    }

    /// The first of some backends that would not take the packet for another flow's. Without
    /// a record it must be the very first: nothing would tell what follows of another one.
    fn free(
        &mut self,
        input: &Input<'_>,
        packet: &Packet,
        tried: impl Iterator<Item = u32>,
        records: bool,
    ) -> Result<u32, Stop> {
        for id in tried {
            let backend = self.backends[&id];
            if !backend.local || !self.clashes(input, packet, &backend) {
                return Ok(id);
            }
            if !records {
                self.note("clash without a record");
                break;
            }
        }
        Err(Verdict::TupleClash.into())
    }

    /// Whether a local backend would take the packet for another flow's.
    fn clashes(&self, input: &Input<'_>, packet: &Packet, backend: &Backend) -> bool {
        let tuple = packet.tuple();
        let reply = Tuple {
            dst: backend.addr.ip(),
            dport: backend.addr.port(),
            ..tuple
        };
        self.is_taken(&reply.reversed(), &tuple, Yields::Closed, input.now)
    }

    /// A flow after its first packet.
    fn started(
        &self,
        input: &Input<'_>,
        packet: &Packet,
        entry: Entry,
        (id, backend): (u32, &Backend),
        choices: &dyn Choices,
    ) -> Result<Flow, Stop> {
        let mut flow = Flow {
            backend: id,
            snat: None,
            seen: Seen::default().after_client(packet.flags()),
            expires: 0,
        };
        let alone = match backend.via {
            Some(via) => !flows::comes_by(input, packet, via)?,
            None => false,
        };
        let restored = backend.local && backend.restored && !entry.recorded;
        if alone || restored {
            flow.seen = flow.seen.after_client_alone(packet.flags());
        }
        if !alone && !backend.local {
            flow.snat = Some(self.source(input, packet, backend, choices)?);
        }
        flow.expires = input.now + flow.seen.timeout(packet.protocol == TCP);
        Ok(flow)
    }

    /// Records a flow and its replies, as far as that is needed.
    fn remember_flow(
        &mut self,
        entry: Entry,
        tuple: &Tuple,
        flow: &Flow,
        mut records: bool,
        opens: bool,
        now: u32,
    ) {
        let backend = self.backends[&flow.backend];
        let mut replies = None;
        if backend.local || flow.snat.is_some() {
            let reply = self.towards(tuple, &backend, flow).reversed();
            // What an earlier flow has left there is no more: its client's packets would go there.
            if let Some(holder) = self.holder(&reply) {
                self.flows.remove(&holder);
            }
            self.replies.remove(&reply);
            if backend.local && backend.restored && !entry.recorded {
                self.note(if records {
                    "begins restored, recorded"
                } else {
                    "begins restored, without a record"
                });
                if self.direct.remove(&reply).is_some() {
                    self.note("takes a direct connection's place");
                }
            } else {
                records = true;
                let whose = Reply {
                    flow: *tuple,
                    backend: flow.backend,
                    service: entry.service,
                    fresh_until: Reply::never(now),
                };
                replies = Some((reply, whose));
            }
        }
        if records {
            // A record takes the place of the one that there was, and of what led there.
            self.replies.retain(|_, it| it.flow != *tuple);
            self.replies.extend(replies);
            self.flows.insert(*tuple, *flow);
        } else if !backend.local {
            self.note("begins by dsr without a record");
        }
        // Of flows without a record only connections show that they begin.
        if records || opens {
            self.count(entry.service, flow.backend, |count| count.flows += 1);
        }
    }
}
