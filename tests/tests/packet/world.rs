//! The node under test: interfaces, neighbours, and a datapath filled by `compile`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::PoisonError,
    thread::sleep,
    time::Duration,
};

use lb_common::{Algorithm, Direct, Hook, Protocol, Verdict, config::DEFAULT_SNAT_PORTS, maglev};
use naru::{
    compile::compile,
    datapath::{Applied, DatapathError, GoneFlows, Options},
    desired::{
        Condition, Desired, DeviceFacts, Endpoint, Frontend, Service, ServiceName, Snat,
        Surroundings,
    },
};
use naru_tests::ip;
use nix::net::if_::if_nametoindex;

use crate::{
    SEEN,
    frames::{NODE_MAC, Packet, difference},
    pool::{self, Lease},
};

pub(crate) const CLIENT: &str = "192.168.56.1:40000";
pub(crate) const POD: &str = "10.244.1.2:3000";
pub(crate) const REMOTE: &str = "192.168.56.102:3000";
pub(crate) const CLIENT6: &str = "[fd00::1]:40000";
pub(crate) const POD6: &str = "[fd00:1::2]:3000";
pub(crate) const REMOTE6: &str = "[fd00::102]:3000";

/// Makes the interfaces that the module's page shows.
pub(crate) fn build_network() {
    let mac = NODE_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let commands = format!(
        "link set lo up
         link add uplink address {mac} type veth peer name uplink-far
         link add pods type veth peer name pods-far
         link add side type veth peer name side-far
         link add east address {mac} type veth peer name east-far
         link add slow address {mac} type veth peer name slow-far
         link add still address {mac} type veth peer name still-far
         link add narrow address {mac} mtu 1280 type veth peer name narrow-far
         addr add 192.168.56.101/24 dev uplink
         addr add 10.244.1.1/24 dev pods
         addr add 10.9.0.1/24 dev side
         addr add 10.8.0.1/24 dev still
         addr add 10.7.0.1/24 dev east
         addr add 10.6.0.1/24 dev slow
         neigh add 10.7.0.9 lladdr 02:00:00:00:00:66 dev east nud permanent
         neigh add 10.6.0.9 lladdr 02:00:00:00:00:66 dev slow nud permanent
         addr add fd00::101/64 dev uplink nodad
         addr add fd00:1::1/64 dev pods nodad
         addr add 10.5.0.1/24 dev narrow
         addr add fd00:5::1/64 dev narrow nodad
         neigh add fd00::1 lladdr 02:00:00:00:00:01 dev uplink nud permanent
         neigh add fd00::102 lladdr 02:00:00:00:00:66 dev uplink nud permanent
         neigh add 10.5.0.9 lladdr 02:00:00:00:00:66 dev narrow nud permanent
         neigh add fd00:5::9 lladdr 02:00:00:00:00:66 dev narrow nud permanent
         neigh add 192.168.56.1 lladdr 02:00:00:00:00:01 dev uplink nud permanent
         neigh add 192.168.56.102 lladdr 02:00:00:00:00:66 dev uplink nud permanent"
    );
    for command in commands.lines() {
        ip(command);
    }
    for name in ["uplink", "pods", "side", "still", "east", "slow", "narrow"] {
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}-far up"));
    }
    ip("route add 10.244.2.0/24 via 192.168.56.102");
    for (name, value) in [("all", "1"), ("uplink", "1"), ("still", "0")] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/forwarding"), value).unwrap();
    }
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
}

pub(crate) fn interface(name: &str) -> u32 {
    if_nametoindex(name).unwrap()
}

/// A service of one endpoint list, for the tests' worlds.
pub(crate) fn service(frontends: &[&str], backends: &[&str]) -> Service {
    Service {
        frontends: frontends.iter().map(|text| frontend(text)).collect(),
        algorithm: Algorithm::RoundRobin,
        maglev_slots: maglev::DEFAULT_SLOTS,
        endpoints: backends
            .iter()
            .map(|text| {
                let addr: SocketAddr = text.parse().unwrap();
                let endpoint = Endpoint {
                    weight: 1,
                    condition: Condition::Ready,
                    node: None,
                    name: None,
                };
                (addr, endpoint)
            })
            .collect(),
        ..Service::default()
    }
}

