//! The views, each a table of what the picture holds.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use clap::ValueEnum;
use lb_common::verdict::Fate;

use super::{
    picture::{Picture, addresses, key, verdict},
    rates::Rates,
    sheet::{Cell, Column, Mood, Row, Sheet},
};
use crate::{
    cli::{owner, show},
    control::{Backend, Owner, Service},
    source::flags::Vip,
};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// Services, with the owners of their addresses
    Services,
    /// Backends, and who gets how many of the new flows
    Backends,
    /// Which node announces each virtual IP
    Owners,
    /// What becomes of packets, drops and passes by reason
    Verdicts,
}

static SERVICES: [Column; 10] = [
    Column::text("SERVICE", 0),
    Column::text("FRONTENDS", 1),
    Column::text("OWNER", 2),
    Column::text("ALGORITHM", 5),
    Column::number("READY", 0),
    Column::number("FLOWS/S", 0),
    Column::number("PPS-IN", 0),
    Column::number("PPS-OUT", 0),
    Column::number("BPS-IN", 4),
    Column::number("BPS-OUT", 3),
];
static BACKENDS: [Column; 13] = [
    Column::text("SERVICE", 1),
    Column::text("BACKEND", 0),
    Column::text("ADDRESS", 4),
    Column::text("NODE", 2),
    Column::text("MODE", 7),
    Column::text("STATE", 0),
    Column::number("WEIGHT", 6),
    Column::number("SHARE", 0),
    Column::number("FLOWS/S", 0),
    Column::number("PPS-IN", 0),
    Column::number("PPS-OUT", 3),
    Column::number("BPS-IN", 8),
    Column::number("BPS-OUT", 5),
];
static OWNERS: [Column; 6] = [
    Column::text("VIP", 0),
    Column::text("OWNER", 0),
    Column::text("HERE", 1),
    Column::text("SERVICES", 2),
    Column::number("FOR", 0),
    Column::number("CONFLICTS", 3),
];
static VERDICTS: [Column; 6] = [
    Column::text("VERDICT", 0),
    Column::text("FATE", 0),
    Column::text("HOOK", 1),
    Column::number("PACKETS", 2),
    Column::number("PPS", 0),
    Column::number("BPS", 3),
];

impl View {
    /// All, as the keys 1 to 4 have them.
    pub(super) const ALL: [Self; 4] =
        [Self::Services, Self::Backends, Self::Owners, Self::Verdicts];

    /// What the tab says.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Services => "Services",
            Self::Backends => "Backends",
            Self::Owners => "Owners",
            Self::Verdicts => "Verdicts",
        }
    }

    /// Its columns.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Services => &SERVICES,
            Self::Backends => &BACKENDS,
            Self::Owners => &OWNERS,
            Self::Verdicts => &VERDICTS,
        }
    }

    /// The column that it is sorted by at first: what is busiest, or else what it is about.
    pub(super) fn main_column(self) -> usize {
        let name = match self {
            Self::Services => "PPS-IN",
            Self::Verdicts => "PPS",
            Self::Backends | Self::Owners => return 0,
        };
        let place = self.columns().iter().position(|it| it.name == name);
        place.unwrap_or_default()
    }

    /// Its table, in the order of names: of one service's backends alone, where one is named, and
    /// with what the agent says of the owner of an address.
    pub(super) fn sheet(self, of: &Picture, service: Option<&str>, asked: Option<&Owner>) -> Sheet {
        let rows = match self {
            Self::Services => services(of),
            Self::Backends => backends(of, service),
            Self::Owners => owners(of, asked),
            Self::Verdicts => verdicts(of),
        };
        let columns = self.columns();
        Sheet { columns, rows }
    }
}

