//! Two nodes with Naru, of which one has the address, and others that have a pod each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::OnceLock,
    thread::sleep,
    time::Duration,
};

use lb_common::{Algorithm, Hook, Mode, Protocol, maglev};
use naru::desired::{self, Condition, Desired, Endpoint, Service, ServiceName};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use crate::{node::Node, rng::Rng};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 11);
pub(crate) const PORT: u16 = 80;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Nodes that are not looked into, a pod on each.
const OTHERS: u8 = 24;
/// Pods of each of the two.
const OWN: u8 = 4;
static UPLINK: OnceLock<u32> = OnceLock::new();

pub(crate) fn uplink() -> u32 {
    *UPLINK.get().expect("a network")
}

fn addr_of(node: &str) -> Ipv4Addr {
    let last = match node {
        "a" => 1,
        "b" => 2,
        other => 100 + other[1..].parse::<u8>().expect("a number"),
    };
    Ipv4Addr::new(192, 168, 56, last)
}

fn mac_of(node: &str) -> [u8; 6] {
    [2, 0, 0, 0, 1, addr_of(node).octets()[3]]
}

/// All nodes and their addresses.
pub(crate) fn peers() -> impl Iterator<Item = (String, Ipv4Addr)> {
    let others = (0..OTHERS).map(|n| format!("p{n}"));
    let names = ["a", "b"].map(str::to_owned).into_iter().chain(others);
    names.map(|name| {
        let addr = addr_of(&name);
        (name, addr)
    })
}

/// A network namespace with an uplink, behind which all nodes and the clients are.
pub(crate) fn build() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    for line in [
        "link set lo up",
        "link add uplink type veth peer name far",
        "addr add 192.168.56.250/24 dev uplink",
        "link set uplink up",
        "link set far up",
    ] {
        naru_tests::ip(line);
    }
    for (name, addr) in peers() {
        let mac = mac_of(&name).map(|byte| format!("{byte:02x}")).join(":");
        naru_tests::ip(&format!(
            "neigh add {addr} lladdr {mac} dev uplink nud permanent"
        ));
    }
    for name in ["all", "uplink"] {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
        std::fs::write(path, "1").expect("a sysctl of this namespace");
    }
    let index = if_nametoindex("uplink").expect("it was made");
    UPLINK.get_or_init(|| index);
}

