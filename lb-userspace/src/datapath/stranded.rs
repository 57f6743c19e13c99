//! Sockets of the node that are connected to backends that are gone, beside the agent's own
//! work: their datagrams go nowhere, and no program is asked where they should.

use std::{collections::BTreeSet, net::SocketAddr};

use aya::maps::{HashMap, Map, MapData};
use lb_common::{Backend, Peer, Protocol, Socket};

use super::{Datapath, DatapathError, load::maps_dir};

/// Finds the sockets that UDP backends leave behind, through a handle of its own.
pub struct Stranded {
    sockets: HashMap<MapData, Socket, Peer>,
    gone: Vec<Backend>,
}

impl Datapath {
    /// The sockets of the UDP backends that are gone since this was asked for last; none
    /// where no such backend is.
    pub fn stranded(&mut self) -> Result<Option<Stranded>, DatapathError> {
        let mut gone = std::mem::take(&mut self.live.gone);
        gone.retain(|backend| backend.protocol == Protocol::Udp as u8);
        if gone.is_empty() {
            return Ok(None);
        }
        let name = "SOCKETS";
        let path = maps_dir(&self.options.pin_dir).join(name);
        let sockets = MapData::from_pin(path)
            .and_then(Map::from_map_data)
            .and_then(HashMap::try_from)
            .map_err(DatapathError::map(name))?;
        Ok(Some(Stranded { sockets, gone }))
    }
}

impl Stranded {
    /// The cookie of each socket, and the address of the backend that it was translated
    /// to: those that are connected to that address are stranded.
    pub fn sockets(&self) -> BTreeSet<(u64, SocketAddr)> {
        let known = self.sockets.iter().filter_map(Result::ok);
        known
            .filter(|(socket, peer)| {
                let here = |it: &&Backend| it.addr == socket.addr && it.port == socket.port;
                let backend = self.gone.iter().find(|it| it.id == peer.backend);
                backend.filter(here).is_some()
            })
            .map(|(socket, _)| {
                let addr = SocketAddr::new(socket.addr.to_ip(), socket.port.get());
                (socket.cookie, addr)
            })
            .collect()
    }
}
