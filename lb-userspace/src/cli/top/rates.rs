//! Rates: what counters did between two answers.

use crate::control::Traffic;

/// What went by, each in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Flows begun.
    pub(super) flows: f64,
    /// Packets from clients.
    pub(super) packets_in: f64,
    /// Bits from clients.
    pub(super) bits_in: f64,
    /// Packets to clients.
    pub(super) packets_out: f64,
    /// Bits to clients.
    pub(super) bits_out: f64,
}

impl Rates {
    /// Of counters that were read so many seconds apart. None where one went down: it began
    /// anew in between.
    pub(super) fn between(before: &Traffic, now: &Traffic, seconds: f64) -> Option<Self> {
        Some(Self {
            flows: rate(before.flows, now.flows, seconds)?,
            packets_in: rate(before.packets_in, now.packets_in, seconds)?,
            bits_in: 8.0 * rate(before.bytes_in, now.bytes_in, seconds)?,
            packets_out: rate(before.packets_out, now.packets_out, seconds)?,
            bits_out: 8.0 * rate(before.bytes_out, now.bytes_out, seconds)?,
        })
    }

    /// Of all together.
    pub(super) fn sum(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            flows: sum.flows + it.flows,
            packets_in: sum.packets_in + it.packets_in,
            bits_in: sum.bits_in + it.bits_in,
            packets_out: sum.packets_out + it.packets_out,
            bits_out: sum.bits_out + it.bits_out,
        })
    }
}

/// What a counter grew by in a second. None where it went down, or no time went by.
pub(super) fn rate(before: u64, now: u64, seconds: f64) -> Option<f64> {
    let grown = now.checked_sub(before)?;
    (seconds > 0.0).then(|| grown as f64 / seconds)
}

/// A number in at most five characters: `0`, `9.5`, `120`, `1.5k`, `98.1M`.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let mut value = value;
    let mut units = ["", "k", "M", "G", "T"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // What would be rounded to 1000 has the next unit.
    while value >= 999.5
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_go_by_the_time_that_passed() {
        let at = |n: u64| Traffic {
            packets_in: 10 * n,
            bytes_in: 1000 * n,
            packets_out: 20 * n,
            bytes_out: 5000 * n,
            flows: n,
        };
        let rates = Rates::between(&at(1), &at(5), 2.0).expect("grown");
        let wanted = Rates {
            flows: 2.0,
            packets_in: 20.0,
            bits_in: 16_000.0,
            packets_out: 40.0,
            bits_out: 80_000.0,
        };
        assert_eq!(rates, wanted);
        assert_eq!(Rates::sum([rates, rates].into_iter()).flows, 4.0);
    }

    #[test]
    fn what_began_anew_has_no_rate() {
        let before = Traffic {
            flows: 5,
            packets_in: 7,
            ..Traffic::default()
        };
        let now = Traffic {
            flows: 1,
            packets_in: 9,
            ..Traffic::default()
        };
        assert_eq!(Rates::between(&before, &now, 1.0), None);
        assert_eq!(rate(5, 5, 0.0), None);
        assert_eq!(rate(5, 5, 1.0), Some(0.0));
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.2"),
            (9.0, "9.0"),
            (99.97, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (98_100_000.0, "98.1M"),
            (4.2e15, "4200T"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text, "{value}");
        }
    }
}