pub(crate) struct Lan {
    nodes: [Node; 2],
    /// Which of them has the address.
    owner: usize,
    endpoints: BTreeMap<SocketAddr, Endpoint>,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let node = |name| Node::new(name, addr_of(name), mac_of(name));
        let mut lan = Self {
            nodes: [node("a"), node("b")],
            owner: 0,
            endpoints: pods().collect(),
        };
        // Some are still to come.
        let later: Vec<SocketAddr> = pods().map(|(addr, _)| addr).step_by(4).collect();
        lan.endpoints.retain(|addr, _| !later.contains(addr));
        lan.apply();
        lan.window_passes();
        lan
    }

    pub(crate) fn exists(&self, pod: SocketAddr) -> bool {
        self.endpoints.contains_key(&pod)
    }

    /// One or two changes, after which the address may move; gives what they are.
    pub(crate) fn change(&mut self, rng: &mut Rng) -> String {
        let mut what = Vec::new();
        for _ in 0..=rng.below(2) {
            what.push(self.change_one(rng));
        }
        self.apply();
        if rng.chance(5) {
            what.push(self.move_address());
        }
        what.join(", ")
    }

    fn move_address(&mut self) -> String {
        let former = self.nodes[self.owner].addr;
        self.owner = 1 - self.owner;
        let owner = &mut self.nodes[self.owner];
        owner.gains(VIP, former);
        format!("the address moves to {}", owner.name)
    }

    /// Each node loses the other one, with what that knew.
    pub(crate) fn part(&mut self) {
        for node in &mut self.nodes {
            node.loses_others();
        }
    }

    fn change_one(&mut self, rng: &mut Rng) -> String {
        let there: Vec<SocketAddr> = self.endpoints.keys().copied().collect();
        let any = there[rng.below(there.len())];
        let missing: Vec<_> = pods().filter(|(addr, _)| !self.exists(*addr)).collect();
        let (action, condition) = match rng.below(9) {
            0 | 1 if !missing.is_empty() => {
                let (addr, endpoint) = missing[rng.below(missing.len())].clone();
                self.endpoints.insert(addr, endpoint);
                return format!("{addr} comes");
            }
            2 if there.len() > 12 => {
                self.endpoints.remove(&any);
                return format!("{any} goes");
            }
            3 => {
                let weight = 1 + rng.below(5) as u32;
                self.endpoint(any).weight = weight;
                return format!("{any} has weight {weight}");
            }
            4 | 5 => {
                let node = rng.below(2);
                self.nodes[node].restart();
                return format!("the agent of {} starts anew", self.nodes[node].name);
            }
            6 => ("drains", Condition::Draining),
            7 => ("fails", Condition::Unhealthy),
            _ => ("is well", Condition::Ready),
        };
        let ready = |it: &&Endpoint| it.condition == Condition::Ready;
        if condition == Condition::Ready || self.endpoints.values().filter(ready).count() > 8 {
            self.endpoint(any).condition = condition;
        }
        format!("{any} {action}")
    }

    fn endpoint(&mut self, addr: SocketAddr) -> &mut Endpoint {
        self.endpoints.get_mut(&addr).expect("one of them")
    }

    fn apply(&mut self) {
        let nodes = peers().map(|(name, addr)| {
            let node = desired::Node {
                addresses: BTreeSet::from([addr.into()]),
                ..desired::Node::default()
            };
            (name, node)
        });
        let frontend = desired::Frontend {
            addr: SocketAddr::new(VIP.into(), PORT),
            protocol: Protocol::Tcp,
        };
        let service = Service {
            frontends: BTreeSet::from([frontend]),
            algorithm: Algorithm::Maglev,
            maglev_slots: maglev::DEFAULT_SLOTS,
            endpoints: self.endpoints.clone(),
            elsewhere: Mode::Dsr,
            ..Service::default()
        };
        let desired = Desired {
            services: [(ServiceName("churn/web:80".to_owned()), service)].into(),
            nodes: nodes.collect(),
            ..Desired::default()
        };
        for node in &mut self.nodes {
            node.apply(&desired);
        }
    }

    pub(crate) fn window_passes(&mut self) {
        // What is timed by tenths of seconds is over then.
        sleep(Duration::from_millis(250));
        for node in &mut self.nodes {
            node.window_passes();
        }
    }

    /// The pod that a client's frame gets to by the node that has the address; or what becomes
    /// of it instead.
    pub(crate) fn deliver(&mut self, frame: &mut [u8]) -> Result<SocketAddr, String> {
        frame[..6].copy_from_slice(&self.nodes[self.owner].mac);
        frame[6..12].copy_from_slice(&CLIENT_MAC);
        let mut at = self.owner;
        let mut frame = frame.to_vec();
        // Back to where it began, back from there, and over to the pod's node.
        for _ in 0..4 {
            let made = self.nodes[at].run(Hook::Xdp, &frame);
            match made.action {
                2 => {
                    let ip: [u8; 4] = made.bytes[30..34].try_into().expect("four");
                    let port = u16::from_be_bytes([made.bytes[36], made.bytes[37]]);
                    let pod = SocketAddr::new(IpAddr::from(ip), port);
                    return if ip == VIP.octets() {
                        Err("left to the stack".to_owned())
                    } else {
                        Ok(pod)
                    };
                }
                3 if made.bytes[..6] == CLIENT_MAC => return Err("refused".to_owned()),
                3 => {
                    let to = &made.bytes[..6];
                    if let Some(next) = self.nodes.iter().position(|node| node.mac == *to) {
                        at = next;
                        frame = made.bytes;
                        continue;
                    }
                    let node = peers().find(|(name, _)| mac_of(name) == *to);
                    let (name, _) = node.ok_or("sent to nobody")?;
                    return Ok(pod_of(&name, 0));
                }
                action => return Err(format!("action {action}")),
            }
        }
        Err("it goes in circles".to_owned())
    }

    /// What the nodes have recorded of a client's connection, for whoever looks for a fault.
    pub(crate) fn known(&mut self, (ip, port): (Ipv4Addr, u16)) -> String {
        let mut text = format!("{} has the address", self.nodes[self.owner].name);
        for node in &mut self.nodes {
            let known = node.known(ip.into(), port);
            text += &format!("; {}: {known}", node.name);
        }
        text
    }

    /// Where a local pod's packet comes from once it has left its node.
    pub(crate) fn answered(&mut self, pod: SocketAddr, frame: &[u8]) -> Option<SocketAddr> {
        let here = |node: &&mut Node| (0..OWN).any(|n| pod_of(node.name, n) == pod);
        let node = self.nodes.iter_mut().find(here)?;
        let made = node.run(Hook::TcEgress, frame);
        let ip: [u8; 4] = made.bytes[26..30].try_into().expect("four");
        let port = u16::from_be_bytes([made.bytes[34], made.bytes[35]]);
        Some(SocketAddr::new(IpAddr::from(ip), port))
    }

    /// That most slots are settled once nothing has changed for a window or two, and most
    /// flows are not recorded.
    pub(crate) fn assert_lean(&mut self) -> Result<(), String> {
        for _ in 0..2 {
            self.window_passes();
        }
        for node in &mut self.nodes {
            let (records, (settled, all)) = (node.flows(), node.settled());
            println!(
                "{}: {records} records, {settled} of {all} slots settled",
                node.name
            );
            if settled * 2 < all {
                return Err(format!(
                    "{}: {settled} of {all} slots are settled",
                    node.name
                ));
            }
        }
        Ok(())
    }
}

fn pods() -> impl Iterator<Item = (SocketAddr, Endpoint)> {
    let own = ["a", "b"].into_iter();
    let own = own.flat_map(|node| (0..OWN).map(move |n| (node.to_owned(), n)));
    let others = (0..OTHERS).map(|n| (format!("p{n}"), 0));
    own.chain(others).map(|(node, n)| {
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: Some(node.clone()),
            name: None,
        };
        (pod_of(&node, n), endpoint)
    })
}

fn pod_of(node: &str, n: u8) -> SocketAddr {
    let ip = Ipv4Addr::new(10, 244, addr_of(node).octets()[3], 2 + n);
    SocketAddr::new(ip.into(), 3000)
}
