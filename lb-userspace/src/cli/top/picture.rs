//! What two answers of the agent say together: counters as rates, and who has which address
//! for how long.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
    time::Instant,
};

use lb_common::{Verdict, verdict::Fate};

use super::{
    rates::{Rates, rate, short},
    sample::{Sample, Timed},
};
use crate::{
    cli::show::{source_state, span},
    control::{Service, VerdictCount},
    source::flags::Vip,
};

/// What there is to see.
pub(super) struct Picture {
    /// The newest answer.
    pub(super) sample: Sample,
    /// Of each service, in their order.
    pub(super) services: Vec<Option<Rates>>,
    /// Of each backend, in their order.
    pub(super) backends: Vec<Option<Rates>>,
    /// Packets and bits of each verdict, in their order.
    pub(super) verdicts: Vec<Option<(f64, f64)>>,
    /// Of all services together.
    pub(super) total: Option<Rates>,
    /// Packets dropped.
    pub(super) drops: Option<f64>,
    /// Addresses that services have, node ports aside, and those that are announced.
    pub(super) owners: BTreeMap<IpAddr, Held>,
}

/// Who announces an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The node; none: nobody.
    pub(super) owner: Option<String>,
    /// Since when that is known to be so.
    pub(super) since: Instant,
    /// Whether it was seen to begin then.
    pub(super) seen: bool,
}

impl Picture {
    /// What the answer says after the one before.
    pub(super) fn new(sample: Sample, before: Option<&Self>) -> Self {
        let old = before.map(|it| &it.sample);
        let services = rates(
            &sample.services,
            old.map(|it| &it.services),
            key,
            |old, now, seconds| Rates::between(&old?.traffic, &now.traffic, seconds),
        );
        let backends = rates(
            &sample.backends,
            old.map(|it| &it.backends),
            |it| (it.service.clone(), it.id.clone()),
            |old, now, seconds| Rates::between(&old?.traffic, &now.traffic, seconds),
        );
        let verdicts = rates(
            &sample.verdicts,
            old.map(|it| &it.verdicts),
            |it| (it.hook.clone(), it.verdict.clone()),
            // What was not listed had not happened yet.
            |old, now, seconds| {
                let (packets, bytes) = old.map_or((0, 0), |it| (it.packets, it.bytes));
                let bits = 8.0 * rate(bytes, now.bytes, seconds)?;
                Some((rate(packets, now.packets, seconds)?, bits))
            },
        );
        let dropped = |(count, rate): (&VerdictCount, &Option<(f64, f64)>)| {
            let drop = verdict(&count.verdict).is_some_and(|it| it.fate() == Fate::Drop);
            rate.filter(|_| drop).map(|(packets, _)| packets)
        };
        let counted = sample.verdicts.is.iter().zip(&verdicts);
        Self {
            total: before.map(|_| Rates::sum(services.iter().flatten().copied())),
            drops: before.map(|_| counted.filter_map(dropped).sum()),
            owners: owners(&sample, before),
            services,
            backends,
            verdicts,
            sample,
        }
    }

    /// How the agent is and what goes by, in three lines.
    pub(super) fn headline(&self) -> [String; 3] {
        let status = &self.sample.status.is;
        let nodes = match &status.gossip {
            Some(gossip) if gossip.members.len() == 1 => "no other node there".to_owned(),
            Some(gossip) => format!("one of {} nodes", gossip.members.len()),
            None => "alone".to_owned(),
        };
        let devices = status.attachments.iter().map(|it| {
            let kind = if it.native { "native" } else { "generic" };
            format!(", {} {kind}", it.interface)
        });
        let (total, drops) = (self.total, self.drops);
        let show = |of: fn(Rates) -> f64| total.map_or_else(|| "-".to_owned(), |it| short(of(it)));
        [
            format!(
                "naru {} on {}, up {}, {nodes}{}",
                status.version,
                status.node,
                span(status.uptime),
                devices.collect::<String>(),
            ),
            format!(
                "source: {}, {}; {} service ports, {} backends",
                status.source.from,
                source_state(&status.source),
                status.services,
                status.backends,
            ),
            format!(
                "in {} pps, {} bps   out {} pps, {} bps   {} flows/s   {} drops/s",
                show(|it| it.packets_in),
                show(|it| it.bits_in),
                show(|it| it.packets_out),
                show(|it| it.bits_out),
                show(|it| it.flows),
                drops.map_or_else(|| "-".to_owned(), short),
            ),
        ]
    }

