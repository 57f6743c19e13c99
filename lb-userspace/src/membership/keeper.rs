//! The thread of gossip: keeps the view, and the lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat,
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    runtime,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    Counters, DETECTION, LEASE, Member, MembershipError, Options, Pulse, View, Words,
    transport::{Answers, Sealed},
};

/// Between rounds of gossip.
const ROUND: Duration = Duration::from_millis(50);
/// Between looks at what gossip has brought.
const TICK: Duration = Duration::from_millis(25);
/// How long to listen before the view counts: after the start, and after this process or
/// the machine stood still.
const SETTLING: Duration = Duration::from_millis(1000);
/// The same after this node was cut off from the others: long enough to hear all that those say
/// whom it hears again.
const REUNION: Duration = Duration::from_millis(500);
/// Between calls on those that are not there.
const CALL: Duration = Duration::from_millis(250);
/// How long a member that is there may take to answer before it counts all the same: the way to
/// it is barred, and not so for others.
const MUTE: Duration = Duration::from_secs(2);
/// How long the agent may take to bring claims in line with a new view.
const ANSWER: Duration = Duration::from_millis(250);
/// How long a turn of the agent's loop may take, with no new view to answer.
const TURN: Duration = Duration::from_secs(10);
/// For so long chitchat passes on that a member is gone. Every start of an agent is a member
/// of its own to it: one that cannot stay up must not fill all datagrams with its past.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Keys that were taken back are remembered for so long.
const TOMBSTONES: Duration = Duration::from_secs(60 * 60);
/// Starts of this node, in its state directory.
const GENERATION: &str = "generation";

/// The thread's ends of all channels.
pub(super) struct Keeper {
    pub(super) view: watch::Sender<View>,
    pub(super) words: watch::Receiver<Words>,
    pub(super) seeds: watch::Receiver<BTreeSet<SocketAddr>>,
    pub(super) pulse: watch::Receiver<Pulse>,
    pub(super) renew: Box<dyn FnMut() + Send>,
}

/// What the keeper remembers from turn to turn.
struct Watch {
    me: ChitchatId,
    /// What the last view was made of: live members with the versions of their words.
    known: BTreeMap<ChitchatId, u64>,
    /// Those that have gone without a word, by name.
    lost: BTreeSet<String>,
    /// The last view's number, and when it was given out.
    view: (u64, Instant),
    /// Whether this node listens before the view counts; since when, and for how long, as of
    /// the last time.
    listens: bool,
    began: Instant,
    settling: Duration,
    /// When the last turn was, by a clock that goes on while the machine sleeps.
    boottime: Duration,
    /// The last turn of the agent's loop that is known, and since when.
    turn: (u64, Instant),
    hold_down: Duration,
    held_until: Option<Instant>,
    /// Whether nobody else was there at the last look.
    alone: bool,
    /// The first view with others after one without, and when it was given out.
    met: (u64, Instant),
    /// Another node's address that has this one's name; told once.
    namesake: Option<SocketAddr>,
    /// When the lease was renewed last.
    renewed: Option<Instant>,
    /// Those that were heard of and not alive, and since when.
    unheard: BTreeMap<String, Instant>,
    /// Those that are alive and not known yet, and since when.
    awaited: BTreeMap<ChitchatId, Instant>,
    answers: Answers,
    /// How often the agent has asked to listen, as of now and as of the last view.
    listen: [u64; 2],
}

