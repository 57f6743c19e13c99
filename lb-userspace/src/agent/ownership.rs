//! Which addresses this node announces, and why not the others.
//!
//! An address is claimed by the node that is elected for it, once the datapath behind it was
//! seen to work there, and once no other node announces it any more. It is given up at once
//! when another node is elected, or when the datapath has failed for [`FAILURES`] checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::{AddressUse, Verdict, verdict::Fate};

use super::state::State;
use crate::{
    announce::{self, Claims},
    datapath::Probe,
    desired::{Desired, Family, Frontend, Labels, Node, Service, TrafficPolicy},
    election::{self, Field, Standing, Subject},
};

/// Checks in a row that fail before an address is given up: what one slot's backend lacks
/// for a moment is no reason.
const FAILURES: u8 = 3;
/// Addresses checked on each tick.
const CHECKED: usize = 64;
/// How long another node that announces an address usually takes to let go of it, at most.
const YIELD: Duration = Duration::from_secs(1);

/// What this node announces, and what it could.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// In force.
    pub(super) claims: Claims,
    /// What this node was to announce, as far as the source says, and cannot.
    pub(super) withheld: BTreeSet<IpAddr>,
    /// What checks of the datapath have found, by address.
    proofs: BTreeMap<IpAddr, Proof>,
    /// The last address that was checked in turn.
    checked: Option<IpAddr>,
    /// Addresses that this node is elected for and that others announce, and since when.
    contested: BTreeMap<IpAddr, Contest>,
    /// Addresses that another node announces beside this one.
    rivals: BTreeSet<IpAddr>,
    /// Which other node announced an address last.
    claimants: BTreeMap<IpAddr, String>,
}

/// The outcome of all elections for this node.
#[derive(Debug, Default)]
struct Elected {
    claims: Claims,
    contested: BTreeMap<IpAddr, Contest>,
    rivals: BTreeSet<IpAddr>,
}

/// Another node that announces what this one is elected for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contest {
    since: Instant,
    other: String,
    /// It takes longer than it could: it must see the election otherwise.
    stuck: bool,
}

/// Of a source that knows no nodes.
static NO_NODES: BTreeMap<String, Node> = BTreeMap::new();
/// Of a node that no source knows.
static NO_LABELS: Labels = Labels::new();

/// Whether the datapath behind an address works.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proof {
    works: bool,
    /// In a row.
    failures: u8,
    /// What the last check found, where it failed.
    reason: Option<String>,
}

impl Contest {
    fn text(&self, ip: IpAddr) -> String {
        let other = &self.other;
        format!(
            "{ip} is announced by {other}, although this node is elected for it as far as it \
             knows; give both the same manifests and options"
        )
    }
}

impl Ownership {
    /// Whether the datapath behind an address was seen to work.
    fn works(&self, ip: IpAddr) -> bool {
        self.proofs.get(&ip).is_some_and(|it| it.works)
    }

    /// Has everything that is announced announced once more.
    pub(super) fn repeat_all(&mut self) {
        self.rivals = self.claims.keys().copied().collect();
    }

    /// Why this node does not announce an address although it was to.
    pub(super) fn reason(&self, ip: IpAddr) -> Option<&str> {
        let proof = self.proofs.get(&ip).filter(|it| !it.works)?;
        proof.reason.as_deref()
    }
}

impl State {
    /// What services have as addresses, before anything that only this node knows.
    fn assigned(&self) -> Option<&Desired> {
        self.addresses.assignment.as_ref().map(|it| &it.desired)
    }

    /// The addresses that this node may announce as far as its maps say.
    fn announceable(&self) -> BTreeSet<IpAddr> {
        let all = self.datapath.addresses();
        all.filter(|(_, usage)| usage.contains(AddressUse::ANNOUNCED))
            .map(|(addr, _)| addr.to_ip())
            .collect()
    }

