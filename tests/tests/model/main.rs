//! The program against a reference model of it, packet by packet.
//!
//! Random services and random packets go through the loaded program
//! (BPF_PROG_TEST_RUN) and through [`reference`], which is written from the design and
//! the RFCs and shares no code with the program. Action and bytes are compared after
//! every packet; verdicts, flow tables and counters after every scene of some hundred.
//!
//! Beside packets a scene has changes of services, drain windows that pass, and scans that
//! settle slots. What the agent then says in its maps ([`said`]) is taken as it is: which
//! backends a slot names, what replies are restored to. What the program makes of it is
//! compared, down to flows that must not have been recorded.
//!
//! A difference is made small, printed as a case to be kept in [`cases`], and written to
//! the build directory. Seeds are printed: `NARU_MODEL_SEED` (decimal, or hexadecimal
//! with `0x`) runs one again, `NARU_MODEL_PACKETS` says how many packets.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod cases;
mod compare;
mod generate;
mod node;
mod reference;
mod rng;
mod run;
mod said;
mod scene;
mod setup;
mod shrink;
mod subject;
mod tables;
mod trial;
mod wire;

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::trial::Bench;

/// The seed of the run that is the same everywhere.
const SEED: u64 = 0x6e61_7275;
/// Packets of that run.
const PACKETS: u64 = 800_000;
/// Packets of the run that is another every time.
const FRESH_PACKETS: u64 = 200_000;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One program, one set of maps, one CPU's counters: one case after the other.
    arguments.test_threads = Some(1);
    let bench = Arc::new(Mutex::new(None));
    let mut trials: Vec<_> = cases::CASES
        .iter()
        .map(|case| trial(&bench, case.name, move |bench| bench.case(case)))
        .collect();
    for (name, seed, packets) in runs() {
        trials.push(trial(&bench, name, move |bench| {
            bench.random(seed, packets)
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Removes what it pinned.
    drop(bench.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

/// Names, seeds and lengths of the random runs.
fn runs() -> Vec<(&'static str, u64, u64)> {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let packets = number("NARU_MODEL_PACKETS");
    if let Some(seed) = number("NARU_MODEL_SEED") {
        let packets = packets.unwrap_or(PACKETS);
        return vec![("random packets, the seed given", seed, packets)];
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let fresh = time.map_or(0, |time| time.as_nanos() as u64);
    vec![
        (
            "random packets, the same every time",
            SEED,
            packets.unwrap_or(PACKETS),
        ),
        (
            "random packets, others every time",
            fresh,
            packets.unwrap_or(FRESH_PACKETS),
        ),
    ]
}

fn trial(
    bench: &Arc<Mutex<Option<Bench>>>,
    name: &str,
    run: impl FnOnce(&mut Bench) -> Result<(), String> + Send + 'static,
) -> Trial {
    let bench = bench.clone();
    Trial::test(name, move || {
        let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
        // Not before it is needed: loading takes a second, and needs root.
        run(bench.get_or_insert_with(Bench::new)).map_err(Failed::from)
    })
}
