//! `failover`: every fault, many times, and what it cost.

mod picture;
mod table;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::{
    Algorithm, Burners, Cluster, ClusterOptions, Fault, Outcome, OwnerChoice, Plan, PodKind,
    Topology, can_fake_clocks, tutorial_services,
};
use serde::Serialize;

/// How long the LAN may take to have one owner again between two runs.
const SETTLED: Duration = Duration::from_secs(60);
/// The other client, which is on the far side of a split.
const FAR: &str = "far";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `naru` to measure
    #[arg(long, value_name = "PATH")]
    naru: PathBuf,
    /// How often each fault happens, and how often one that is named
    #[arg(long, value_name = "N,NAME=N,…", value_delimiter = ',', default_value = "5",
          value_parser = times)]
    runs: Vec<(Option<Fault>, u32)>,
    /// LANs of so many nodes
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "3",
          value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: Vec<u8>,
    /// Only these faults
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = fault)]
    fault: Vec<Fault>,
    /// Connections that are held open over each fault
    #[arg(long, value_name = "N", default_value_t = 30)]
    held: usize,
    /// Also keep all cores busy for so many seconds, and see whether the owner stays
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    busy: u64,
    /// Write every run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw one failover into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Replace the table of this page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// The first node owns everything, whatever happens: without membership
    #[arg(long)]
    static_owner: bool,
    /// The command that the page is to name
    #[arg(long, hide = true, default_value = "cargo xtask bench failover")]
    command: String,
}

/// One run of one fault.
#[derive(Serialize)]
struct Run {
    fault: &'static str,
    /// What happened, for people.
    what: &'static str,
    nodes: u8,
    run: u32,
    outcome: Outcome,
}

/// Measures; says whether every run ended with an owner and answers.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut runs = Vec::new();
    let (clocks, others): (Vec<Fault>, Vec<Fault>) = chosen(args)
        .into_iter()
        .partition(|it| matches!(it, Fault::ClockAhead | Fault::ClockBack));
    for &nodes in &args.nodes {
        if !others.is_empty() || args.busy > 0 || args.plot.is_some() {
            let cluster = start(args, nodes, false)?;
            for fault in &others {
                repeat(args, &cluster, nodes, *fault, &mut runs)?;
            }
            if args.busy > 0 {
                runs.push(keep_busy(&cluster, nodes, args.busy)?);
            }
            if let Some(dir) = &args.plot
                && nodes == args.nodes[0]
            {
                draw(&cluster, dir)?;
            }
            cluster.teardown()?;
        }
        if !clocks.is_empty() && !can_fake_clocks() {
            println!("clocks: left out; `apt-get install libfaketime` lets them jump");
        } else if !clocks.is_empty() {
            let cluster = start(args, nodes, true)?;
            for fault in &clocks {
                repeat(args, &cluster, nodes, *fault, &mut runs)?;
            }
            cluster.teardown()?;
        }
    }
    let text = table::markdown(&runs);
    println!("\n{text}\n{:.0} s in all.", began.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&runs)?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &args.page {
        let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        write(path, &table::into_page(&page, &text, &args.command)?)?;
    }
    Ok(runs.iter().all(|run| run.outcome.calm))
}

fn chosen(args: &Args) -> Vec<Fault> {
    let all = Fault::ALL.into_iter();
    all.filter(|it| args.fault.is_empty() || args.fault.contains(it))
        .collect()
}

/// `5`, or `node-off=50`.
fn times(text: &str) -> Result<(Option<Fault>, u32), String> {
    let (name, number) = match text.split_once('=') {
        Some((name, number)) => (Some(fault(name)?), number),
        None => (None, text),
    };
    match number.parse() {
        Ok(number) if number > 0 => Ok((name, number)),
        _ => Err("a number above 0, or NAME=N for one fault".to_owned()),
    }
}

/// How often a fault happens.
fn times_of(args: &Args, fault: Fault) -> u32 {
    let of = |wanted: Option<Fault>| {
        let found = args.runs.iter().find(|(named, _)| *named == wanted);
        found.map(|(_, number)| *number)
    };
    of(Some(fault)).or_else(|| of(None)).unwrap_or(5)
}

fn fault(text: &str) -> Result<Fault, String> {
    let names = || Fault::ALL.map(Fault::name).join(", ");
    let found = Fault::ALL.into_iter().find(|it| it.name() == text);
    found.ok_or_else(|| format!("one of {}", names()))
}

