//! The guest's network: which card is whose, what is made of them, and the servers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use naru_tests::{Netns, ip};

use crate::site::{self, PODS, Site};

/// How long an emulated processor may take for what is done at once elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// The node's devices beside the card. (The bonding module makes a `bond0` of its own.)
pub(crate) const BOND: &str = "bond1";
pub(crate) const TUNNEL: &str = "flannel.1";
/// The client's ends of the bond's two cables, in the order of the node's.
const PORTS: [&str; 2] = ["port0", "port1"];
const CABLES: [&str; 2] = ["cable0", "cable1"];

/// The network, with servers that run until the machine ends.
pub(crate) struct Machine {
    /// The node's card.
    pub(crate) uplink: String,
    /// The node's VLAN on the other card.
    pub(crate) vlan: String,
    pub(crate) client: Netns,
    pods: Vec<Netns>,
    _servers: Vec<Child>,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn new() -> Self {
        let [uplink, far_end, trunk, far_trunk] = cards();
        let client = Netns::new("client");
        for device in [&far_end, &far_trunk] {
            ip(&format!("link set {device} netns {}", client.name()));
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        connect(&client, 57, &uplink, &far_end);
        let [vlan, far_vlan] = [
            make_vlan(None, &trunk),
            make_vlan(Some(&client), &far_trunk),
        ];
        connect(&client, 58, &vlan, &far_vlan);
        make_bond(&client);
        connect(&client, 59, BOND, "switch");
        like_a_wire(&client, "switch");
        make_tunnel(&client, &uplink, &far_end);
        let pods = make_pods();
        let mut servers: Vec<_> = PODS
            .iter()
            .zip(&pods)
            .map(|((name, address), pod)| serve(pod, name, address))
            .collect();
        for Site {
            servers: [.., (name, address)],
            ..
        } in site::ALL
        {
            servers.push(serve(&client, name, address));
        }
        let all = PODS.iter().zip(&pods);
        for ((_, address), pod) in all {
            wait_for(pod, address);
        }
        for site in site::ALL {
            wait_for(&client, site.servers[2].1);
        }
        Self {
            uplink,
            vlan,
            client,
            pods,
            _servers: servers,
        }
    }

    /// The first server on the node.
    pub(crate) fn pod(&self) -> &Netns {
        &self.pods[0]
    }

    /// Pulls the bond's cable that carries its traffic out of the client's side; gives
    /// what was in use.
    pub(crate) fn cut_active_cable(&self) -> String {
        let active = active_cable();
        let index = CABLES.iter().position(|name| *name == active);
        let port = PORTS[index.unwrap_or_else(|| panic!("no cable in use: {active:?}"))];
        self.client.ip(&format!("link set {port} down"));
        active
    }

    /// Plugs all cables in again.
    pub(crate) fn mend_cables(&self) {
        for port in PORTS {
            self.client.ip(&format!("link set {port} up"));
        }
    }
}

/// The cable by which the bond sends and receives.
pub(crate) fn active_cable() -> String {
    let path = format!("/sys/class/net/{BOND}/bonding/active_slave");
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Gives both ends of a way their addresses in 192.168.N.0/24: the client .1, its server
/// .102, the node .101.
fn connect(client: &Netns, net: u8, node_end: &str, client_end: &str) {
    for host in [1, 102] {
        client.ip(&format!(
            "address add 192.168.{net}.{host}/24 dev {client_end}"
        ));
    }
    client.ip(&format!("link set {client_end} up"));
    ip(&format!(
        "address add 192.168.{net}.101/24 broadcast + dev {node_end}"
    ));
    ip(&format!("link set {node_end} up"));
}

/// A VLAN on a card of this machine or of a namespace; gives its name.
fn make_vlan(namespace: Option<&Netns>, card: &str) -> String {
    let name = format!("{card}.7");
    for arguments in [
        format!("link set {card} up"),
        format!("link add link {card} name {name} type vlan id 7"),
    ] {
        match namespace {
            Some(namespace) => namespace.ip(&arguments),
            None => ip(&arguments),
        }
    }
    name
}

/// The node's bond of two cables, both into a switch at the client.
fn make_bond(client: &Netns) {
    client.ip("link add switch type bridge forward_delay 0");
    ip(&format!(
        "link add {BOND} type bond mode active-backup miimon 100"
    ));
    for (node_end, client_end) in CABLES.into_iter().zip(PORTS) {
        ip(&format!(
            "link add {node_end} type veth peer name {client_end} netns {}",
            client.name()
        ));
        ip(&format!("link set {node_end} master {BOND}"));
        client.ip(&format!("link set {client_end} master switch up"));
    }
}

/// Has a device of a namespace complete checksums and cut segments before it sends, as a
/// wire needs them. It matters for SCTP: generic XDP makes one packet of a message's list,
/// which is not what it was any more where a card's driver has to cut it (and to the kernel
/// a reason to panic, whatever the program).
fn like_a_wire(namespace: &Netns, device: &str) {
    let status = Command::new("ip")
        .args(["netns", "exec", namespace.name(), "ethtool", "-K", device])
        .args(["tx", "off", "gso", "off", "tx-sctp-segmentation", "off"])
        .stdout(Stdio::null())
        .status()
        .expect("ip; install iproute2");
    assert!(status.success(), "ethtool -K {device}: {status}");
}

/// A device like Flannel's at the node, and its other end at the client, which has a
/// server's address behind it.
fn make_tunnel(client: &Netns, uplink: &str, far_end: &str) {
    let vxlan = |local: u8, remote: u8, device: &str| {
        let net = "192.168.57";
        format!(
            "link add {TUNNEL} type vxlan id 1 local {net}.{local} remote {net}.{remote} \
             dev {device} dstport 8472 nolearning"
        )
    };
    let up = format!("link set {TUNNEL} up");
    ip(&vxlan(101, 102, uplink));
    ip(&format!("address add 10.245.1.0/32 dev {TUNNEL}"));
    ip(&up);
    ip(&format!(
        "route add 10.245.2.0/24 via 10.245.2.0 dev {TUNNEL} onlink"
    ));
    client.ip(&vxlan(102, 101, far_end));
    client.ip(&format!("address add 10.245.2.0/32 dev {TUNNEL}"));
    client.ip("address add 10.245.2.2/32 dev lo");
    client.ip(&up);
    client.ip(&format!(
        "route add 10.245.1.0/24 via 10.245.1.0 dev {TUNNEL} onlink"
    ));
}

fn make_pods() -> Vec<Netns> {
    ip("link add pods type bridge forward_delay 0");
    ip("address add 10.245.1.1/24 dev pods");
    ip("link set pods up");
    let make = |(name, address): &(&str, &str)| {
        let (host, _) = address.split_once(':').unwrap();
        let pod = Netns::new(name);
        cable_to_bridge(&pod, name);
        pod.ip(&format!("address add {host}/24 dev eth0"));
        pod.ip("route add default via 10.245.1.1");
        pod
    };
    PODS.iter().map(make).collect()
}

fn cable_to_bridge(pod: &Netns, name: &str) {
    let peer = pod.name();
    ip(&format!(
        "link add port-{name} type veth peer name eth0 netns {peer}"
    ));
    ip(&format!("link set port-{name} master pods up"));
    pod.ip("link set eth0 up");
}

/// The machine's cards of virtio, in the order of their numbers: two on a hub, and two on
/// another.
fn cards() -> [String; 4] {
    let entries = fs::read_dir("/sys/class/net").unwrap();
    let mut cards: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            fs::read_link(path.join("device/driver"))
                .is_ok_and(|driver| driver.ends_with("virtio_net"))
        })
        .map(|path| {
            let address = fs::read_to_string(path.join("address")).unwrap();
            (
                address,
                path.file_name().unwrap().to_string_lossy().into_owned(),
            )
        })
        .collect();
    cards.sort();
    let names: Vec<_> = cards.into_iter().map(|(_, name)| name).collect();
    names
        .try_into()
        .unwrap_or_else(|found| panic!("four cards of virtio-net are needed, found: {found:?}"))
}

