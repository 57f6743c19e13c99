use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatId, ChitchatMessage, FailureDetectorConfig, spawn_chitchat,
    transport::{Socket, Transport},
};

use super::{transport::Sealed, *};
use crate::election::Standing;

const SECRET: &[u8] = b"a key for the tests of gossip";

/// A member on loopback, with its own state directory.
struct Node {
    membership: Membership,
    renewals: Arc<AtomicU64>,
    address: SocketAddr,
    state_dir: tempfile::TempDir,
}

impl Node {
    fn new(name: &str, key: &[u8], seeds: &[SocketAddr]) -> Self {
        Self::again(name, key, seeds, free(), tempfile::tempdir().unwrap())
    }

    fn again(
        name: &str,
        key: &[u8],
        seeds: &[SocketAddr],
        address: SocketAddr,
        state_dir: tempfile::TempDir,
    ) -> Self {
        let renewals = Arc::<AtomicU64>::default();
        let options = Options {
            node: name.to_owned(),
            address,
            key: Key::new(key),
            hold_down: Duration::ZERO,
            state_dir: state_dir.path().to_path_buf(),
        };
        let count = Arc::clone(&renewals);
        let renew = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let membership = Membership::start(options, renew).unwrap();
        membership.seek(seeds.iter().copied().collect());
        Self {
            membership,
            renewals,
            address,
            state_dir,
        }
    }

    fn members(&self) -> Vec<String> {
        self.membership.view().members.into_keys().collect()
    }

    fn say(&self, change: impl FnOnce(&mut Standing)) {
        let mut words = Words::default();
        change(&mut words.standing);
        self.membership.say(words);
    }

    fn wait(&self, what: &str, holds: impl Fn(&View) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(&self.membership.view()) {
            let view = self.membership.view();
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{what}: {view:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }

    fn sees(&self, names: &[&str]) -> Duration {
        self.wait(&format!("sees {names:?}"), |view| {
            view.members.keys().eq(names)
        })
    }
}

/// A port that is free, as far as a moment ago.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

#[test]
fn members_find_each_other_hear_and_bury_each_other() {
    let a = Node::new("a", SECRET, &[]);
    let b = Node::new("b", SECRET, &[a.address]);
    let c = Node::new("c", SECRET, &[a.address]);
    for node in [&a, &b, &c] {
        node.sees(&["a", "b", "c"]);
    }
    a.say(|it| it.claims = ["192.168.56.11".parse().unwrap()].into());
    let heard = |view: &View| view.members["a"].words.standing.claims.len() == 1;
    let took = b.wait("a's claim", heard).max(c.wait("a's claim", heard));
    assert!(took < Duration::from_millis(500), "{took:?}");

    // A thread that ends without a word, as far as others can tell.
    drop(c);
    let took = a.sees(&["a", "b"]);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    a.wait("c is lost", |view| view.lost.contains("c"));

    b.say(|it| it.leaving = true);
    a.wait("b leaves", |view| view.members["b"].words.standing.leaving);
    drop(b);
    a.sees(&["a"]);
    assert_eq!(a.membership.view().lost, ["c".to_owned()].into());
}

#[test]
fn who_comes_back_is_not_lost_and_not_its_former_self() {
    let a = Node::new("a", SECRET, &[]);
    let b = Node::new("b", SECRET, &[a.address]);
    a.sees(&["a", "b"]);
    b.say(|it| it.leaving = true);
    a.wait("b leaves", |view| view.members["b"].words.standing.leaving);
    let Node {
        membership,
        address,
        state_dir,
        ..
    } = b;
    membership.stop();
    let b = Node::again("b", SECRET, &[a.address], address, state_dir);
    a.wait("b is back", |view| {
        let b = view.members.get("b");
        b.is_some_and(|it| !it.words.standing.leaving)
    });
    assert_eq!(a.membership.view().lost.len(), 0);
    assert_eq!(b.sees(&["a", "b"]).as_secs(), 0);
}

#[test]
fn another_key_is_counted_and_ignored() {
    let a = Node::new("a", SECRET, &[]);
    let forger = Node::new("z", b"another key, of equal length!!", &[a.address]);
    forger.sees(&["z"]);
    // Junk of all lengths, too.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in (0..1500).step_by(100) {
        socket.send_to(&vec![0xa5; length], a.address).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(a.members(), ["a"]);
    assert!(a.membership.counters().rejected() > 15);
    assert_eq!(a.membership.counters().received(), 0);
}

#[test]
fn the_lease_is_renewed_for_an_agent_that_gets_on() {
    let a = Node::new("a", SECRET, &[]);
    let renewed = |within: u64| {
        let before = a.renewals.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(within));
        a.renewals.load(Ordering::Relaxed) - before
    };
    // Not before it knows who is there.
    assert_eq!(renewed(500), 0);
    a.wait("settled", |view| view.settled);
    a.membership.confirm(a.membership.view().number);
    let often = renewed(500);
    assert!(often >= 4, "{often} times in half a second");

    let b = Node::new("b", SECRET, &[a.address]);
    a.wait("b counts", |view| {
        let b = view.members.get("b");
        b.is_some_and(|it| !it.words.standing.starting)
    });
    // The agent has not answered the new view.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(renewed(300), 0);
    a.membership.confirm(a.membership.view().number);
    assert!(renewed(500) >= 4);
    drop(b);
}

#[test]
fn who_is_told_to_listen_is_not_settled_until_it_has() {
    let a = Node::new("a", SECRET, &[]);
    a.wait("settled", |view| view.is_deserted());
    a.membership.listen();
    assert!(!a.membership.view().settled);
    // Others learn that they must not count on it.
    let b = Node::new("b", SECRET, &[a.address]);
    let took = a.wait("settled again", |view| view.settled);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_millis(900), "{took:?}");
    b.sees(&["a", "b"]);
    a.membership.listen();
    let starting = |view: &View| view.members["a"].words.standing.starting;
    b.wait("a listens", starting);
    b.wait("a has listened", |view| !starting(view));
}