    /// What `naru status` warns of, the worst first, in one line; none where all is well. Whether
    /// it is bad, too.
    pub(super) fn alert(&self) -> Option<(String, bool)> {
        let status = &self.sample.status.is;
        let several = |count: usize, what: &str, first: &str| match count {
            1 => format!("1 {what}: {first}"),
            _ => format!("{count} {what}s, the first: {first}"),
        };
        let lost = status.gossip.iter().flat_map(|it| &it.lost);
        let lost = lost.map(|name| format!("node {name} is lost"));
        let missing = status.missing_interfaces.iter();
        let missing = missing.map(|name| format!("interface {name} does not exist"));
        let warnings = status.warnings.iter().cloned();
        let warnings: Vec<String> = lost.chain(missing).chain(warnings).collect();
        if let Some(first) = status.source.problems.first() {
            let count = status.source.problems.len();
            return Some((several(count, "problem", first), true));
        }
        if let Some(first) = warnings.first() {
            return Some((several(warnings.len(), "warning", first), true));
        }
        let first = status.source.notes.first()?;
        Some((several(status.source.notes.len(), "note", first), false))
    }
}

/// The rate of each, by what the same one had counted before.
fn rates<T, K: Hash + Eq, R>(
    now: &Timed<Vec<T>>,
    before: Option<&Timed<Vec<T>>>,
    key: impl Fn(&T) -> K,
    rate: impl Fn(Option<&T>, &T, f64) -> Option<R>,
) -> Vec<Option<R>> {
    let Some(before) = before else {
        return now.is.iter().map(|_| None).collect();
    };
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let old: HashMap<K, &T> = before.is.iter().map(|it| (key(it), it)).collect();
    let of = |it| rate(old.get(&key(it)).copied(), it, seconds);
    now.is.iter().map(of).collect()
}

/// What tells a service port from all others. One may be listed twice, with other frontends.
pub(super) fn key(it: &Service) -> String {
    let first = it.frontends.first().or(it.internal.first());
    format!("{} {}", it.name, first.map_or("", String::as_str))
}

/// The verdict of this name; none where the agent knows more of them than this command.
pub(super) fn verdict(name: &str) -> Option<Verdict> {
    Verdict::ALL.iter().find(|it| it.name() == name).copied()
}

/// Addresses that a service has, those aside where it is a node port.
pub(super) fn addresses(it: &Service) -> BTreeSet<IpAddr> {
    let all = it.frontends.iter().filter_map(|it| it.parse::<Vip>().ok());
    let own = all.filter(|Vip(frontend)| Some(frontend.addr.port()) != it.node_port);
    own.map(|Vip(frontend)| frontend.addr.ip()).collect()
}

fn owners(sample: &Sample, before: Option<&Picture>) -> BTreeMap<IpAddr, Held> {
    let status = &sample.status.is;
    let mut owners: BTreeMap<IpAddr, Option<String>> = BTreeMap::new();
    let served = sample.services.is.iter().flat_map(addresses);
    owners.extend(served.map(|ip| (ip, None)));
    let here = status.announced.iter();
    let here = here.filter(|it| it.state == "answering");
    owners.extend(here.map(|it| (it.vip, Some(status.node.clone()))));
    for (node, member) in status.gossip.iter().flat_map(|it| &it.members) {
        owners.extend(member.announces.iter().map(|ip| (*ip, Some(node.clone()))));
    }
    let held = |(ip, owner): (IpAddr, Option<String>)| {
        let known = before.and_then(|it| it.owners.get(&ip));
        let same = known.filter(|it| it.owner == owner).cloned();
        let held = same.unwrap_or(Held {
            owner,
            since: sample.status.at,
            seen: before.is_some(),
        });
        (ip, held)
    };
    owners.into_iter().map(held).collect()
}