/// Starts a server in a namespace.
fn serve(namespace: &Netns, name: &str, address: &str) -> Child {
    Command::new("ip")
        .args(["netns", "exec", namespace.name()])
        .arg(binary("NARU_LAB_BIN"))
        .args(["pod", "--name", name, "--listen", address])
        .stdin(Stdio::null())
        .spawn()
        .expect("ip; install iproute2")
}

/// Waits until a server of a namespace serves.
fn wait_for(namespace: &Netns, address: &str) {
    let deadline = Instant::now() + PATIENCE;
    let address = address.parse().unwrap();
    while inside(namespace, || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
    }) {
        assert!(Instant::now() < deadline, "nobody serves at {address}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs this on a thread that is in the namespace.
pub(crate) fn inside<T: Send>(namespace: &Netns, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            namespace.enter();
            work()
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A program under test, by the variable that names it.
pub(crate) fn binary(variable: &str) -> PathBuf {
    let path = env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set"));
    assert!(Path::new(&path).is_file(), "{variable} names no file");
    path.into()
}

/// What `--tc auto` is on this kernel, as `naru status` names it.
pub(crate) fn tc_of_this_kernel() -> &'static str {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>());
    let mut next = || numbers.next().unwrap().unwrap();
    // TCX came with 6.6.
    if (next(), next()) >= (6, 6) {
        "tcx"
    } else {
        "clsact"
    }
}
