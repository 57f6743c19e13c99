//! Faults of the agent.

use crate::mutants::{
    Catch::{Packet, Unit},
    Fault,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a frontend that is gone is found by its short key",
        file: "lb-userspace/src/datapath/filter.rs",
        good: "in near.into_iter().enumerate() {",
        bad: "in near.into_iter().enumerate().filter(|it| it.1 != NearFrontend::default()) {",
        caught_by: Packet(
            "near: a frontend that goes over to another service is that one's, and one that goes is gone",
        ),
    },
    Fault {
        name: "flows begin anew where new ones take another way",
        file: "lb-userspace/src/compile/backends.rs",
        good: "    for (identity, id) in wanted.chain(former) {\n",
        bad: "    drop(former);\n    for (identity, id) in wanted {\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "compiling again: replies to a service that a pod has left are forgotten",
        file: "lb-userspace/src/compile/again.rs",
        good: "self.services.keys().copied().chain(owners);",
        bad: "self.services.keys().copied().chain(owners.take(0));",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "compiling again: endpoints that are here now are where they were",
        file: "lb-userspace/src/compile/again.rs",
        good: "        if !moved.is_empty() {\n",
        bad: "        if moved.len() > 9 {\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "compiling again: others of a service that take new flows now did not matter before",
        file: "lb-userspace/src/compile/again.rs",
        good: "            now.is_none_or(|it| self.has(it)) || now == image.backends.get(&index)\n",
        bad: "            now.is_none_or(|it| self.has(it)) || image.backends.contains_key(&index)\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "translating again: what there is to say of a slice is what there was",
        file: "lb-userspace/src/source/kubernetes/again.rs",
        good: "            if !same || findings != entry.findings {\n",
        bad: "            if !same {\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "former tables not told to the program",
        file: "lb-userspace/src/datapath/generations.rs",
        good: "        self.maps.services.set(former, old.0);",
        bad: "        self.maps.services.set(former, 0 * old.0);",
        caught_by: Packet(
            "another table: of another size, connections that send within the window stay",
        ),
    },
    Fault {
        name: "what a scan found before a change settles slots",
        file: "lb-userspace/src/datapath/generations.rs",
        good: "        if serial != found.serial {",
        bad: "        if serial < found.serial {",
        caught_by: Packet("sweep: slots settle once no record names another backend"),
    },
    Fault {
        name: "draining endpoints take new flows",
        file: "lb-userspace/src/compile/slots.rs",
        good: "    if ready.is_empty() {",
        bad: "    if ready.len() <= 1 {",
        caught_by: Packet("a draining pod keeps its flows and takes no new ones"),
    },
    Fault {
        name: "addresses given anew at every start",
        file: "lb-userspace/src/ipam/run.rs",
        good: "            run.complete();\n            run.give();",
        bad: "            run.addresses.clear();\n            run.give();",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "what was given up comes back by merging",
        file: "lb-userspace/src/ipam/ledger.rs",
        good: "                Reverse(it.generation),\n                it.released,",
        bad: "                it.released,\n                Reverse(it.generation),",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "a file that was just written is known by its times",
        file: "lb-userspace/src/source/manifest/directory.rs",
        good: "let young = stamp.is_young(SystemTime::now());",
        bad: "let young = false;",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "files that events are about are not looked at",
        file: "lb-userspace/src/source/manifest/directory.rs",
        good: "                self.seen.look_at(&self.path, names);\n",
        bad: "                let _ = names;\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "endpoints that have changed are not looked at",
        file: "lb-userspace/src/source/kubernetes/known.rs",
        good: "            && all(&self.slices) == all(&other.slices)\n",
        bad: "            && all(&self.slices).len() == all(&other.slices).len()\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "a Maglev table outlives its weights",
        file: "lb-userspace/src/compile/maglev.rs",
        good: "        let input = Input {\n",
        bad: "        let endpoints = endpoints.iter().map(|it| (it.0, 1)).collect();\n        let input = Input {\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "records of a handover are not looked at once the owner is gone",
        file: "lb-userspace/src/datapath/claims.rs",
        good: "        self.look_up(&addrs(unknown));\n",
        bad: "        let _ = unknown;\n",
        caught_by: Packet("takeover: what a node that died had handed over stays with its pods"),
    },
    Fault {
        name: "direct connections are never forgotten",
        file: "lb-userspace/src/datapath/sweep.rs",
        good: "entries.filter(|(_, it)| it.is_expired(now))",
        bad: "entries.filter(|_| false)",
        caught_by: Packet("direct: a sweep forgets those that are over or were silent for a day"),
    },
    Fault {
        name: "cells of killed owners stay theirs",
        file: "lb-userspace/src/datapath/records.rs",
        good: "Stuck::Flow(place) => self.flows.exchange(place, FIRST, first, Cell::FREE),",
        bad: "Stuck::Flow(place) => self.flows.exchange(place, FIRST, first, first),",
        caught_by: Packet(
            "cells: what was in the hand of an agent that was killed is freed by the next",
        ),
    },
    Fault {
        name: "half of what a failed start made is used",
        file: "lb-userspace/src/datapath/load.rs",
        good: "they would be of another size.\n            records::unpin(&dir)?;",
        bad: "they would be of another size.",
        caught_by: Packet(
            "cells: tables that were half made are made anew, in the size that is asked for",
        ),
    },
];
