//! When a newly claimed address is announced: at once, then every 1.1 s for 5 s.

use std::time::Duration;

use tokio::time::Instant;

/// Rounds in a burst, the first at once.
const ROUNDS: u8 = 5;
/// Between rounds. Over a second, since switches and hosts that limit how often
/// they learn do so by the second.
const INTERVAL: Duration = Duration::from_millis(1100);
/// How long to wait where the socket's buffer is full.
const CONGESTION: Duration = Duration::from_millis(10);

/// The announcements of one address that are still to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    left: u8,
    due: Instant,
}

impl Burst {
    /// All rounds, the first one now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: ROUNDS,
            due: now,
        }
    }

    /// When the next round is due; `None` when all are made.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.due)
    }

    /// A round was made.
    pub(super) fn advance(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.due += INTERVAL;
    }

    /// The round could not be made now, but soon.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = now + CONGESTION;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_rounds_within_five_seconds() {
        let start = Instant::now();
        let mut burst = Burst::new(start);
        let mut rounds = vec![];
        while let Some(due) = burst.due() {
            rounds.push((due - start).as_millis());
            burst.advance();
        }
        assert_eq!(rounds, [0, 1100, 2200, 3300, 4400]);
    }

    #[test]
    fn a_postponed_round_is_not_lost() {
        let start = Instant::now();
        let mut burst = Burst::new(start);
        burst.postpone(start);
        assert_eq!(burst.due(), Some(start + CONGESTION));
        let mut rounds = 0;
        while burst.due().is_some() {
            rounds += 1;
            burst.advance();
        }
        assert_eq!(rounds, ROUNDS);
    }
}