    /// Works out anew what this node announces. Gives it with the addresses that are to be
    /// announced once more, because another node announced them as well.
    pub(super) fn elect(&mut self) -> (Claims, BTreeSet<IpAddr>) {
        let candidates = self.announceable();
        self.prove_new(&candidates);
        // Of its own, as what is withheld is a part of this node's state that elections go by.
        let assigned = self.assigned().cloned();
        let subjects = assigned
            .as_ref()
            .map(election::subjects)
            .unwrap_or_default();
        self.ownership.withheld = self.unserved(&subjects);
        let alone = self.options.gossip.is_none();
        if !self.options.announce || !(alone || self.cluster.view.settled) {
            return Default::default();
        }
        let Elected {
            claims,
            contested,
            rivals,
        } = self.elected(candidates, self.with_inherited(subjects), Instant::now());
        let again = self.ownership.rivals.difference(&rivals);
        let again = again
            .filter(|ip| claims.contains_key(ip))
            .copied()
            .collect();
        for (ip, contest) in contested.iter().filter(|(_, it)| it.stuck) {
            if self.ownership.contested.get(ip).is_none_or(|it| !it.stuck) {
                tracing::warn!("{}", contest.text(*ip));
            }
        }
        self.ownership.contested = contested;
        self.ownership.rivals = rivals;
        (claims, again)
    }

    fn elected(
        &self,
        candidates: BTreeSet<IpAddr>,
        subjects: BTreeMap<IpAddr, Subject<'_>>,
        now: Instant,
    ) -> Elected {
        let members = self.members();
        let winners = self.winners(&subjects, &members);
        let me = &self.options.node;
        let mut elected = Elected::default();
        let nodes = self.field(&members).nodes;
        for ip in candidates {
            // A node's own address: its kernel answers.
            if nodes.values().any(|it| it.addresses.contains(&ip)) {
                continue;
            }
            let interfaces = self.interfaces_for(subjects.get(&ip));
            if self.options.snat.addresses.contains(&ip) {
                elected.claims.insert(ip, interfaces);
                continue;
            }
            if self.cluster.leaving && !winners.contains_key(&ip) {
                // Nobody else can: it is kept for the next agent of this node.
                if let Some(interfaces) = self.ownership.claims.get(&ip) {
                    elected.claims.insert(ip, interfaces.clone());
                }
                continue;
            }
            if winners.get(&ip) != Some(me) || !self.ownership.works(ip) {
                continue;
            }
            let others = members.iter().filter(|(name, _)| *name != me);
            let claimants = others.filter(|(_, standing)| standing.claims.contains(&ip));
            let claimants: Vec<String> = claimants.map(|(name, _)| name.clone()).collect();
            if let Some(other) = claimants.first() {
                let known = self.ownership.contested.get(&ip);
                let since = known.map_or(now, |it| it.since);
                let contest = Contest {
                    since,
                    other: other.clone(),
                    stuck: now - since >= YIELD,
                };
                // Nodes whose sources differ may elect different ones: whoever has the address
                // keeps it, and of several that have it the first in the order without policies.
                let everybody = claimants.iter().chain([me]).cloned();
                let first = election::ranking(ip, everybody).next();
                let gives_way = contest.stuck && first.is_none_or(|(name, _)| name != *me);
                elected.contested.insert(ip, contest);
                if gives_way || !self.ownership.claims.contains_key(&ip) {
                    continue;
                }
                elected.rivals.insert(ip);
            }
            elected.claims.insert(ip, interfaces);
        }
        elected
    }

    /// Which node had each address before, by its own address, once `claims` are in force:
    /// connections that began there are given back to it. One that is lost knows none. `gained`
    /// are those that this node has not had until now, or not alone.
    pub(super) fn formers(
        &self,
        claims: &Claims,
        gained: &BTreeSet<IpAddr>,
    ) -> BTreeMap<IpAddr, IpAddr> {
        let there = |name: &String| self.peers.get(name).filter(|_| !self.is_lost(name));
        let mut formers = self.datapath.formers();
        for ip in claims.keys().filter(|ip| gained.contains(ip)) {
            if let Some(claimant) = self.ownership.claimants.get(ip) {
                match there(claimant) {
                    Some(peer) => formers.insert(*ip, peer.addr),
                    None => formers.remove(ip),
                };
            }
        }
        // Also after it has let go of an address this node knows where older ones are.
        if self.assigned().is_some() {
            let peers = self.peers.keys().filter_map(there);
            let peers: BTreeSet<IpAddr> = peers.map(|it| it.addr).collect();
            let announceable = self.announceable();
            formers.retain(|ip, node| announceable.contains(ip) && peers.contains(node));
        }
        formers
    }

