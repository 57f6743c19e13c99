//! One scene, by the program and by the reference, and the first thing they differ in.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use lb_common::{Hook, Verdict, config::REFUSALS_PER_SECOND, verdict::Fate};

use crate::{
    compare::{disagreement, show},
    node,
    reference::{self, Choices, Input, State, records},
    scene::Step,
    subject::{self, Subject, Verdicts},
    wire::Tuple,
};

/// Shift from the clock's nanoseconds to ticks.
const TICK: u32 = 30;
/// Time before the end of a tick in which no packet is sent, so that program and
/// reference read the same tick. A coarse clock advances every 1 to 10 ms.
const MARGIN: u64 = 12_000_000;

/// What program and reference differ in.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// The step at which it shows.
    pub(crate) step: usize,
    /// In a few words.
    pub(crate) what: String,
    /// At length.
    pub(crate) detail: String,
}

/// Why a scene did not run to its end.
#[derive(Debug)]
pub(crate) enum Stopped {
    Differs(Difference),
    /// The clock went on to the next tick during a packet; once more, then.
    Ticked,
}

/// A scene under way.
pub(crate) struct Run<'a> {
    pub(crate) subject: &'a mut Subject,
    pub(crate) state: State,
    expected: Verdicts,
    before: Verdicts,
    steps: usize,
    /// Counters are compared after every packet rather than at the end.
    careful: bool,
    refused: &'a mut Refused,
}

/// Refusals of this tick, which are limited. What the limit does is not in question here,
/// so it is never reached.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    tick: u32,
    count: u32,
}

impl Refused {
    fn add(&mut self, tick: u32) {
        if self.tick != tick {
            *self = Self { tick, count: 0 };
        }
        self.count += 1;
        if self.count > REFUSALS_PER_SECOND - 100 {
            wait_for_next(subject::clock());
        }
    }
}

fn wait_for_next(now: u64) {
    let next = ((now >> TICK) + 1) << TICK;
    thread::sleep(Duration::from_nanos(next - now + MARGIN));
}

/// The current tick, not about to end.
fn tick() -> u32 {
    let now = subject::clock();
    if (now + MARGIN) >> TICK != now >> TICK {
        wait_for_next(now);
    }
    (subject::clock() >> TICK) as u32
}

impl<'a> Run<'a> {
    /// Begins with nothing in force and nothing remembered.
    pub(crate) fn new(subject: &'a mut Subject, refused: &'a mut Refused, careful: bool) -> Self {
        subject.clear();
        Self {
            before: subject.verdicts(),
            subject,
            state: State::default(),
            expected: Verdicts::new(),
            steps: 0,
            careful,
            refused,
        }
    }

