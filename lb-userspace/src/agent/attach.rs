//! The interfaces that the programs are attached to.

use std::collections::BTreeMap;

use super::{interfaces, mode, state::State};
use crate::net::{LinkKind, Snapshot};

impl State {
    /// Forgets attachments that somebody took away; tells whether there were any.
    pub(super) fn forget_detached(&mut self) -> bool {
        let datapath = &self.datapath;
        let before = self.attachments.len();
        self.attachments.retain(|name, it| {
            let there = datapath.is_attached(it);
            if !there {
                tracing::warn!("the programs on {name} were taken away; attaching anew");
            }
            there
        });
        self.attachments.len() < before
    }

    /// Attaches to the interfaces that exist and are not attached yet, and lets go of
    /// the others. Gives what failed, interface by interface.
    pub(super) fn attach(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut failures = Vec::new();
        let present: BTreeMap<String, u32> =
            interfaces::present(&self.options.interfaces, snapshot)
                .map(|link| (link.name.clone(), link.index))
                .collect();
        let named = self.options.interfaces.iter().filter_map(|it| it.name());
        let missing = named.filter(|name| !present.contains_key(*name));
        self.missing_interfaces = missing.map(str::to_owned).collect();
        self.attachments.retain(|name, it| {
            let same = present.get(name) == Some(&it.ifindex);
            if !same {
                tracing::warn!("interface {name} is gone; waiting for it to come back");
            }
            same
        });
        match self
            .datapath
            .detach_others(&present.values().copied().collect())
        {
            Ok(detached) => {
                for index in detached {
                    if let Some(link) = snapshot.links.get(&index) {
                        let name = &link.name;
                        tracing::info!("detached from {name}, which is not among --interface");
                    }
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
        for (name, index) in present {
            if self.attachments.contains_key(&name) {
                continue;
            }
            let kind = snapshot
                .links
                .get(&index)
                .map_or(LinkKind::Other, |it| it.kind);
            let mode = match mode::of(self.options.attach, &name, kind) {
                Ok(mode) => mode,
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
            match self.datapath.attach(&name, index, mode) {
                Ok(attachment) => {
                    self.attachments.insert(name, attachment);
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        failures
    }
}
