//! Claiming on the LAN: the program answers, for as long as the agent vouches for it, and
//! the announcer speaks.

use std::{collections::BTreeSet, time::Duration};

use lb_common::AddressUse;

use super::state::State;
use crate::announce::{self, Claims};

/// How long the program goes on answering without an agent, where no other node would
/// take over: longer than an agent takes to start again.
const ALONE: Duration = Duration::from_secs(60);

impl State {
    /// Claims what is to be announced on the attached interfaces: its datapath is in place
    /// by now. The program knows first, of what is new and of what is released.
    pub(super) fn claim(&mut self) {
        let claims = self.claims();
        let answerable = announce::answerable(&claims, &self.links);
        let claimed = self.datapath.set_claims(&answerable);
        self.vouch();
        match claimed {
            Ok(()) => self.announcer.set_claims(claims),
            Err(error) => {
                self.failures.push(format!("claiming addresses: {error}"));
                self.announcer.set_claims(self.datapath.claims());
            }
        }
    }

    /// What this node is to claim.
    fn claims(&self) -> Claims {
        if !self.options.announce {
            return Claims::new();
        }
        let interfaces: BTreeSet<u32> = self.attachments.values().map(|it| it.ifindex).collect();
        self.datapath
            .addresses()
            .filter(|(_, usage)| usage.contains(AddressUse::ANNOUNCED))
            .map(|(addr, _)| (addr.to_ip(), interfaces.clone()))
            .collect()
    }

    /// Has the program go on answering: called on every tick, and when claims change.
    pub(super) fn vouch(&self) {
        if let Err(error) = self.lease.renew(ALONE) {
            tracing::error!("{error}; claimed addresses will not be answered for");
        }
    }

    /// Ends answering at once: nobody vouches for anything any more.
    pub(super) fn resign(&self) {
        self.lease.end();
    }
}