#[test]
fn who_was_alone_is_not_counted_on_until_it_has_heard_others() {
    let a = Node::new("a", SECRET, &[]);
    let b = Node::new("b", SECRET, &[]);
    a.wait("settled", |view| view.is_deserted());
    b.wait("settled", |view| view.is_deserted());
    let starting = |view: &View| Some(view.members.get("a")?.words.standing.starting);
    // Only b looks for the other, and knows of it first.
    b.membership.seek([a.address].into());
    b.wait("a is there", |view| starting(view).is_some());
    assert_eq!(starting(&b.membership.view()), Some(true));
    a.sees(&["a", "b"]);
    // It may be about to listen, for as long as its agent has not answered that.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(starting(&b.membership.view()), Some(true));
    a.membership.confirm(a.membership.view().number);
    let took = b.wait("a counts", |view| starting(view) == Some(false));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// A member that is heard, and hears nobody while `deaf`: as after a split, when one direction
/// opens before the other.
struct Deaf {
    sealed: Sealed,
    deaf: Arc<AtomicBool>,
}

struct DeafSocket {
    socket: Box<dyn Socket>,
    deaf: Arc<AtomicBool>,
}

#[async_trait]
impl Transport for Deaf {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(DeafSocket {
            socket: self.sealed.open(address).await?,
            deaf: Arc::clone(&self.deaf),
        }))
    }
}

#[async_trait]
impl Socket for DeafSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.socket.send(to, message).await
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let received = self.socket.recv().await?;
            if !self.deaf.load(Ordering::Relaxed) {
                return Ok(received);
            }
        }
    }
}

#[tokio::test]
async fn who_is_heard_but_does_not_answer_is_not_there_yet() {
    let a = Node::new("a", SECRET, &[]);
    let deaf = Arc::new(AtomicBool::new(true));
    let transport = Deaf {
        sealed: Sealed::new(Key::new(SECRET), Arc::default()),
        deaf: Arc::clone(&deaf),
    };
    let address = free();
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new("b".to_owned(), 1, address),
        cluster_id: "naru".to_owned(),
        gossip_interval: Duration::from_millis(50),
        seed_nodes: vec![a.address.to_string()],
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: Duration::from_secs(60),
        catchup_callback: None,
        extra_liveness_predicate: None,
        listen_addr: address,
    };
    let b = spawn_chitchat(config, Vec::new(), &transport)
        .await
        .unwrap();
    let begun = Instant::now();
    let sees = |names: &[&str]| a.members() == names;
    while begun.elapsed() < Duration::from_millis(1500) {
        assert!(!sees(&["a", "b"]), "after {:?}", begun.elapsed());
        // It would take what b has.
        assert!(!a.membership.view().settled, "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    deaf.store(false, Ordering::Relaxed);
    let answers = Instant::now();
    while !sees(&["a", "b"]) {
        assert!(answers.elapsed() < Duration::from_millis(400));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    b.shutdown().await.unwrap();
}

#[test]
fn many_allocations_reach_everybody() {
    let a = Node::new("a", SECRET, &[]);
    let mut words = Words::default();
    for n in 0..2000 {
        let value = format!(
            "{{\"pool\":\"lan\",\"ips\":[\"10.{}.{}.{}\"],\"stamp\":{n}}}",
            n % 7,
            n / 250,
            n % 250
        );
        words
            .allocations
            .insert(format!("namespace-{}/service-{n}", n % 13), value);
    }
    a.membership.say(words.clone());
    let b = Node::new("b", SECRET, &[a.address]);
    b.wait("all allocations", |view| {
        let a = view.members.get("a");
        a.is_some_and(|it| it.words.allocations == words.allocations)
    });
    assert_eq!(a.membership.counters().oversized(), 0);
}
