//! `naru agent`: from flags to the agent's options.

use std::{
    net::{AddrParseError, IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use ipnet::IpNet;
use lb_common::{Algorithm, config};

use super::dirs::Dirs;
use crate::{
    agent::{self, Gossip, Interfaces, Options},
    datapath::{self, AttachMode, DEFAULT_DRAIN_WINDOW, GoneFlows, TcMode},
    membership,
    net::SnatChoice,
    source::{
        Source,
        cluster::Cluster,
        flags::{Backend, Flags, Vip},
    },
};

const EXAMPLES: &str = "\
Examples:
  naru agent --vip 192.168.56.11:80 --backend 10.0.0.11:8080 --backend 10.0.0.12:8080=2 --interface eth0
  naru agent --vip 192.168.56.11:53/udp --backend 10.0.0.53:53 --algorithm maglev --interface eth0
  naru agent --manifests /etc/naru/manifests --interface eth0 --interface flannel.1
  naru agent --config /etc/naru/naru.yaml --interface bond0 --attach generic
  naru agent --kubernetes --kubeconfig ~/.kube/config --interface eth0 --cgroup /sys/fs/cgroup
On a LAN of nodes, with the same manifests and the same key on each:
  (umask 077; openssl rand -base64 32 > /etc/naru/gossip.key)
  naru agent --manifests /etc/naru/manifests --interface eth0 --gossip-key /etc/naru/gossip.key

The kernel side outlives the agent: stopped or killed, it goes on balancing, and the next
agent takes over without losing a packet. Among other nodes its addresses move to one of them
meanwhile. `naru detach` takes the kernel side away.
RUST_LOG sets the log level (RUST_LOG=debug).";

/// The flags of `naru agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Serve the Services and EndpointSlices in this directory of Kubernetes YAML
    #[arg(long, value_name = "DIR", group = "source")]
    manifests: Option<PathBuf>,
    /// Serve what this configuration file says
    #[arg(long, value_name = "FILE", group = "source")]
    config: Option<PathBuf>,
    /// Serve the Services of a cluster, as its API server has them
    #[arg(long, group = "source")]
    kubernetes: bool,
    /// How to reach its API server [default: $KUBECONFIG, ~/.kube/config, or what a pod finds]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Of Services of type LoadBalancer serve those of this loadBalancerClass alone [default: those
    /// without one, and of naru.dev/naru]
    #[arg(long, value_name = "CLASS", requires = "kubernetes")]
    load_balancer_class: Option<String>,
    /// Also do kube-proxy's work: node ports, and with --cgroup cluster IPs; false where it stays
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          requires = "kubernetes")]
    replace_kube_proxy: bool,
    /// Serve this virtual IP and port; repeatable
    #[arg(
        long,
        value_name = "IP:PORT[/udp]",
        group = "source",
        requires = "backend"
    )]
    vip: Vec<Vip>,
    /// A server behind the --vip, with its weight; repeatable
    #[arg(long, value_name = "IP:PORT[=WEIGHT]", requires = "vip")]
    backend: Vec<Backend>,
    /// How a backend is picked for a new flow to a --vip
    #[arg(long, value_name = "NAME", default_value = "round-robin", requires = "vip",
          value_parser = algorithm)]
    algorithm: Algorithm,
    /// An interface that traffic for the virtual IPs comes in by or goes out by, or a pattern
    /// ('eth*') for all that there are or will be; repeatable [default: that of the default route]
    #[arg(long, value_name = "IF")]
    interface: Vec<Interfaces>,
    /// Where XDP runs: in the driver (native), in the receive path (generic), or what works
    #[arg(long, value_name = "MODE", default_value = "auto")]
    attach: AttachMode,
    /// How TC programs are attached: by links (tcx, kernel 6.6), as filters (clsact), or what works
    #[arg(long, value_name = "MODE", default_value = "auto")]
    tc: TcMode,
    /// Also serve the processes in this cgroup (version 2), on the node and in its pods, at
    /// their sockets: /sys/fs/cgroup for all of them
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// This node's name, as endpoints name it [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// A network whose addresses of this host serve node ports; repeatable [default: all global
    /// addresses of the host]
    #[arg(long, value_name = "CIDR")]
    node_port_addresses: Vec<IpNet>,
    /// Serve metrics for Prometheus at http://IP:PORT/metrics; whoever reaches that may read them
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Do not answer ARP and NDP for the virtual IPs: they are routed here, or the host has them
    #[arg(long)]
    no_announce: bool,
    /// Share the virtual IPs with other nodes: the file with the key that all of them have.
    /// Without it this node is alone
    #[arg(long, value_name = "FILE")]
    gossip_key: Option<PathBuf>,
    /// Where this node takes part in gossip, over UDP [default: its InternalIP by the Node
    /// objects, or else an address of an --interface; port 7947]
    #[arg(long, value_name = "IP[:PORT]", requires = "gossip_key", value_parser = gossip_address)]
    gossip_address: Option<SocketAddr>,
    /// Where another node is; repeatable [default: the other Node objects]
    #[arg(long, value_name = "IP[:PORT]", requires = "gossip_key", value_parser = gossip_address)]
    join: Vec<SocketAddr>,
    /// Leave an address on the node that announces it while that can serve it, rather than move
    /// it back when the elected node returns
    #[arg(long)]
    no_preempt: bool,
    /// With --no-preempt: for so many seconds a node that comes back takes only what nobody else
    /// can
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        requires = "no_preempt"
    )]
    hold_down: u64,
    /// Flows that are recorded at a time, at about 370 bytes each; where there is no room the one
    /// that would expire soonest makes it. Takes effect when the tables are made
    #[arg(long, value_name = "N", default_value_t = config::DEFAULT_MAX_FLOWS as u32,
          value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    max_flows: u32,
    /// An address that flows to backends elsewhere come from, of the LAN and for nothing else:
    /// it has 64,512 ports for each backend; repeatable [default: the interface's own address]
    #[arg(long, value_name = "IP")]
    snat_address: Vec<IpAddr>,
    /// Ports of this host's addresses that flows to backends elsewhere use as source
    #[arg(long, value_name = "FIRST-LAST", default_value = "61001-65535", value_parser = ports)]
    snat_ports: RangeInclusive<u16>,
    /// TCP flows whose backend is gone: reset them, or leave them to its address until they end
    #[arg(long, value_name = "WHAT", default_value = "reset")]
    gone_flows: GoneFlows,
    /// For how many seconds after a change Maglev flows without a record keep the backend from
    /// before it: one that sends at least once in that time keeps it for good
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_DRAIN_WINDOW.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    drain_window: u64,
    /// Seed of hashes and Maglev tables; equal on all nodes that share virtual IPs. With another one
    /// than before, Maglev flows without a record go to other backends
    #[arg(long, value_name = "N", default_value_t = config::DEFAULT_SEED)]
    seed: u64,
    /// Log every packet that concerns a service; for debugging, slow
    #[arg(long)]
    log_packets: bool,
}

