//! The agent: keeps the kernel at what the source wants, claims its VIPs, answers the CLI.
//!
//! One task owns all state and reacts to six things: the source, the network, the other
//! nodes, the health checks, the control socket, the clock. Nothing else writes to the kernel.

mod addresses;
mod attach;
mod claims;
mod cluster;
mod compiled;
mod drain;
mod health;
mod interfaces;
mod memory;
mod mode;
mod overlay;
mod owner;
mod ownership;
mod peers;
mod probes;
mod report;
mod state;
mod stranded;
mod survey;
mod warnings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use ipnet::IpNet;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

pub use self::{cluster::Gossip, interfaces::Interfaces, memory::DEFAULT_STATE_DIR};
use self::{memory::Memory, state::State};
use crate::{
    announce::Announcer,
    control::server::{MAX_CLIENTS, RunDir},
    datapath::{self, AttachMode, Datapath, Sweeper, Swept, Unrecorded},
    health::Checker,
    membership::Membership,
    metrics::{self, AgentPage},
    net::{Network, SnatChoice},
    source::{News, Outcome, Source},
};

/// How often flows that are over are removed from the table.
const SWEEP: Duration = Duration::from_secs(30);
/// How often what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Changes of the network are taken together for so long: a router's table may churn
/// without end, and a source's change must not wait behind it.
const CALM: Duration = Duration::from_millis(200);

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where services come from.
    pub source: Source,
    /// The interfaces that traffic for the VIPs comes in by and goes out by; none: that of the
    /// default route.
    pub interfaces: Vec<Interfaces>,
    /// How to attach to them.
    pub attach: AttachMode,
    /// The cgroup whose processes are served at their sockets, if any are.
    pub cgroup: Option<PathBuf>,
    /// This node's name, compared with the endpoints' `nodeName`.
    pub node: String,
    /// What outlives a reboot is here.
    pub state_dir: PathBuf,
    /// The control socket and the lock are here.
    pub run_dir: PathBuf,
    /// The networks whose addresses of the host serve node ports; none: all global ones.
    pub node_port_addresses: Vec<IpNet>,
    /// Whether to claim the VIPs on the LAN: to answer ARP and NDP for them.
    pub announce: bool,
    /// How it finds the nodes that it shares virtual IPs with; none: it is alone.
    pub gossip: Option<Gossip>,
    /// Addresses stay where they are while that node can serve them, and a node that comes
    /// back takes none for so long unless nobody else can; none: the elected node takes its
    /// addresses back at once.
    pub hold_down: Option<Duration>,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// What flows to backends elsewhere come from.
    pub snat: SnatChoice,
    /// The kernel side.
    pub datapath: datapath::Options,
}

