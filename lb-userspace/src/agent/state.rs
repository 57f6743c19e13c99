//! All that the agent knows, and how it brings the kernel to what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    time::Instant,
};

use anyhow::Context;
use lb_common::{AddressUse, Mode};

use super::Options;
use crate::{
    announce::{Announcer, Claims},
    compile::{self, image::MapImage},
    control::SourceStatus,
    datapath::{Attachment, Datapath},
    desired::Desired,
    net::{Network, Snapshot},
    source::{Outcome, Source},
};

/// The agent's state. The image is what the maps hold.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) datapath: Datapath,
    pub(super) announcer: Announcer,
    network: Network,
    pub(super) started: Instant,
    pub(super) desired: Desired,
    pub(super) image: MapImage,
    pub(super) source: SourceStatus,
    pub(super) taken_over: Option<Instant>,
    /// By interface name.
    pub(super) attachments: BTreeMap<String, Attachment>,
    pub(super) missing_interfaces: Vec<String>,
    /// What went wrong in the last reconcile, by stage.
    failures: BTreeMap<&'static str, String>,
    routing_warnings: Vec<String>,
}

impl State {
    pub(super) fn new(
        options: Options,
        datapath: Datapath,
        network: Network,
        announcer: Announcer,
    ) -> Self {
        let from = match &options.source {
            Source::Manifests(dir) => format!("manifests in {}", dir.display()),
            Source::Config(file) => format!("configuration file {}", file.display()),
            Source::Flags(_) => "command line".to_owned(),
        };
        Self {
            options,
            datapath,
            announcer,
            network,
            started: Instant::now(),
            desired: Desired::default(),
            image: MapImage::default(),
            source: SourceStatus {
                from,
                ..SourceStatus::default()
            },
            taken_over: None,
            attachments: BTreeMap::new(),
            missing_interfaces: Vec::new(),
            failures: BTreeMap::new(),
            routing_warnings: Vec::new(),
        }
    }

    /// Brings the kernel up: fills the maps, then attaches, then claims.
    pub(super) async fn start(&mut self, first: Outcome) -> anyhow::Result<()> {
        let snapshot = self.network.snapshot().await?;
        match first {
            Ok(loaded) => {
                self.desired = loaded.desired;
                self.source.notes = loaded.notes.iter().map(ToString::to_string).collect();
                // Filled before the programs are attached; whether they can redirect is
                // known only afterwards.
                let attached = self.interfaces(&snapshot);
                self.compile_and_apply(&snapshot, &attached).await?;
                self.source.current = true;
                self.taken_over = Some(Instant::now());
            }
            Err(rejected) if self.datapath.in_use().frontends.is_empty() => {
                return Err(anyhow::anyhow!("{rejected}")).context("refused");
            }
            Err(rejected) => {
                tracing::error!("refused; what an earlier agent left stays in force\n{rejected}");
                self.refuse(&rejected.problems);
            }
        }
        self.attach(&snapshot)?;
        self.datapath.remove_other_versions()?;
        if self.source.current {
            let attached = self.redirects();
            self.compile_and_apply(&snapshot, &attached).await?;
        }
        self.claim();
        tracing::info!(
            "ready: {} service ports, {} backends on {}",
            self.image.services.len(),
            self.image.backends.len(),
            self.attachments
                .values()
                .map(|it| {
                    let kind = if it.native { "native" } else { "generic" };
                    format!("{} ({kind} XDP)", it.interface)
                })
                .collect::<Vec<_>>()
                .join(", ")
        );
        Ok(())
    }

    /// Takes over what the source says now, or remembers why not.
    pub(super) async fn source_changed(&mut self, outcome: Outcome) {
        match outcome {
            Ok(loaded) => {
                let previous = std::mem::replace(&mut self.desired, loaded.desired);
                self.source.notes = loaded.notes.iter().map(ToString::to_string).collect();
                // From here on there is a valid source, which `reconcile` asks for.
                self.source.problems.clear();
                if self.reconcile().await {
                    self.source.current = true;
                    self.taken_over = Some(Instant::now());
                } else {
                    self.desired = previous;
                    self.source.current = false;
                    self.source.problems = self.failures.values().cloned().collect();
                }
            }
            Err(rejected) => {
                tracing::error!("refused; the last valid state stays in force\n{rejected}");
                self.refuse(&rejected.problems);
            }
        }
    }

    fn refuse(&mut self, problems: &[crate::source::Problem]) {
        self.source.current = false;
        self.source.problems = problems.iter().map(ToString::to_string).collect();
    }

    /// Follows links, addresses and routes.
    pub(super) async fn network_changed(&mut self) {
        self.reconcile().await;
    }

    /// Brings attachments, maps and claims to what is wanted. False where it failed; what
    /// was in force stays then.
    async fn reconcile(&mut self) -> bool {
        self.failures.clear();
        let outcome = self.try_reconcile().await;
        if let Err(error) = &outcome {
            tracing::error!("{error:#}; the last state stays in force");
            self.failures.insert("reconcile", format!("{error:#}"));
        }
        outcome.is_ok()
    }