pub(super) fn run(args: Args, dirs: Dirs) -> anyhow::Result<ExitCode> {
    let log_packets = args.log_packets;
    super::log_to_stderr(if log_packets {
        "debug"
    } else {
        super::DEFAULT_LOG
    });
    let options = args.options(dirs)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(agent::run(options))?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn options(self, dirs: Dirs) -> anyhow::Result<Options> {
        let source = match (self.manifests, self.config) {
            (Some(dir), _) => Source::Manifests(dir),
            (None, Some(file)) => Source::Config(file),
            (None, None) if self.kubernetes => Source::Cluster(Cluster {
                kubeconfig: self.kubeconfig,
                class: self.load_balancer_class,
                beside_kube_proxy: !self.replace_kube_proxy,
            }),
            (None, None) if !self.vip.is_empty() => Source::Flags(Flags {
                vips: self.vip,
                backends: self.backend,
                algorithm: self.algorithm,
            }),
            (None, None) => anyhow::bail!(
                "nothing to serve: give --kubernetes, --manifests DIR, --config FILE, or --vip and \
                 --backend"
            ),
        };
        let node = match self.node_name {
            Some(name) => name,
            None => nix::unistd::gethostname()
                .context("the host's name; give --node-name")?
                .to_string_lossy()
                // As kubelet names the node.
                .to_lowercase(),
        };
        Ok(Options {
            source,
            interfaces: self.interface,
            attach: self.attach,
            cgroup: self.cgroup,
            node,
            state_dir: dirs.state_dir().to_owned(),
            run_dir: dirs.run_dir().to_owned(),
            node_port_addresses: self.node_port_addresses,
            announce: !self.no_announce,
            metrics: self.metrics,
            gossip: self.gossip_key.map(|key| Gossip {
                key,
                address: self.gossip_address.map(|it| it.ip()),
                port: self
                    .gossip_address
                    .map_or(membership::DEFAULT_PORT, |it| it.port()),
                join: self.join,
            }),
            hold_down: self.no_preempt.then(|| Duration::from_secs(self.hold_down)),
            snat: SnatChoice {
                addresses: self.snat_address,
                ports: self.snat_ports,
            },
            datapath: datapath::Options {
                pin_dir: dirs.pin_dir,
                max_flows: self.max_flows,
                seed: self.seed,
                gone_flows: self.gone_flows,
                drain_window: Duration::from_secs(self.drain_window),
                tc: self.tc,
                log_packets: self.log_packets,
            },
        })
    }
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    [Algorithm::RoundRobin, Algorithm::Maglev]
        .into_iter()
        .find(|it| it.name() == text)
        .ok_or_else(|| "write round-robin or maglev".to_owned())
}

fn gossip_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>();
    address
        .or_else(|_| {
            Ok(SocketAddr::new(
                text.parse::<IpAddr>()?,
                membership::DEFAULT_PORT,
            ))
        })
        .map_err(|_: AddrParseError| {
            "write an address such as 192.168.56.101, 192.168.56.101:7947 or [fd00::1]:7947"
                .to_owned()
        })
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let parse = |part: &str| part.trim().parse::<u16>().ok().filter(|&port| port > 0);
    text.split_once('-')
        .and_then(|(first, last)| Some((parse(first)?, parse(last)?)))
        .filter(|(first, last)| first < last)
        .map(|(first, last)| first..=last)
        .ok_or_else(|| "write a range of ports, such as 61001-65535".to_owned())
}
