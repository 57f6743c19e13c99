//! From a scene that fails to a small one that still does.

use std::time::{Duration, Instant};

use crate::{
    run::{self, Difference, Refused},
    scene::Step,
    subject::{Subject, takes},
};

/// No longer than this; what is found by then is small enough.
const PATIENCE: Duration = Duration::from_secs(60);

/// A failing scene that is being made smaller.
pub(crate) struct Shrinker<'a> {
    subject: &'a mut Subject,
    refused: &'a mut Refused,
    steps: Vec<Step>,
    difference: Difference,
    deadline: Instant,
}

/// The smallest scene found that still fails, and how. None where it does not fail
/// again: then it depended on the clock.
pub(crate) fn shrink(
    subject: &mut Subject,
    refused: &mut Refused,
    steps: Vec<Step>,
) -> Option<(Vec<Step>, Difference)> {
    let difference = run::scene(subject, refused, &steps).err()?;
    let mut shrinker = Shrinker {
        subject,
        refused,
        steps,
        difference,
        deadline: Instant::now() + PATIENCE,
    };
    shrinker.cut();
    shrinker.remove_steps();
    shrinker.simplify_services();
    shrinker.simplify_packets();
    shrinker.remove_steps();
    Some((shrinker.steps, shrinker.difference))
}

impl Shrinker<'_> {
    /// Takes these steps where they fail too.
    fn try_steps(&mut self, steps: Vec<Step>) -> bool {
        if steps == self.steps || Instant::now() > self.deadline {
            return false;
        }
        match run::scene(self.subject, self.refused, &steps) {
            Ok(()) => false,
            Err(difference) => {
                self.steps = steps;
                self.difference = difference;
                self.cut();
                true
            }
        }
    }

    /// Leaves out what comes after the difference.
    fn cut(&mut self) {
        self.steps.truncate(self.difference.step + 1);
    }

    /// Leaves out ever smaller runs of steps (delta debugging).
    fn remove_steps(&mut self) {
        let mut size = self.steps.len().div_ceil(2);
        loop {
            let mut at = 0;
            while at < self.steps.len() {
                let mut fewer = self.steps.clone();
                fewer.drain(at..(at + size).min(self.steps.len()));
                if !self.try_steps(fewer) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Leaves out services, frontends and backends.
    fn simplify_services(&mut self) {
        for at in 0..self.steps.len() {
            let mut item = 0;
            loop {
                let mut steps = self.steps.clone();
                let Some(Step::Services(services)) = steps.get_mut(at) else {
                    break;
                };
                // All items in a row: each service, then its frontends and backends.
                let mut left = item;
                let mut found = false;
                for number in 0..services.len() {
                    let service = &mut services[number];
                    let (front, back) = (service.frontends.len(), service.backends.len());
                    if left == 0 {
                        services.remove(number);
                    } else if left <= front && front > 1 {
                        service.frontends.remove(left - 1);
                    } else if left > front && left <= front + back {
                        service.backends.remove(left - front - 1);
                    } else if left > front + back {
                        left -= 1 + front + back;
                        continue;
                    }
                    found = true;
                    break;
                }
                if !found {
                    break;
                }
                if !self.try_steps(steps) {
                    item += 1;
                }
            }
        }
    }

    /// Takes tags off, cuts ends, and writes zeros where that changes nothing.
    fn simplify_packets(&mut self) {
        for at in (0..self.steps.len()).rev() {
            while self.change(at, |frame| {
                if matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]) && frame.len() > 18 {
                    frame.drain(12..16);
                }
            }) {}
            for cut in [512, 256, 128, 64, 32, 16, 8, 4, 2, 1] {
                while self.change(at, |frame| {
                    if frame.len() > 14 + cut {
                        frame.truncate(frame.len() - cut);
                    }
                }) {}
            }
            let Some(Step::Packet { frame, .. }) = self.steps.get(at) else {
                continue;
            };
            let len = frame.len();
            for block in [64, 16, 4] {
                for start in (34..len).step_by(block) {
                    self.change(at, |frame| {
                        let end = (start + block).min(frame.len());
                        if let Some(bytes) = frame.get_mut(start..end) {
                            bytes.fill(0);
                        }
                    });
                }
            }
        }
    }

    fn change(&mut self, at: usize, change: impl Fn(&mut Vec<u8>)) -> bool {
        let mut steps = self.steps.clone();
        match steps.get_mut(at) {
            Some(Step::Packet { hook, frame, .. }) => {
                change(frame);
                takes(*hook, frame) && self.try_steps(steps)
            }
            _ => false,
        }
    }
}
