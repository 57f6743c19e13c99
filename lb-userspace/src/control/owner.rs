//! Elections and members, as the CLI shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::election::{self, Nobody, Objection, Outcome, Standing, Subject};

/// The election for one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The address that was asked for.
    pub ip: IpAddr,
    /// The addresses that stay on the same node, that one among them.
    pub together: Vec<IpAddr>,
    /// The services on them; none where no service has the address.
    pub services: Vec<String>,
    /// Who announces it.
    pub owner: Option<String>,
    /// Why nobody does.
    pub nobody: Option<Nobody>,
    /// Candidates in their order, and behind them those that are none.
    pub order: Vec<Place>,
}

/// A node's place in the election.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub node: String,
    /// The weights that advertisements give it, added up.
    pub preference: u32,
    /// What decides among equals: the first bytes of `sha256(node#address)`, in hexadecimal.
    pub hash: String,
    /// Whether it announces the address now.
    pub announces: bool,
    /// Why it cannot be elected; none for a candidate.
    pub objection: Option<Objection>,
    /// What that means, or what it has found.
    pub why: Option<String>,
}

/// The members, as gossip knows them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Members {
    /// Whether gossip goes on.
    pub running: bool,
    /// Whether this node has listened long enough to take part.
    pub settled: bool,
    /// Who is there, this node among them, by name.
    pub members: BTreeMap<String, MemberStatus>,
    /// Who has gone without a word.
    pub lost: Vec<String>,
    /// Messages that came.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Datagrams that were ignored: of another key, or forged.
    pub rejected: u64,
    /// Messages that were too long to be sent.
    pub oversized: u64,
}

/// A member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Where it gossips.
    pub address: SocketAddr,
    /// `ready`, `starting`, `held down` or `leaving`.
    pub state: String,
    /// The addresses that it announces.
    pub announces: BTreeSet<IpAddr>,
}

// === impl Owner ===

impl Owner {
    /// Of an election about the address; without a subject no service has it.
    pub fn new(ip: IpAddr, subject: Option<&Subject<'_>>, outcome: &Outcome) -> Self {
        let place = |it: &election::Place| Place {
            node: it.node.clone(),
            preference: it.preference,
            hash: hash(&it.digest),
            announces: it.claims,
            objection: it.objection,
            why: it.objection.map(|it| it.to_string()),
        };
        Self {
            ip,
            together: subject.map_or(vec![ip], |it| it.addresses.iter().copied().collect()),
            services: subject
                .into_iter()
                .flat_map(|it| &it.services)
                .map(ToString::to_string)
                .collect(),
            owner: outcome.winner.clone().ok(),
            nobody: outcome.winner.clone().err(),
            order: outcome.order.iter().map(place).collect(),
        }
    }

    /// Adds nodes that the source knows and that are not there, in their order.
    pub fn add_missing<'a>(&mut self, nodes: impl Iterator<Item = &'a String>, key: IpAddr) {
        let there: BTreeSet<&str> = self.order.iter().map(|it| it.node.as_str()).collect();
        let missing = nodes.filter(|it| !there.contains(it.as_str())).cloned();
        let missing = election::ranking(key, missing.collect::<Vec<_>>());
        for (node, digest) in missing {
            self.order.push(Place {
                node,
                preference: 0,
                hash: hash(&digest),
                announces: false,
                objection: Some(Objection::NotLive),
                why: Some(Objection::NotLive.to_string()),
            });
        }
    }

    /// Says what the node that was asked has found, where it cannot serve the address.
    pub fn explain_withheld(&mut self, node: &str, reason: &str) {
        for place in &mut self.order {
            if place.node == node && place.objection == Some(Objection::Withheld) {
                place.why = Some(reason.to_owned());
            }
        }
    }
}

impl MemberStatus {
    /// A member that gossips from `address` and stands so.
    pub fn new(address: SocketAddr, standing: &Standing) -> Self {
        let state = match (standing.leaving, standing.held_down, standing.starting) {
            (true, _, _) => "leaving",
            (false, true, _) => "held down",
            (false, false, false) => "ready",
            (false, false, true) => "starting",
        };
        Self {
            address,
            state: state.to_owned(),
            announces: standing.claims.clone(),
        }
    }
}

fn hash(digest: &[u8; 32]) -> String {
    let bytes = digest.iter().take(4);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
