//! What is measured, each on a ground of its own.

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::{Algorithm, Family, Hook, Mode, bench::Watch};

use crate::{
    frames::{Frames, To},
    generator::{self, ABORTED, DROP, Generator, NEXT, PASS, Stub, TX, Way},
    ground::Ground,
    kind::{Alone, Direction, Kind},
    net::{self, BACKENDS, CLIENTS, POD_PORT, PODS, PORT, STRANGERS},
    node::{Node, Spec},
    proxy,
    shape::Shape,
};

/// What a candidate is to do with a frame, and where it meets it.
struct Run {
    program: ProgramFd,
    /// The device it comes in by.
    ifindex: u32,
    action: u32,
}

/// The number of the first of those flows that only begin: beyond all others.
const FIRST_FRESH: u32 = 1 << 24;
/// And one more than that of the last.
const END_FRESH: u32 = 1 << 30;

/// What a candidate is to have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) family: Family,
    pub(crate) shape: Shape,
    /// Flows at most, whose packets are measured.
    pub(crate) most: u32,
    /// Flows besides, which only begin.
    pub(crate) fresh: u32,
}

/// Something to measure, and where.
pub(crate) struct Candidate {
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    pub(crate) shape: Shape,
    ground: Ground,
    generator: Generator,
    node: Option<Node>,
    /// How many flows have begun.
    begun: u32,
    /// The next one of those that only begin.
    fresh: u32,
}

// === impl Candidate ===

impl Candidate {
    /// Makes the ground and sets the candidate up on it.
    pub(crate) fn new(kind: Kind, setting: Setting) -> Result<Self> {
        let Setting {
            family,
            shape,
            most,
            fresh,
        } = setting;
        let pods = match kind {
            Kind::Naru(_, Mode::Local) => shape.reached(),
            _ => BACKENDS,
        };
        let ground = Ground::build(pods)?;
        let mut generator = Generator::load(most)?;
        for sink in ground.sinks {
            generator.end_at(sink)?;
        }
        let flows = most + fresh;
        // With room: one that is refused would not be compared.
        let max_flows = (flows + flows / 8).max(1 << 17);
        let node = match kind {
            Kind::Tx | Kind::Drop | Kind::Kernel => None,
            Kind::Nftables => proxy::nftables(family).map(|()| None)?,
            Kind::Iptables => proxy::iptables(family).map(|()| None)?,
            Kind::Naru(algorithm, mode) => {
                let spec = Spec {
                    algorithm,
                    mode,
                    family,
                    shape,
                    max_flows,
                };
                let name = format!("{}-{shape}", kind.name());
                Some(Node::new(&ground, &name, spec)?)
            }
            Kind::Stranger => {
                let spec = Spec {
                    algorithm: Algorithm::Maglev,
                    mode: Mode::Local,
                    family,
                    shape,
                    max_flows: 1 << 17,
                };
                Some(Node::new(&ground, &kind.name(), spec)?)
            }
        };
        Ok(Self {
            kind,
            family,
            shape,
            ground,
            generator,
            node,
            begun: 0,
            fresh: FIRST_FRESH,
        })
    }

    /// What it is called while it is measured.
    pub(crate) fn name(&self) -> String {
        let name = self.kind.name();
        match self.kind {
            Kind::Naru(..) if self.shape != Shape::ONE => format!("{name}, {}", self.shape),
            _ => name,
        }
    }

    /// Begins flows until there are so many, sees that each reaches a backend, and that its
    /// replies come from the service.
    pub(crate) fn begin(&mut self, flows: u32) -> Result<()> {
        if self.kind.is_tracked() {
            let path = "/proc/sys/net/netfilter/nf_conntrack_max";
            let text = std::fs::read_to_string(path).context(path)?;
            let max: u32 = text.trim().parse().context(path)?;
            ensure!(flows < max, "net.netfilter.nf_conntrack_max is {max}");
        }
        if self.node.is_some() && flows > self.begun {
            let opening = self.forward(64, true)?.in_turn(flows, self.begun);
            let count = flows - self.begun;
            self.live(Direction::Forward, &opening, count)?;
        }
        self.begun = self.begun.max(flows);
        self.generator.watch(Watch::EACH, flows, false)?;
        let following = self.forward(64, false)?.in_turn(flows, 0);
        self.live(Direction::Forward, &following, flows)?;
        if self.kind == Kind::Drop {
            return Ok(());
        }
        self.check_ends(flows)?;
        if self.kind.has_replies() {
            self.generator.watch(Watch::LAST, flows, true)?;
            let replies = self.replies(64)?.in_turn(flows, 0);
            self.live(Direction::Reply, &replies, flows)?;
            let from = u32::from_be(self.generator.last()?.source);
            ensure!(
                !self.kind.is_served() || self.is_vip(from),
                "{from:08x} is not the VIP"
            );
        }
        self.generator.watch(Watch::NOTHING, flows, false)
    }

    /// Sees that flows end at backends: a refusal, too, is a frame that arrives.
    fn check_ends(&self, flows: u32) -> Result<()> {
        let (family, reached) = (self.family, self.shape.reached());
        let ends = self.generator.some(flows)?;
        let astray = ends.iter().filter(|seen| {
            let to = u32::from_be(seen.destination);
            match self.kind.reaches() {
                Some(net) => !net.has_backend(family, to, reached),
                None => !self.is_vip(to),
            }
        });
        let astray = astray.count();
        let enough = astray * 100 <= ends.len();
        ensure!(enough, "{astray} of {} flows reach no backend", ends.len());
        Ok(())
    }