/// Starts the thread; returns when the socket is open.
pub(super) fn spawn(
    keeper: Keeper,
    options: Options,
    counters: Arc<Counters>,
) -> Result<JoinHandle<()>, MembershipError> {
    let generation = next_generation(&options.state_dir)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let address = options.address;
    let id = ChitchatId::new(options.node, generation, address);
    let config = ChitchatConfig {
        chitchat_id: id.clone(),
        cluster_id: "naru".to_owned(),
        gossip_interval: ROUND,
        listen_addr: address,
        seed_nodes: Vec::new(),
        failure_detector_config: detector(),
        marked_for_deletion_grace_period: TOMBSTONES,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let transport = Sealed::new(options.key, counters);
    let (opened, outcome) = mpsc::channel();
    let thread = thread::Builder::new().name("gossip".to_owned());
    // All of it on that thread: the caller's may be one of another runtime, which could not
    // wait for this one.
    let thread = thread.spawn(move || {
        let chat = match runtime.block_on(spawn_chitchat(config, Vec::new(), &transport)) {
            Ok(chat) => chat,
            Err(error) => return drop(opened.send(Err(format!("{error:#}")))),
        };
        let watch = Watch::new(id, options.hold_down, transport.answers());
        if opened.send(Ok(())).is_ok() {
            runtime.block_on(run(keeper, watch, chat));
        }
    })?;
    let ended = || Err("its thread has ended".to_owned());
    match outcome.recv().unwrap_or_else(|_| ended()) {
        Ok(()) => Ok(thread),
        Err(reason) => Err(MembershipError::Socket { address, reason }),
    }
}

/// A nearly fixed limit. The detector's is `threshold × mean interval`, of which this makes
/// `12 × (5 × 50 ms + the last interval) / 6`: 600 ms where heartbeats come one upon the
/// other, at most 800 ms. An estimate out of many intervals would depend on how many members
/// pass heartbeats on, and on how busy the node was minutes ago.
fn detector() -> FailureDetectorConfig {
    FailureDetectorConfig {
        phi_threshold: DETECTION.as_secs_f64() / ROUND.as_secs_f64() * 1.2,
        sampling_window_size: 1,
        max_interval: 2 * ROUND,
        initial_interval: ROUND,
        dead_node_grace_period: MEMORY,
    }
}

/// Counts this start. By the clock it would go wrong where that is set back.
fn next_generation(state_dir: &Path) -> Result<u64, MembershipError> {
    let path = state_dir.join(GENERATION);
    let failed = |source| MembershipError::Generation {
        path: path.clone(),
        source,
    };
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    // A state directory that was lost must not bring an old number back.
    let clock = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |it| it.tv_sec() as u64);
    let next = clock.max(last + 1);
    fs::create_dir_all(state_dir).map_err(failed)?;
    fs::write(&path, format!("{next}\n")).map_err(failed)?;
    Ok(next)
}

async fn run(mut keeper: Keeper, mut watch: Watch, chat: ChitchatHandle) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut call_at = Instant::now();
    let mut ended = std::pin::pin!(chat.termination_watcher());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = keeper.words.changed() => {}
            Ok(()) = keeper.seeds.changed() => call_at = Instant::now(),
            result = &mut ended => {
                tracing::error!("gossip has ended ({result:?}): no address is announced any more");
                return;
            }
        }
        let pulse = *keeper.pulse.borrow();
        if pulse.stop {
            break;
        }
        watch.notice_gap();
        watch.heed(pulse);
        let mut words = keeper.words.borrow_and_update().clone();
        words.standing.held_down = watch.is_held();
        // Nobody hands anything over to a node that does not answer yet, or waits for one
        // whose lease has run out.
        if !watch.is_settled() || watch.is_silent() {
            words.standing.starting = true;
            words.standing.claims.clear();
        }
        // Whom this node meets next has gone on without it: it will listen, and is not to be
        // handed anything before.
        words.standing.starting |= watch.alone || watch.has_just_met(pulse);
        let write = |chat: &mut Chitchat| words.write(chat.self_node_state());
        let said = chat.with_chitchat(write).await;
        let look = |chat: &mut Chitchat| watch.look(chat, &words);
        if let Some(view) = chat.with_chitchat(look).await {
            keeper.view.send_replace(view);
        }
        if said {
            call(&chat, watch.others());
        }
        call(&chat, watch.unanswered());
        if call_at <= Instant::now() {
            call_at = Instant::now() + CALL;
            let missing = keeper.seeds.borrow().clone();
            let there: BTreeSet<_> = watch.others().collect();
            let missing = missing.difference(&there).copied();
            call(
                &chat,
                missing.filter(|it| *it != watch.me.gossip_advertise_addr),
            );
        }
        if watch.may_renew(pulse) {
            (keeper.renew)();
            watch.renewed = Some(Instant::now());
        }
    }
    let words = keeper.words.borrow().clone();
    let write = |chat: &mut Chitchat| words.write(chat.self_node_state());
    if chat.with_chitchat(write).await {
        call(&chat, watch.others());
    }
    // What was said last goes out with the next round.
    sleep(2 * ROUND).await;
    if let Err(error) = chat.shutdown().await {
        tracing::warn!("ending gossip: {error:#}");
    }
}

