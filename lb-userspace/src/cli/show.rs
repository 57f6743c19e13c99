//! Replies of the agent as tables for people or JSON for programs.

use comfy_table::{CellAlignment, Table, presets};

use super::{Format, owner};
use crate::{
    control::{
        Backend, Drained, Explanation, Flows, Health, Members, Pools, Reply, Service, SourceStatus,
        Status, Traffic,
    },
    ipam::{Count, PoolUse},
};

/// Prints a reply.
pub(super) fn reply(reply: &Reply, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let json = match reply {
            Reply::Status(status) => serde_json::to_string_pretty(status),
            Reply::Services(services) => serde_json::to_string_pretty(services),
            Reply::Backends(backends) => serde_json::to_string_pretty(backends),
            Reply::Pools(pools) => serde_json::to_string_pretty(pools),
            Reply::Owner(owner) => serde_json::to_string_pretty(owner),
            Reply::Flows(flows) => serde_json::to_string_pretty(flows),
            Reply::Explain(explanation) => serde_json::to_string_pretty(explanation),
            Reply::Drained(drained) => serde_json::to_string_pretty(drained),
            Reply::Failed(reason) => serde_json::to_string_pretty(reason),
        }?;
        println!("{json}");
        return Ok(());
    }
    match reply {
        Reply::Status(status) => print_status(status),
        Reply::Services(services) => print_services(services),
        Reply::Backends(backends) => print_backends(backends),
        Reply::Pools(pools) => print_pools(pools),
        Reply::Owner(it) => owner::print(it),
        Reply::Flows(flows) => print_flows(flows),
        Reply::Explain(explanation) => print_explanation(explanation),
        Reply::Drained(drained) => print_drained(drained),
        Reply::Failed(reason) => println!("{reason}"),
    }
    Ok(())
}

