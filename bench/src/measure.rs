//! What is measured of each candidate, and the rows that come of it.

use anyhow::Result;
use lb_common::{Family, Hook};

use crate::{
    candidate::Candidate,
    kind::{Alone, Direction, Kind},
    row::{Row, median, ratio},
};

/// One thing to measure of every candidate that it can be measured of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// From the generator to where frames end; with their bytes on the wire.
    Path(Direction, usize),
    /// The program alone.
    Program(Alone),
    /// From the generator to where frames end, of flows' first packets.
    Fresh,
}

/// Flows that begin in each round of [`Measure::Fresh`].
pub(crate) const FRESH: u32 = 1 << 15;

/// What was measured of one candidate, by round, in nanoseconds a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    whole: Vec<f64>,
    /// With a stub in the program's place; nothing of a path.
    stub: Vec<f64>,
}

// === impl Measure ===

impl Measure {
    /// All there is to measure, with frames of these sizes.
    pub(crate) fn all(sizes: &[usize]) -> Vec<Self> {
        let path = |direction| sizes.iter().map(move |&size| Self::Path(direction, size));
        let alone = |hook, direction| Self::Program(Alone { hook, direction });
        let (forward, reply) = (Direction::Forward, Direction::Reply);
        let mut all: Vec<Self> = path(forward).collect();
        all.push(alone(Hook::Xdp, forward));
        all.push(alone(Hook::TcIngress, forward));
        all.extend(path(reply));
        all.push(alone(Hook::Xdp, reply));
        all.push(alone(Hook::TcEgress, reply));
        all
    }

    /// Measures once; false where that is nothing for this candidate.
    pub(crate) fn take(
        self,
        candidate: &mut Candidate,
        flows: u32,
        packets: u32,
        times: &mut Times,
    ) -> Result<bool> {
        match self {
            Self::Path(Direction::Reply, _) if !candidate.kind.has_replies() => return Ok(false),
            Self::Path(direction, size) => {
                let time = candidate.path(direction, size, flows, packets)?;
                times.whole.push(time);
            }
            Self::Fresh => {
                let time = candidate.begin_more(FRESH)?;
                times.whole.push(time);
            }
            Self::Program(alone) if !candidate.kind.meets(alone) => return Ok(false),
            Self::Program(alone) => {
                let (whole, stub) = candidate.program(alone, flows, packets)?;
                times.whole.push(whole);
                times.stub.push(stub);
            }
        }
        Ok(true)
    }

    /// The rows of all candidates that have times.
    pub(crate) fn rows(
        self,
        candidates: &mut [&mut Candidate],
        flows: u32,
        all: &[Option<Times>],
    ) -> Result<Vec<Row>> {
        let of = |kind: Kind| {
            let index = candidates.iter().position(|it| it.kind == kind)?;
            let times = all.get(index)?.as_ref()?;
            (!matches!(self, Self::Program(_))).then(|| times.whole.clone())
        };
        let [bare, nftables, kernel] = [Kind::Tx, Kind::Nftables, Kind::Kernel].map(of);
        let own = |times: &Times| match self {
            Self::Path(..) | Self::Fresh => times.whole.clone(),
            Self::Program(_) => {
                let both = times.whole.iter().zip(&times.stub);
                both.map(|(whole, stub)| whole - stub).collect::<Vec<_>>()
            }
        };
        // Of each candidate, the first of several sizes.
        let kinds: Vec<Kind> = candidates.iter().map(|it| it.kind).collect();
        let first = |kind: Kind| {
            let same = |it: &&Kind| **it == kind;
            let several = kinds.iter().filter(same).count() > 1;
            let index = kinds.iter().position(|it| *it == kind)?;
            let times = all.get(index)?.as_ref()?;
            several.then(|| own(times))
        };
        let mut rows = Vec::new();
        for (candidate, times) in candidates.iter_mut().zip(all) {
            let Some(times) = times else { continue };
            let Times { whole, stub } = times;
            let to = |other: &Option<Vec<f64>>| ratio(whole, other.as_ref()?);
            let own = own(times);
            let first = first(candidate.kind);
            let (bare, instructions, lookups) = match self {
                Self::Path(..) | Self::Fresh => (to(&bare), None, None),
                Self::Program(alone) => {
                    let instructions = candidate.instructions(alone)?;
                    let lookups = candidate.kind.lookups(alone);
                    (ratio(whole, stub), Some(instructions), Some(lookups))
                }
            };
            // Without the other, which was told of, there is nothing to hold it against.
            let Some(ratio_to_xdp_tx) = bare else {
                continue;
            };
            let bytes = first.as_ref().and(candidate.bytes()?);
            let ratio_to_first = first.and_then(|first| ratio(&own, &first));
            let (ns_per_packet, spread) = median(own);
            rows.push(Row {
                bench: self.bench(),
                candidate: candidate.kind.name(),
                direction: self.direction().name(),
                hook: self.hook(),
                size: self.size(),
                flows,
                services: candidate.shape.services,
                backends: candidate.shape.backends,
                family: match candidate.family {
                    Family::V4 => 4,
                    Family::V6 => 6,
                },
                ns_per_packet,
                mpps: 1000.0 / median(whole.clone()).0,
                ratio_to_xdp_tx,
                ratio_to_nftables: to(&nftables),
                ratio_to_kernel: to(&kernel),
                ratio_to_first,
                spread,
                instructions,
                lookups,
                maps_mib: bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            });
        }
        Ok(rows)
    }

    const fn bench(self) -> &'static str {
        match self {
            Self::Path(..) => "path",
            Self::Program(_) => "program",
            Self::Fresh => "fresh",
        }
    }

    const fn direction(self) -> Direction {
        match self {
            Self::Path(direction, _) | Self::Program(Alone { direction, .. }) => direction,
            Self::Fresh => Direction::Forward,
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Path(_, size) => size,
            Self::Program(_) | Self::Fresh => 64,
        }
    }

    const fn hook(self) -> Option<&'static str> {
        match self {
            Self::Path(..) | Self::Fresh => None,
            Self::Program(alone) => Some(match alone.hook {
                Hook::Xdp => "xdp",
                Hook::TcIngress => "tc-ingress",
                Hook::TcEgress => "tc-egress",
            }),
        }
    }
}

// === impl Direction ===

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reply => "reply",
        }
    }
}