    /// The nanoseconds that each of so many frames takes, from where it is made to where it
    /// ends.
    pub(crate) fn path(
        &mut self,
        direction: Direction,
        size: usize,
        flows: u32,
        count: u32,
    ) -> Result<f64> {
        let frames = match direction {
            Direction::Forward => self.forward(size, false)?,
            Direction::Reply => self.replies(size)?,
        };
        self.live(direction, &frames.shuffled(flows), count)
    }

    /// The nanoseconds that each of so many first packets of other flows takes, from where it
    /// is made to where it ends.
    pub(crate) fn begin_more(&mut self, count: u32) -> Result<f64> {
        let first = self.fresh;
        let end = first.saturating_add(count);
        ensure!(end <= END_FRESH, "no more flows");
        self.fresh = end;
        let frames = self.forward(64, true)?.in_turn(END_FRESH, first);
        self.live(Direction::Forward, &frames, count)
    }

    /// Bytes of its maps, where it has any.
    pub(crate) fn bytes(&self) -> Result<Option<u64>> {
        self.node.as_ref().map(Node::bytes).transpose()
    }

    fn is_vip(&self, tail: u32) -> bool {
        net::is_vip(self.family, tail, self.shape.asked())
    }

    /// The nanoseconds that each of so many frames takes in the program alone, the generator
    /// included; and with a stub in the program's place.
    pub(crate) fn program(&mut self, alone: Alone, flows: u32, count: u32) -> Result<(f64, f64)> {
        let frames = self.frames_of(alone)?.shuffled(flows);
        let (way, stub) = match alone.hook {
            Hook::Xdp => (Way::Program, Stub::Tx),
            Hook::TcIngress | Hook::TcEgress => (Way::Classifier, Stub::PassTc),
        };
        let run = self.run_of(alone)?;
        self.ground.enter()?;
        let stub = self.generator.stub(stub)?;
        let (bare, _) = self
            .generator
            .run(way, &stub, &frames, run.ifindex, count)?;
        let (time, action) = self
            .generator
            .run(way, &run.program, &frames, run.ifindex, count)?;
        // A refusal is shorter than the frame, which the generator then cannot make any more.
        ensure!(action != ABORTED, "it has refused a frame");
        ensure!(
            action == run.action,
            "it makes {action} of a frame, not {}",
            run.action
        );
        Ok((time, bare))
    }

    /// How many instructions its program has.
    pub(crate) fn instructions(&mut self, alone: Alone) -> Result<u32> {
        generator::instructions(&self.run_of(alone)?.program)
    }

    fn run_of(&mut self, alone: Alone) -> Result<Run> {
        match alone.hook {
            Hook::Xdp => self.xdp(),
            hook => Ok(Run {
                program: self.node(hook)?,
                ifindex: self.ground.uplink,
                action: NEXT,
            }),
        }
    }

    /// At TC ingress, frames as XDP has left them.
    fn frames_of(&self, alone: Alone) -> Result<Frames> {
        if alone.hook == Hook::TcIngress && self.kind.is_served() {
            return Frames::forward(self.family, 64, To::Hosts(PODS, POD_PORT), false);
        }
        match alone.direction {
            Direction::Forward => self.forward(64, false),
            Direction::Reply => self.replies(64),
        }
    }

    /// Lets frames go their way, and sees that they end.
    fn live(&mut self, direction: Direction, frames: &Frames, count: u32) -> Result<f64> {
        self.ground.enter()?;
        let run = if direction == Direction::Reply && self.kind.sends_replies() {
            Run {
                program: self.generator.stub(Stub::Pass)?,
                ifindex: self.ground.pods,
                action: PASS,
            }
        } else {
            self.xdp()?
        };
        let before = self.generator.arrived()?;
        let (time, _) = self
            .generator
            .run(Way::Live, &run.program, frames, run.ifindex, count)?;
        let arrived = self.generator.arrived()? - before;
        // Where the kernel's threads have a part in it, a few may still be on their way.
        let enough = u64::from(count) - u64::from(count) / 100;
        ensure!(arrived >= enough, "{arrived} of {count} frames arrived");
        Ok(time)
    }

    fn xdp(&mut self) -> Result<Run> {
        let (program, action) = match self.kind {
            Kind::Tx => (self.generator.stub(Stub::Tx)?, TX),
            Kind::Drop => (self.generator.stub(Stub::Drop)?, DROP),
            Kind::Kernel | Kind::Nftables | Kind::Iptables => {
                (self.generator.stub(Stub::Pass)?, PASS)
            }
            Kind::Naru(_, Mode::Local) | Kind::Stranger => (self.node(Hook::Xdp)?, PASS),
            Kind::Naru(_, Mode::Nat | Mode::Dsr) => (self.node(Hook::Xdp)?, TX),
        };
        let ifindex = self.ground.uplink;
        Ok(Run {
            program,
            ifindex,
            action,
        })
    }

    fn node(&mut self, hook: Hook) -> Result<ProgramFd> {
        self.node.as_mut().context("no node")?.program(hook)
    }

    fn forward(&self, size: usize, syn: bool) -> Result<Frames> {
        let to = match self.kind {
            Kind::Kernel | Kind::Stranger => To::Hosts(STRANGERS, PORT),
            _ => To::Services(self.shape.asked()),
        };
        Frames::forward(self.family, size, to, syn)
    }

    fn replies(&self, size: usize) -> Result<Frames> {
        let family = self.family;
        let port = if self.kind.is_served() {
            POD_PORT
        } else {
            PORT
        };
        let from = self.kind.reaches().unwrap_or(net::LAN);
        let to = match self.kind {
            Kind::Naru(_, Mode::Nat) => net::snat(family),
            _ => CLIENTS.host(family, 0),
        };
        Frames::replies(family, size, (from.first(family), port), to)
    }
}
