//! Connections under churn: what a hundred thousand of them keep while endpoints come, go,
//! drain, fail and weigh differently, agents start anew and the address moves.
//!
//! Held against the promise alone: a connection that sends at least once in every drain window
//! keeps its backend for as long as that exists. What the promise does not cover is counted by
//! its cause.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod flows;
mod lan;
mod node;
mod rng;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{flows::Flows, lan::Lan, rng::Rng};

/// Connections that are open at any time.
const FLOWS: usize = 100_000;
/// Changes, each followed by a packet of nearly every connection.
const ROUNDS: usize = 24;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let name = "no connection that the promise covers is ever sent elsewhere";
    let trials = vec![Trial::test(name, || churn().map_err(Failed::from))];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The seed: given by NARU_CHURN_SEED, else by the time.
fn seed() -> u64 {
    let given = std::env::var("NARU_CHURN_SEED").ok();
    let given = given.map(|text| text.parse().expect("NARU_CHURN_SEED is a number"));
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    given.unwrap_or_else(|| time.map_or(0, |time| time.as_nanos() as u64))
}

fn churn() -> Result<(), String> {
    let seed = seed();
    println!("NARU_CHURN_SEED={seed}");
    let mut rng = Rng::new(seed);
    lan::build();
    let mut lan = Lan::new();
    let mut flows = Flows::default();
    flows.open(&mut lan, FLOWS)?;
    for round in 0..ROUNDS {
        let what = lan.change(&mut rng);
        flows.changed(&lan);
        // Some rounds are not the last of their window.
        let window_ends = !rng.chance(3);
        flows.close(&mut rng, FLOWS / 20);
        flows.send(&mut lan, &mut rng, window_ends)?;
        flows.open(&mut lan, FLOWS)?;
        if window_ends {
            lan.window_passes();
        }
        println!("{round:2}: {what}{}", if window_ends { "" } else { " …" });
    }
    flows.tell();
    lan.part();
    lan.assert_lean()
}
