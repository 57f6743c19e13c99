//! All that the agent knows, and how it brings the kernel to what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use prometheus_client::metrics::histogram::Histogram;

use super::{
    Options,
    addresses::Addresses,
    cluster::Cluster,
    compiled::Compiled,
    interfaces,
    memory::Memory,
    ownership::Ownership,
    peers::{Peer, Used},
    probes::Probes,
    survey::Survey,
    warnings::Warned,
};
use crate::{
    announce::Announcer,
    compile::{self, image::MapImage},
    control::SourceStatus,
    datapath::{Attachment, Datapath, Lease, heap},
    desired::{Census, Desired, Service, ServiceName, Shared, Surroundings},
    health::{Checker, Ledger},
    herald::Herald,
    metrics,
    net::{Link, Network, Snapshot, is_local_endpoint},
    source::{Loaded, News, Outcome, Problem, Source},
};

/// After so long without a compile its memory is given back: the next one would want it again.
const CALM: Duration = Duration::from_secs(1);

/// The agent's state.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) datapath: Datapath,
    /// Until when the program answers for what is claimed.
    pub(super) lease: Lease,
    pub(super) announcer: Announcer,
    pub(super) network: Network,
    pub(super) started: Instant,
    /// What the newest valid source wants; none before the first.
    pub(super) wanted: Option<Desired>,
    /// Who has which address of the pools.
    pub(super) addresses: Addresses,
    /// The other nodes.
    pub(super) cluster: Cluster,
    /// Tells a cluster of it.
    pub(super) herald: Option<Herald>,
    /// What this node announces.
    pub(super) ownership: Ownership,
    /// What is in force: [`Self::effective`] as of the last reconcile that succeeded.
    pub(super) desired: Desired,
    /// What outlives the agent beside the kernel side.
    pub(super) memory: Memory,
    pub(super) checker: Checker,
    pub(super) ledger: Ledger,
    /// What the maps hold.
    pub(super) image: MapImage,
    /// What `image` was compiled from, where that is in force: a change of the network that concerns
    /// nobody costs nothing, and one of some endpoints what those take.
    pub(super) compiled: Option<Compiled>,
    /// What makes the next one short.
    pub(super) memo: compile::Memo,
    /// What there was no room for then, by service.
    pub(super) lacking: BTreeMap<ServiceName, String>,
    pub(super) source: SourceStatus,
    /// When the first word came of what the source says and the maps do not hold yet.
    heard: Option<tokio::time::Instant>,
    /// How long such took, in seconds.
    pub(super) durations: Histogram,
    pub(super) taken_over: Option<Instant>,
    /// The endpoints of which the source does not say where they are.
    unplaced: Census,
    /// By interface name.
    pub(super) attachments: BTreeMap<String, Attachment>,
    pub(super) missing_interfaces: Vec<String>,
    /// As of the last look at the network, by index.
    pub(super) links: BTreeMap<u32, Link>,
    /// By node name.
    pub(super) peers: BTreeMap<String, Peer>,
    /// Those of them that are no members and answer neither ARP nor neighbour discovery: they
    /// left and were switched off, or were dead before this agent began.
    pub(super) silent_peers: BTreeSet<String>,
    /// As of the last word of a change of the network.
    pub(super) survey: Survey,
    probes: Probes,
    pub(super) used: Used,
    /// Those whose link addresses are being asked for, and since when.
    pub(super) unanswered: BTreeMap<String, Instant>,
    /// What the last reconcile could not do. It is tried again while there is any.
    pub(super) failures: Vec<String>,
    pub(super) routing_warnings: BTreeSet<String>,
    pub(super) warned: Warned,
    /// When something was compiled last, until what that left is given back.
    compiled_at: Option<Instant>,
}

impl State {
    pub(super) fn new(
        options: Options,
        datapath: Datapath,
        lease: Lease,
        network: Network,
        announcer: Announcer,
        memory: Memory,
        checker: Checker,
    ) -> Self {
        let from = match &options.source {
            Source::Manifests(dir) => format!("manifests in {}", dir.display()),
            Source::Config(file) => format!("configuration file {}", file.display()),
            Source::Flags(_) => "command line".to_owned(),
            Source::Cluster(cluster) => match &cluster.kubeconfig {
                Some(file) => format!("the cluster in {}", file.display()),
                None => "the cluster".to_owned(),
            },
        };
        let herald = match &options.source {
            Source::Cluster(cluster) => Some(Herald::start(cluster.clone(), options.node.clone())),
            _ => None,
        };
        Self {
            herald,
            image: datapath.live_image(),
            options,
            datapath,
            lease,
            announcer,
            network,
            started: Instant::now(),
            wanted: None,
            addresses: Addresses::default(),
            cluster: Cluster::default(),
            ownership: Ownership::default(),
            desired: Desired::default(),
            memory,
            checker,
            ledger: Ledger::default(),
            compiled: None,
            memo: compile::Memo::default(),
            lacking: BTreeMap::new(),
            source: SourceStatus {
                from,
                ..SourceStatus::default()
            },
            heard: None,
            durations: metrics::durations(),
            taken_over: None,
            unplaced: Census::of(|it| it.node.is_none()),
            attachments: BTreeMap::new(),
            missing_interfaces: Vec::new(),
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            silent_peers: BTreeSet::new(),
            survey: Survey::default(),
            probes: Probes::default(),
            used: Used::default(),
            unanswered: BTreeMap::new(),
            failures: Vec::new(),
            routing_warnings: BTreeSet::new(),
            warned: Warned::default(),
            compiled_at: None,
        }
    }

