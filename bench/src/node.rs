//! Naru's programs with their services, on the ground of a candidate.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use lb_common::{Algorithm, Family, Hook, Mode, Protocol, maglev};
use naru::{
    compile::compile,
    datapath::{self, AttachMode, Datapath, Options},
    desired::{
        Condition, Desired, DeviceFacts, Endpoint, Frontend, Service, ServiceName, Snat,
        Surroundings,
    },
};

use crate::{
    ground::{Ground, UPLINK},
    maps,
    net::{self, FAR_PODS, IDLE, MAC, POD_PORT, PODS, PORT},
    shape::Shape,
};

/// Where nodes are pinned, and how their directories' names begin; the process follows.
const PINS: &str = "/sys/fs/bpf";
/// See [`PINS`].
const NAME: &str = "naru-bench-";

/// What a node is to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Of services that are asked; others go by turns, since there are not slots enough for
    /// ten thousand Maglev tables.
    pub(crate) algorithm: Algorithm,
    pub(crate) mode: Mode,
    pub(crate) family: Family,
    pub(crate) shape: Shape,
    pub(crate) max_flows: u32,
}

/// Naru with its services, attached to the uplink.
pub(crate) struct Node {
    datapath: Datapath,
    pins: PathBuf,
}

impl Node {
    /// `name` is of one node at a time.
    pub(crate) fn new(ground: &Ground, name: &str, spec: Spec) -> Result<Self> {
        let pins = Path::new(PINS).join(format!("{NAME}{}-{name}", std::process::id()));
        datapath::preflight(&pins)?;
        let datapath = Datapath::open(Options {
            pin_dir: pins.clone(),
            max_flows: spec.max_flows,
            drain_window: Duration::ZERO,
            ..Options::default()
        })?;
        // From here on, whatever fails takes the pins away.
        let mut node = Self { datapath, pins };
        let services = (0..spec.shape.services).map(|number| {
            let name = ServiceName(format!("bench/web-{number:05}:80"));
            (name, service(&spec, number))
        });
        let desired = Desired {
            services: services.collect(),
            ..Desired::default()
        };
        let surroundings = surroundings(ground.uplink, spec.family);
        let image = compile(&desired, &surroundings, &node.datapath.in_use())?;
        node.datapath.apply(&image)?;
        // The pods are known for so long that their replies need no records.
        node.datapath.settle()?;
        // Nor are there any of an earlier agent, which the first sweep of any agent finds.
        node.datapath.sweeper()?.sweep()?;
        // Also where frames meet the program by a tail call: what the stack takes goes by the
        // classifiers.
        node.datapath
            .attach(UPLINK, ground.uplink, AttachMode::Native)?;
        Ok(node)
    }

    /// The program of a hook.
    pub(crate) fn program(&mut self, hook: Hook) -> Result<ProgramFd> {
        Ok(self.datapath.descriptor(hook)?)
    }

    /// Bytes of all its maps.
    pub(crate) fn bytes(&self) -> Result<u64> {
        maps::bytes(&self.pins)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Pins alone: what they hold goes with the last descriptor and the namespace.
        if let Err(error) = std::fs::remove_dir_all(&self.pins) {
            eprintln!("naru-bench: {} is left: {error}", self.pins.display());
        }
    }
}

/// Removes what a benchmark that was killed has left.
pub(crate) fn sweep() -> Result<()> {
    // Where there is no such file system, there is nothing on it.
    for entry in std::fs::read_dir(PINS).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name
            .strip_prefix(NAME)
            .and_then(|rest| rest.split_once('-'));
        let gone = rest.is_some_and(|(process, _)| !Path::new("/proc").join(process).exists());
        if gone {
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn service(spec: &Spec, number: u32) -> Service {
    let Spec { family, shape, .. } = *spec;
    let asked = number < shape.asked();
    // A node has room for few pods: those of others are elsewhere.
    let (pods, node) = match spec.mode {
        Mode::Local if asked => (PODS, "nuc01"),
        Mode::Local | Mode::Nat | Mode::Dsr => (FAR_PODS, "nuc02"),
    };
    let first = net::tail(pods.first(family)) - net::tail(pods.host(family, 0));
    let first = first + number * shape.backends;
    let endpoints = (first..first + shape.backends).map(|n| {
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: Some(node.to_owned()),
            name: None,
        };
        (SocketAddr::new(pods.host(family, n), POD_PORT), endpoint)
    });
    let addr = if asked {
        net::vip_of(family, number)
    } else {
        IDLE.host(family, number)
    };
    Service {
        frontends: BTreeSet::from([Frontend {
            addr: SocketAddr::new(addr, PORT),
            protocol: Protocol::Tcp,
        }]),
        algorithm: if asked {
            spec.algorithm
        } else {
            Algorithm::RoundRobin
        },
        maglev_slots: maglev::DEFAULT_SLOTS,
        endpoints: endpoints.collect(),
        elsewhere: if spec.mode == Mode::Dsr {
            Mode::Dsr
        } else {
            Mode::Nat
        },
        ..Service::default()
    }
}

fn surroundings(uplink: u32, family: Family) -> Surroundings {
    let snat = |family| Some(Snat::dedicated(net::snat(family)));
    let facts = DeviceFacts {
        name: UPLINK.to_owned(),
        snat_v4: snat(Family::V4),
        snat_v6: snat(Family::V6),
        mac: MAC,
        xdp_redirect: true,
        ..DeviceFacts::default()
    };
    let own = [Family::V4, Family::V6].map(net::node);
    Surroundings {
        node: "nuc01".to_owned(),
        host_addresses: BTreeSet::<IpAddr>::from(own),
        peers: BTreeMap::from([("nuc02".to_owned(), net::peer(family))]),
        devices: BTreeMap::from([(uplink, facts)]),
        ..Surroundings::default()
    }
}
