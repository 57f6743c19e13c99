//! Reading back: counters, flows, and the sweep of flows that are over.

use aya::maps::MapError;
use lb_common::{
    Flow, Hook, Protocol, Stats, Tuple, Verdict, VerdictCount, flow::tick,
};
use nix::time::{ClockId, clock_gettime};

use super::{Datapath, DatapathError, causes};

/// A flow as the table holds it.
#[derive(Clone, Copy, Debug)]
pub struct FlowEntry {
    /// The client's packet.
    pub tuple: Tuple,
    /// What is recorded of it.
    pub flow: Flow,
    /// For how long it has been silent, in ticks (about seconds).
    pub idle: u32,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that were silent for too long, or whose backend is gone.
    pub flows: usize,
    /// Reply records without a flow.
    pub replies: usize,
}

/// Number of CPUs that per-CPU maps have values for.
pub(super) fn cpus() -> Result<usize, DatapathError> {
    aya::util::nr_cpus().map_err(|(what, error)| DatapathError::Map {
        map: "VERDICTS",
        reason: format!("{what}: {error}"),
    })
}

/// The current tick of the flows' clock.
fn now() -> Result<u32, DatapathError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| DatapathError::Map {
        map: "FLOWS",
        reason: format!("clock_gettime: {error}"),
    })?;
    let ns = time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned();
    Ok(tick(ns))
}

impl Datapath {
    /// Packets by hook and verdict, all CPUs added up; those that never occurred left out.
    pub fn verdicts(&self) -> Result<Vec<(Hook, Verdict, VerdictCount)>, DatapathError> {
        let mut counts = Vec::new();
        for hook in Hook::ALL {
            for &verdict in Verdict::ALL {
                let values = self
                    .maps
                    .verdicts
                    .get(&verdict.counter(hook), 0)
                    .map_err(DatapathError::map("VERDICTS"))?;
                let mut total = VerdictCount::default();
                for value in values.iter() {
                    total += *value;
                }
                if total.packets > 0 {
                    counts.push((hook, verdict, total));
                }
            }
        }
        Ok(counts)
    }

    /// Counters of the service with this index.
    pub fn service_stats(&self, index: u32) -> Result<Stats, DatapathError> {
        sum(self.maps.service_stats.get(&index, 0)).map_err(DatapathError::map("SERVICE_STATS"))
    }

    /// Counters of the backend with this index.
    pub fn backend_stats(&self, index: u32) -> Result<Stats, DatapathError> {
        sum(self.maps.backend_stats.get(&index, 0)).map_err(DatapathError::map("BACKEND_STATS"))
    }

    /// The flows in the table, at most `limit`, and whether there are more.
    pub fn flows(&self, limit: usize) -> Result<(Vec<FlowEntry>, bool), DatapathError> {
        let now = now()?;
        let mut flows = Vec::new();
        for entry in self.maps.flows.iter() {
            // The table changes while it is read: an entry that went away meanwhile
            // ends or restarts the walk, which is no fault.
            let Ok((tuple, flow)) = entry else { break };
            let tcp = tuple.protocol == Protocol::Tcp as u8;
            if flow.is_expired(now, tcp) {
                continue;
            }
            if flows.len() == limit {
                return Ok((flows, true));
            }
            flows.push(FlowEntry {
                tuple,
                flow,
                idle: now.saturating_sub(flow.seen),
            });
        }
        Ok((flows, false))
    }

    /// Removes flows that are over, and the reply records of flows that are no more.
    pub fn sweep(&mut self) -> Result<Swept, DatapathError> {
        let now = now()?;
        let mut swept = Swept::default();
        let over: Vec<_> = self
            .maps
            .flows
            .iter()
            .filter_map(Result::ok)
            .filter(|(tuple, flow)| self.is_over(tuple, flow, now))
            .map(|(tuple, _)| tuple)
            .collect();
        for tuple in over {
            // A packet may have begun it anew since it was read.
            let over = self
                .maps
                .flows
                .get(&tuple, 0)
                .is_ok_and(|flow| self.is_over(&tuple, &flow, now));
            if over {
                swept.flows += usize::from(removed("FLOWS", self.maps.flows.remove(&tuple))?);
            }
        }
        let stray: Vec<_> = self
            .maps
            .replies
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, reply)| self.maps.flows.get(&reply.flow, 0).is_err())
            .map(|(key, reply)| (key, reply.flow))
            .collect();
        for (key, flow) in stray {
            // The reply record of a new flow is stored just before the flow itself.
            if self.maps.flows.get(&flow, 0).is_err() {
                swept.replies += usize::from(removed("REPLIES", self.maps.replies.remove(&key))?);
            }
        }
        Ok(swept)
    }

    fn is_over(&self, tuple: &Tuple, flow: &Flow, now: u32) -> bool {
        let backend = self.live.backends.get(&flow.backend.index());
        flow.is_expired(now, tuple.protocol == Protocol::Tcp as u8)
            || !backend.is_some_and(|backend| backend.serves(flow.backend))
    }
}

fn sum(values: Result<aya::maps::PerCpuValues<Stats>, MapError>) -> Result<Stats, MapError> {
    let mut total = Stats::default();
    for value in values?.iter() {
        total += *value;
    }
    Ok(total)
}

/// Whether an entry was removed; that it was gone already is no fault.
fn removed(map: &'static str, result: Result<(), MapError>) -> Result<bool, DatapathError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(false)
        }
        Err(error) => Err(DatapathError::Map {
            map,
            reason: causes(&error),
        }),
    }
}