/// Exchanges news with these now.
fn call(chat: &ChitchatHandle, addresses: impl Iterator<Item = SocketAddr>) {
    for address in addresses {
        if let Err(error) = chat.gossip(address) {
            tracing::warn!("gossip with {address}: {error:#}");
        }
    }
}

fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

// === impl Watch ===

impl Watch {
    fn new(me: ChitchatId, hold_down: Duration, answers: Answers) -> Self {
        let now = Instant::now();
        Self {
            me,
            known: BTreeMap::new(),
            lost: BTreeSet::new(),
            view: (0, now),
            listens: true,
            began: now,
            settling: SETTLING,
            boottime: boottime(),
            turn: (0, now),
            hold_down,
            held_until: None,
            alone: true,
            met: (0, now),
            namesake: None,
            renewed: None,
            unheard: BTreeMap::new(),
            awaited: BTreeMap::new(),
            answers,
            listen: [0; 2],
        }
    }

    /// Whoever stood still for longer than a lease does not know what has become of the
    /// others, nor they of it: it listens first.
    fn notice_gap(&mut self) {
        let now = boottime();
        let gap = now.saturating_sub(self.boottime);
        self.boottime = now;
        if gap > LEASE {
            let gap = gap.as_millis();
            tracing::warn!("this process stood still for {gap} ms; listening before answering");
            self.listen_for(SETTLING);
        }
    }

    /// Does as the agent says.
    fn heed(&mut self, pulse: Pulse) {
        if pulse.listen != self.listen[0] {
            self.listen[0] = pulse.listen;
            self.listen_for(REUNION);
        }
    }

    fn listen_for(&mut self, time: Duration) {
        self.listens = true;
        self.began = Instant::now();
        self.settling = time;
        self.alone = true;
    }

    fn is_settled(&self) -> bool {
        !self.listens
    }

    /// Whether it is time to go by what was heard. Who does not know yet what somebody has would
    /// take it: the answers of those that are there are waited for.
    fn has_listened(&self) -> bool {
        let listened = self.began.elapsed();
        let waits = listened < MUTE && self.unanswered().next().is_some();
        listened >= self.settling && !waits
    }

    /// Whether the lease that was renewed once has run out.
    fn is_silent(&self) -> bool {
        self.renewed.is_some_and(|it| it.elapsed() > LEASE)
    }

    /// Whether the agent may be about to listen, since it has not answered the view yet in which
    /// this node was not alone any more.
    fn has_just_met(&self, pulse: Pulse) -> bool {
        let (view, since) = self.met;
        pulse.seen < view && since.elapsed() < ANSWER
    }

