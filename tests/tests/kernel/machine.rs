//! The guest's network: which card is whose, and the servers.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use naru_tests::{Netns, ip};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 57, 11);
/// Every server: its name and where it serves. The last one is not on the node.
pub(crate) const SERVERS: [(&str, &str); 3] = [
    ("a", "10.245.1.2:3000"),
    ("b", "10.245.1.3:3000"),
    ("far", "192.168.57.102:3000"),
];

/// How long an emulated processor may take for what is done at once elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The network, with servers that run until the machine ends.
pub(crate) struct Machine {
    /// The node's card.
    pub(crate) uplink: String,
    pub(crate) client: Netns,
    _pods: Vec<Netns>,
    _servers: Vec<Child>,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn new() -> Self {
        let [uplink, far_end] = cards();
        let client = Netns::new("client");
        ip(&format!("link set {far_end} netns {}", client.name()));
        client.ip(&format!("address add 192.168.57.1/24 dev {far_end}"));
        client.ip(&format!("address add 192.168.57.102/24 dev {far_end}"));
        client.ip(&format!("link set {far_end} up"));
        ip(&format!(
            "address add 192.168.57.101/24 broadcast + dev {uplink}"
        ));
        ip(&format!("link set {uplink} up"));
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();

        ip("link add pods type bridge forward_delay 0");
        ip("address add 10.245.1.1/24 dev pods");
        ip("link set pods up");
        let mut pods = Vec::new();
        let mut servers = Vec::new();
        for (name, address) in SERVERS {
            let (host, _) = address.split_once(':').unwrap();
            if name == "far" {
                servers.push(serve(&client, name, address));
                continue;
            }
            let pod = Netns::new(name);
            let peer = pod.name();
            ip(&format!(
                "link add port-{name} type veth peer name eth0 netns {peer}"
            ));
            ip(&format!("link set port-{name} master pods up"));
            pod.ip("link set eth0 up");
            pod.ip(&format!("address add {host}/24 dev eth0"));
            pod.ip("route add default via 10.245.1.1");
            servers.push(serve(&pod, name, address));
            pods.push(pod);
        }
        Self {
            uplink,
            client,
            _pods: pods,
            _servers: servers,
        }
    }
}

/// The machine's two cards of virtio, in the order of their names.
fn cards() -> [String; 2] {
    let entries = fs::read_dir("/sys/class/net").unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            fs::read_link(path.join("device/driver"))
                .is_ok_and(|driver| driver.ends_with("virtio_net"))
        })
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
        .try_into()
        .unwrap_or_else(|found| panic!("two cards of virtio-net are needed, found: {found:?}"))
}

/// Starts a server in a namespace and waits until it serves.
fn serve(namespace: &Netns, name: &str, address: &str) -> Child {
    let child = Command::new("ip")
        .args(["netns", "exec", namespace.name()])
        .arg(binary("NARU_LAB_BIN"))
        .args(["pod", "--name", name, "--listen", address])
        .stdin(Stdio::null())
        .spawn()
        .expect("ip; install iproute2");
    let deadline = Instant::now() + PATIENCE;
    let address = address.parse().unwrap();
    while inside(namespace, || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
    }) {
        assert!(Instant::now() < deadline, "server {name} does not serve");
        thread::sleep(Duration::from_millis(100));
    }
    child
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
