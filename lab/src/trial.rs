//! One fault, seen from outside: requests, connections and questions for the owner go on
//! while something happens to the cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Condition};
use crate::error::Result;
use crate::held::{Connection, HeldOpen};
use crate::owner::OwnerWatch;
use crate::prober::{Ports, Prober};
use crate::timeline::{Ownership, Requests};

/// An answer may be under way for so long before it is missed.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// How a fault is looked at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address and port that clients use, over TCP and UDP.
    pub service: (Ipv4Addr, u16),
    /// The time from one request to the next.
    pub period: Duration,
    /// Where requests come from.
    pub ports: Ports,
    /// How many connections are held open.
    pub held: usize,
    /// The client that asks.
    pub client: String,
    /// Another one, which only asks who the owner is: for the far side of a split.
    pub far: Option<String>,
    /// How long all is watched before anything happens.
    pub before: Duration,
    /// How long it is watched once that is done, at least and at most.
    pub after: (Duration, Duration),
    /// It is over early when for so long every request was answered and one owner stayed.
    pub calm: Duration,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it happened: just before the first thing was done.
    pub fault: Duration,
    /// The time from one question for the owner to the next.
    pub period: Duration,
    /// What the client asked and got.
    pub requests: Requests,
    /// Whose the address was, to the client.
    pub near: Ownership,
    /// The same to the other client.
    pub far: Option<Ownership>,
    /// The connections: whether each goes on, and where it came from.
    pub connections: Vec<(Connection, Fate)>,
    /// Whether calm had come back in time.
    pub calm: bool,
}

/// What became of a connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It goes on.
    Alive,
    /// Its pod is on a node that has no power, hangs, or is cut off.
    PodGone,
    /// Its pod lives, but its slot leads to another one now.
    SlotChanged,
    /// Its pod lives and its slot still leads there.
    Unexplained,
}

/// The numbers of one trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests made after the fault.
    pub requests: usize,
    /// Those of all that were never answered.
    pub lost: usize,
    /// The longest time between two answers, in ms; none: no answer came any more.
    pub gap: Option<u64>,
    /// From the fault to the last request that was lost, in ms.
    pub lossy: u64,
    /// The time in which nobody answered for the address, in ms.
    pub unowned: u64,
    /// The time in which several did, in ms, on the side where it was longer.
    pub several: u64,
    /// From the fault to the last answer of more than one, in ms.
    pub single_after: u64,
    /// How often the owner changed.
    pub changes: usize,
    /// Connections by what became of them.
    pub connections: BTreeMap<Fate, usize>,
    /// Whether calm had come back in time.
    pub calm: bool,
}

// === impl Plan ===

impl Plan {
    /// The tutorial's service, by the first client, as the project's bounds are stated: a
    /// request every 10 ms, each a new flow.
    pub fn new(cluster: &Cluster) -> Self {
        let service = &cluster.services()[0];
        Self {
            service: (service.address, service.port),
            period: Duration::from_millis(10),
            ports: Ports::Fresh,
            held: 0,
            client: cluster.lab().topology().clients[0].name.clone(),
            far: None,
            before: Duration::from_secs(1),
            after: (Duration::from_secs(3), Duration::from_secs(15)),
            calm: Duration::from_millis(1500),
        }
    }

    /// The same with connections, which need longer to show whether they live: a segment
    /// that was lost is sent again after up to 3.2 s.
    #[must_use]
    pub fn holding(self, count: usize) -> Self {
        Self {
            held: count,
            after: (Duration::from_secs(5), self.after.1),
            ..self
        }
    }