/// A table as kubectl prints them: capitals on top, no lines. Columns from `numbers` on
/// are flush right.
pub(super) fn table(head: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table without the space at the ends of its lines.
pub(super) fn print(table: &Table) {
    println!("{}", table.trim_fmt());
}

fn print_status(status: &Status) {
    println!(
        "naru {} on {}, pid {}, up {}",
        status.version,
        status.node,
        status.pid,
        span(status.uptime)
    );
    let state = source_state(&status.source);
    println!("source: {}, {state}", status.source.from);
    for problem in &status.source.problems {
        println!("  problem: {problem}");
    }
    for note in &status.source.notes {
        println!("  note: {note}");
    }
    println!(
        "in force: {} service ports, {} backends; pinned in {} (ABI {})",
        status.services,
        status.backends,
        status.pin_dir.display(),
        status.abi
    );
    if let Some(cgroup) = &status.cgroup {
        println!("sockets: processes in {}", cgroup.display());
    }
    if !status.drained.is_empty() {
        println!("drained by hand: {}", status.drained.join(", "));
    }
    for warning in &status.warnings {
        println!("WARNING: {warning}");
    }
    for name in &status.missing_interfaces {
        println!("WARNING: interface {name} does not exist; waiting for it");
    }

    println!();
    let mut interfaces = table(&["INTERFACE", "INDEX", "XDP", "TC"], 9);
    for it in &status.attachments {
        let kind = if it.native { "native" } else { "generic" };
        let index = it.ifindex.to_string();
        interfaces.add_row([&it.interface, &index, kind, it.tc.name()]);
    }
    print(&interfaces);
    if let Some(gossip) = &status.gossip {
        print_members(gossip);
    }
    if !status.announced.is_empty() {
        println!();
        let head = &[
            "VIP",
            "INTERFACE",
            "STATE",
            "REQUESTS",
            "REPLIES",
            "GRATUITOUS",
            "CONFLICTS",
        ];
        let mut announced = table(head, 3);
        for it in &status.announced {
            announced.add_row([
                it.vip.to_string(),
                it.interface.clone(),
                it.state.clone(),
                it.requests_received.to_string(),
                it.responses_sent.to_string(),
                it.gratuitous_sent.to_string(),
                it.conflicts.to_string(),
            ]);
        }
        print(&announced);
    }
    if !status.verdicts.is_empty() {
        println!();
        let mut verdicts = table(&["HOOK", "VERDICT", "PACKETS", "BYTES"], 2);
        for it in &status.verdicts {
            verdicts.add_row([
                &it.hook,
                &it.verdict,
                &it.packets.to_string(),
                &it.bytes.to_string(),
            ]);
        }
        print(&verdicts);
    }
}

/// Whether what is in force is what the source says.
pub(super) fn source_state(source: &SourceStatus) -> String {
    match (source.current, source.age) {
        (true, Some(age)) => format!("in force since {}", span(age)),
        (false, Some(age)) => format!("REFUSED; the state of {} ago stays in force", span(age)),
        (_, None) => "REFUSED; what an earlier agent left stays in force".to_owned(),
    }
}

fn traffic(traffic: &Traffic) -> [String; 5] {
    [
        traffic.flows,
        traffic.packets_in,
        traffic.bytes_in,
        traffic.packets_out,
        traffic.bytes_out,
    ]
    .map(|n| n.to_string())
}

const TRAFFIC: [&str; 5] = ["FLOWS", "PKTS-IN", "BYTES-IN", "PKTS-OUT", "BYTES-OUT"];

fn print_services(services: &[Service]) {
    if services.is_empty() {
        println!("no services");
        return;
    }
    let head = [
        &["SERVICE", "FRONTENDS", "ALGORITHM", "SLOTS", "BACKENDS"][..],
        &TRAFFIC,
    ]
    .concat();
    let mut table = table(&head, 3);
    for it in services {
        let row = [
            it.name.clone(),
            frontends(it),
            it.algorithm.clone(),
            it.slots.to_string(),
            it.backends.to_string(),
        ];
        table.add_row(row.into_iter().chain(traffic(&it.traffic)));
    }
    print(&table);
    for it in services {
        if let Some(why) = &it.without_address {
            println!("{} has no address: {why}", it.name);
        }
    }
}

/// Where a service is reached, in one line.
pub(super) fn frontends(it: &Service) -> String {
    let internal = it.internal.iter().map(|it| format!("{it} (internal)"));
    let all: Vec<_> = it.frontends.iter().cloned().chain(internal).collect();
    match all.as_slice() {
        [] => "-".to_owned(),
        all => all.join(", "),
    }
}

fn print_backends(backends: &[Backend]) {
    if backends.is_empty() {
        println!("no backends");
        return;
    }
    let first = &[
        "SERVICE",
        "ADDRESS",
        "NAME",
        "NODE",
        "MODE",
        "CONDITION",
        "HEALTH",
        "WEIGHT",
    ][..];
    let mut table = table(&[first, &TRAFFIC].concat(), 7);
    for it in backends {
        let row = [
            it.service.clone(),
            it.address.to_string(),
            it.name.clone().unwrap_or_else(|| "-".to_owned()),
            it.node.clone().unwrap_or_else(|| "-".to_owned()),
            it.mode.clone(),
            it.condition.clone(),
            it.health.as_ref().map_or_else(|| "-".to_owned(), health),
            it.weight.to_string(),
        ];
        table.add_row(row.into_iter().chain(traffic(&it.traffic)));
    }
    print(&table);
}

fn print_members(gossip: &Members) {
    println!();
    let mut members = table(&["NODE", "GOSSIP", "STATE", "ANNOUNCES"], 9);
    for (name, it) in &gossip.members {
        let announces: Vec<_> = it.announces.iter().map(ToString::to_string).collect();
        let address = it.address.to_string();
        members.add_row([name, &address, &it.state, &announces.join(" ")]);
    }
    for name in &gossip.lost {
        members.add_row([name, "-", "LOST", ""]);
    }
    print(&members);
    if !gossip.running {
        println!("WARNING: gossip has ended; restart the agent");
    } else if !gossip.settled {
        println!("looking for other nodes; nothing is announced until then");
    }
    if gossip.rejected > 0 {
        println!(
            "{} datagrams were ignored: nodes with another gossip key, or forgers",
            gossip.rejected
        );
    }
}

fn print_pools(it: &Pools) {
    if it.pools.is_empty() {
        println!("no pools");
    } else {
        let head = [
            "POOL",
            "AUTO",
            "ANNOUNCED",
            "ADDRESSES",
            "SIZE",
            "IN-USE",
            "FREE",
        ];
        let mut table = table(&head, 4);
        for it in &it.pools {
            let auto = match (it.auto_assign, it.restricted) {
                (true, false) => "yes",
                (true, true) => "for some",
                (false, _) => "no",
            };
            let announced = match it.advertisements.as_slice() {
                [] => "no".to_owned(),
                by => by.join(", "),
            };
            table.add_row([
                it.name.clone(),
                auto.to_owned(),
                announced,
                it.ranges.join(", "),
                count(it, it.size),
                count(it, it.in_use),
                count(it, it.free),
            ]);
        }
        print(&table);
    }
    let given = it.pools.iter().flat_map(|pool| {
        let given = pool.given.iter();
        given.map(|(ip, names)| (pool.name.clone(), ip, names))
    });
    let mut given = given.peekable();
    if given.peek().is_some() {
        println!();
        let mut table = table(&["ADDRESS", "POOL", "SERVICES"], 3);
        for (pool, ip, names) in given {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            table.add_row([ip.to_string(), pool, names.join(", ")]);
        }
        print(&table);
    }
    if !it.without_address.is_empty() {
        println!();
    }
    for (name, why) in &it.without_address {
        println!("{name} has no address: {why}");
    }
}

/// A count by family: the families that a pool has.
fn count(pool: &PoolUse, of: Count) -> String {
    let families = [(pool.size.v4, of.v4, "v4"), (pool.size.v6, of.v6, "v6")];
    let there: Vec<_> = families.iter().filter(|(size, ..)| *size > 0).collect();
    match there.as_slice() {
        [(_, count, _)] => number(*count),
        several => {
            let several = several
                .iter()
                .map(|(_, count, name)| format!("{name} {}", number(*count)));
            several.collect::<Vec<_>>().join(", ")
        }
    }
}

fn number(count: u64) -> String {
    match count {
        u64::MAX => "≥2^64".to_owned(),
        count => count.to_string(),
    }
}

/// What the checks of an endpoint have found, and for how long.
pub(super) fn health(health: &Health) -> String {
    let state = format!("{} {}", health.state, span(health.since));
    match &health.error {
        Some(error) => format!("{state}: {error}"),
        None => state,
    }
}

fn print_flows(flows: &Flows) {
    if flows.flows.is_empty() {
        println!("no flows");
        return;
    }
    let head = [
        "PROTO", "CLIENT", "FRONTEND", "BACKEND", "SNAT", "STATE", "IDLE",
    ];
    let mut table = table(&head, 6);
    for it in &flows.flows {
        let or_dash = |addr: Option<std::net::SocketAddr>| {
            addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string())
        };
        table.add_row([
            it.protocol.clone(),
            it.client.to_string(),
            it.frontend.to_string(),
            or_dash(it.backend),
            or_dash(it.snat),
            it.state.clone(),
            format!("{}s", it.idle),
        ]);
    }
    print(&table);
    if flows.more {
        println!("… and more: raise --limit");
    }
}

