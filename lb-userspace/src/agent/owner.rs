//! Who announces which address, for the CLI.

use std::{collections::BTreeMap, net::IpAddr};

use super::state::State;
use crate::{
    control::{MemberStatus, Members, Owner},
    election::{self, Standing},
};

impl State {
    /// The election for one address among these nodes, or among those that are there.
    pub(super) fn owner(&self, ip: IpAddr, nodes: Option<&[String]>) -> Owner {
        let there = self.members();
        let members: BTreeMap<String, Standing> = match nodes {
            None => there,
            Some(nodes) => {
                let standing = |name: &String| there.get(name).cloned().unwrap_or_default();
                nodes.iter().map(|it| (it.clone(), standing(it))).collect()
            }
        };
        let mut subjects = self.subjects();
        let subject = subjects.remove(&ip);
        let field = self.field(&members);
        let mut owner = match &subject {
            Some(subject) => Owner::new(ip, Some(subject), &election::elect(subject, &field)),
            None => Owner::new(
                ip,
                None,
                &election::elect(&election::Subject::bare(ip), &field),
            ),
        };
        if nodes.is_none() {
            owner.add_missing(field.nodes.keys(), subject.as_ref().map_or(ip, |it| it.key));
        }
        if let Some(reason) = self.ownership.reason(ip) {
            owner.explain_withheld(&self.options.node, reason);
        }
        owner
    }

    /// Who is there, for the status; none for a node that is alone on purpose.
    pub(super) fn gossip_status(&self) -> Option<Members> {
        let membership = self.cluster.membership.as_ref()?;
        let view = &self.cluster.view;
        let counters = membership.counters();
        let standings = self.members();
        Some(Members {
            running: membership.is_running(),
            settled: view.settled,
            members: view
                .members
                .iter()
                .map(|(name, it)| {
                    // Of itself a node knows more than it tells others.
                    let standing = standings.get(name).unwrap_or(&it.words.standing);
                    (name.clone(), MemberStatus::new(it.address, standing))
                })
                .collect(),
            lost: view.lost.iter().cloned().collect(),
            received: counters.received(),
            sent: counters.sent(),
            rejected: counters.rejected(),
            oversized: counters.oversized(),
        })
    }
}