    /// Whether this node came back to others a short while ago.
    fn is_held(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Where the other members are.
    fn others(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.known.keys().filter(|it| **it != self.me);
        others.map(|it| it.gossip_advertise_addr)
    }

    /// Where members are that may still answer.
    fn unanswered(&self) -> impl Iterator<Item = SocketAddr> {
        let awaited = self.awaited.iter();
        let unanswered = awaited.filter(|(id, since)| !self.counts(id, **since));
        unanswered.map(|(id, _)| id.gossip_advertise_addr)
    }

    /// Whether a member counts that has been awaited for some time.
    fn counts(&self, id: &ChitchatId, since: Instant) -> bool {
        let last = self.answers.last(id.gossip_advertise_addr);
        last.is_some_and(|last| last >= since) || since.elapsed() >= MUTE
    }

    /// Those that are alive and have answered since: of one that was cut off others hear that it
    /// is there before they hear what it says now, and would go by what it said before.
    fn live(&mut self, chat: &Chitchat) -> Vec<ChitchatId> {
        let others = chat.live_nodes().filter(|it| **it != self.me);
        let live: BTreeSet<&ChitchatId> = others.collect();
        let now = Instant::now();
        self.awaited.retain(|id, _| live.contains(id));
        for id in live.iter().filter(|it| !self.known.contains_key(**it)) {
            self.awaited.entry((*id).clone()).or_insert(now);
        }
        let addresses: BTreeSet<_> = live.iter().map(|it| it.gossip_advertise_addr).collect();
        self.answers.retain(|from| addresses.contains(&from));
        let counted = live.into_iter().filter(|id| match self.awaited.get(*id) {
            Some(since) => self.counts(id, *since),
            None => true,
        });
        counted.cloned().collect()
    }

    /// The view, where it is another one than the last. Until this node is settled the
    /// agent goes by the last one, and nothing is answered.
    fn look(&mut self, chat: &mut Chitchat, words: &Words) -> Option<View> {
        let me = self.me.clone();
        let mut live: BTreeMap<&str, &ChitchatId> = BTreeMap::from([(&*me.node_id, &me)]);
        let mut namesake = None;
        let others = self.live(chat);
        for id in &others {
            if id.node_id == self.me.node_id {
                // Its former self, for a moment, or somebody else for good.
                namesake = Some(id.gossip_advertise_addr)
                    .filter(|it| *it != self.me.gossip_advertise_addr);
                continue;
            }
            let newest = live.entry(&id.node_id).or_insert(id);
            if newest.generation_id < id.generation_id {
                *newest = id;
            }
        }
        if let Some(address) = namesake.filter(|_| namesake != self.namesake) {
            let name = &self.me.node_id;
            tracing::error!("{address} calls itself {name} as well; start one with --node-name");
        }
        self.namesake = namesake;
        if self.listens && !self.has_listened() {
            return None;
        }
        self.listens = false;
        let alone = live.len() == 1;
        if self.alone && !alone && !self.hold_down.is_zero() {
            self.held_until = Some(Instant::now() + self.hold_down);
        }
        let was_alone = std::mem::replace(&mut self.alone, alone);
        let version = |id: &ChitchatId| chat.node_state(id).map_or(0, |it| it.max_version());
        let known = live.values().map(|&id| (id.clone(), version(id)));
        let known: BTreeMap<ChitchatId, u64> = known.collect();
        let lost = self.lost(chat, &live);
        let [listen, listened] = self.listen;
        if known == self.known && lost == self.lost && listen == listened {
            return None;
        }
        self.listen[1] = listen;
        self.known = known;
        self.awaited.retain(|id, _| !self.known.contains_key(id));
        self.lost = lost;
        self.view = (self.view.0 + 1, Instant::now());
        if was_alone && !alone {
            self.met = self.view;
        }
        let members = self.known.keys().map(|id| {
            let words = match chat.node_state(id) {
                _ if *id == self.me => words.clone(),
                Some(state) => Words::read(state.key_values()),
                None => Words::read(std::iter::empty()),
            };
            let address = id.gossip_advertise_addr;
            (id.node_id.to_string(), Member { address, words })
        });
        Some(View {
            number: self.view.0,
            settled: true,
            members: members.collect(),
            lost: self.lost.clone(),
            listened: listen,
        })
    }

    /// Those that have gone without a word, also of those that others tell of.
    fn lost(&mut self, chat: &Chitchat, live: &BTreeMap<&str, &ChitchatId>) -> BTreeSet<String> {
        let mut lost = self.lost.clone();
        let mut unheard = BTreeMap::new();
        let mut newest: BTreeMap<&str, &ChitchatId> = BTreeMap::new();
        for id in chat.dead_nodes() {
            let entry = newest.entry(&id.node_id).or_insert(id);
            if entry.generation_id < id.generation_id {
                *entry = id;
            }
        }
        for (name, id) in newest {
            let words = chat.node_state(id).map(|it| Words::read(it.key_values()));
            if words.is_some_and(|it| it.standing.leaving) {
                lost.remove(name);
                continue;
            }
            // Of one that starts, too, the first word comes before its second heartbeat.
            let since = self.unheard.get(name).copied().unwrap_or_else(Instant::now);
            unheard.insert(name.to_owned(), since);
            let was_live = self.known.keys().any(|it| *it.node_id == *name);
            if was_live || since.elapsed() > 2 * DETECTION {
                lost.insert(name.to_owned());
            }
        }
        self.unheard = unheard;
        lost.retain(|name| !live.contains_key(name.as_str()));
        lost
    }

    /// Whether the lease may be renewed: this node knows who is there, and the agent has
    /// brought its claims in line with that and gets on.
    fn may_renew(&mut self, pulse: Pulse) -> bool {
        let now = Instant::now();
        if pulse.turn != self.turn.0 {
            self.turn = (pulse.turn, now);
        }
        let (view, since) = self.view;
        let answered = pulse.seen == view || now - since < ANSWER;
        self.is_settled() && answered && now - self.turn.1 < TURN
    }
}
