//! A node that runs Naru: its datapath, and what its agent would do with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use lb_common::{Hook, config::DEFAULT_SNAT_PORTS};
use naru::{
    compile::{compile, image::MapImage},
    datapath::{self, Datapath, Options, TestFrame},
    desired::{Desired, DeviceFacts, Snat, Surroundings},
};

use crate::lan;

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) addr: Ipv4Addr,
    pub(crate) mac: [u8; 6],
    // None for a moment, while the agent starts anew.
    datapath: Option<Datapath>,
    pub(crate) image: MapImage,
    pins: PathBuf,
}

impl Node {
    pub(crate) fn new(name: &'static str, addr: Ipv4Addr, mac: [u8; 6]) -> Self {
        let pins = format!("/sys/fs/bpf/naru-churn-{}-{name}", std::process::id());
        let mut node = Self {
            name,
            addr,
            mac,
            datapath: None,
            image: MapImage::default(),
            pins: pins.into(),
        };
        datapath::preflight(&node.pins).expect("a kernel that can load the program");
        node.restart();
        node
    }

    /// As after the agent was killed.
    pub(crate) fn restart(&mut self) {
        self.datapath = None;
        let options = Options {
            pin_dir: self.pins.clone(),
            max_flows: 1 << 19,
            drain_window: Duration::ZERO,
            ..Options::default()
        };
        self.datapath = Some(Datapath::open(options).expect("the program loads"));
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("an agent")
    }

    pub(crate) fn apply(&mut self, desired: &Desired) {
        let surroundings = self.surroundings();
        let in_use = self.datapath().in_use();
        self.image = compile(desired, &surroundings, &in_use).expect("a service that fits");
        let image = self.image.clone();
        self.datapath().apply(&image).expect("maps that take it");
    }

    /// The address comes here from another node.
    pub(crate) fn gains(&mut self, vip: Ipv4Addr, from: Ipv4Addr) {
        let formers = BTreeMap::from([(vip.into(), from.into())]);
        let gained = BTreeSet::from([vip.into()]);
        let told = self.datapath().set_formers(&formers, &gained);
        told.expect("maps that take it");
    }

    /// Nothing is known any more of where addresses come from.
    pub(crate) fn loses_others(&mut self) {
        let told = self
            .datapath()
            .set_formers(&BTreeMap::new(), &BTreeSet::new());
        told.expect("maps that take it");
    }

    /// What passes with a drain window: windows end, the table is swept.
    pub(crate) fn window_passes(&mut self) {
        let datapath = self.datapath();
        datapath.settle().expect("maps that take it");
        let swept = datapath.sweeper().expect("maps").sweep().expect("tables");
        datapath.unrecorded(&swept.unrecorded);
    }

    pub(crate) fn run(&mut self, hook: Hook, frame: &[u8]) -> TestFrame {
        let uplink = lan::uplink();
        let made = self.datapath().test_run(hook, frame, uplink);
        made.expect("a frame that the kernel takes")
    }

    /// The slot of a client's connection, and what is recorded of it.
    pub(crate) fn known(&mut self, ip: IpAddr, port: u16) -> String {
        let (flows, _) = self.datapath().flows(usize::MAX).expect("a table");
        let record = flows
            .iter()
            .find(|it| it.tuple.src.to_ip() == ip && it.tuple.src_port.get() == port);
        match record {
            None => "no record".to_owned(),
            Some(it) => format!(
                "backend {} is {:?}",
                it.flow.backend,
                it.backend.map(|it| it.addr)
            ),
        }
    }

    pub(crate) fn flows(&mut self) -> usize {
        let (flows, _) = self.datapath().flows(usize::MAX).expect("a table");
        flows.len()
    }

    /// Settled slots, and all.
    pub(crate) fn settled(&mut self) -> (usize, usize) {
        self.datapath().settled()
    }

    fn surroundings(&self) -> Surroundings {
        let uplink = DeviceFacts {
            name: "uplink".into(),
            snat_v4: Some(Snat::shared(self.addr.into(), DEFAULT_SNAT_PORTS)),
            mac: self.mac,
            xdp_redirect: true,
            ..DeviceFacts::default()
        };
        let peers = lan::peers().filter(|(name, _)| name != self.name);
        Surroundings {
            node: self.name.to_owned(),
            shared: true,
            host_addresses: BTreeSet::from([self.addr.into()]),
            peers: peers.map(|(name, addr)| (name, addr.into())).collect(),
            devices: BTreeMap::from([(lan::uplink(), uplink)]),
            ..Surroundings::default()
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.datapath = None;
        if let Err(error) = datapath::detach(&self.pins) {
            eprintln!("{}: {error}", self.pins.display());
        }
    }
}