    /// Lets both take a step; gives the verdict on a packet.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Option<Verdict>, Stopped> {
        self.steps += 1;
        let verdict = match step {
            Step::Services(services) => {
                let image = self.subject.configure(services);
                self.state.configure(services, &image, self.subject.said());
                None
            }
            Step::Window => {
                self.subject.pass_window();
                self.state.take(self.subject.said());
                None
            }
            Step::Scan => {
                self.subject.scan();
                self.state.take(self.subject.said());
                None
            }
            Step::TakeOver => {
                self.subject.take_over();
                self.state.take(self.subject.said());
                None
            }
            Step::Packet {
                hook,
                device,
                frame,
            } => Some(self.packet(*hook, device, frame)?),
        };
        Ok(verdict)
    }

    fn packet(&mut self, hook: Hook, device: &str, frame: &[u8]) -> Result<Verdict, Stopped> {
        let input = Input {
            hook,
            device: node::find(device),
            frame,
            now: tick(),
        };
        let made = self.subject.run(hook, input.device, frame);
        if (subject::clock() >> TICK) as u32 != input.now {
            return Err(Stopped::Ticked);
        }
        let program = Program {
            subject: self.subject,
        };
        let outcome = match reference::process(&mut self.state, &input, &program) {
            Ok(outcome) => outcome,
            Err(breach) => {
                return Err(self.differs(&breach, format!("  program {:?}", made.act)));
            }
        };
        let counts = self.expected.entry((hook, outcome.verdict)).or_default();
        counts.0 += 1;
        counts.1 += outcome.counted as u64;
        if outcome.verdict.fate() == Fate::Refuse {
            self.refused.add(input.now);
        }
        if let Some(what) = disagreement(&outcome, &made) {
            let seen = self.counted_since(&self.before, &self.expected);
            let detail = show(&input, &outcome, &made, &seen);
            return Err(self.differs(&what, detail));
        }
        if self.careful
            && let Err(Stopped::Differs(mut difference)) = self.verdicts()
        {
            let detail = show(&input, &outcome, &made, "");
            difference.detail = format!("{}\n{detail}", difference.detail);
            return Err(Stopped::Differs(difference));
        }
        Ok(outcome.verdict)
    }

    fn differs(&self, what: &str, detail: String) -> Stopped {
        Stopped::Differs(Difference {
            step: self.steps - 1,
            what: what.into(),
            detail,
        })
    }

    /// Compares everything that both remember and count.
    pub(crate) fn finish(self) -> Result<(), Stopped> {
        self.verdicts()?;
        // A cell has room for so many bits of a tick.
        let flows = self.state.flows.iter().map(|(tuple, flow)| {
            let expires = flow.expires & 0xff_ffff;
            (*tuple, records::Flow { expires, ..*flow })
        });
        self.same("flows", &flows.collect(), &self.subject.flows())?;
        self.same("replies", &self.state.replies, &self.subject.replies())?;
        self.same("direct", &self.state.direct, &self.subject.direct())?;
        self.same(
            "fragments",
            &self.state.fragments,
            &self.subject.fragments(),
        )?;
        // What services that are gone have left behind does not matter.
        let (mut expected, mut seen) = (self.state.last.clone(), self.subject.affinity());
        for affinity in [&mut expected, &mut seen] {
            affinity.retain(|(service, _), _| self.state.tables.contains_key(service));
        }
        self.same("affinities", &expected, &seen)?;
        let services = self.state.services.keys();
        let seen = services.map(|&index| (index, self.subject.service_count(index)));
        self.same("service counters", &self.state.services, &seen.collect())?;
        let backends = self.state.backend_counts.keys();
        let seen = backends.map(|&id| (id, self.subject.backend_count(id)));
        self.same(
            "backend counters",
            &self.state.backend_counts,
            &seen.collect(),
        )
    }

    fn verdicts(&self) -> Result<(), Stopped> {
        let seen = since(&self.before, &self.subject.verdicts());
        self.same("verdict counters", &self.expected, &seen)
    }

    fn counted_since(&self, before: &Verdicts, expected: &Verdicts) -> String {
        let seen = since(before, &self.subject.verdicts());
        let differs = |key: &(Hook, Verdict)| expected.get(key) != seen.get(key);
        let more = seen.keys().filter(|key| differs(key));
        more.map(|(hook, verdict)| format!("{} {verdict} ", hook.name()))
            .collect()
    }

    fn same<K: Ord + Debug, V: PartialEq + Debug>(
        &self,
        what: &str,
        expected: &BTreeMap<K, V>,
        seen: &BTreeMap<K, V>,
    ) -> Result<(), Stopped> {
        if expected == seen {
            return Ok(());
        }
        let mut detail = String::new();
        for (key, value) in expected {
            if seen.get(key) != Some(value) {
                detail += &format!(
                    "  {key:?}\n    reference {value:?}\n    program   {:?}\n",
                    seen.get(key)
                );
            }
        }
        for (key, value) in seen {
            if !expected.contains_key(key) {
                detail += &format!("  {key:?}\n    reference None\n    program   {value:?}\n");
            }
        }
        Err(self.differs(&format!("{what} differ"), detail))
    }
}

/// What was counted between two readings.
fn since(before: &Verdicts, after: &Verdicts) -> Verdicts {
    after
        .iter()
        .map(|(key, (packets, bytes))| {
            let (old_packets, old_bytes) = before.get(key).copied().unwrap_or_default();
            (*key, (packets - old_packets, bytes - old_bytes))
        })
        .filter(|(_, (packets, _))| *packets > 0)
        .collect()
}

/// What the reference may look at of what the program did.
struct Program<'a> {
    subject: &'a Subject,
}

impl Choices for Program<'_> {
    fn flow(&self, tuple: &Tuple) -> Option<records::Flow> {
        self.subject.flow(tuple)
    }
}

/// Runs a whole scene, as often as the clock demands.
pub(crate) fn scene(
    subject: &mut Subject,
    refused: &mut Refused,
    steps: &[Step],
) -> Result<(), Difference> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut run = Run::new(subject, refused, true);
        let mut result = Ok(());
        for step in steps {
            result = run.step(step).map(drop);
            if result.is_err() {
                break;
            }
        }
        match result.and_then(|()| run.finish()) {
            Ok(()) => return Ok(()),
            Err(Stopped::Differs(difference)) => return Err(difference),
            Err(Stopped::Ticked) => assert!(Instant::now() < deadline, "the machine is too slow"),
        }
    }
}
