//! Who announces which address. Pure: every node computes the same from the same view.
//!
//! The rules and the order are MetalLB's, so that a cluster of either kind elects the same
//! node: candidates that some advertisement admits, by descending preference, then by the
//! bytes of `sha256(node + "#" + address)`. The first one wins. So removing a loser changes
//! nothing, and a new node takes an address only where it sorts first.

mod subject;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use sha2::{Digest, Sha256};

pub use self::subject::{Advertised, Subject, subjects};
use crate::desired::{Node, TrafficPolicy};

/// The label by which a node asks to be left out.
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What a live member says of itself, as far as elections go by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It has not listened long enough to know who is there, has heard nobody at all, or does
    /// not know yet what is wanted.
    pub starting: bool,
    /// It is about to stop and hands its addresses over.
    pub leaving: bool,
    /// It came back a short while ago, and announces only what nobody else can.
    pub held_down: bool,
    /// The addresses that it cannot serve at the moment.
    pub withheld: BTreeSet<IpAddr>,
    /// The addresses that it announces.
    pub claims: BTreeSet<IpAddr>,
}

/// All that an election goes by.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Everybody that is live, by name.
    pub members: &'a BTreeMap<String, Standing>,
    /// What the source knows of the nodes, by name.
    pub nodes: &'a BTreeMap<String, Node>,
    /// Whether an address stays where it is while that node can serve it.
    pub sticky: bool,
}

/// Why nobody announces an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nobody {
    /// No endpoint of any service on it is ready or serving.
    NoEndpoint,
    /// No advertisement names its pool and matches its service.
    NotAdvertised,
    /// Every member has an objection.
    NoCandidate,
}

/// Why a member does not announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// Not among the live members.
    NotLive,
    /// It came a moment ago.
    Starting,
    /// About to stop.
    Leaving,
    /// Its condition NetworkUnavailable.
    NetworkUnavailable,
    /// Its label [`EXCLUDED`].
    Excluded,
    /// No advertisement admits it.
    NotSelected,
    /// Policy Local, and none of the endpoints that serve is on it.
    NoLocalEndpoint,
    /// It says that it cannot serve the address.
    Withheld,
    /// Held down, and others are not.
    HeldDown,
}

/// A member's place in an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// The sum of the weights that advertisements give it.
    pub preference: u32,
    /// `sha256(node + "#" + address)`.
    pub digest: [u8; 32],
    /// How many of the addresses that stay together it cannot serve.
    pub withheld: usize,
    /// Whether it announces the address already.
    pub claims: bool,
    /// Why it cannot win; none for a candidate.
    pub objection: Option<Objection>,
}

/// The outcome for one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Candidates first, in their order; behind them those with an objection.
    pub order: Vec<Place>,
    /// Who announces, or why nobody does.
    pub winner: Result<String, Nobody>,
}

/// Elects who announces the addresses of `subject`.
pub fn elect(subject: &Subject<'_>, field: &Field<'_>) -> Outcome {
    let mut order: Vec<Place> = field
        .members
        .iter()
        .map(|(name, standing)| place(subject, field, name, standing))
        .collect();
    hold_down(&mut order, field);
    order.sort_by_key(|place| key(place, field.sticky));
    let first = order.first().filter(|it| it.objection.is_none());
    let winner = if !subject.is_usable() {
        Err(Nobody::NoEndpoint)
    } else if subject.advertised.is_nowhere() {
        Err(Nobody::NotAdvertised)
    } else {
        first.map(|it| it.node.clone()).ok_or(Nobody::NoCandidate)
    };
    Outcome { order, winner }
}

/// Nodes in the order in which they would announce an address, all else being equal, with
/// what decides it.
pub fn ranking(
    ip: IpAddr,
    nodes: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = (String, [u8; 32])> {
    let mut nodes: Vec<_> = nodes.into_iter().map(|it| (digest(&it, ip), it)).collect();
    nodes.sort();
    nodes.into_iter().map(|(digest, node)| (node, digest))
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEndpoint => "no endpoint of its services is ready or serving",
            Self::NotAdvertised => {
                "no L2Advertisement names its pool and selects its service; add one"
            }
            Self::NoCandidate => "no node can, for the reasons below",
        })
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLive => "not there: its agent does not run, or gossip does not reach it",
            Self::Starting => "it came a moment ago, and listens",
            Self::Leaving => "about to stop",
            Self::NetworkUnavailable => "its Node has the condition NetworkUnavailable",
            Self::Excluded => {
                "its Node has the label node.kubernetes.io/exclude-from-external-load-balancers"
            }
            Self::NotSelected => "no L2Advertisement of the pool selects it",
            Self::NoLocalEndpoint => {
                "externalTrafficPolicy is Local, and no endpoint that serves is on it"
            }
            Self::Withheld => "it cannot serve the address; ask it: `naru owner` there tells why",
            Self::HeldDown => "held down since it came back; others can serve it",
        })
    }
}

fn key(place: &Place, sticky: bool) -> impl Ord + use<> {
    (
        place.objection.is_some(),
        place.withheld,
        sticky && !place.claims,
        std::cmp::Reverse(place.preference),
        place.digest,
    )
}

fn place(subject: &Subject<'_>, field: &Field<'_>, name: &str, standing: &Standing) -> Place {
    let nothing = Node::default();
    let node = field.nodes.get(name).unwrap_or(&nothing);
    let preference = subject.advertised.preference(&node.labels);
    Place {
        node: name.to_owned(),
        preference: preference.unwrap_or_default(),
        digest: digest(name, subject.key),
        withheld: subject.addresses.intersection(&standing.withheld).count(),
        claims: !standing.claims.is_disjoint(&subject.addresses),
        objection: objection(subject, name, node, standing, preference.is_some()),
    }
}

fn objection(
    subject: &Subject<'_>,
    name: &str,
    node: &Node,
    standing: &Standing,
    selected: bool,
) -> Option<Objection> {
    let local = subject.policy == TrafficPolicy::Local;
    if standing.starting {
        Some(Objection::Starting)
    } else if standing.leaving {
        Some(Objection::Leaving)
    } else if node.network_unavailable {
        Some(Objection::NetworkUnavailable)
    } else if node.labels.contains_key(EXCLUDED) {
        Some(Objection::Excluded)
    } else if !selected {
        Some(Objection::NotSelected)
    } else if local && !subject.is_on(name) {
        Some(Objection::NoLocalEndpoint)
    } else if subject.addresses.is_subset(&standing.withheld) {
        Some(Objection::Withheld)
    } else {
        None
    }
}

/// Those that are held down step back, while others stand; from what they announce already they
/// do not.
fn hold_down(order: &mut [Place], field: &Field<'_>) {
    let held = |place: &Place| {
        let standing = field.members.get(&place.node);
        standing.is_some_and(|it| it.held_down) && !place.claims
    };
    let stands = |place: &Place| place.objection.is_none() && !held(place);
    if order.iter().any(stands) {
        for place in order {
            if place.objection.is_none() && held(place) {
                place.objection = Some(Objection::HeldDown);
            }
        }
    }
}

/// The bytes that decide between equal preferences.
fn digest(node: &str, ip: IpAddr) -> [u8; 32] {
    Sha256::digest(format!("{node}#{ip}")).into()
}

#[cfg(test)]
mod tests;