/// Runs until SIGTERM or SIGINT. The kernel side stays in force afterwards.
///
/// # Errors
/// Where it cannot start: privileges, kernel, interfaces, or an invalid source while
/// nothing is in force yet. Once it runs, errors are logged and shown in `naru status`.
pub async fn run(mut options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    datapath::preflight(&options.datapath.pin_dir)?;
    let network = Network::open()?;
    let snapshot = network.snapshot().await?;
    if options.interfaces.is_empty() {
        options.interfaces = vec![interfaces::by_default(&network, &snapshot).await?];
    }
    for name in options.interfaces.iter().filter_map(|it| it.name()) {
        let link = snapshot
            .link_named(name)
            .context("give existing ones with --interface")?;
        anyhow::ensure!(
            link.mac.is_some() && !link.loopback,
            "{name} is not an Ethernet interface; give the one that clients reach with --interface"
        );
    }
    let run_dir = RunDir::lock(&options.run_dir)?;
    let mut datapath = Datapath::open(options.datapath.clone())?;
    forward_packet_log(&mut datapath)?;
    let mut events = network.events()?;
    let announcer = Announcer::start(network.clone())?;
    let mut source = options.source.clone().watch();
    let memory = Memory::load(&options.state_dir).context(
        "what an earlier agent has drained and which addresses it gave out is not known; mend the \
                  file or remove it",
    )?;
    let (checker, mut observations) = Checker::new();
    let lease = datapath.lease()?;
    let mut state = State::new(
        options, datapath, lease, network, announcer, memory, checker,
    );

    let first = source.recv().await.context("the source ended")?;
    state.start(first.what).await?;
    let (caller, mut calls) = mpsc::channel(MAX_CLIENTS);
    run_dir.serve(caller.clone())?;
    if let Some(address) = state.options.metrics {
        let pools = !matches!(state.options.source, Source::Cluster(_));
        let durations = state.durations.clone();
        let page = move || AgentPage::ask(caller.clone(), pools, durations.clone());
        let served = metrics::serve(address, page).await;
        served.with_context(|| format!("--metrics {address}"))?;
    }
    let (found, mut unrecorded) = mpsc::channel(1);
    tokio::spawn(sweep(state.datapath.sweeper()?, found));
    // Last: others count on whoever has joined.
    state.join().await?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut network_changed_at = None;
    loop {
        tokio::select! {
            news = latest(&mut source) => match news {
                Some(news) => state.source_changed(news).await,
                None => anyhow::bail!("the watch of the source ended unexpectedly"),
            },
            changes = events.next() => {
                let changes = changes.context("following the network's changes")?;
                state.datapath.forget_hops();
                if changes.in_snapshot() {
                    state.survey.forget();
                    network_changed_at.get_or_insert_with(Instant::now);
                }
            }
            () = others_changed(&mut state.cluster.membership) => state.view_changed().await,
            () = calm(network_changed_at), if network_changed_at.is_some() => {
                network_changed_at = None;
                state.reconcile().await;
            }
            Some((request, reply)) = calls.recv() => {
                // Who asked may have gone away; that is no concern of the agent.
                let _ = reply.send(state.answer(request).await);
            }
            Some(first) = observations.recv() => {
                let mut found = vec![first];
                while let Ok(more) = observations.try_recv() {
                    found.push(more);
                }
                state.observed(found).await;
            }
            Some(found) = unrecorded.recv() => {
                let settled = state.datapath.unrecorded(&found);
                tracing::debug!("{settled} slots are settled");
            }
            _ = tick.tick() => {
                anyhow::ensure!(!state.has_lost_gossip(), "gossip has ended; start the agent anew");
                state.tick().await;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    state.leave().await;
    state.resign();
    tracing::info!("stopping; the datapath stays in force: `naru detach` takes it away");
    Ok(())
}

/// Until somebody of the other nodes came, went or says something else.
async fn others_changed(membership: &mut Option<Membership>) {
    match membership {
        Some(membership) => membership.changed().await,
        None => std::future::pending().await,
    }
}

/// Until changes of the network that began at `since` have been gathered.
async fn calm(since: Option<Instant>) {
    if let Some(since) = since {
        sleep_until(since + CALM).await;
    }
}

/// Removes flows that are over, for as long as the agent runs, and tells it which slots no
/// flow is recorded of.
async fn sweep(mut sweeper: Sweeper, found: mpsc::Sender<Unrecorded>) {
    loop {
        sleep(SWEEP).await;
        let swept = tokio::task::spawn_blocking(move || (sweeper.sweep(), sweeper)).await;
        let Ok((outcome, returned)) = swept else {
            return;
        };
        sweeper = returned;
        match outcome {
            Ok(swept) => {
                let Swept {
                    flows,
                    needless,
                    replies,
                    unrecorded,
                } = swept;
                if flows + needless + replies > 0 {
                    tracing::debug!(
                        "swept {flows} flows, {needless} records that said nothing, and {replies} \
                         reply records"
                    );
                }
                if !unrecorded.is_empty() && found.send(unrecorded).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!("sweeping the flow table: {error}"),
        }
    }
}

/// The newest outcome: of several that wait, only the last one matters.
async fn latest(source: &mut mpsc::Receiver<News<Outcome>>) -> Option<News<Outcome>> {
    let mut news = source.recv().await?;
    while let Ok(newer) = source.try_recv() {
        news.what = newer.what;
    }
    Some(news)
}

/// Hands the program's log lines to the agent's log, where they were asked for.
fn forward_packet_log(datapath: &mut Datapath) -> anyhow::Result<()> {
    let Some(logger) = datapath.packet_log()? else {
        return Ok(());
    };
    #[allow(deprecated, reason = "its successor is an unsafe function")]
    let mut logger = tokio::io::unix::AsyncFd::new(logger).context("packet log")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
