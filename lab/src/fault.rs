//! The faults that a failover is measured by, each with how it ends.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::Result;

/// What happens to a cluster, mostly to the node that owns the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Its power is gone.
    NodeOff,
    /// Its agent gets SIGKILL.
    AgentKilled,
    /// Its agent gets SIGTERM.
    AgentStopped,
    /// Its agent gets SIGSTOP; its kernel goes on.
    AgentPaused,
    /// It hangs, links up.
    NodeFrozen,
    /// Its cable is pulled.
    CableCut,
    /// The LAN is split: the owner and the far client on one side.
    Split,
    /// A node that was not there comes.
    NodeAdded,
    /// Its time of day jumps an hour ahead.
    ClockAhead,
    /// Its time of day jumps an hour back.
    ClockBack,
}

impl Fault {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::NodeOff,
        Self::AgentKilled,
        Self::AgentStopped,
        Self::AgentPaused,
        Self::NodeFrozen,
        Self::CableCut,
        Self::Split,
        Self::NodeAdded,
        Self::ClockAhead,
        Self::ClockBack,
    ];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeOff => "node-off",
            Self::AgentKilled => "agent-killed",
            Self::AgentStopped => "agent-stopped",
            Self::AgentPaused => "agent-paused",
            Self::NodeFrozen => "node-frozen",
            Self::CableCut => "cable-cut",
            Self::Split => "split",
            Self::NodeAdded => "node-added",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBack => "clock-back",
        }
    }

    /// What happens, and what ends it, for people.
    pub fn words(self) -> [&'static str; 2] {
        match self {
            Self::NodeOff => ["node switched off", "switched on again"],
            Self::AgentKilled => ["agent killed", "started again"],
            Self::AgentStopped => ["agent stopped cleanly", "started again"],
            Self::AgentPaused => ["agent paused", "resumed after 10 s"],
            Self::NodeFrozen => ["node hangs", "goes on after 10 s"],
            Self::CableCut => ["cable pulled", "plugged in again"],
            Self::Split => ["LAN split in two", "united"],
            Self::NodeAdded => ["node added", "removed as planned"],
            Self::ClockAhead => ["clock jumps 1 h ahead", "and back"],
            Self::ClockBack => ["clock jumps 1 h back", "and forward again"],
        }
    }

    /// How long it lasts, counted from when it began.
    pub fn lasts(self) -> Duration {
        match self {
            Self::AgentPaused | Self::NodeFrozen => Duration::from_secs(10),
            _ => Duration::ZERO,
        }
    }

    /// Has it happen to this node.
    pub fn begin(self, cluster: &Cluster, node: &str) -> Result<()> {
        match self {
            Self::NodeOff => cluster.off(node),
            Self::AgentKilled => cluster.agent(node)?.kill(),
            Self::AgentStopped => cluster.agent(node)?.stop(),
            Self::AgentPaused => cluster.agent(node)?.pause(),
            Self::NodeFrozen => cluster.freeze(node),
            Self::CableCut => cluster.cut(node),
            Self::Split => cluster.split_off(node),
            Self::NodeAdded => cluster.join(node),
            Self::ClockAhead => cluster.set_clock(node, 3600),
            Self::ClockBack => cluster.set_clock(node, -3600),
        }
    }

    /// Undoes it.
    pub fn end(self, cluster: &Cluster, node: &str) -> Result<()> {
        match self {
            Self::NodeOff => cluster.on(node),
            Self::AgentKilled | Self::AgentStopped => cluster.agent(node)?.restart(),
            Self::AgentPaused => cluster.agent(node)?.resume(),
            Self::NodeFrozen => cluster.thaw(node),
            Self::CableCut => cluster.heal(node),
            Self::Split => cluster.unite(node),
            Self::NodeAdded => cluster.leave(node),
            Self::ClockAhead | Self::ClockBack => cluster.set_clock(node, 0),
        }
    }
}
