//! The sweep of flows that are over, beside the agent's own work.

use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::{Backend, Flow, Reply, Tuple};

use super::{
    Datapath, DatapathError, GoneFlows,
    load::maps_dir,
    read::{now, removed},
};

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that were silent for too long, or whose backend is gone.
    pub flows: usize,
    /// Reply records without a flow.
    pub replies: usize,
}

/// Sweeps the flow tables through handles of its own, so that it may run on another
/// thread: a full table takes seconds to walk.
pub struct Sweeper {
    flows: HashMap<MapData, Tuple, Flow>,
    replies: HashMap<MapData, Tuple, Reply>,
    backends: Array<MapData, Backend>,
    gone_flows: GoneFlows,
}

impl Datapath {
    /// A sweeper of this datapath's tables.
    pub fn sweeper(&self) -> Result<Sweeper, DatapathError> {
        let dir = maps_dir(&self.options.pin_dir);
        let open = |name: &'static str| {
            MapData::from_pin(dir.join(name))
                .and_then(Map::from_map_data)
                .map_err(DatapathError::map(name))
        };
        Ok(Sweeper {
            flows: open("FLOWS")?
                .try_into()
                .map_err(DatapathError::map("FLOWS"))?,
            replies: open("REPLIES")?
                .try_into()
                .map_err(DatapathError::map("REPLIES"))?,
            backends: open("BACKENDS")?
                .try_into()
                .map_err(DatapathError::map("BACKENDS"))?,
            gone_flows: self.options.gone_flows,
        })
    }
}

impl Sweeper {
    /// Removes flows that are over, and the reply records of flows that are no more.
    pub fn sweep(&mut self) -> Result<Swept, DatapathError> {
        let now = now()?;
        let mut swept = Swept::default();
        let over: Vec<_> = self
            .flows
            .iter()
            .filter_map(Result::ok)
            .filter(|(tuple, flow)| self.is_over(tuple, flow, now))
            .map(|(tuple, _)| tuple)
            .collect();
        for tuple in over {
            // A packet may have begun it anew since it was read.
            let over = self
                .flows
                .get(&tuple, 0)
                .is_ok_and(|flow| self.is_over(&tuple, &flow, now));
            if over {
                swept.flows += usize::from(removed("FLOWS", self.flows.remove(&tuple))?);
            }
        }
        let stray: Vec<_> = self
            .replies
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, reply)| self.flows.get(&reply.flow, 0).is_err())
            .map(|(key, reply)| (key, reply.flow))
            .collect();
        for (key, flow) in stray {
            // The reply record of a new flow is stored just before the flow itself.
            if self.flows.get(&flow, 0).is_err() {
                swept.replies += usize::from(removed("REPLIES", self.replies.remove(&key))?);
            }
        }
        Ok(swept)
    }

    fn is_over(&self, tuple: &Tuple, flow: &Flow, now: u32) -> bool {
        let backend = self.backends.get(&flow.backend.index(), 0);
        let kept = |backend: Backend| self.gone_flows.keep(tuple, flow, &backend);
        flow.is_expired(now) || !backend.is_ok_and(kept)
    }
}
