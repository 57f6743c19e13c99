//! The program alone, on one core: what a packet costs by the number of flows.

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use etherparse::PacketBuilder;
use lb_common::{Algorithm, Mode, bench::Plan};

use crate::{
    Forward,
    generator::{Generator, PASS, TX},
    node::{self, MAC, Node, OTHER, VIP},
    row::{self, Row, median},
};

/// Bytes of a frame, without the check sequence that a card adds.
const SIZE: usize = 60;
/// Where flows come from: 10.64.0.0 and on.
const CLIENTS: u32 = 0x0a40_0000;
/// The stub that every candidate is held against.
const BARE: &str = "xdp_tx";

/// A program to measure.
struct Candidate {
    name: String,
    program: ProgramFd,
    /// What is to become of its frames.
    action: u32,
    /// Whether they are for the service.
    served: bool,
    /// Keeps the program's maps.
    _node: Option<Node>,
}

/// Measures all candidates at all numbers of flows, and tells.
pub(crate) fn run(args: &Forward) -> Result<()> {
    let ifindex = node::build()?;
    let mut generator = Generator::load()?;
    let most = args.flows.iter().copied().max().context("no number of flows")?;
    let candidates = candidates(&generator, ifindex, most, &args.only)?;
    let mut rows = Vec::new();
    for &flows in &args.flows {
        rows.extend(at(args, &mut generator, &candidates, ifindex, flows)?);
        println!("{flows} flows: done");
    }
    println!("\n{}", row::table(&rows).trim_fmt());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn candidates(
    generator: &Generator,
    ifindex: u32,
    most: u32,
    only: &str,
) -> Result<Vec<Candidate>> {
    let stub = |name: &str, program: &str, action| -> Result<Candidate> {
        Ok(Candidate {
            name: name.to_owned(),
            program: generator.stub(program)?,
            action,
            served: true,
            _node: None,
        })
    };
    let mut candidates = vec![stub(BARE, "bench_tx", TX)?, stub("xdp_drop", "bench_drop", 1)?];
    let (maglev, turns) = (Algorithm::Maglev, Algorithm::RoundRobin);
    let kinds = [
        (maglev, Mode::Dsr, TX),
        (maglev, Mode::Nat, TX),
        (maglev, Mode::Local, PASS),
        (turns, Mode::Dsr, TX),
        (turns, Mode::Nat, TX),
        (turns, Mode::Local, PASS),
    ];
    for (algorithm, mode, action) in kinds {
        let name = format!("naru-{}-{}", algorithm.name(), mode.name());
        if !name.contains(only) {
            continue;
        }
        let mut node = Node::new(ifindex, algorithm, mode, (2 * most).max(1 << 18))?;
        candidates.push(Candidate {
            name,
            program: node.xdp()?,
            action,
            served: true,
            _node: Some(node),
        });
    }
    if "naru-no-vip".contains(only) {
        let mut node = Node::new(ifindex, maglev, Mode::Dsr, 1 << 18)?;
        candidates.push(Candidate {
            name: "naru-no-vip".to_owned(),
            program: node.xdp()?,
            action: PASS,
            served: false,
            _node: Some(node),
        });
    }
    Ok(candidates)
}

/// All candidates with so many flows, in turn.
fn at(
    args: &Forward,
    generator: &mut Generator,
    candidates: &[Candidate],
    ifindex: u32,
    flows: u32,
) -> Result<Vec<Row>> {
    for candidate in candidates {
        // Every flow begins, and goes on once.
        for syn in [true, false] {
            generator.plan(plan(flows, syn, true, candidate.served)?)?;
            let (_, action) = generator.run(&candidate.program, ifindex, SIZE, flows)?;
            let name = &candidate.name;
            ensure!(
                action == candidate.action,
                "{name} makes {action} of a frame, not {}",
                candidate.action
            );
        }
    }
    let mut times = vec![Vec::new(); candidates.len()];
    for _ in 0..args.rounds {
        for (candidate, times) in candidates.iter().zip(&mut times) {
            generator.plan(plan(flows, false, false, candidate.served)?)?;
            let (time, action) =
                generator.run(&candidate.program, ifindex, SIZE, args.packets)?;
            ensure!(action == candidate.action, "{} has changed its mind", candidate.name);
            times.push(time.as_nanos() as f64);
        }
    }
    let bare = times.first().cloned().unwrap_or_default();
    let rows = candidates.iter().zip(&times).map(|(candidate, times)| {
        let pairs = || times.iter().zip(&bare);
        let (over, spread) = median(pairs().map(|(time, bare)| time - bare).collect());
        let (ratio, _) = median(pairs().map(|(time, bare)| time / bare).collect());
        let (whole, _) = median(times.clone());
        Row {
            bench: "program",
            candidate: candidate.name.clone(),
            direction: "forward",
            size: SIZE,
            flows,
            family: 4,
            ns_per_packet: over,
            mpps: 1000.0 / whole,
            ratio_to_xdp_tx: ratio,
            spread,
        }
    });
    Ok(rows.collect())
}

/// Frames of so many flows: their first, or one of those that follow.
fn plan(flows: u32, syn: bool, in_turn: bool, served: bool) -> Result<Plan> {
    let vip = if served { VIP.0.octets() } else { [192, 168, 56, 200] };
    let builder = PacketBuilder::ethernet2(OTHER, MAC)
        .ipv4(CLIENTS.to_be_bytes(), vip, 64)
        .tcp(1024, VIP.1, 1, 65_535);
    let builder = if syn { builder.syn() } else { builder.ack(1) };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[0; SIZE - 54])?;
    let mut template = [0; Plan::WORDS];
    for (word, bytes) in template.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    Ok(Plan {
        mask: flows - 1,
        in_turn: in_turn.into(),
        made: 0,
        source: 14 + 12,
        port: 14 + 20,
        len: SIZE as u32,
        first_source: CLIENTS,
        first_port: 1024,
        template,
    })
}
