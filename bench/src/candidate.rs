//! What is measured, each on a ground of its own.

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::{Algorithm, Family, Hook, Mode, bench::Watch};

use crate::{
    frames::{Frames, To},
    generator::{self, DROP, Generator, NEXT, PASS, Stub, TX, Way},
    ground::Ground,
    net::{self, CLIENTS, FAR_PODS, Net, POD_PORT, PODS, PORT, STRANGERS},
    node::Node,
    proxy,
};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reply,
}

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program that sends back whatever comes.
    Tx,
    /// One that drops it.
    Drop,
    /// The kernel, to where packets are addressed.
    Kernel,
    /// kube-proxy's rules.
    Nftables,
    /// Likewise.
    Iptables,
    Naru(Algorithm, Mode),
    /// Naru, and packets for none of its services.
    Stranger,
}

/// What a candidate is to do with a frame, and where it meets it.
struct Run {
    program: ProgramFd,
    /// The device it comes in by.
    ifindex: u32,
    action: u32,
}

/// Something to measure, and where.
pub(crate) struct Candidate {
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    ground: Ground,
    generator: Generator,
    node: Option<Node>,
    /// How many flows have begun.
    begun: u32,
}

// === impl Kind ===

impl Kind {
    /// All of them, the one that others are held against first.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Tx,
            Self::Drop,
            Self::Kernel,
            Self::Nftables,
            Self::Iptables,
        ];
        for algorithm in [Algorithm::Maglev, Algorithm::RoundRobin] {
            let modes = [Mode::Dsr, Mode::Nat, Mode::Local];
            all.extend(modes.map(|mode| Self::Naru(algorithm, mode)));
        }
        all.push(Self::Stranger);
        all
    }

    /// Its name in rows.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tx => "xdp_tx".to_owned(),
            Self::Drop => "xdp_drop".to_owned(),
            Self::Kernel => "kernel-forwarding".to_owned(),
            Self::Nftables => "nftables".to_owned(),
            Self::Iptables => "iptables".to_owned(),
            Self::Naru(algorithm, mode) => format!("naru-{}-{}", algorithm.name(), mode.name()),
            Self::Stranger => "naru-no-vip".to_owned(),
        }
    }

    /// Whether every connection is in the kernel's table.
    const fn is_tracked(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables)
    }

    /// The network whose hosts clients reach in the end; none where frames go as they are.
    const fn reaches(self) -> Option<Net> {
        match self {
            Self::Naru(_, Mode::Nat) => Some(FAR_PODS),
            Self::Naru(_, Mode::Local) | Self::Nftables | Self::Iptables => Some(PODS),
            Self::Kernel | Self::Stranger => Some(STRANGERS),
            Self::Tx | Self::Drop | Self::Naru(_, Mode::Dsr) => None,
        }
    }

    /// Whether there are replies for it to carry: with `dsr` they go another way.
    pub(crate) const fn has_replies(self) -> bool {
        !matches!(self, Self::Drop | Self::Naru(_, Mode::Dsr))
    }

    /// Whether replies are of this node's own pods, which the stack sends.
    const fn sends_replies(self) -> bool {
        self.has_replies() && !matches!(self, Self::Tx | Self::Naru(_, Mode::Nat))
    }

    /// Whether somebody stands between client and host.
    const fn is_served(self) -> bool {
        self.reaches().is_some() && !matches!(self, Self::Kernel | Self::Stranger)
    }

    /// How its program alone is run, if it has one.
    pub(crate) const fn alone(self, direction: Direction) -> Option<Way> {
        match (self, direction) {
            (Self::Drop | Self::Kernel | Self::Nftables | Self::Iptables, _) => None,
            (_, Direction::Forward) => Some(Way::Program),
            (Self::Naru(_, Mode::Nat) | Self::Tx, Direction::Reply) => Some(Way::Program),
            (Self::Naru(_, Mode::Local) | Self::Stranger, Direction::Reply) => {
                Some(Way::Classifier)
            }
            (Self::Naru(_, Mode::Dsr), Direction::Reply) => None,
        }
    }
}

// === impl Candidate ===