fn services(of: &Picture) -> Vec<Row> {
    let mut known: HashMap<(&str, bool), usize> = HashMap::new();
    for it in &of.sample.backends.is {
        let family = (it.service.as_str(), it.address.is_ipv6());
        *known.entry(family).or_default() += 1;
    }
    let row = |(it, rates): (&Service, &Option<Rates>)| {
        let all = known.get(&(it.name.as_str(), is_v6(it)));
        // A table may have slots of what is about to go.
        let all = all.copied().unwrap_or_default().max(it.backends);
        let mut detail = show::frontends(it);
        if let Some(why) = &it.without_address {
            detail = format!("{detail}; no address: {why}");
        }
        Row {
            key: key(it),
            cells: vec![
                Cell::Text(it.name.clone()),
                Cell::Text(frontends(it)),
                Cell::Text(owners_of(it, of)),
                Cell::Text(it.algorithm.clone()),
                Cell::Of(it.backends, all),
                Cell::Rate(rates.map(|it| it.flows)),
                Cell::Rate(rates.map(|it| it.packets_in)),
                Cell::Rate(rates.map(|it| it.packets_out)),
                Cell::Rate(rates.map(|it| it.bits_in)),
                Cell::Rate(rates.map(|it| it.bits_out)),
            ],
            mood: match it.backends {
                0 => Mood::Bad,
                some if some < all => Mood::Odd,
                _ => Mood::Well,
            },
            detail,
        }
    };
    let all = of.sample.services.is.iter();
    all.zip(&of.services).map(row).collect()
}

fn is_v6(it: &Service) -> bool {
    let first = it.frontends.first().or(it.internal.first());
    let first = first.and_then(|it| it.parse::<Vip>().ok());
    first.is_some_and(|Vip(frontend)| frontend.addr.is_ipv6())
}

/// The first one, without what goes without saying, and how many more there are: addresses of its
/// own before those of the node.
fn frontends(it: &Service) -> String {
    let node_port = it.node_port.map(|port| format!(":{port}/"));
    let on_node = |it: &&String| node_port.as_ref().is_some_and(|port| it.contains(port));
    let own = it.frontends.iter().find(|it| !on_node(it));
    let first = own.or(it.frontends.first()).or(it.internal.first());
    let Some(first) = first else {
        return "-".to_owned();
    };
    let first = first.strip_suffix("/tcp").unwrap_or(first);
    match it.frontends.len() + it.internal.len() {
        1 => first.to_owned(),
        all => format!("{first} +{}", all - 1),
    }
}

fn owners_of(it: &Service, of: &Picture) -> String {
    let addresses = addresses(it);
    let owners = addresses.iter().filter_map(|ip| of.owners.get(ip));
    let mut owners: Vec<&str> = owners.filter_map(|it| it.owner.as_deref()).collect();
    owners.sort_unstable();
    owners.dedup();
    match owners.as_slice() {
        [] => "-".to_owned(),
        some => some.join(","),
    }
}

fn backends(of: &Picture, service: Option<&str>) -> Vec<Row> {
    let all = || of.sample.backends.is.iter().zip(&of.backends);
    let mut flows: HashMap<&str, f64> = HashMap::new();
    for (it, rates) in all() {
        *flows.entry(&it.service).or_default() += rates.map_or(0.0, |it| it.flows);
    }
    let row = |(it, rates): (&Backend, &Option<Rates>)| {
        let together = flows.get(it.service.as_str()).filter(|all| **all > 0.0);
        let share = rates.and_then(|it| together.map(|all| it.flows / all));
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let address = it.address.to_string();
        let health = it.health.as_ref().map(show::health);
        let health = health.map(|it| format!(", {it}")).unwrap_or_default();
        Row {
            key: format!("{} {address}", it.service),
            cells: vec![
                Cell::Text(it.service.clone()),
                Cell::Text(it.name.clone().unwrap_or_else(|| address.clone())),
                Cell::Text(address.clone()),
                Cell::Text(or_dash(&it.node)),
                Cell::Text(it.mode.clone()),
                Cell::Text(it.condition.clone()),
                Cell::Count(it.weight.into()),
                Cell::Share(share),
                Cell::Rate(rates.map(|it| it.flows)),
                Cell::Rate(rates.map(|it| it.packets_in)),
                Cell::Rate(rates.map(|it| it.packets_out)),
                Cell::Rate(rates.map(|it| it.bits_in)),
                Cell::Rate(rates.map(|it| it.bits_out)),
            ],
            mood: match it.condition.as_str() {
                "ready" => Mood::Well,
                "draining" | "drained" => Mood::Odd,
                _ => Mood::Bad,
            },
            detail: format!(
                "{} at {address} by {}, weight {}{health}",
                it.service, it.mode, it.weight
            ),
        }
    };
    let wanted = |(it, _): &(&Backend, _)| service.is_none_or(|name| it.service == name);
    all().filter(wanted).map(row).collect()
}