    async fn try_reconcile(&mut self) -> anyhow::Result<()> {
        let snapshot = self.network.snapshot().await?;
        self.attach(&snapshot)?;
        // Without any valid source yet, what an earlier agent left stays.
        if self.taken_over.is_some() || self.source.problems.is_empty() {
            let attached = self.redirects();
            self.compile_and_apply(&snapshot, &attached).await?;
        }
        self.claim();
        Ok(())
    }

    async fn compile_and_apply(
        &mut self,
        snapshot: &Snapshot,
        attached: &BTreeMap<u32, bool>,
    ) -> anyhow::Result<()> {
        let indices: BTreeSet<_> = attached.keys().copied().collect();
        let endpoints: BTreeSet<IpAddr> = self
            .desired
            .services
            .values()
            .flat_map(|service| &service.endpoints)
            .filter(|(_, endpoint)| endpoint.node.is_none())
            .map(|(addr, _)| addr.ip())
            .collect();
        let local = self.network.local_endpoints(endpoints, &indices).await?;
        let mut surroundings = snapshot.surroundings(&self.options.node, attached, local);
        surroundings.seed = self.options.datapath.seed;
        let image = compile::compile(&self.desired, &surroundings, &self.datapath.in_use())?;
        let applied = self.datapath.apply(&image)?;
        if applied.total() > 0 {
            tracing::info!(
                "applied: {} services, {} frontends, {} backends, {} slots changed",
                applied.services,
                applied.frontends,
                applied.backends,
                applied.slots
            );
        }
        self.image = image;
        self.check_routing(snapshot).await;
        Ok(())
    }

    /// The interfaces to attach to, before anything is attached.
    fn interfaces(&self, snapshot: &Snapshot) -> BTreeMap<u32, bool> {
        self.options
            .interfaces
            .iter()
            .filter_map(|name| snapshot.link_named(name).ok())
            .map(|link| (link.index, false))
            .collect()
    }

    /// The attached interfaces, with whether XDP may redirect to each.
    fn redirects(&self) -> BTreeMap<u32, bool> {
        self.attachments
            .values()
            .map(|it| (it.ifindex, it.native))
            .collect()
    }

    /// Attaches to the interfaces that exist and are not attached yet.
    fn attach(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.missing_interfaces.clear();
        if self.attachments.is_empty() {
            for interface in self.datapath.detach_others(&self.options.interfaces)? {
                tracing::info!("detached from {interface}, which is not among --interface");
            }
        }
        for name in &self.options.interfaces {
            let Ok(link) = snapshot.link_named(name) else {
                if self.attachments.remove(name).is_some() {
                    tracing::warn!("interface {name} is gone; waiting for it to come back");
                }
                self.missing_interfaces.push(name.clone());
                continue;
            };
            let attached = self.attachments.get(name);
            if attached.is_some_and(|it| it.ifindex == link.index) {
                continue;
            }
            let attachment = self
                .datapath
                .attach(name, link.index, self.options.attach)?;
            self.attachments.insert(name.clone(), attachment);
        }
        Ok(())
    }

    /// Claims every VIP that is not an address of the host itself on the attached
    /// interfaces: its datapath is in place by now.
    fn claim(&mut self) {
        if !self.options.announce {
            return;
        }
        let interfaces: BTreeSet<u32> = self.attachments.values().map(|it| it.ifindex).collect();
        let claims: Claims = self
            .datapath
            .addresses()
            .filter(|(_, usage)| {
                usage.contains(AddressUse::VIP) && !usage.contains(AddressUse::HOST)
            })
            .map(|(addr, _)| (addr.to_ip(), interfaces.clone()))
            .collect();
        self.announcer.set_claims(claims);
    }

    /// Looks for what keeps packets from reaching the backends although all is in place.
    async fn check_routing(&mut self, snapshot: &Snapshot) {
        let mut warnings = BTreeSet::new();
        for attachment in self.attachments.values() {
            let name = &attachment.interface;
            let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
            if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0") {
                warnings.insert(format!(
                    "the kernel does not forward packets that come in by {name}: no backend but this \
                     host's own processes is reached; set sysctl net.ipv4.conf.{name}.forwarding=1"
                ));
            }
        }
        for backend in self.image.backends.values() {
            if backend.mode() != Mode::Nat {
                continue;
            }
            let addr = backend.addr.to_ip();
            match self.network.route_to(addr).await {
                Ok(route) => {
                    let egress = route.egress.unwrap_or(0);
                    if !self.image.devices.contains_key(&egress) {
                        let name = snapshot
                            .links
                            .get(&egress)
                            .map_or("an unknown interface", |link| link.name.as_str());
                        warnings.insert(format!(
                            "backend {addr} is reached through {name}, which Naru is not attached to: \
                             its replies would be missed; add --interface {name}"
                        ));
                    }
                }
                Err(error) => {
                    warnings.insert(format!("backend {addr}: {error}"));
                }
            }
        }
        self.routing_warnings = warnings.into_iter().collect();
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.failures.values().cloned().collect();
        warnings.extend(self.routing_warnings.iter().cloned());
        warnings
    }

    /// Removes flows that are over.
    pub(super) fn sweep(&mut self) {
        match self.datapath.sweep() {
            Ok(swept) if swept.flows + swept.replies > 0 => {
                tracing::debug!(
                    "swept {} flows and {} reply records",
                    swept.flows,
                    swept.replies
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("sweeping the flow table: {error}"),
        }
    }
}