    /// Remembers who else announces what, of what there is and of those that are not lost.
    pub(super) fn remember_claimants(&mut self) {
        let subjects = self.subjects();
        let view = &self.cluster.view;
        let mut claimants = self.ownership.claimants.clone();
        claimants.retain(|ip, name| subjects.contains_key(ip) && !view.lost.contains(name));
        let members = view.members.iter();
        for (name, it) in members.filter(|(name, _)| **name != self.options.node) {
            let claims = it.words.standing.claims.iter();
            claimants.extend(claims.map(|&ip| (ip, name.clone())));
        }
        self.ownership.claimants = claimants;
    }

    /// The addresses that this node could be elected for and does not serve.
    fn unserved(&self, subjects: &BTreeMap<IpAddr, Subject<'_>>) -> BTreeSet<IpAddr> {
        let me = &self.options.node;
        let unserved = subjects.iter().filter(|(ip, subject)| {
            let cluster = subject.policy == TrafficPolicy::Cluster;
            let eligible = subject.is_usable() && (cluster || subject.is_on(me));
            let interfaces = self.interfaces_for(Some(subject));
            let carried = announce::is_carried(**ip, &interfaces, &self.links);
            eligible && !(carried && self.ownership.works(**ip))
        });
        unserved.map(|(&ip, _)| ip).collect()
    }

    /// Whether an election is to be looked at again although nothing has changed.
    pub(super) fn awaits(&self) -> bool {
        !self.ownership.contested.is_empty()
    }

    /// What other nodes do not let go of.
    pub(super) fn contests(&self) -> impl Iterator<Item = String> {
        let stuck = self.ownership.contested.iter().filter(|(_, it)| it.stuck);
        stuck.map(|(ip, it)| it.text(*ip))
    }

