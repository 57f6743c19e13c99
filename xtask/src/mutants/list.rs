//! The faults.

use super::{
    Catch::{self, Model, Packet, Unit},
    Fault,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "wrong checksum offset",
        file: "lb-ebpf/src/frame.rs",
        good: "        Some(6)\n",
        bad: "        Some(4)\n",
        caught_by: Packet("UDP to a pod here, odd payload"),
    },
    Fault {
        name: "TTL not counted down",
        file: "lb-ebpf/src/xdp.rs",
        good: "from_ne_bytes([headers.ttl - 1, from.protocol])",
        bad: "from_ne_bytes([headers.ttl, from.protocol])",
        caught_by: Packet("nat: both ends rewritten, TTL down, out by the way it came, and back"),
    },
    Fault {
        name: "ports swapped",
        file: "lb-ebpf/src/xdp.rs",
        good: "[to.src_port.word(), to.dst_port.word()]",
        bad: "[to.dst_port.word(), to.src_port.word()]",
        caught_by: Packet("TCP to a pod here: destination rewritten, the stack delivers"),
    },
    Fault {
        name: "stale generation accepted",
        file: "lb-common/src/backend.rs",
        good: "self.alive != 0 && self.is(id)",
        bad: "self.alive != 0 && self.id.index() == id.index()",
        caught_by: Packet("a pod that comes back does not inherit the flows of its former life"),
    },
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
        name: "short keys of frontends are not used",
        file: "lb-ebpf/src/fast.rs",
        good: "        Found::Entry(entry) => Some(entry),",
        bad: "        Found::Entry(_) => None,",
        caught_by: Packet(
            "near: a frontend is found by its short key, and one that shares a place in the map",
        ),
    },
    Fault {
        name: "reply not restored",
        file: "lb-ebpf/src/fast.rs",
        good: "flow::find_reply(headers, flow::now(), &mut to)?;\n",
        bad: "flow::find_reply(headers, flow::now(), &mut to)?;\n        to = packet.tuple;\n",
        caught_by: Packet("reply of a local pod leaves with the VIP as source"),
    },
    Fault {
        name: "affinity ignored",
        file: "lb-ebpf/src/client.rs",
        good: "    if last.is_expired(now) {",
        bad: "    if last.is_expired(now) || table.is_affine() {",
        caught_by: Packet("session affinity: an address comes back to its pod, whatever the port"),
    },
    Fault {
        name: "source ranges ignored",
        file: "lb-ebpf/src/client.rs",
        good: "SOURCES.get(&key).is_some()",
        bad: "SOURCES.get(&key).is_some() | true",
        caught_by: Packet("source ranges: other clients are dropped and counted, in both families"),
    },
    Fault {
        name: "a fragment gets the ports of another packet",
        file: "lb-ebpf/src/headers.rs",
        good: "        let id = self.fragment_id;",
        bad: "        let id = self.fragment_id & 0;",
        caught_by: Model,
    },
    Fault {
        name: "RST answered with RST",
        file: "lb-ebpf/src/refuse.rs",
        good: "        || headers.tcp_flags & tcp_flag::RST != 0\n",
        bad: "",
        caught_by: Packet("an RST is never answered, nor what comes from no single host"),
    },
    Fault {
        name: "SYN not counted in what an RST acknowledges",
        file: "lb-ebpf/src/refuse.rs",
        good: "payload + u32::from(flags & tcp_flag::SYN != 0)",
        bad: "payload",
        caught_by: Packet("SYN without a backend: RST that acknowledges it"),
    },
    Fault {
        name: "checksum of an echo reply left as it was",
        file: "lb-ebpf/src/icmp.rs",
        good: "|sum| types.apply(sum)",
        bad: "|sum| sum",
        caught_by: Packet(
            "pings of a VIP with backends are answered, of others dropped, by both hooks",
        ),
    },
    Fault {
        name: "quoted packet left as it was",
        file: "lb-ebpf/src/icmp.rs",
        good: "    frame.overwrite(l4, [to.src_port.word(), to.dst_port.word()])?;",
        bad: "    frame.overwrite(l4, [from.src_port.word(), from.dst_port.word()])?;",
        caught_by: Packet("an error about a reply reaches the pod here, quoting what the pod sent"),
    },
    Fault {
        name: "slot index one too high",
        file: "lb-ebpf/src/table.rs",
        good: "block::entry(&SLOTS, table.offset() + index)",
        bad: "block::entry(&SLOTS, table.offset() + index + 1)",
        caught_by: Packet("round robin: ten flows over five pods are two each, in turn"),
    },
    Fault {
        name: "what a peer handed over is sent on",
        file: "lb-ebpf/src/request.rs",
        good: "work.handed = ctx.is_handover().into();",
        bad: "work.handed = 0;",
        caught_by: Packet("dsr: what a peer handed over is never sent on"),
    },
    Fault {
        name: "a client on the backend's node is handed over",
        file: "lb-ebpf/src/request.rs",
        good: "    Ok(known && ctx.view",
        bad: "    Ok(known && false && ctx.view",
        caught_by: Packet("dsr: a client on the backend's own node is served by nat, and keeps it"),
    },
    Fault {
        name: "EtherType read at the VLAN tag's own place",
        file: "lb-ebpf/src/parse.rs",
        good: "view.load(l3 + 2)",
        bad: "view.load(l3)",
        caught_by: Packet("behind one or two VLAN tags packets are rewritten, the tags stay"),
    },
    Fault {
        name: "datagram without checksum gets one",
        file: "lb-common/src/checksum.rs",
        good: "        if checksum == 0 {\n            return 0;\n        }\n",
        bad: "",
        caught_by: Packet("UDP without checksum stays without"),
    },
    Fault {
        name: "port of a live flow given out again",
        file: "lb-ebpf/src/record.rs",
        good: "expired | tcp & (reset | closed_too & closed);",
        bad: "expired | tcp;",
        caught_by: Packet("nat: no free port towards the backend"),
    },
    Fault {
        name: "who makes room keeps its record",
        file: "lb-ebpf/src/record.rs",
        good: "if has_it && cell.is_taken() && cells::claim",
        bad: "if !has_it && cell.is_taken() && cells::claim",
        caught_by: Packet("nat: in a flood there are ports, and connections keep theirs"),
    },
    Fault {
        name: "who has just begun makes room as soon as who is silent",
        file: "lb-ebpf/src/record.rs",
        good: "yields & yields >> 1 | quiet_too & (1 - active);",
        bad: "quiet_too & (active | 1);",
        caught_by: Packet("nat: who has been silent makes room before who has just begun"),
    },
    Fault {
        name: "a question that was answered keeps its port",
        file: "lb-common/src/flow.rs",
        good: "goes_on(tcp_flags) & (tcp_flags != 0 || self.has(Self::REPLIED));",
        bad: "goes_on(tcp_flags);",
        caught_by: Packet(
            "nat: a question that was answered makes room, one that goes on does not",
        ),
    },
    Fault {
        name: "local pod's TTL counted down by TC",
        file: "lb-ebpf/src/tc.rs",
        good: "let ttl = headers.ttl - u8::from(hop);",
        bad: "let ttl = headers.ttl - u8::from(hop || true);",
        caught_by: Packet("TC rewrites for a local pod as XDP does"),
    },
    Fault {
        name: "claims answered without a lease",
        file: "lb-ebpf/src/announce.rs",
        good: "is_none_or(|until| *until <= now)",
        bad: "is_none_or(|until| *until > now && now == 0)",
        caught_by: Packet(
            "nothing is answered before a lease begins, when it has run out, or once it is ended",
        ),
    },
    Fault {
        name: "announcements answered as questions",
        file: "lb-ebpf/src/announce.rs",
        good: "    (from != target).then_some(())",
        bad: "    Some(())",
        caught_by: Packet("ARP: what is no question for a claimed address is the stack's"),
    },
    Fault {
        name: "solicitations through routers answered",
        file: "lb-ebpf/src/announce.rs",
        good: "        || headers.ttl != 255\n",
        bad: "",
        caught_by: Packet(
            "NDP: what is no valid solicitation for a claimed address is the stack's",
        ),
    },
    Fault {
        name: "connections go back and forth between two nodes",
        file: "lb-ebpf/src/request.rs",
        good: "    if ctx.is_handover() || work.returns > 1 {",
        bad: "    if ctx.is_handover() {",
        caught_by: Packet("moved: what comes back is served as it began, or as by anybody"),
    },
    Fault {
        name: "connections lost where the node that had the VIP is gone",
        file: "lb-ebpf/src/lookup.rs",
        good: "if plan.step == Step::GiveBack && !is_of_this_node(why) => true,",
        bad: "if plan.step == Step::GiveBack && !is_of_this_node(why) => return Err(why),",
        caught_by: Packet(
            "moved: from one that is away nobody takes connections, and others go on",
        ),
    },
    Fault {
        name: "UDP stays with a backend that does not answer",
        file: "lb-ebpf/src/flow.rs",
        good: "headers.opens() || headers.tuple.protocol == Protocol::Udp as u8",
        bad: "headers.opens()",
        caught_by: Packet(
            "a pod that fails its check keeps connections; UDP and new attempts leave it",
        ),
    },
    Fault {
        name: "direct connections' replies restored",
        file: "lb-ebpf/src/lookup.rs",
        good: "if !direct::restores(primary) || direct::is_known(&headers.tuple) {",
        bad: "if !direct::restores(primary) {",
        caught_by: Model,
    },
    Fault {
        name: "flows by a frontend that is no primary without records of replies",
        file: "lb-ebpf/src/flow.rs",
        good: "    backend.restored != 0 && !entry.is_recorded()",
        bad: "    backend.restored != 0",
        caught_by: Model,
    },
    Fault {
        name: "connections begin with a slot's previous backend",
        file: "lb-ebpf/src/table.rs",
        good: "    if headers.opens() {\n        return None;\n    }\n    let mut former",
        bad: "    let mut former",
        caught_by: Model,
    },
    Fault {
        name: "records ignored where a slot is looked up",
        file: "lb-common/src/slot.rs",
        good: "self.0 as u32 == (self.0 >> 32) as u32",
        bad: "self.previous().0 == self.current().0 && self.0 >> 63 == 0",
        caught_by: Model,
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
        good: "                || owners.contains(name)\n",
        bad: "                || owners.is_empty() && name.0.is_empty()\n",
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
        name: "translating again: what there is to say of a slice is what there was",
        file: "lb-userspace/src/source/kubernetes/again.rs",
        good: "            if !same || findings != entry.findings {\n",
        bad: "            if !same {\n",
        caught_by: Unit("naru"),
    },
    Fault {
        name: "slots that change taken for settled",
        file: "lb-ebpf/src/request.rs",
        good: "    if !place.slot.is_settled() {",
        bad: "    if place.slot.current().is_none() {",
        caught_by: Packet(
            "changed: who sends within the window stays for good, all others go by the slot",
        ),
    },
    Fault {
        name: "connections that began at the node before taken for this one's",
        file: "lb-ebpf/src/request.rs",
        good: "slot.knows_all() || slot.is_taken_over()",
        bad: "slot.knows_all()",
        caught_by: Packet("takeover: connections of before go back until they end, new ones stay"),
    },
    Fault {
        name: "replies of direct connections restored by the short way",
        file: "lb-ebpf/src/fast.rs",
        good: "    if exceptions::may_be(&packet.tuple) {",
        bad: "    if exceptions::may_be(&packet.tuple) & !packet.is_tcp() {",
        caught_by: Packet("direct: a connection to a pod's own address stays as it is"),
    },
    Fault {
        name: "next hops outlive a change of the network",
        file: "lb-common/src/hop.rs",
        good: "    now.wrapping_add((epoch as u32).wrapping_mul(0x9e37_79b1))",
        bad: "    now.wrapping_add(epoch as u32 & 0)",
        caught_by: Packet(
            "dsr: a neighbour that moves is followed at once, and without an agent soon",
        ),
    },
    Fault {
        name: "ways to clients outlive a change of the network",
        file: "lb-ebpf/src/fast.rs",
        good: "    let (tag, len) = (tag(), packet.end - ETH_LEN);",
        bad: "    let (tag, len) = (tag() & 0, packet.end - ETH_LEN);",
        caught_by: Packet("nat: so is a client to whom replies go"),
    },
    Fault {
        name: "backends alone do not keep their flows fresh",
        file: "lb-common/src/flow.rs",
        good: "        (false, false) => now.wrapping_add(16) & TICK,",
        bad: "        (false, false) => now.wrapping_add(1600) & TICK,",
        caught_by: Model,
    },
    Fault {
        name: "a flow that is closing counts as one that was kept fresh",
        file: "lb-common/src/flow.rs",
        good: "        (_, true) => stale(now),",
        bad: "        (_, true) => now.wrapping_add(16) & TICK,",
        caught_by: Model,
    },
    Fault {
        name: "direct connections remembered beyond a SYN by the VIP",
        file: "lb-ebpf/src/direct.rs",
        good: "        let _ = DIRECT.remove(reply);",
        bad: "        let _ = (&DIRECT, reply);",
        caught_by: Packet(
            "direct: by the same ports as a connection by the VIP, before it and after it",
        ),
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
        name: "flows hashed without their source port",
        file: "lb-common/src/hash.rs",
        good: "tuple.src_port.word()",
        bad: "tuple.dst_port.word()",
        caught_by: Unit("lb-common"),
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
        name: "connections at work make room for others",
        file: "lb-ebpf/src/cells.rs",
        good: "(taken & (OCCUPIED + u64::from(left & !over)))",
        bad: "(taken & (OCCUPIED + u64::from(!left & !over)))",
        caught_by: Packet("cells: connections that work stay, whatever comes, here and by nat"),
    },
    Fault {
        name: "an answer to a SYN establishes a connection",
        file: "lb-common/src/flow.rs",
        good: "(true, true) if self.has(Self::CONFIRMED) => 86_400,",
        bad: "(true, true) => 86_400,",
        caught_by: Packet("cells: connections that work stay, whatever comes, here and by nat"),
    },
    Fault {
        name: "replies of a flow that made room lead on",
        file: "lb-ebpf/src/record.rs",
        good: "    // The flow that was here before.\n    forget_reply(ends.reply, place);\n",
        bad: "",
        caught_by: Packet("cells: connections that work stay, whatever comes, here and by nat"),
    },
    Fault {
        name: "any source that nat flows come from stands in its place",
        file: "lb-ebpf/src/flow.rs",
        good: "    place * same as u8",
        bad: "    place * (same | 1) as u8",
        caught_by: Packet(
            "known: a source that shares its place has flows of its own, and leaves the first one's",
        ),
    },
    Fault {
        name: "two CPUs record one flow",
        file: "lb-ebpf/src/record.rs",
        good: "    if cells::is_contested(&FLOWS, &key, place) {",
        bad: "    if cells::is_contested(&FLOWS, &key, place) & (place == Ends::NONE) {",
        caught_by: Packet(
            "cells: on two CPUs and beside a sweep no flow is there twice, nor a cell lost",
        ),
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

/// How a fault's name is shown in a column.
pub(super) const WIDTH: usize = {
    let mut width = 0;
    let mut n = 0;
    while n < FAULTS.len() {
        if FAULTS[n].name.len() > width {
            width = FAULTS[n].name.len();
        }
        n += 1;
    }
    width
};

/// What catches the chosen faults, each once.
pub(super) fn catches(faults: &[&Fault]) -> Vec<Catch> {
    let mut catches: Vec<Catch> = Vec::new();
    for fault in faults {
        if !catches.contains(&fault.caught_by) {
            catches.push(fault.caught_by);
        }
    }
    catches
}