    /// Brings the kernel up: fills the maps, then attaches, then claims.
    ///
    /// # Errors
    /// Where the source is refused and no earlier agent has left anything in force, or
    /// where an interface cannot be attached to.
    pub(super) async fn start(&mut self, first: Outcome) -> anyhow::Result<()> {
        let snapshot = self.survey.snapshot(&self.network).await?;
        let inherited = !self.image.services.is_empty();
        match first {
            Ok(loaded) => {
                self.note(&loaded);
                self.want(loaded.desired);
            }
            Err(rejected) if inherited => {
                tracing::error!("refused; what an earlier agent left stays in force\n{rejected}");
                self.refuse(&rejected.problems);
            }
            Err(rejected) => return Err(anyhow::anyhow!("{rejected}")).context("refused"),
        }
        // Filled before the programs are attached; whether they can redirect is known
        // only afterwards.
        let present = interfaces::present(&self.options.interfaces, &snapshot);
        let interfaces = present.map(|link| (link.index, false)).collect();
        if let Err(error) = self.compile_and_apply(&snapshot, &interfaces).await {
            if !inherited {
                return Err(error);
            }
            self.fail(format!("{error:#}"));
        }
        let failures = self.attach(&snapshot);
        anyhow::ensure!(failures.is_empty(), failures.join("\n"));
        self.datapath
            .attach_sockets(self.options.cgroup.as_deref())?;
        self.datapath.remove_other_versions()?;
        // Nobody listens to its changes yet.
        self.survey.forget();
        self.reconcile().await;
        let attached: Vec<_> = self
            .attachments
            .values()
            .map(|it| {
                let kind = if it.native { "native" } else { "generic" };
                format!("{} ({kind} XDP)", it.interface)
            })
            .collect();
        tracing::info!(
            "ready: {} service ports, {} backends on {}",
            self.image.service_count(),
            self.image.backends.len(),
            attached.join(", ")
        );
        // At once: loading left most of it.
        heap::give_back();
        Ok(())
    }

    /// Takes over what the source says now, or remembers why not.
    pub(super) async fn source_changed(&mut self, news: News<Outcome>) {
        match news.what {
            Ok(loaded) => {
                self.heard.get_or_insert(news.since);
                self.note(&loaded);
                self.source.problems.clear();
                self.want(loaded.desired);
                self.reconcile().await;
            }
            Err(rejected) => {
                tracing::error!("refused; the last valid state stays in force\n{rejected}");
                self.refuse(&rejected.problems);
            }
        }
    }

    /// Remembers what there is to know of the source, and tells what is new of it.
    fn note(&mut self, loaded: &Loaded) {
        self.source.stale = loaded.is_stale();
        let told = std::mem::take(&mut self.source.notes);
        for note in &loaded.notes {
            let text = note.to_string();
            match note.refused {
                _ if told.contains(&text) => {}
                true => tracing::warn!("{text}"),
                false => tracing::info!("{text}"),
            }
            self.source.notes.push(text);
        }
    }

    fn want(&mut self, desired: Desired) {
        let before = self.wanted.as_ref();
        let changes = before.and_then(|before| desired.endpoint_changes(before));
        let checked = |it: &[(_, &Service, _)]| it.iter().any(|it| it.1.health_check.is_some());
        if changes.is_none_or(|it| checked(&it)) {
            self.follow_health(&desired);
        }
        self.wanted = Some(desired);
        self.seek();
        self.assign();
    }

    fn refuse(&mut self, problems: &[Problem]) {
        self.source.current = false;
        self.source.problems = problems.iter().map(ToString::to_string).collect();
    }

    /// What a clock's tick is for: what failed is tried again, and attachments that
    /// somebody took away are noticed.
    pub(super) async fn tick(&mut self) {
        self.vouch();
        if let Err(error) = self.datapath.settle() {
            tracing::warn!("ending drain windows: {error}; it is tried again");
        }
        self.retry_addresses();
        if self
            .compiled_at
            .take_if(|it| it.elapsed() >= CALM)
            .is_some()
        {
            heap::give_back();
        }
        let detached = self.forget_detached();
        let news = self.prove_in_turn();
        // Nobody came for so long that this node gives addresses out alone.
        let gives = self.cluster.waits && self.authority().is_this();
        if gives {
            self.assign();
        }
        self.use_next_hops().await;
        // What failed is asked again by the reconcile, which tells it.
        let silent = self.keep_peers().await.unwrap_or(true);
        let failed = self.may_have_room() || !self.failures.is_empty();
        let due = gives || silent || failed || self.warned.is_due();
        if due || detached {
            self.reconcile().await;
        } else if news || self.awaits() {
            self.claim();
        }
    }