pub(crate) fn frontend(text: &str) -> Frontend {
    let (addr, protocol) = match text.split_once('/') {
        Some((addr, "udp")) => (addr, Protocol::Udp),
        Some((addr, "sctp")) => (addr, Protocol::Sctp),
        _ => (text, Protocol::Tcp),
    };
    Frontend {
        addr: addr.parse().unwrap(),
        protocol,
    }
}

/// What becomes of a packet, whatever the hook's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    Drop,
    SentBack,
    SentOn,
}

/// A loaded datapath whose maps hold nothing of other cases.
pub(crate) struct World {
    pub(crate) datapath: Lease,
    desired: Desired,
    surroundings: Surroundings,
    pub(crate) ingress: u32,
}

impl World {
    pub(crate) fn new(services: &[Service]) -> Self {
        Self::over(
            pool::take(GoneFlows::Reset, pool::MANY),
            surroundings(),
            services,
        )
    }

    /// One in which connections go on with backends that are gone.
    pub(crate) fn leaving(services: &[Service]) -> Self {
        Self::over(
            pool::take(GoneFlows::Leave, pool::MANY),
            surroundings(),
            services,
        )
    }

    /// One with room for so many flows.
    pub(crate) fn small(services: &[Service], max_flows: u32) -> Self {
        Self::over(
            pool::take(GoneFlows::Reset, max_flows),
            surroundings(),
            services,
        )
    }

    /// On a node where `nat` flows that leave by the uplink come from this IPv4 source.
    pub(crate) fn with_snat(services: &[Service], source: Snat) -> Self {
        let mut world = Self::new(&[]);
        world.snat_from(source);
        world.change(services);
        world
    }

    /// Has those that begin from the next change on come from this one.
    pub(crate) fn snat_from(&mut self, source: Snat) {
        let uplink = self.surroundings.devices.get_mut(&self.ingress).unwrap();
        uplink.snat_v4 = Some(source);
    }

    /// On a node that others may take VIPs over from.
    pub(crate) fn shared(services: &[Service]) -> Self {
        let around = Surroundings {
            shared: true,
            ..surroundings()
        };
        Self::over(pool::take(GoneFlows::Reset, pool::MANY), around, services)
    }

    /// One whose services have been there for longer than the drain window.
    #[must_use]
    pub(crate) fn settled(mut self) -> Self {
        self.window_passes();
        self
    }

    /// Lets the drain window of all changes so far pass.
    pub(crate) fn window_passes(&mut self) {
        // Changes are noted by tenths of seconds.
        sleep(Duration::from_millis(200));
        self.datapath.settle().unwrap();
    }

    fn over(datapath: Lease, surroundings: Surroundings, services: &[Service]) -> Self {
        let mut world = Self {
            datapath,
            desired: Desired::default(),
            surroundings,
            ingress: interface("uplink"),
        };
        world.change(services);
        world
    }

    /// Makes these the services; packets later find the new ones.
    pub(crate) fn change(&mut self, services: &[Service]) {
        self.apply_again(services);
    }

    /// The same, telling what was written.
    pub(crate) fn apply_again(&mut self, services: &[Service]) -> Applied {
        self.try_change(services).unwrap()
    }

    /// The same, where it may fail.
    pub(crate) fn try_change(&mut self, services: &[Service]) -> Result<Applied, DatapathError> {
        self.desired.services = services
            .iter()
            .enumerate()
            .map(|(n, service)| (ServiceName(format!("test/{n}:port")), service.clone()))
            .collect();
        let image = compile(&self.desired, &self.surroundings, &self.datapath.in_use()).unwrap();
        self.datapath.apply(&image)
    }

    /// Opens the datapath anew over its pinned maps, as an agent does that restarts.
    pub(crate) fn reopen(self) -> Self {
        self.reopen_after(|_, _| {})
    }

    /// The same after something has happened to its pinned maps, or to its options.
    pub(crate) fn reopen_after(self, happens: impl FnOnce(&Path, &mut Options)) -> Self {
        Self {
            datapath: self.datapath.reopen_after(happens),
            ..self
        }
    }

