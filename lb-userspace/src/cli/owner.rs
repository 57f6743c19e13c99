//! `naru owner`: who announces an address, asked of the agent or worked out here.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, process::ExitCode};

use super::{Output, ask, show};
use crate::{
    control::{Owner, Reply, Request},
    desired::Desired,
    election::{self, Field, Standing, Subject},
    ipam::{self, Authority, Ledger},
    source::Source,
};

const EXAMPLES: &str = "\
The order is MetalLB's: of the nodes that may announce the address, those that its
L2Advertisements prefer come first, and among equals the bytes of sha256(NODE#ADDRESS) decide.

Examples:
  naru owner 192.168.56.11                          among the nodes that are there: asks the agent
  naru owner 192.168.56.11 --nodes nuc01,nuc02      if only these were there
  naru owner 192.168.56.11 --nodes nuc01,nuc02,nuc03 --manifests /etc/naru/manifests
                                                    without an agent, as these manifests have it
  naru owner 192.168.56.11 --nodes nuc01,nuc02,nuc03 --offline
                                                    by the names alone";

/// Arguments of `naru owner`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The address
    ip: IpAddr,
    /// The nodes to elect among, instead of those that are there
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    nodes: Option<Vec<String>>,
    /// Go by a directory of Kubernetes YAML instead of asking the agent; without --nodes all
    /// Node objects take part
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Ask no agent: go by the names alone
    #[arg(long, requires = "nodes", conflicts_with = "manifests")]
    offline: bool,
    #[command(flatten)]
    output: Output,
}

/// Asks the agent, or works it out.
///
/// # Errors
/// Where no agent answers, or the manifests are refused.
pub(super) fn run(args: Args, state_dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    let Args {
        ip,
        nodes,
        manifests,
        offline,
        output,
    } = args;
    let desired = match manifests {
        Some(dir) => {
            let wanted = Source::Manifests(dir).load()?.desired;
            ipam::assign(&wanted, &Ledger::default(), Authority::This).desired
        }
        None if offline => Desired::default(),
        None => return ask(state_dir, &Request::Owner { ip, nodes }, output.output),
    };
    let nodes = nodes.unwrap_or_else(|| desired.nodes.keys().cloned().collect());
    anyhow::ensure!(
        !nodes.is_empty(),
        "the manifests have no Node objects: name the nodes with --nodes"
    );
    let owner = of(ip, &nodes, &desired);
    show::reply(&Reply::Owner(owner), output.output)?;
    Ok(ExitCode::SUCCESS)
}

/// The election among these nodes, if all were there and well.
fn of(ip: IpAddr, nodes: &[String], desired: &Desired) -> Owner {
    let members: BTreeMap<String, Standing> = nodes
        .iter()
        .map(|it| (it.clone(), Standing::default()))
        .collect();
    let field = Field {
        members: &members,
        nodes: &desired.nodes,
        sticky: false,
    };
    let subject = election::subjects(desired).remove(&ip);
    let elected = match &subject {
        Some(subject) => election::elect(subject, &field),
        None => election::elect(&Subject::bare(ip), &field),
    };
    Owner::new(ip, subject.as_ref(), &elected)
}

/// Who announces the address, or why nobody does.
fn outcome(owner: &Owner) -> String {
    match (&owner.owner, &owner.nobody) {
        (Some(node), _) => format!("{}: {node} announces it", owner.ip),
        (None, Some(why)) => format!("{}: nobody announces it: {why}", owner.ip),
        (None, None) => format!("{}: nobody announces it", owner.ip),
    }
}

/// An election in one sentence: who announces the address, and in which order the others would.
pub(super) fn in_short(owner: &Owner) -> String {
    let mut text = outcome(owner);
    let others = owner
        .order
        .iter()
        .filter(|it| Some(&it.node) != owner.owner.as_ref());
    for (index, it) in others.enumerate() {
        text.push_str(if index == 0 { "; then " } else { ", " });
        text.push_str(&it.node);
        if let Some(why) = &it.why {
            text.push_str(&format!(" (not now: {why})"));
        }
    }
    text
}

/// Prints an election for people.
pub(super) fn print(owner: &Owner) {
    println!("{}", outcome(owner));
    if owner.together.len() > 1 {
        let all: Vec<_> = owner.together.iter().map(IpAddr::to_string).collect();
        println!("stay together: {}", all.join(", "));
    }
    if owner.services.is_empty() {
        println!("no service that is known has this address");
    } else {
        println!("services: {}", owner.services.join(", "));
    }
    println!();
    let mut rows = show::table(
        &["RANK", "NODE", "PREFERENCE", "HASH", "ANNOUNCES", "WHY NOT"],
        9,
    );
    for (rank, it) in (1..).zip(&owner.order) {
        let rank: String = match it.objection {
            None => rank.to_string(),
            Some(_) => "-".to_owned(),
        };
        rows.add_row([
            rank,
            it.node.clone(),
            it.preference.to_string(),
            it.hash.clone(),
            if it.announces { "yes" } else { "no" }.to_owned(),
            it.why.clone().unwrap_or_default(),
        ]);
    }
    show::print(&rows);
}