impl Candidate {
    /// Makes the ground and sets the candidate up on it, for so many flows at most.
    pub(crate) fn new(kind: Kind, family: Family, most: u32) -> Result<Self> {
        let ground = Ground::build()?;
        let mut generator = Generator::load(most)?;
        for sink in ground.sinks {
            generator.end_at(sink)?;
        }
        let flows = (most + most / 4).max(1 << 17);
        let node = match kind {
            Kind::Tx | Kind::Drop | Kind::Kernel => None,
            Kind::Nftables => proxy::nftables(family).map(|()| None)?,
            Kind::Iptables => proxy::iptables(family).map(|()| None)?,
            Kind::Naru(algorithm, mode) => {
                let node = Node::new(&ground, &kind.name(), algorithm, mode, family, flows)?;
                Some(node)
            }
            Kind::Stranger => {
                let (maglev, local) = (Algorithm::Maglev, Mode::Local);
                Some(Node::new(
                    &ground,
                    &kind.name(),
                    maglev,
                    local,
                    family,
                    1 << 17,
                )?)
            }
        };
        Ok(Self {
            kind,
            family,
            ground,
            generator,
            node,
            begun: 0,
        })
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
            let opening = self.forward(60, true)?.in_turn(flows, self.begun);
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
        let seen = self.generator.seen(Watch::EACH)?;
        let (to, family) = (u32::from_be(seen.destination), self.family);
        match self.kind.reaches() {
            Some(net) => ensure!(net.has_backend(family, to), "{to:08x} is no backend"),
            None => ensure!(to == net::tail(net::vip(family)), "{to:08x} is not the VIP"),
        }
        if self.kind.has_replies() {
            self.generator.watch(Watch::LAST, flows, true)?;
            let replies = self.replies(64)?.in_turn(flows, 0);
            self.live(Direction::Reply, &replies, flows)?;
            let from = u32::from_be(self.generator.seen(Watch::LAST)?.source);
            let vip = net::tail(net::vip(family));
            ensure!(
                !self.kind.is_served() || from == vip,
                "{from:08x} is not the VIP"
            );
        }
        self.generator.watch(Watch::NOTHING, flows, false)
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
        let frames = self.frames(direction, size)?.shuffled(flows);
        self.live(direction, &frames, count)
    }

    /// The nanoseconds that each of so many frames takes in the program alone, the generator
    /// included; and with a stub in the program's place.
    pub(crate) fn program(
        &mut self,
        way: Way,
        direction: Direction,
        flows: u32,
        count: u32,
    ) -> Result<(f64, f64)> {
        let frames = self.frames(direction, 64)?.shuffled(flows);
        let (run, stub) = if way == Way::Classifier {
            let program = self.node(Hook::TcEgress)?;
            let ifindex = self.ground.uplink;
            let run = Run {
                program,
                ifindex,
                action: NEXT,
            };
            (run, Stub::PassTc)
        } else {
            (self.xdp()?, Stub::Tx)
        };
        self.ground.enter()?;
        let stub = self.generator.stub(stub)?;
        let (bare, _) = self
            .generator
            .run(way, &stub, &frames, run.ifindex, count)?;
        let (time, action) = self
            .generator
            .run(way, &run.program, &frames, run.ifindex, count)?;
        ensure!(
            action == run.action,
            "it makes {action} of a frame, not {}",
            run.action
        );
        Ok((time, bare))
    }

    /// How many instructions its program has.
    pub(crate) fn instructions(&mut self, way: Way) -> Result<u32> {
        let program = match way {
            Way::Classifier => self.node(Hook::TcEgress)?,
            Way::Program | Way::Live => self.xdp()?.program,
        };
        generator::instructions(&program)
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

    fn frames(&self, direction: Direction, size: usize) -> Result<Frames> {
        match direction {
            Direction::Forward => self.forward(size, false),
            Direction::Reply => self.replies(size),
        }
    }

    fn forward(&self, size: usize, syn: bool) -> Result<Frames> {
        let to = match self.kind {
            Kind::Kernel | Kind::Stranger => To::Hosts(STRANGERS),
            _ => To::Service,
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