    /// Brings attachments, maps and claims to what is wanted. What cannot be done is
    /// logged once, shown in the status and tried again; the rest goes on.
    pub(super) async fn reconcile(&mut self) {
        let before = std::mem::take(&mut self.failures);
        if let Err(error) = self.try_reconcile().await {
            self.failures.push(format!("{error:#}"));
            let in_force = self.effective().as_ref() == Some(&self.desired);
            self.source.current &= in_force;
        }
        if let Some(Compiled {
            fit, surroundings, ..
        }) = &self.compiled
        {
            let failures = self.probes.serve(&fit.desired, surroundings);
            self.failures.extend(failures);
        }
        self.claim();
        for failure in self.failures.iter().filter(|it| !before.contains(it)) {
            tracing::error!("{failure}; trying again");
        }
    }

    async fn try_reconcile(&mut self) -> anyhow::Result<()> {
        let snapshot = self.survey.snapshot(&self.network).await?;
        let before = std::mem::replace(&mut self.links, snapshot.links.clone());
        let failures = self.attach(&snapshot);
        self.failures.extend(failures);
        if self.cluster.view.is_deserted() && self.regained_link(&before) {
            self.listen_again();
        }
        let attached = self
            .attachments
            .values()
            .map(|it| (it.ifindex, it.native))
            .collect();
        self.compile_and_apply(&snapshot, &attached).await?;
        if self.keeps_other_peers() {
            match self.keep_peers().await {
                Ok(true) => self.compile_and_apply(&snapshot, &attached).await?,
                Ok(false) => {}
                Err(error) => self.failures.push(format!(
                    "{error}; packets are not handed over to a node without it"
                )),
            }
        }
        Ok(())
    }

    /// Whether an attached interface has its carrier again, after a time without.
    fn regained_link(&self, before: &BTreeMap<u32, Link>) -> bool {
        let mut attached = self.attachments.values().map(|it| it.ifindex);
        attached.any(|index| match (before.get(&index), self.links.get(&index)) {
            (Some(before), Some(now)) => {
                now.carrier && now.carrier_changes != before.carrier_changes
            }
            // It was made anew.
            (None, Some(now)) => now.carrier && !before.is_empty(),
            (_, None) => false,
        })
    }

    fn fail(&mut self, failure: String) {
        tracing::error!("{failure}; what an earlier agent left stays in force");
        self.failures.push(failure);
    }

    async fn compile_and_apply(
        &mut self,
        snapshot: &Snapshot,
        attached: &BTreeMap<u32, bool>,
    ) -> anyhow::Result<()> {
        let surroundings = self.surroundings(snapshot, attached).await?;
        let Some(effective) = self.effective() else {
            return self.refresh_devices(&surroundings);
        };
        let endpoints_alone = self.differs_by_endpoints(&effective, &surroundings);
        if !self.is_compiled(&effective, &surroundings) {
            self.compiled_at = Some(Instant::now());
            let (image, compiled) = self.compile(&effective, surroundings)?;
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
            self.free_stranded();
            self.image = image;
            self.desired = effective;
            self.compiled = Some(compiled);
            self.taken_over = Some(Instant::now());
        }
        if let Some(heard) = self.heard.take() {
            let took = heard.elapsed();
            self.durations.observe(took.as_secs_f64());
            tracing::debug!("{took:.1?} from the first word of a change to the maps");
        }
        self.source.current = self.source.problems.is_empty();
        if !(endpoints_alone && self.warned.puts_off()) {
            self.warn(snapshot).await;
        }
        Ok(())
    }

    /// Without a valid source what an earlier agent left stays, but interfaces may have
    /// changed since.
    fn refresh_devices(&mut self, surroundings: &Surroundings) -> anyhow::Result<()> {
        self.image.devices = compile::devices(surroundings);
        self.datapath.apply(&self.image)?;
        Ok(())
    }

    async fn surroundings(
        &mut self,
        snapshot: &Snapshot,
        attached: &BTreeMap<u32, bool>,
    ) -> anyhow::Result<Surroundings> {
        let indices: BTreeSet<_> = attached.keys().copied().collect();
        let wanted = self.wanted.as_ref().map(|it| &it.services);
        self.unplaced.follow(wanted.unwrap_or(&Shared::default()));
        let endpoints = self.unplaced.addresses().collect();
        self.survey.placed.look_up(&self.network, endpoints).await?;
        let local = self.survey.placed.iter();
        let local = local.filter(|(_, route)| is_local_endpoint(route, &indices));
        let local = local.map(|(ip, _)| ip).collect();
        self.peers = self.find_peers(&indices).await?;
        let peers = self.peers.iter().map(|(name, it)| (name.clone(), it.addr));
        let options = &self.options;
        let mut surroundings = snapshot.surroundings(&options.node, attached, local, &options.snat);
        surroundings.peers = peers.collect();
        surroundings.seed = self.options.datapath.seed;
        surroundings.sockets = self.options.cgroup.is_some();
        surroundings.shared = self.options.gossip.is_some();
        surroundings.node_port_addresses =
            snapshot.global_addresses(&self.options.node_port_addresses);
        Ok(surroundings)
    }
}
