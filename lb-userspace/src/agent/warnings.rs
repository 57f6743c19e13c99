//! What keeps packets from reaching the backends although all is in place.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::Mode;

use super::{Options, interfaces, state::State};
use crate::{
    compile::image::MapImage,
    desired::{Desired, Family},
    net::{Network, Routes, Snapshot, is_local_endpoint},
};

/// So often it is looked at most for what other endpoints may bring to warn of: that goes over all
/// of them, and they may change many times a second.
const OFTEN: Duration = Duration::from_secs(1);

/// When it was looked for what there is to warn of.
#[derive(Debug, Default)]
pub(super) struct Warned {
    last: Option<Instant>,
    put_off: bool,
}

impl Warned {
    fn is_long_ago(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= OFTEN)
    }

    /// Whether to look later, since it was looked just now.
    pub(super) fn puts_off(&mut self) -> bool {
        self.put_off = !self.is_long_ago();
        self.put_off
    }

    /// Whether it is time to look for what was put off.
    pub(super) fn is_due(&self) -> bool {
        self.put_off && self.is_long_ago()
    }
}

impl State {
    /// All that the status warns of.
    pub(super) fn warnings(&self) -> Vec<String> {
        let failures = self.failures.iter().chain(self.lacking.values());
        let failures = failures.chain(&self.used.failure);
        let failures = failures.chain(&self.routing_warnings).cloned();
        let more = self.address_warnings().chain(self.drained_and_gone());
        failures.chain(more).chain(self.contests()).collect()
    }

    /// Logs what is newly in the way of traffic.
    pub(super) async fn warn(&mut self, snapshot: &Snapshot) {
        let mut remote = std::mem::take(&mut self.survey.remote);
        let found = find(
            &self.options,
            &self.image,
            &self.desired,
            snapshot,
            (&self.network, &mut remote),
            |node| self.has_met().then(|| self.is_met(node)),
        )
        .await;
        self.survey.remote = remote;
        for warning in found.difference(&self.routing_warnings) {
            tracing::warn!("{warning}");
        }
        self.routing_warnings = found;
        self.warned = Warned {
            last: Some(Instant::now()),
            put_off: false,
        };
    }
}

/// Looks at sysctls and routes; each warning names the object and the remedy.
/// `is_met` tells whether a node runs Naru, where that is known.
async fn find(
    options: &Options,
    image: &MapImage,
    desired: &Desired,
    snapshot: &Snapshot,
    (network, remote): (&Network, &mut Routes),
    is_met: impl Fn(&str) -> Option<bool>,
) -> BTreeSet<String> {
    let mut warnings = BTreeSet::new();
    let image = &for_packets(image, desired);
    forwarding(options, image, snapshot, &mut warnings);
    ports(options, image, snapshot, &mut warnings);
    snat(options, snapshot, &mut warnings);
    peers(image, desired, is_met, &mut warnings);
    if let Err(error) = remote.look_up(network, elsewhere(image)).await {
        warnings.insert(format!("routes to backends: {error}"));
    }
    routes(options, image, desired, snapshot, remote, &mut warnings);
    warnings
}

/// The interfaces and those backends that packets go to: sockets reach theirs without
/// Naru's forwarding.
fn for_packets(image: &MapImage, desired: &Desired) -> MapImage {
    let services = desired.services.values();
    let mut backends = image.backends.clone();
    if !services.clone().all(|service| service.takes_packets()) {
        let reached: BTreeSet<IpAddr> = services
            .filter(|service| service.takes_packets())
            .flat_map(|service| service.endpoints.keys().map(SocketAddr::ip))
            .collect();
        let all = backends.into_iter();
        backends = all
            .filter(|(_, backend)| reached.contains(&backend.addr.to_ip()))
            .collect();
    }
    MapImage {
        backends,
        former: image.former.clone(),
        devices: image.devices.clone(),
        ..MapImage::default()
    }
}

fn forwarding(
    options: &Options,
    image: &MapImage,
    snapshot: &Snapshot,
    warnings: &mut BTreeSet<String>,
) {
    let host = snapshot.host_addresses();
    let backends = image.backends.values().map(|it| it.addr.to_ip());
    let families: BTreeSet<Family> = backends
        .filter(|addr| !host.contains(addr))
        .map(Family::of)
        .collect();
    for family in families {
        let family = family.name().to_lowercase();
        for link in interfaces::present(&options.interfaces, snapshot) {
            let name = &link.name;
            let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
            if sysctl(&path).as_deref() == Some("0") {
                warnings.insert(format!(
                    "the kernel does not forward packets that come in by {name}, so no backend but \
                     this host's own processes is reached; set sysctl \
                     net.{family}.conf.{name}.forwarding=1"
                ));
            }
        }
    }
}