/// A LAN whose nodes hand over to each other, by Maglev: so that every node sends a flow
/// to the same pod, and answers come from there straight.
fn start(args: &Args, nodes: u8, clocks: bool) -> anyhow::Result<Cluster> {
    let began = Instant::now();
    let mut topology = Topology::nuc_of(nodes).with_client(FAR);
    topology.add_pods("nest-server", PodKind::Echo, 3000, usize::from(nodes) + 2);
    let services =
        tutorial_services().map(|it| it.by(Algorithm::Maglev).annotated("naru.dev/mode", "dsr"));
    let options = ClusterOptions::new(&args.naru)
        .owner(match args.static_owner {
            true => OwnerChoice::First,
            false => OwnerChoice::Elected,
        })
        .services(services)
        .clocks(clocks);
    println!("{nodes} nodes: building the LAN and starting an agent on each …");
    let cluster = Cluster::start(topology, &options)?;
    let owner = settle(&cluster)?;
    println!(
        "{nodes} nodes: ready after {:.0} s, {owner} owns the address",
        began.elapsed().as_secs_f64()
    );
    Ok(cluster)
}

/// One fault many times, each with its end.
fn repeat(
    args: &Args,
    cluster: &Cluster,
    nodes: u8,
    fault: Fault,
    runs: &mut Vec<Run>,
) -> anyhow::Result<()> {
    let plan = Plan {
        far: (fault == Fault::Split).then(|| FAR.to_owned()),
        ..Plan::new(cluster).holding(args.held)
    };
    let times = times_of(args, fault);
    for number in 1..=times {
        let owner = settle(cluster)?;
        if fault == Fault::NodeAdded {
            cluster.leave(&owner)?;
            settle(cluster)?;
        }
        let began = Instant::now();
        let first = plan.observe(cluster, |cluster| fault.begin(cluster, &owner))?;
        sleep(fault.lasts().saturating_sub(began.elapsed()));
        let second = plan.observe(cluster, |cluster| fault.end(cluster, &owner))?;
        if fault == Fault::NodeAdded {
            cluster.join(&owner)?;
        }
        for (seen, what) in [first, second].iter().zip(fault.words()) {
            let outcome = seen.outcome();
            println!(
                "  {number:>3}/{times} {nodes} nodes, {what:<24} {}",
                table::line(&outcome)
            );
            runs.push(Run {
                fault: fault.name(),
                what,
                nodes,
                run: number,
                outcome,
            });
        }
    }
    Ok(())
}

/// Every core has something better to do for so long; nothing else happens.
fn keep_busy(cluster: &Cluster, nodes: u8, seconds: u64) -> anyhow::Result<Run> {
    settle(cluster)?;
    println!("  {nodes} nodes: all cores are busy for {seconds} s …");
    let time = Duration::from_secs(seconds);
    let plan = Plan {
        after: (time, time),
        ..Plan::new(cluster)
    };
    let mut burners = None;
    let seen = plan.observe(cluster, |_| {
        burners = Some(Burners::start());
        Ok(())
    })?;
    drop(burners);
    let outcome = seen.outcome();
    println!(
        "  {nodes} nodes: {} changes of the owner, {}",
        outcome.changes,
        table::line(&outcome)
    );
    Ok(Run {
        fault: "busy",
        what: "nothing, but all cores are busy",
        nodes,
        run: 1,
        outcome,
    })
}

/// Waits until exactly one node has had the address for a while; gives its name.
fn settle(cluster: &Cluster) -> anyhow::Result<String> {
    let vip = cluster.services()[0].address;
    let began = Instant::now();
    let mut stayed: Vec<String> = Vec::new();
    let mut times = 0;
    while began.elapsed() < SETTLED {
        let owners = cluster.owners(vip)?;
        times = if owners == stayed { times + 1 } else { 0 };
        stayed = owners;
        if let ([owner], true) = (&stayed[..], times >= 5) {
            return Ok(owner.clone());
        }
    }
    bail!(
        "{} s and no single owner of {vip}: {stayed:?}",
        SETTLED.as_secs()
    )
}

/// One failover with ten times as many requests, as a picture.
fn draw(cluster: &Cluster, dir: &Path) -> anyhow::Result<()> {
    let owner = settle(cluster)?;
    let plan = Plan {
        period: Duration::from_millis(1),
        before: Duration::from_secs(2),
        ..Plan::new(cluster)
    };
    let seen = plan.observe(cluster, |cluster| cluster.off(&owner))?;
    cluster.on(&owner)?;
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    write(&dir.join("failover.svg"), &picture::draw(&seen)?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    println!("written: {}", path.display());
    Ok(())
}