fn print_drained(it: &Drained) {
    let backends: Vec<_> = it.backends.iter().map(ToString::to_string).collect();
    let backends = match backends.as_slice() {
        [] => "no backend at the moment".to_owned(),
        some => some.join(", "),
    };
    if it.undone {
        println!("{} takes new flows again: {backends}", it.target);
        return;
    }
    println!("{} is drained: {backends}", it.target);
    for service in &it.without {
        println!("WARNING: {service} has no backend left that takes new flows");
    }
}

fn print_explanation(it: &Explanation) {
    let none = || "-".to_owned();
    println!("verdict:   {} ({})", it.verdict, it.meaning);
    println!("comes in:  {}", it.interface);
    println!("service:   {}", it.service.clone().unwrap_or_else(none));
    let chosen = match (it.from_flow, it.slot) {
        (true, _) => "by the flow's record".to_owned(),
        (false, Some(slot)) => format!("by slot {slot}"),
        (false, None) => none(),
    };
    println!("chosen:    {chosen}");
    if let (Some(backend), Some(mode)) = (it.backend, &it.mode) {
        println!("backend:   {backend} ({mode})");
    }
    if let (Some(source), Some(destination)) = (it.source, it.destination) {
        println!("rewritten: {source} → {destination}");
        let way = it.egress.as_deref().unwrap_or("delivered by the stack");
        println!("goes out:  {way}");
    }
}

/// Seconds as people say them.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