    /// What elections are about. Without a valid source what an earlier agent left is
    /// announced by somebody, too.
    pub(super) fn subjects(&self) -> BTreeMap<IpAddr, Subject<'_>> {
        self.with_inherited(self.assigned().map(election::subjects).unwrap_or_default())
    }

    /// Adds what this node may announce of which no source says anything.
    fn with_inherited<'a>(
        &self,
        mut subjects: BTreeMap<IpAddr, Subject<'a>>,
    ) -> BTreeMap<IpAddr, Subject<'a>> {
        let elected = |ip: &IpAddr| !self.options.snat.addresses.contains(ip);
        for ip in self.announceable().into_iter().filter(elected) {
            subjects.entry(ip).or_insert_with(|| Subject::bare(ip));
        }
        subjects
    }

    /// Who announces each address.
    pub(super) fn winners(
        &self,
        subjects: &BTreeMap<IpAddr, Subject<'_>>,
        members: &BTreeMap<String, Standing>,
    ) -> BTreeMap<IpAddr, String> {
        let field = self.field(members);
        let elect = |(&ip, subject): (&IpAddr, &Subject<'_>)| {
            let winner = election::elect(subject, &field).winner.ok()?;
            Some((ip, winner))
        };
        subjects.iter().filter_map(elect).collect()
    }

    /// What an election goes by, with these members.
    pub(super) fn field<'a>(&'a self, members: &'a BTreeMap<String, Standing>) -> Field<'a> {
        Field {
            members,
            nodes: self.assigned().map_or(&NO_NODES, |it| &it.nodes),
            sticky: self.options.hold_down.is_some(),
        }
    }

    /// The attached interfaces on which an address is announced.
    fn interfaces_for(&self, subject: Option<&Subject<'_>>) -> BTreeSet<u32> {
        let node = self
            .assigned()
            .and_then(|it| it.nodes.get(&self.options.node));
        let labels = node.map_or(&NO_LABELS, |it| &it.labels);
        let announced = |interface: &str| {
            subject.is_none_or(|subject| subject.advertised.on_interface(labels, interface))
        };
        let attached = self.attachments.values();
        attached
            .filter(|it| announced(&it.interface))
            .map(|it| it.ifindex)
            .collect()
    }

    /// Checks those that were never seen to work, and forgets those that are gone.
    fn prove_new(&mut self, candidates: &BTreeSet<IpAddr>) {
        self.ownership
            .proofs
            .retain(|ip, _| candidates.contains(ip));
        for &ip in candidates {
            let known = self.ownership.proofs.get(&ip);
            if known.is_none_or(|it| !it.works) {
                self.prove(ip);
            }
        }
    }

    /// Checks some of the others in turn. True where one is no more what it was.
    pub(super) fn prove_in_turn(&mut self) -> bool {
        let proofs = &self.ownership.proofs;
        let after = self.ownership.checked;
        let later = proofs.keys().filter(|ip| Some(**ip) > after);
        let earlier = proofs.keys().filter(|ip| Some(**ip) <= after);
        let turn: Vec<IpAddr> = later.chain(earlier).copied().take(CHECKED).collect();
        let working = |state: &Self| -> Vec<bool> {
            let proofs = state.ownership.proofs.values();
            proofs.map(|it| it.works).collect()
        };
        let before = working(self);
        for ip in turn {
            self.prove(ip);
            self.ownership.checked = Some(ip);
        }
        working(self) != before
    }

    /// Runs the datapath on packets to an address.
    fn prove(&mut self, ip: IpAddr) {
        let found = self.check(ip);
        let proof = self.ownership.proofs.entry(ip).or_insert(Proof {
            works: false,
            failures: 0,
            reason: None,
        });
        let worked = proof.works;
        match found {
            Ok(()) => {
                *proof = Proof {
                    works: true,
                    failures: 0,
                    reason: None,
                }
            }
            Err(reason) => {
                proof.failures = proof.failures.saturating_add(1);
                proof.works &= proof.failures < FAILURES;
                if !proof.works && (worked || proof.reason.as_ref() != Some(&reason)) {
                    tracing::warn!("{ip} is not announced from here: {reason}");
                }
                proof.reason = Some(reason);
            }
        }
    }

    /// Whether a packet to the address reaches a backend, by whatever service and interface.
    fn check(&mut self, ip: IpAddr) -> Result<(), String> {
        let Some(desired) = self.assigned() else {
            // What an earlier agent left, and had checked.
            return Ok(());
        };
        let on_it = |service: &Service| {
            let mut frontends = service.frontends.iter();
            let frontend = frontends.find(|it| it.addr.ip() == ip)?;
            Some((*frontend, client(service, ip)))
        };
        let probes: Vec<(Frontend, SocketAddr)> =
            desired.services.values().filter_map(on_it).collect();
        let interfaces: Vec<(u32, [u8; 6])> = self
            .attachments
            .values()
            .filter_map(|it| Some((it.ifindex, self.image.devices.get(&it.ifindex)?.mac)))
            .collect();
        let mut reason = "no service has it, or no interface is attached".to_owned();
        for (frontend, client) in probes {
            for &(ifindex, mac) in &interfaces {
                let probe = Probe {
                    client,
                    frontend: frontend.addr,
                    protocol: frontend.protocol,
                    ifindex,
                    mac,
                };
                match self.datapath.explain(&probe) {
                    Ok(found) if found.backend.is_some() && goes_on(found.verdict) => return Ok(()),
                    Ok(found) => {
                        let verdict = found.verdict;
                        reason = format!("a packet to {frontend} is {verdict}: {}", verdict.text());
                    }
                    Err(error) => reason = error.to_string(),
                }
            }
        }
        Err(reason)
    }
}

/// Whether a packet that a backend was found for gets on its way.
fn goes_on(verdict: Verdict) -> bool {
    verdict.fate() == Fate::Forward || verdict == Verdict::LeftToTc
}

/// A client whom the service admits; of networks that are for documentation otherwise
/// (RFC 5737, RFC 3849), which no neighbour has.
fn client(service: &Service, vip: IpAddr) -> SocketAddr {
    let of_family = |it: &&ipnet::IpNet| Family::of(it.addr()) == Family::of(vip);
    let admitted = service.source_ranges.iter().find(of_family);
    let ip = match (admitted, vip) {
        (Some(net), _) => net.hosts().next().unwrap_or(net.addr()),
        (None, IpAddr::V4(_)) => Ipv4Addr::new(192, 0, 2, 1).into(),
        (None, IpAddr::V6(_)) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    // The port of the service `discard`.
    SocketAddr::new(ip, 9)
}
