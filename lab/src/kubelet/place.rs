//! Where pods of a node are: namespaces, cables and addresses.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{Options, view};
use crate::{
    error::{Error, Result},
    netns::NetNs,
    ownership::end_processes_in,
    tool::{feed, run, tool},
    topology::Node,
};

/// The places of a node.
#[derive(Debug)]
pub(super) struct Places {
    node: Node,
    namespace: NetNs,
    prefix: String,
    dir: PathBuf,
    /// Counts the cables, whose names are short.
    cables: AtomicU32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    last: u32,
    namespaces: BTreeSet<String>,
}

/// A pod's.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: NetNs,
    pub(super) address: Ipv4Addr,
    /// Where the files are that it sees in the place of the machine's.
    pub(super) view: PathBuf,
}

impl Places {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            node: options.node.clone(),
            namespace: options.namespace.clone(),
            prefix: options.prefix.clone(),
            dir: options.dir.clone(),
            cables: AtomicU32::new(0),
            taken: Mutex::default(),
        }
    }

    /// Makes one; `name` is unique among the lab's.
    pub(super) fn make(&self, name: &str) -> Result<Place> {
        let place = Place {
            namespace: NetNs::new(format!("{}{name}", self.prefix)),
            address: self.address()?,
            view: view::of(&self.dir, name),
        };
        let made = self.plug(&place, name);
        if made.is_err() {
            self.remove(&place);
        }
        made.map(|()| place)
    }

    fn plug(&self, place: &Place, name: &str) -> Result<()> {
        let inside = place.namespace.name();
        run(tool("ip").args(["netns", "add", inside]))?;
        self.taken().namespaces.insert(inside.to_owned());
        let number = self.cables.fetch_add(1, Ordering::Relaxed);
        self.namespace.ip(&format!(
            "link add pod{number} type veth peer name eth0 netns {inside}\n\
             link set pod{number} master cni0 up alias {name}\n"
        ))?;
        let prefix = self.node.pod_net.prefix_len();
        place.namespace.ip(&format!(
            "link set lo up\n\
             address add {}/{prefix} broadcast + dev eth0\n\
             link set eth0 up\n\
             route add default via {}\n",
            place.address,
            self.number(1),
        ))
    }

    /// Takes one away, with its cable and what still runs there.
    pub(super) fn remove(&self, place: &Place) {
        let name = place.namespace.name();
        delete(&[name.to_owned()]);
        let mut taken = self.taken();
        taken.namespaces.remove(name);
        taken.addresses.remove(&place.address);
    }

    /// Takes all away.
    pub(super) fn clear(&self) {
        let names = std::mem::take(&mut self.taken().namespaces);
        delete(&names.into_iter().collect::<Vec<_>>());
    }

    /// An address that nobody has, and that nobody had a moment ago.
    fn address(&self) -> Result<Ipv4Addr> {
        let mut taken = self.taken();
        // .1 is the node itself, .255 everybody.
        for _ in 2..255 {
            taken.last = 2 + (taken.last + 1) % 253;
            let address = self.number(taken.last);
            if taken.addresses.insert(address) {
                return Ok(address);
            }
        }
        let net = self.node.pod_net;
        Err(Error::Topology(format!("no address is left in {net}")))
    }

    fn number(&self, host: u32) -> Ipv4Addr {
        (u32::from(self.node.pod_net.network()) + host).into()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes namespaces; those that were not made are none.
fn delete(names: &[String]) {
    let paths: Vec<PathBuf> = names
        .iter()
        .map(|it| NetNs::new(it.clone()).path())
        .collect();
    // A server may leave others behind, which would go on in a namespace without a name.
    if let Err(error) = end_processes_in(&paths) {
        eprintln!("{error}");
    }
    let lines: String = names.iter().map(|it| format!("netns del {it}\n")).collect();
    let _ = feed(tool("ip").args(["-force", "-batch", "-"]), &lines);
}