    /// Sends a packet and checks everything about what becomes of it.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        hook: Hook,
        frame: &[u8],
        verdict: Verdict,
        act: Act,
        out: &[u8],
    ) {
        let seen = self.send(hook, frame, verdict, act);
        assert!(seen == out, "{}", difference(out, &seen));
    }

    /// The same for a packet that must come out as it went in.
    #[track_caller]
    pub(crate) fn expect_untouched(
        &mut self,
        hook: Hook,
        frame: &[u8],
        verdict: Verdict,
        act: Act,
    ) {
        self.expect(hook, frame, verdict, act, frame);
    }

    /// Sends a packet, checks verdict and action, and gives what comes out.
    #[track_caller]
    pub(crate) fn send(&mut self, hook: Hook, frame: &[u8], verdict: Verdict, act: Act) -> Vec<u8> {
        let before = self.verdicts();
        if hook == Hook::Xdp {
            let flows = self.datapath.flows(usize::MAX).unwrap().0.len();
            let explained = self.datapath.explain_frame(frame, self.ingress).unwrap();
            assert_eq!(explained.verdict, verdict, "the dry run");
            assert_eq!(self.verdicts(), before, "the dry run counts");
            let after = self.datapath.flows(usize::MAX).unwrap().0.len();
            assert_eq!(flows, after, "the dry run records");
        }
        let out = self.datapath.test_run(hook, frame, self.ingress).unwrap();
        let after = self.verdicts();
        let counted: Vec<_> = after
            .iter()
            .filter(|(key, count)| before.get(key) != Some(count))
            .map(|(key, _)| *key)
            .collect();
        assert_eq!(counted, [(hook, verdict)], "verdicts counted");
        assert_eq!(action(hook, out.action), act, "action for {verdict}");
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(verdict);
        out.bytes
    }

    /// Sends a client's packet through XDP; the backend that it is counted for, which is also
    /// where it goes if that is a pod here.
    #[track_caller]
    pub(crate) fn served(&mut self, packet: &Packet) -> String {
        let explained = self.datapath.explain_frame(&packet.bytes(), self.ingress);
        let told = explained.unwrap();
        let counts = |datapath: &mut Lease| -> BTreeMap<String, u64> {
            let backends = datapath.in_use().backends;
            let counts = backends.iter().map(|it| {
                let addr = SocketAddr::new(it.addr.to_ip(), it.port.get());
                let stats = datapath.backend_stats(it.id.index()).unwrap();
                (format!("{addr} {}", it.id), stats.packets_in)
            });
            counts.collect()
        };
        let before = counts(&mut self.datapath);
        let (_, to) = self.forwarded(packet, told.verdict);
        let after = counts(&mut self.datapath);
        let more = after.iter().filter(|(key, count)| before[*key] != **count);
        let more: Vec<_> = more
            .map(|(key, _)| key.split(' ').next().unwrap())
            .collect();
        assert_eq!(more.len(), 1, "{} backends count it", more.len());
        if told.verdict != Verdict::ForwardDsr {
            assert_eq!(more[0], to.to_string(), "counted for another");
        }
        more[0].to_owned()
    }

    /// The backend that the dry run names for a client's packet.
    #[track_caller]
    pub(crate) fn would_serve(&mut self, packet: &Packet) -> String {
        let explained = self.datapath.explain_frame(&packet.bytes(), self.ingress);
        let backend = explained.unwrap().backend.unwrap();
        SocketAddr::new(backend.addr.to_ip(), backend.port.get()).to_string()
    }

    /// How many flows have a record, and how many replies.
    pub(crate) fn recorded(&self) -> (usize, usize) {
        let records = self.datapath.records();
        (records.iter().count(), records.replies().count())
    }

    /// How many connections are known that came by no frontend.
    pub(crate) fn direct(&self) -> usize {
        self.datapath.count::<Direct>("DIRECT")
    }

    /// Has them been silent for so many ticks more.
    pub(crate) fn direct_were_silent(&self, ticks: u32) {
        let mut table = self.datapath.table::<Direct>("DIRECT");
        let entries: Vec<_> = table.iter().map(Result::unwrap).collect();
        for (reply, mut direct) in entries {
            direct.expires = direct.expires.wrapping_sub(ticks);
            table.insert(reply, direct, 0).unwrap();
        }
    }

    fn verdicts(&self) -> BTreeMap<(Hook, Verdict), u64> {
        let counts = self.datapath.verdicts().unwrap().into_iter();
        counts
            .map(|(hook, verdict, count)| ((hook, verdict), count.packets))
            .collect()
    }

    /// A packet through XDP that is forwarded: where it goes to and where it says it
    /// comes from.
    #[track_caller]
    pub(crate) fn forwarded(
        &mut self,
        packet: &Packet,
        verdict: Verdict,
    ) -> (SocketAddr, SocketAddr) {
        let act = match verdict {
            Verdict::ForwardLocal => Act::Pass,
            _ => Act::SentBack,
        };
        let out = self.send(Hook::Xdp, &packet.bytes(), verdict, act);
        endpoints(&out)
    }
}

