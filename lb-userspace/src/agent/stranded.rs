//! Clients on the node whose UDP backend is gone.

use super::state::State;
use crate::net;

impl State {
    /// Destroys sockets that are connected to UDP backends that are gone. Whether that
    /// can be done is no condition of anything else.
    pub(super) fn free_stranded(&mut self) {
        let stranded = match self.datapath.stranded() {
            Ok(Some(stranded)) => stranded,
            Ok(None) => return,
            Err(error) => return tracing::warn!("sockets of backends that are gone: {error}"),
        };
        tokio::task::spawn_blocking(move || match net::destroy(&stranded.sockets()) {
            Ok(0) => {}
            Ok(n) => {
                tracing::info!("destroyed {n} UDP sockets connected to backends that are gone");
            }
            Err(error) => tracing::warn!(
                "UDP sockets of this node that are connected to backends that are gone cannot be \
                 destroyed ({error}): their owners have to notice; naru needs CAP_SYS_ADMIN, and a \
                 kernel with CONFIG_INET_DIAG_DESTROY"
            ),
        });
    }
}
