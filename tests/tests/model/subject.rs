//! The program under test: loaded once, its maps filled by the compiler and emptied
//! between scenes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use lb_common::{Affinity, Client, Hook, Tuple as Key, Verdict};
use naru::{
    compile::{compile, image::MapImage},
    datapath::{self, Datapath, Options, Records},
    desired::{Desired, ServiceName, Surroundings},
};
use nix::{
    net::if_::if_nametoindex,
    time::{ClockId, clock_gettime},
};

use crate::{
    node::{self, DEVICES, Device},
    reference::{
        Act,
        questions::CLAIMING,
        records::{Count, Direct, Flow, Last, Note, Reply},
        slots::SEED,
        state::Said,
    },
    said::Agent,
    scene::Service,
    setup::{desired, surroundings},
    tables::{Table, all, clear, count, flow, key, seen, table, tuple},
    wire::Tuple,
};

/// Packets and bytes by hook and verdict.
pub(crate) type Verdicts = BTreeMap<(Hook, Verdict), (u64, u64)>;

/// The loaded program.
pub(crate) struct Subject {
    datapath: Datapath,
    records: Records,
    direct: Table<Key, lb_common::Direct>,
    fragments: Table<Key, u64>,
    affinity: Table<Client, Affinity>,
    agent: Agent,
    formers: BTreeMap<IpAddr, IpAddr>,
    surroundings: Surroundings,
    indices: BTreeMap<&'static str, u32>,
    _pins: Pins,
}

/// What the program made of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) act: Act,
    pub(crate) bytes: Vec<u8>,
}

impl Subject {
    /// Loads it. The network of [`node::build`] is there.
    pub(crate) fn load() -> Self {
        let name = format!("naru-model-{}", std::process::id());
        let pins = Pins(PathBuf::from("/sys/fs/bpf").join(name));
        datapath::preflight(&pins.0).expect("a kernel that can load the program");
        let datapath = Datapath::open(Options {
            pin_dir: pins.0.clone(),
            // All of it is read after each packet.
            max_flows: 1 << 10,
            seed: SEED,
            // What waits for it to pass does so until it is told that it has.
            drain_window: Duration::ZERO,
            ..Options::default()
        })
        .expect("the program loads");
        let lease = datapath.lease().expect("a lease");
        lease.renew(Duration::from_secs(86_400)).expect("a clock");
        let indices = DEVICES
            .iter()
            .map(|device| (device.name, if_nametoindex(device.name).expect("it exists")))
            .collect();
        Self {
            records: Records::open(&pins.0).expect("tables of flows"),
            direct: table(&pins.0, "DIRECT"),
            fragments: table(&pins.0, "FRAGMENTS"),
            affinity: table(&pins.0, "AFFINITY"),
            agent: Agent::open(&pins.0),
            formers: BTreeMap::new(),
            surroundings: surroundings(&indices),
            datapath,
            indices,
            _pins: pins,
        }
    }

    /// Forgets all services and flows.
    pub(crate) fn clear(&mut self) {
        self.configure(&[]);
        for record in self.records.iter() {
            assert!(self.records.remove(&record), "nobody else is there");
        }
        assert_eq!(self.records.remove_stray(), 0, "what leads to no flow");
        assert_eq!(self.records.iter().count(), 0, "flows");
        clear(&self.direct);
        clear(&self.fragments);
        clear(&self.affinity);
    }

    /// Puts services into force and gives what the compiler made of them.
    pub(crate) fn configure(&mut self, services: &[Service]) -> MapImage {
        let on: BTreeSet<u32> = CLAIMING.iter().map(|name| self.indices[name]).collect();
        let frontends = services.iter().flat_map(|service| &service.frontends);
        let ips: BTreeSet<IpAddr> = frontends.map(|it| it.ip()).collect();
        let claims = ips.iter().map(|&ip| (ip, on.clone())).collect();
        let former = |&ip| Some((ip, node::former_of(ip)?));
        self.formers = ips.iter().filter_map(former).collect();
        let services = services.iter().enumerate().map(|(n, service)| {
            let name = ServiceName(format!("model/{n}:port"));
            (name, desired(service))
        });
        let desired = Desired {
            services: services.collect(),
            ..Desired::default()
        };
        let in_use = self.datapath.in_use();
        let image = compile(&desired, &self.surroundings, &in_use).expect("services that fit");
        self.datapath.apply(&image).expect("maps that take them");
        self.datapath.set_claims(&claims).expect("claims that fit");
        self.datapath
            .set_formers(&self.formers, &BTreeSet::new())
            .expect("as many");
        self.agent.serves(&image);
        image
    }

    /// All VIPs that another node had before come from there now.
    pub(crate) fn take_over(&mut self) {
        let gained = self.formers.keys().copied().collect();
        self.datapath
            .set_formers(&self.formers, &gained)
            .expect("as many");
    }

    /// What the agent's maps say by now.
    pub(crate) fn said(&self) -> Said {
        self.agent.said()
    }

