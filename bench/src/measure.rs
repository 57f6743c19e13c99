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
}

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
            matches!(self, Self::Path(..)).then(|| times.whole.clone())
        };
        let [bare, nftables, kernel] = [Kind::Tx, Kind::Nftables, Kind::Kernel].map(of);
        let mut rows = Vec::new();
        for (candidate, times) in candidates.iter_mut().zip(all) {
            let Some(Times { whole, stub }) = times else {
                continue;
            };
            let to = |other: &Option<Vec<f64>>| ratio(whole, other.as_ref()?);
            let over = whole.iter().zip(stub).map(|(whole, stub)| whole - stub);
            let (own, bare, instructions, lookups) = match self {
                Self::Path(..) => (whole.clone(), to(&bare), None, None),
                Self::Program(alone) => {
                    let instructions = candidate.instructions(alone)?;
                    let lookups = candidate.kind.lookups(alone);
                    (
                        over.collect(),
                        ratio(whole, stub),
                        Some(instructions),
                        Some(lookups),
                    )
                }
            };
            // Without the other, which was told of, there is nothing to hold it against.
            let Some(ratio_to_xdp_tx) = bare else {
                continue;
            };
            let (ns_per_packet, spread) = median(own);
            rows.push(Row {
                bench: self.bench(),
                candidate: candidate.kind.name(),
                direction: self.direction().name(),
                hook: self.hook(),
                size: self.size(),
                flows,
                family: match candidate.family {
                    Family::V4 => 4,
                    Family::V6 => 6,
                },
                ns_per_packet,
                mpps: 1000.0 / median(whole.clone()).0,
                ratio_to_xdp_tx,
                ratio_to_nftables: to(&nftables),
                ratio_to_kernel: to(&kernel),
                spread,
                instructions,
                lookups,
            });
        }
        Ok(rows)
    }

    const fn bench(self) -> &'static str {
        match self {
            Self::Path(..) => "path",
            Self::Program(_) => "program",
        }
    }

    const fn direction(self) -> Direction {
        match self {
            Self::Path(direction, _) | Self::Program(Alone { direction, .. }) => direction,
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Path(_, size) => size,
            Self::Program(_) => 64,
        }
    }

    const fn hook(self) -> Option<&'static str> {
        match self {
            Self::Path(..) => None,
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
