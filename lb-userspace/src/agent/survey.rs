//! What the kernel said of the network, until it says that something of it has changed.
//!
//! To ask it takes longer than most changes of the source do: several answers, each of which waits
//! for its turn on a busy machine.

use std::sync::Arc;

use super::peers::Kept;
use crate::net::{NetError, Network, Routes, Snapshot};

/// What is known of the network.
#[derive(Debug, Default)]
pub(super) struct Survey {
    snapshot: Option<Arc<Snapshot>>,
    /// The routes to endpoints of which the source does not say where they are.
    pub(super) placed: Routes,
    /// The routes to backends of other nodes.
    pub(super) remote: Routes,
    /// The routes to the other nodes.
    pub(super) nodes: Routes,
    /// Those of them that it was asked to keep.
    pub(super) kept: Option<Kept>,
}

impl Survey {
    /// Links, addresses, routes or rules have changed.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The links and addresses.
    ///
    /// # Errors
    /// Where they are not known, and the kernel does not answer.
    pub(super) async fn snapshot(&mut self, network: &Network) -> Result<Arc<Snapshot>, NetError> {
        let found = match self.snapshot.take() {
            Some(known) => known,
            None => Arc::new(network.snapshot().await?),
        };
        self.snapshot = Some(Arc::clone(&found));
        Ok(found)
    }
}
