//! The testbed: three nodes and a client, provisioned as Vagrant does it, and requests
//! from the client.

use std::{
    collections::BTreeMap,
    fs,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use naru_lab::{
    Topology,
    testbed::{Machine, Part, Testbed},
};
use tempfile::TempDir;

use crate::{guest::Guest, hub};

/// Asks in the client. Not among what Vagrant shares, as it is the test's own.
const PROBE: &str = include_str!("probe.py");
/// How long a single request may take, in a machine that may not run for a while.
const REQUEST: u32 = 5;
/// Where the client's background requests are written.
const LOG: &str = "/tmp/probe.log";

/// The machines.
pub(crate) struct Site {
    pub(crate) testbed: Testbed,
    pub(crate) nodes: Vec<Guest>,
    pub(crate) client: Guest,
    /// Holds the sockets.
    dir: TempDir,
}

/// A request: when it ended by the client's clock, and who answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) ended: f64,
    pub(crate) who: Result<String, String>,
}

/// All machines, up and provisioned: by the first who asks.
pub(crate) fn site() -> &'static Site {
    SITE.get_or_init(Site::up)
}

/// Switches everything off and removes the sockets.
pub(crate) fn end() {
    if let Some(site) = SITE.get() {
        for guest in site.guests() {
            guest.kill();
        }
        // What is static is never dropped.
        let _ = fs::remove_dir_all(site.dir.path());
    }
}

static SITE: OnceLock<Site> = OnceLock::new();

// === impl Site ===

impl Site {
    fn up() -> Self {
        let started = Instant::now();
        let testbed = Testbed::new(&Topology::nuc());
        // Below /tmp, as the path of a socket has 107 bytes at most.
        let dir = tempfile::Builder::new()
            .prefix("naru-vm-")
            .tempdir()
            .expect("a directory");
        let cables = hub::start(dir.path(), testbed.machines.len());
        let mut guests: Vec<Guest> = testbed
            .machines
            .iter()
            .enumerate()
            .map(|(number, machine)| Guest::start(machine, number, &cables[number], dir.path()))
            .collect();
        let client = guests.pop().expect("a client");
        let site = Self {
            testbed,
            nodes: guests,
            client,
            dir,
        };
        thread::scope(|scope| {
            for guest in site.guests() {
                scope.spawn(|| {
                    guest.wait_up();
                    println!("{}: up after {:.0?}", guest.machine.name, started.elapsed());
                    site.prepare(guest);
                    let said = site.provision(guest);
                    println!(
                        "{}: provisioned after {:.0?}\n  {}",
                        guest.machine.name,
                        started.elapsed(),
                        said.replace('\n', "\n  ")
                    );
                });
            }
        });
        let hex: String = PROBE.bytes().map(|byte| format!("{byte:02x}")).collect();
        site.client.sh(&format!(
            "python3 -c \"open('/tmp/probe.py', 'wb').write(bytes.fromhex('{hex}'))\""
        ));
        site
    }

    pub(crate) fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.nodes.iter().chain([&self.client])
    }

    /// What Vagrant itself does to a machine: its name and its addresses.
    pub(crate) fn prepare(&self, guest: &Guest) {
        let Machine { name, address, .. } = &guest.machine;
        let prefix = self.testbed.lan.prefix_len();
        guest.sh(&format!("hostname {name} && echo {name} >/etc/hostname"));
        guest.sh("ip address replace 10.0.2.15/24 dev eth0 && ip link set eth0 up");
        guest.sh(&format!(
            "ip address replace {address}/{prefix} dev eth1 && ip link set eth1 up"
        ));
    }

    /// Runs the script that Vagrant runs.
    fn provision(&self, guest: &Guest) -> String {
        let Machine { address, role, .. } = &guest.machine;
        let script = if *role == Part::Client {
            "client.sh"
        } else {
            "node.sh"
        };
        let first = &self.testbed.machines[0];
        guest.sh(&format!(
            "ADDRESS={address} CLUSTER=none CONTROL_PLANE={} PODS={} VIP={} \
             bash /vagrant/provision/{script}",
            first.address, self.testbed.pods, self.testbed.vip
        ))
    }

    /// The node whose card the client sends to when it sends to the virtual IP.
    pub(crate) fn owner(&self) -> &Guest {
        let entry = self
            .client
            .sh(&format!("ip neighbour show {}", self.testbed.vip));
        let owner = self.nodes.iter().find(|node| entry.contains(&node.link));
        owner.unwrap_or_else(|| panic!("nobody has {}: {entry}", self.testbed.vip))
    }

    /// So many requests by the virtual IP, one after the other.
    pub(crate) fn ask(&self, count: usize) -> Vec<Request> {
        let pause = 0;
        requests(&self.client.sh(&self.probe(count, pause)))
    }

    /// Has the client ask every 100 ms, until [`Self::end_asking`].
    pub(crate) fn begin_asking(&self) {
        let probe = self.probe(0, 100);
        self.client.sh(&format!(
            "nohup {probe} >{LOG} 2>&1 & echo $! >/tmp/probe.pid"
        ));
        self.client.wait_for(
            "requests are under way",
            Duration::from_secs(60),
            &format!("test $(wc -l <{LOG}) -ge 5"),
        );
    }

    /// What became of the requests so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        requests(&self.client.sh(&format!("cat {LOG}")))
    }

    /// Ends the requests and gives what became of them.
    pub(crate) fn end_asking(&self) -> Vec<Request> {
        self.client
            .sh("kill $(cat /tmp/probe.pid); while kill -0 $(cat /tmp/probe.pid) 2>/dev/null; do sleep 0.1; done");
        self.asked()
    }

    fn probe(&self, count: usize, pause: u32) -> String {
        format!(
            "python3 /tmp/probe.py http://{}/ {REQUEST} {count} {}",
            self.testbed.vip,
            f64::from(pause) / 1000.0
        )
    }
}

fn requests(text: &str) -> Vec<Request> {
    text.lines()
        .map(|line| {
            let (ended, who) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            Request {
                ended: ended.parse().unwrap_or_else(|_| panic!("{line}")),
                who: match who.strip_prefix("! ") {
                    Some(reason) => Err(reason.to_owned()),
                    None => Ok(who.to_owned()),
                },
            }
        })
        .collect()
}

/// How often each node has answered; fails where a request has.
pub(crate) fn tally(requests: &[Request]) -> BTreeMap<&str, usize> {
    tally_over(0, requests)
}

/// The same where the address moves so many times meanwhile: a connection that is under way
/// then is unknown to the node that it comes to, as this service is in mode `nat`.
pub(crate) fn tally_over(moves: usize, requests: &[Request]) -> BTreeMap<&str, usize> {
    let mut tally = BTreeMap::new();
    let mut reset = 0;
    for request in requests {
        match &request.who {
            Ok(who) => *tally.entry(who.as_str()).or_default() += 1,
            Err(reason) if reset < moves && reason.contains("reset by peer") => reset += 1,
            Err(reason) => panic!("a request at {} failed: {reason}", request.ended),
        }
    }
    tally
}