fn owners(of: &Picture, asked: Option<&Owner>) -> Vec<Row> {
    let mut names: HashMap<IpAddr, Vec<&str>> = HashMap::new();
    for it in &of.sample.services.is {
        for ip in addresses(it) {
            names.entry(ip).or_default().push(&it.name);
        }
    }
    let status = &of.sample.status;
    let row = |(ip, held): (&IpAddr, &super::picture::Held)| {
        let here = status.is.announced.iter().filter(|it| it.vip == *ip);
        let mut seen = HashSet::new();
        let states = here.clone().filter(|it| seen.insert(&it.state));
        let states: Vec<_> = states.map(|it| it.state.as_str()).collect();
        let conflicts = here.map(|it| it.conflicts).sum();
        let answer = asked.filter(|it| it.ip == *ip);
        Row {
            key: ip.to_string(),
            cells: vec![
                Cell::Ip(*ip),
                Cell::Text(held.owner.clone().unwrap_or_else(|| "nobody".to_owned())),
                Cell::Text(match states.as_slice() {
                    [] => "-".to_owned(),
                    some => some.join(", "),
                }),
                Cell::Text(
                    names
                        .get(ip)
                        .map_or_else(|| "-".to_owned(), |it| it.join(", ")),
                ),
                Cell::For {
                    seconds: status.at.saturating_duration_since(held.since).as_secs(),
                    more: !held.seen,
                },
                Cell::Count(conflicts),
            ],
            mood: match (&held.owner, conflicts) {
                (None, _) => Mood::Odd,
                (Some(_), 0) => Mood::Well,
                (Some(_), _) => Mood::Bad,
            },
            detail: answer.map_or_else(|| format!("{ip}: asking the agent"), owner::in_short),
        }
    };
    of.owners.iter().map(row).collect()
}

fn verdicts(of: &Picture) -> Vec<Row> {
    let all = of.sample.verdicts.is.iter().zip(&of.verdicts);
    let mut rows: Vec<Row> = all
        .map(|(it, rates)| {
            let known = verdict(&it.verdict);
            let (fate, mood) = match known.map(|it| it.fate()) {
                Some(Fate::Pass) => ("pass", Mood::Well),
                Some(Fate::Forward) => ("forward", Mood::Well),
                Some(Fate::Refuse) => ("refuse", Mood::Well),
                Some(Fate::Drop) => ("drop", Mood::Odd),
                None => ("-", Mood::Well),
            };
            let flows_by = rates.is_some_and(|(packets, _)| packets > 0.0);
            Row {
                key: format!("{} {}", it.verdict, it.hook),
                cells: vec![
                    Cell::Text(it.verdict.clone()),
                    Cell::Text(fate.to_owned()),
                    Cell::Text(it.hook.clone()),
                    Cell::Count(it.packets),
                    Cell::Rate(rates.map(|(packets, _)| packets)),
                    Cell::Rate(rates.map(|(_, bits)| bits)),
                ],
                mood: if flows_by { mood } else { Mood::Well },
                detail: known.map_or_else(String::new, |it| it.text().to_owned()),
            }
        })
        .collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}