/// Dedicated addresses that serve nobody, or not alone.
fn snat(options: &Options, snapshot: &Snapshot, warnings: &mut BTreeSet<String>) {
    let host = snapshot.host_addresses();
    for addr in &options.snat.addresses {
        let mut attached = interfaces::present(&options.interfaces, snapshot);
        if host.contains(addr) {
            warnings.insert(format!(
                "--snat-address {addr} is an address of this host, whose own connections use its \
                 ports; give one that is for nothing else"
            ));
        } else if !attached.any(|it| snapshot.on_link(it.index, *addr)) {
            warnings.insert(format!(
                "--snat-address {addr} is of no network that an --interface is in, so nothing \
                 comes from it; give one that is"
            ));
        }
    }
}

/// Endpoints of services in mode `dsr` whose nodes nothing can be handed over to.
fn peers(
    image: &MapImage,
    desired: &Desired,
    is_met: impl Fn(&str) -> Option<bool>,
    warnings: &mut BTreeSet<String>,
) {
    let nat: BTreeSet<_> = image
        .backends
        .iter()
        .filter(|(index, it)| it.mode() == Mode::Nat && !image.former.contains(*index))
        .map(|(_, it)| (it.addr.to_ip(), it.port.get()))
        .collect();
    let services = desired.services.iter();
    for (name, service) in services.filter(|(_, it)| it.elsewhere == Mode::Dsr) {
        for (addr, endpoint) in &service.endpoints {
            let unknown = endpoint
                .node
                .as_ref()
                .is_some_and(|it| is_met(it).is_none());
            if unknown || !nat.contains(&(addr.ip(), addr.port())) {
                continue;
            }
            warnings.insert(match &endpoint.node {
                Some(node) if is_met(node) == Some(false) => format!(
                    "node {node} was not met by gossip, so endpoints on it of services in mode \
                     dsr are reached by nat; run naru there, with the same --gossip-key"
                ),
                Some(node) => format!(
                    "{name} is in mode dsr, but node {node} of endpoint {addr} has no address on a \
                     LAN that an --interface is on: it is reached by nat; name the node's \
                     InternalIP in its Node object, or add the interface"
                ),
                None => format!(
                    "{name} is in mode dsr, but nothing says which node endpoint {addr} is on: it \
                     is reached by nat; name the node"
                ),
            });
        }
    }
}

fn ports(
    options: &Options,
    image: &MapImage,
    snapshot: &Snapshot,
    warnings: &mut BTreeSet<String>,
) {
    let nat = image.backends.values().any(|it| it.mode() == Mode::Nat);
    let range = sysctl("/proc/sys/net/ipv4/ip_local_port_range");
    let last = range.as_deref().and_then(|range| {
        let (_, last) = range.split_once(char::is_whitespace)?;
        last.trim().parse::<u16>().ok()
    });
    let host = snapshot.host_addresses();
    let mut sources = image
        .devices
        .values()
        .flat_map(|it| [it.snat_v4, it.snat_v6]);
    let shared = sources.any(|it| host.contains(&it.addr.to_ip()));
    let ours = &options.snat.ports;
    if nat && shared && last.is_some_and(|last| last >= *ours.start()) {
        warnings.insert(format!(
            "this host's own connections may use ports that `nat` flows use: \
             net.ipv4.ip_local_port_range reaches into {}-{}; lower it, or choose other --snat-ports",
            ours.start(),
            ours.end()
        ));
    }
}

/// The addresses of backends that packets reach by `nat`.
fn elsewhere(image: &MapImage) -> BTreeSet<IpAddr> {
    let backends = image.backends.values();
    let nat = backends.filter(|backend| backend.mode() == Mode::Nat);
    nat.map(|backend| backend.addr.to_ip()).collect()
}

fn routes(
    options: &Options,
    image: &MapImage,
    desired: &Desired,
    snapshot: &Snapshot,
    remote: &Routes,
    warnings: &mut BTreeSet<String>,
) {
    // Only where there is something to warn of.
    let nodes = LazyCell::new(|| -> BTreeMap<IpAddr, &str> {
        let endpoints = desired.services.values().flat_map(|it| &it.endpoints);
        let named = endpoints.filter_map(|(addr, it)| Some((addr.ip(), it.node.as_deref()?)));
        named.collect()
    });
    let attached: BTreeSet<u32> = image.devices.keys().copied().collect();
    for (addr, route) in remote.iter() {
        let Some(egress) = route.egress.filter(|egress| !attached.contains(egress)) else {
            continue;
        };
        let name = snapshot
            .links
            .get(&egress)
            .map_or("an unknown interface", |link| link.name.as_str());
        warnings.insert(match nodes.get(&addr) {
            Some(node) if is_local_endpoint(route, &attached) => format!(
                "endpoint {addr} is on this host by its route ({name}), but its node is {node} and \
                 this one is {}; start the agent with --node-name {node}",
                options.node
            ),
            _ => format!(
                "backend {addr} is reached through {name}, which Naru is not attached to: its \
                 replies would be missed; add --interface {name}"
            ),
        });
    }
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|value| value.trim().to_owned())
}
