//! What the tests do: kept scenes, and random ones until there are enough packets.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use lb_common::{Hook, Verdict};
use nix::sched::{CloneFlags, unshare};

use crate::{
    cases::Case,
    generate::Generator,
    node,
    reference::state::CASES,
    rng::Rng,
    run::{self, Difference, Refused, Run, Stopped},
    scene::{self, Step},
    shrink::shrink,
    subject::Subject,
};

/// Time between lines that tell how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// So many packets see every verdict that packets can bring about.
const ENOUGH: u64 = 200_000;

/// Verdicts that no packet brings about here: the limit is not reached on purpose, the
/// tables have room, the helpers work, and the lease holds.
const UNSEEN: [Verdict; 4] = [
    Verdict::ClaimExpired,
    Verdict::RefusalLimited,
    Verdict::TableFull,
    Verdict::EmitFailed,
];

/// The loaded program and what it may still do this second.
pub(crate) struct Bench {
    subject: Subject,
    refused: Refused,
}

/// What became of so many packets.
#[derive(Default)]
struct Tally {
    verdicts: BTreeMap<(Verdict, Hook), u64>,
    /// What verdicts do not tell apart.
    cases: BTreeMap<&'static str, u64>,
}

impl Bench {
    /// Loads the program, in a network namespace of its own. All trials run on the one
    /// thread that is in it.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own; run as root");
        node::build();
        Self {
            subject: Subject::load(),
            refused: Refused::default(),
        }
    }

    /// Runs a scene that was kept.
    pub(crate) fn case(&mut self, case: &Case) -> Result<(), String> {
        let steps: Vec<Step> = case.lines.iter().map(|line| line.step()).collect();
        run::scene(&mut self.subject, &mut self.refused, &steps)
            .map_err(|difference| describe(&difference))
    }

    /// Runs random scenes until there were so many packets.
    pub(crate) fn random(&mut self, seed: u64, packets: u64) -> Result<(), String> {
        println!("seed {seed:#x}, {packets} packets");
        let start = Instant::now();
        let mut told = start;
        let mut sent = 0;
        let mut tally = Tally::default();
        for number in 0.. {
            if sent >= packets {
                break;
            }
            let mut generator = Generator::new(Rng::of_scene(seed, number));
            let (steps, result) = self.scene(&mut generator, &mut tally);
            sent += steps
                .iter()
                .filter(|step| matches!(step, Step::Packet { .. }))
                .count() as u64;
            match result {
                Ok(()) | Err(Stopped::Ticked) => {}
                Err(Stopped::Differs(difference)) => {
                    println!(
                        "scene {number} differs after {sent} packets: {}",
                        difference.what
                    );
                    return Err(self.report(seed, number, steps, difference));
                }
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                println!(
                    "seed {seed:#x}: {sent} of {packets} packets, {number} scenes, no difference"
                );
            }
        }
        let took = start.elapsed().as_secs_f64();
        let rate = sent as f64 / took;
        println!(
            "seed {seed:#x}: {sent} packets in {took:.1} s, {rate:.0} a second, no difference"
        );
        println!("{}", table(&tally));
        let missing = missing(&tally);
        if sent >= ENOUGH && !missing.is_empty() {
            return Err(format!(
                "seed {seed:#x}: never seen: {}",
                missing.join(", ")
            ));
        }
        Ok(())
    }

    /// Makes a scene step by step and runs it; gives the steps that it came to.
    fn scene(
        &mut self,
        generator: &mut Generator,
        tally: &mut Tally,
    ) -> (Vec<Step>, Result<(), Stopped>) {
        let mut run = Run::new(&mut self.subject, &mut self.refused, false);
        let length = generator.length();
        let mut steps = vec![generator.first()];
        loop {
            let Some(step) = steps.last() else {
                unreachable!("there is the first")
            };
            match (run.step(step), step) {
                (Ok(Some(verdict)), Step::Packet { hook, .. }) => {
                    *tally.verdicts.entry((verdict, *hook)).or_default() += 1;
                }
                (Ok(_), _) => {}
                (Err(stopped), _) => return (steps, Err(stopped)),
            }
            if steps.len() == length {
                for (case, count) in &run.state.cases {
                    *tally.cases.entry(case).or_default() += count;
                }
                return (steps, run.finish());
            }
            steps.push(generator.next(&run.state));
        }
    }

    /// Makes the scene small and tells all about it.
    fn report(&mut self, seed: u64, number: u64, steps: Vec<Step>, first: Difference) -> String {
        let found = shrink(&mut self.subject, &mut self.refused, steps.clone());
        let (steps, difference) = found.unwrap_or_else(|| {
            println!("it does not fail again; it depends on the clock, or on what came before");
            (steps, first)
        });
        let text = format!(
            "seed {seed:#x}, scene {number}; as a case for cases.rs:\n{}\n{}",
            scene::source(&difference.what, &steps),
            describe(&difference),
        );
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("model-{seed:x}.txt"));
        match fs::write(&path, &text) {
            Ok(()) => format!("{text}\nalso in {}", path.display()),
            Err(error) => format!("{text}\n{}: {error}", path.display()),
        }
    }
}

fn describe(difference: &Difference) -> String {
    let Difference { step, what, detail } = difference;
    format!("step {step}: {what}\n{detail}")
}

/// How often each verdict came about, by hook.
fn table(tally: &Tally) -> String {
    let mut text = String::from("what became of them:");
    for ((verdict, hook), count) in &tally.verdicts {
        text += &format!("\n  {:20} {:10} {count:8}", verdict.name(), hook.name());
    }
    for (case, count) in &tally.cases {
        text += &format!("\n  {case:45} {count:8}");
    }
    text
}

/// The names of the verdicts and cases that should have come about and did not.
fn missing(tally: &Tally) -> Vec<&'static str> {
    let cases = CASES.into_iter();
    let verdicts = Verdict::ALL
        .iter()
        .filter(|verdict| !UNSEEN.contains(verdict))
        .filter(|verdict| !tally.verdicts.keys().any(|(seen, _)| seen == *verdict))
        .map(|verdict| verdict.name());
    verdicts
        .chain(cases.filter(|case| !tally.cases.contains_key(case)))
        .collect()
}