    /// Watches the cluster while `act` does something to it.
    pub fn observe(
        &self,
        cluster: &Cluster,
        act: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<Seen> {
        let (lab, began) = (cluster.lab(), Instant::now());
        let to = SocketAddr::from(self.service);
        let namespace = lab.node(&self.client);
        let asking = self.asking();
        let watch = |from: &str| OwnerWatch::start(lab, from, self.service.0, asking, began);
        let held = HeldOpen::open(namespace, to, self.held)?;
        let near = watch(&self.client)?;
        let far = self.far.as_deref().map(watch).transpose()?;
        let prober = Prober::start(namespace, to, self.period, self.ports, began);
        sleep(self.before);
        let fault = began.elapsed();
        act(cluster)?;
        let calm = self.wait_calm(began, &prober, &near);
        let recent = Duration::from_secs(1);
        let connections: Vec<_> = held
            .close()?
            .into_iter()
            .map(|it| (it.is_alive(recent), it))
            .collect();
        let requests = prober.stop()?;
        let near = near.stop()?;
        let far = far.map(OwnerWatch::stop).transpose()?;
        let fates = connections.into_iter().map(|(alive, connection)| {
            let fate = if alive {
                Fate::Alive
            } else {
                why(cluster, self, &connection)
            };
            (connection, fate)
        });
        Ok(Seen {
            fault,
            period: asking,
            requests,
            near,
            far,
            connections: fates.collect(),
            calm,
        })
    }

    /// The owner is asked for as often as requests are made, but no more than every 10 ms:
    /// all machines hear that.
    fn asking(&self) -> Duration {
        self.period.max(Duration::from_millis(10))
    }

    /// Waits as the plan says; tells whether calm has come back.
    fn wait_calm(&self, began: Instant, prober: &Prober, near: &OwnerWatch) -> bool {
        let (least, most) = self.after;
        let done = began.elapsed();
        loop {
            sleep(Duration::from_millis(100));
            let now = began.elapsed();
            let since = now.saturating_sub(self.calm + UNDER_WAY);
            let calm = since >= done && is_calm(&prober.requests(), &near.ownership(), since, now);
            if (calm && now >= done + least) || now >= done + most {
                return calm;
            }
        }
    }
}

/// Whether all that was asked from then on, and not only just now, was answered, by one
/// owner where somebody asked for that.
fn is_calm(requests: &Requests, ownership: &Ownership, since: Duration, now: Duration) -> bool {
    let until = now.saturating_sub(UNDER_WAY);
    let recent = requests.0.iter().rev().take_while(|it| it.sent >= since);
    let mut due = recent.filter(|it| it.sent <= until);
    due.all(|it| it.answer.is_some()) && ownership.since(since).len() == 1
}

/// Why a connection is no longer what it was, asked of a node that has not seen it.
fn why(cluster: &Cluster, plan: &Plan, connection: &Connection) -> Fate {
    let topology = cluster.lab().topology();
    let pod = topology.pods.iter().find(|it| it.name == connection.pod);
    let Some(pod) = pod else {
        return Fate::Unexplained;
    };
    if cluster.condition(&pod.node) != Condition::Up {
        return Fate::PodGone;
    }
    let (vip, port) = plan.service;
    let (from, to) = (connection.from.to_string(), format!("{vip}:{port}"));
    let own = format!("{}:{}", pod.address, pod.port);
    let told = topology.nodes.iter().filter_map(|node| {
        let agent = cluster.agent(&node.name).ok()?;
        let told = agent.json(&["explain", &from, &to]).ok()?;
        let fresh = told["from_flow"] == serde_json::json!(false);
        fresh.then(|| told["backend"].as_str().unwrap_or_default() == own)
    });
    match told.into_iter().next() {
        Some(false) => Fate::SlotChanged,
        _ => Fate::Unexplained,
    }
}

// === impl Seen ===

impl Seen {
    /// The numbers.
    pub fn outcome(&self) -> Outcome {
        let sides = || [Some(&self.near), self.far.as_ref()].into_iter().flatten();
        let longest =
            |of: &dyn Fn(&Ownership) -> Duration| ms(sides().map(of).max().unwrap_or_default());
        let mut connections = BTreeMap::new();
        for (_, fate) in &self.connections {
            *connections.entry(*fate).or_default() += 1;
        }
        Outcome {
            requests: self.requests.since(self.fault),
            lost: self.requests.lost(),
            gap: self.requests.longest_gap(self.fault).map(ms),
            lossy: ms(self.requests.healthy_after(self.fault)),
            unowned: ms(self.near.without(self.fault, self.period)),
            several: longest(&|it| it.with_several(self.fault)),
            single_after: longest(&|it| it.single_after(self.fault)),
            changes: self.near.owners().len().saturating_sub(1),
            connections,
            calm: self.calm,
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