fn action(hook: Hook, number: u32) -> Act {
    match (hook, number) {
        (Hook::Xdp, 1) | (_, 2) if hook != Hook::Xdp || number == 1 => Act::Drop,
        (Hook::Xdp, 2) | (_, u32::MAX) => Act::Pass,
        (Hook::Xdp, 3) => Act::SentBack,
        (Hook::Xdp, 4) | (_, 7) => Act::SentOn,
        (hook, number) => panic!("{}: action {number}", hook.name()),
    }
}

/// Source and destination of a frame.
pub(crate) fn endpoints(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (src, dst) = match packet.net {
        Some(etherparse::NetHeaders::Ipv4(ip, _)) => {
            (IpAddr::from(ip.source), IpAddr::from(ip.destination))
        }
        Some(etherparse::NetHeaders::Ipv6(ip, _)) => {
            (IpAddr::from(ip.source), IpAddr::from(ip.destination))
        }
        other => panic!("neither IPv4 nor IPv6: {other:?}"),
    };
    let (from, to) = match packet.transport {
        Some(etherparse::TransportHeader::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(etherparse::TransportHeader::Udp(udp)) => (udp.source_port, udp.destination_port),
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    (SocketAddr::new(src, from), SocketAddr::new(dst, to))
}

fn surroundings() -> Surroundings {
    let host = [
        "192.168.56.101",
        "10.244.1.1",
        "10.9.0.1",
        "10.8.0.1",
        "fd00::101",
        "fd00:1::1",
    ];
    let own = |text: &str| Snat::shared(text.parse().unwrap(), DEFAULT_SNAT_PORTS);
    let device = |name: &str, snat: &str, snat_v6: Option<&str>, xdp_redirect| {
        let facts = DeviceFacts {
            name: name.to_owned(),
            snat_v4: Some(own(snat)),
            snat_v6: snat_v6.map(own),
            mac: NODE_MAC,
            xdp_redirect,
            tunnel: false,
        };
        (interface(name), facts)
    };
    Surroundings {
        node: "nuc01".to_owned(),
        host_addresses: host.iter().map(|text| text.parse().unwrap()).collect(),
        local_endpoints: local_pods(),
        peers: BTreeMap::from([
            ("nuc02".to_owned(), IpAddr::from([192, 168, 56, 102])),
            ("silent".to_owned(), IpAddr::from([192, 168, 56, 103])),
        ]),
        devices: BTreeMap::from([
            device("uplink", "192.168.56.101", Some("fd00::101"), true),
            device("still", "10.8.0.1", None, true),
            device("east", "10.7.0.1", None, true),
            device("slow", "10.6.0.1", None, false),
            device("narrow", "10.5.0.1", Some("fd00:5::1"), true),
        ]),
        sockets: true,
        ..Surroundings::default()
    }
}

fn local_pods() -> BTreeSet<IpAddr> {
    (2..12)
        .flat_map(|n| {
            let v6 = [0xfd00, 1, 0, 0, 0, 0, 0, n.into()];
            [IpAddr::from([10, 244, 1, n]), IpAddr::from(v6)]
        })
        .collect()
}