    /// Lets the drain window pass: slots forget their previous backends, services their former
    /// tables, and replies of local backends are restored without records.
    pub(crate) fn pass_window(&mut self) {
        // Else it would depend on how long the scene took.
        self.agent.age();
        self.datapath.settle().expect("maps that take it");
    }

    /// Settles all slots that are looked up, as a scan of the flow table does that finds no
    /// record which names another backend. Here there may be some, which count no more.
    pub(crate) fn scan(&mut self) {
        self.agent.clear();
    }

    /// Runs the program of a hook on a frame.
    pub(crate) fn run(&mut self, hook: Hook, device: &Device, frame: &[u8]) -> Made {
        let index = self.indices[device.name];
        let made = self
            .datapath
            .test_run(hook, frame, index)
            .unwrap_or_else(|error| panic!("{}: {frame:02x?}: {error}", hook.name()));
        let act = match (hook, made.action) {
            (Hook::Xdp, 1) => Act::Drop,
            (Hook::Xdp, 2) => Act::Pass,
            (Hook::Xdp, 3) => Act::SentBack,
            (Hook::Xdp, 4) => Act::SentOn,
            (Hook::TcIngress | Hook::TcEgress, u32::MAX) => Act::Pass,
            (Hook::TcIngress | Hook::TcEgress, 2) => Act::Drop,
            (Hook::TcIngress | Hook::TcEgress, 7) => Act::SentOn,
            (hook, action) => panic!("{}: action {action}", hook.name()),
        };
        Made {
            act,
            bytes: made.bytes,
        }
    }

    /// The record that the program has of a flow.
    pub(crate) fn flow(&self, tuple: &Tuple) -> Option<Flow> {
        let key = key(tuple);
        let record = self.records.iter().find(|record| record.tuple == key);
        record.as_ref().map(flow)
    }

    pub(crate) fn flows(&self) -> BTreeMap<Tuple, Flow> {
        let records = self.records.iter();
        records
            .map(|record| (tuple(&record.tuple), flow(&record)))
            .collect()
    }

    pub(crate) fn replies(&self) -> BTreeMap<Tuple, Reply> {
        let records = self.records.iter();
        let replies = records.filter_map(|record| {
            let reply = Reply {
                flow: tuple(&record.tuple),
                backend: record.flow.backend.0,
                service: record.service,
                fresh_until: record.fresh_until,
            };
            Some((tuple(&record.reply?), reply))
        });
        replies.collect()
    }

    pub(crate) fn direct(&self) -> BTreeMap<Tuple, Direct> {
        all(&self.direct, |_, value| Direct {
            seen: seen(value.state),
            expires: value.expires,
        })
    }

    pub(crate) fn fragments(&self) -> BTreeMap<Tuple, Note> {
        let port = |word: u64| u16::from_be(word as u16);
        all(&self.fragments, |_, value| Note {
            sport: port(value),
            dport: port(value >> 16),
            expires: (value >> 32) as u32,
        })
        .into_iter()
        .map(|(key, note)| match key.dst {
            // An identification of 32 bits, in the order of the header.
            IpAddr::V6(_) => {
                let (sport, dport) = (key.dport, key.sport);
                (
                    Tuple {
                        sport,
                        dport,
                        ..key
                    },
                    note,
                )
            }
            IpAddr::V4(_) => (key, note),
        })
        .collect()
    }

    pub(crate) fn affinity(&self) -> BTreeMap<(u32, IpAddr), Last> {
        let table = self.affinity.borrow();
        let entries = table.iter().map(|entry| entry.expect("an entry"));
        entries
            .map(|(client, last)| {
                let last = Last {
                    backend: last.backend().0,
                    expires: (last.0 >> 32) as u32,
                };
                ((client.service, client.addr.to_ip()), last)
            })
            .collect()
    }

    pub(crate) fn verdicts(&self) -> Verdicts {
        let counts = self.datapath.verdicts().expect("a map that can be read");
        counts
            .into_iter()
            .map(|(hook, verdict, count)| ((hook, verdict), (count.packets, count.bytes)))
            .collect()
    }

    pub(crate) fn service_count(&self, index: u32) -> Count {
        count(self.datapath.service_stats(index).expect("a service"))
    }

    pub(crate) fn backend_count(&self, id: u32) -> Count {
        let index = lb_common::BackendId(id).index();
        count(self.datapath.backend_stats(index).expect("a backend"))
    }
}

/// Whether the kernel takes a frame for a test run: it must be as long as an Ethernet
/// header, and at TC hold the network header that its EtherType announces.
pub(crate) fn takes(hook: Hook, frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        None => return false,
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        Some(_) => 0,
    };
    hook == Hook::Xdp || frame.len() >= 14 + header
}

/// The clock that the program reads, in nanoseconds.
pub(crate) fn clock() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Pins that are removed when this is dropped, after the datapath that holds them.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = datapath::detach(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
