//! Reading back: counters, flows, and the sweep of flows that are over.

use aya::maps::MapError;
use lb_common::{
    Addr, AddressUse, Backend, Flow, Hook, Port, Protocol, Stats, Tuple, Verdict, VerdictCount,
    flow::tick,
};
use nix::time::{ClockId, clock_gettime};

use super::{Datapath, DatapathError, apply::Live, causes};

/// A flow as the table holds it.
#[derive(Clone, Copy, Debug)]
pub struct FlowEntry {
    /// The client's packet.
    pub tuple: Tuple,
    /// What is recorded of it.
    pub flow: Flow,
    /// The source that its backend sees, where that is not the client.
    pub snat: Option<(Addr, Port)>,
    /// The backend that serves it; none where that is gone.
    pub backend: Option<Backend>,
    /// For how long it has been silent, in ticks (about seconds).
    pub idle: u32,
}

/// Number of CPUs that per-CPU maps have values for.
pub(super) fn cpus() -> Result<usize, DatapathError> {
    aya::util::nr_cpus().map_err(|(what, error)| DatapathError::Map {
        map: "VERDICTS",
        reason: format!("{what}: {error}"),
    })
}

/// The current tick of the flows' clock.
pub(super) fn now() -> Result<u32, DatapathError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| DatapathError::Map {
        map: "FLOWS",
        reason: format!("clock_gettime: {error}"),
    })?;
    let ns = time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned();
    Ok(tick(ns))
}

impl Datapath {
    /// Takes the maps for new ones, where a test has emptied them.
    pub fn start_over(&mut self) {
        self.live = Live::default();
    }

    /// The addresses that the program knows, with what they mean to it.
    pub fn addresses(&self) -> impl Iterator<Item = (Addr, AddressUse)> + '_ {
        self.live
            .addresses
            .iter()
            .map(|(&addr, &usage)| (addr, usage))
    }

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
        for record in self.records.iter() {
            let (tuple, flow) = (record.tuple, record.flow);
            if flow.is_expired(now) {
                continue;
            }
            if flows.len() == limit {
                return Ok((flows, true));
            }
            let backend = self.live.backends.get(flow.backend.index());
            let gone_flows = self.options.gone_flows;
            let kept = backend.filter(|backend| gone_flows.keep(&tuple, &flow, backend));
            flows.push(FlowEntry {
                tuple,
                flow,
                snat: record.snat(),
                backend: kept.copied(),
                idle: flow.idle(now, tuple.protocol == Protocol::Tcp as u8),
            });
        }
        Ok((flows, false))
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
pub(super) fn removed(
    map: &'static str,
    result: Result<(), MapError>,
) -> Result<bool, DatapathError> {
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
