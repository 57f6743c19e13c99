//! What can happen to a LAN: cables, the switch, and whole machines.
//!
//! All of it is done at the switch, as from outside; nothing on a machine is touched.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::tool::feed;

/// The switch's rules of a split, and of the ports that are shut, each in a table.
const SPLIT: &str = "split";

impl Lab {
    /// Pulls a machine's cable: the link goes down at both ends.
    pub fn cut(&self, machine: &str) -> Result<()> {
        self.set_port(machine, "down")
    }

    /// Plugs a machine's cable in.
    pub fn heal(&self, machine: &str) -> Result<()> {
        self.set_port(machine, "up")
    }

    /// Whether a machine's cable is plugged in.
    pub fn is_cabled(&self, machine: &str) -> Result<bool> {
        self.node("lan").has_carrier(&self.port(machine)?)
    }

    /// Has the switch drop what a machine sends and what is for it, with the link up: a
    /// machine that hangs, or a switch that does.
    pub fn block(&self, machine: &str) -> Result<()> {
        let port = self.port(machine)?;
        let rules = format!("iifname \"{port}\" drop\noifname \"{port}\" drop\n");
        self.switch_rules(&port, &rules)
    }

    /// Undoes [`block`](Self::block).
    pub fn unblock(&self, machine: &str) -> Result<()> {
        let port = self.port(machine)?;
        self.switch_rules(&port, "")
    }

    /// Splits the LAN: machines of different groups hear nothing of each other, whoever
    /// is in none still hears everybody. Links stay up. Takes the place of an earlier
    /// split.
    pub fn split(&self, groups: &[&[&str]]) -> Result<()> {
        let ports = |group: &&[&str]| -> Result<Vec<String>> {
            let quoted = |machine: &&str| Ok(format!("\"{}\"", self.port(machine)?));
            group.iter().map(quoted).collect()
        };
        let groups = groups.iter().map(ports).collect::<Result<Vec<_>>>()?;
        let mut rules = String::new();
        for (index, from) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(it, _)| *it != index);
            for (_, to) in others.filter(|(_, to)| !to.is_empty() && !from.is_empty()) {
                let (from, to) = (from.join(", "), to.join(", "));
                let _ = writeln!(rules, "iifname {{ {from} }} oifname {{ {to} }} drop");
            }
        }
        self.switch_rules(SPLIT, &rules)
    }

    /// Undoes [`split`](Self::split).
    pub fn unite(&self) -> Result<()> {
        self.switch_rules(SPLIT, "")
    }

    /// Replaces one of the switch's tables as a whole, at once; without rules it is gone.
    fn switch_rules(&self, table: &str, rules: &str) -> Result<()> {
        let mut script = format!("table bridge {table} {{}}\ndelete table bridge {table}\n");
        if !rules.is_empty() {
            let _ = write!(
                script,
                "table bridge {table} {{\nchain forward {{\n\
                 type filter hook forward priority 0;\n{rules}}}\n}}\n"
            );
        }
        let mut nft = self.node("lan").command("nft");
        feed(nft.args(["-f", "-"]), &script).map(drop)
    }

    fn set_port(&self, machine: &str, state: &str) -> Result<()> {
        let port = self.port(machine)?;
        self.node("lan").ip(&format!("link set {port} {state}\n"))
    }

    /// The switch's end of a machine's cable.
    pub fn port(&self, machine: &str) -> Result<String> {
        let mut hosts = self.lan_hosts().into_iter();
        let index = hosts.position(|(name, _)| name == machine);
        index
            .map(|index| format!("port{index}"))
            .ok_or_else(|| Error::Topology(format!("{machine} has no cable to the switch")))
    }
}
