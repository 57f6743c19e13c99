//! The demo: the balancer shown at work in six steps, each with what is expected of it.

mod live;
mod report;

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::{
    Agent, AgentOptions, Algorithm, Client, Lab, LoadOptions, LongLived, Manifests, PodSpec,
    ServiceSpec, Tally, Topology, UPLINK, interrupt,
};
use serde_json::Value;

use report::{Report, counts, heading, in_order, of, picture};

/// Where the agent runs; two of the five pods are there too, so that both ways of
/// forwarding are used.
const NODE: &str = "nuc01";
/// How long a written manifest may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(5);

/// Runs the demo; says whether all expectations held.
pub(crate) fn run(naru: &Path, once: bool) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut report = Report::default();

    heading(1, "The agent, with the eBPF program in it");
    let version = Command::new(naru).arg("--version").output();
    let version = version.with_context(|| {
        format!(
            "{} does not run; `cargo xtask run` builds it, or name it with --naru",
            naru.display()
        )
    })?;
    println!(
        "   {} ({})",
        String::from_utf8_lossy(&version.stdout).trim(),
        naru.display()
    );

    heading(2, "A LAN with three nodes, a client and five pods");
    let lab = Lab::build(Topology::nuc())?;
    println!("{}", picture(lab.topology()));
    println!(
        "   Namespaces naru-{}-*, made in {:.1} s.",
        lab.id(),
        began.elapsed().as_secs_f64()
    );
    let id = lab.id().to_owned();

    let stay = !once && std::io::stdout().is_terminal();
    if let Err(error) = steps(&lab, naru, stay, &mut report) {
        report.expect(
            "the demo comes to its end",
            "yes",
            format!("{error:#}"),
            false,
        );
    }
    let removed = lab.teardown();
    let left = naru_lab::left_of(&id)?;
    let seen = match removed {
        Ok(()) => format!("{} things left", left.len()),
        Err(error) => error.to_string(),
    };
    println!();
    report.expect(
        "everything is removed",
        "0 things left",
        seen,
        left.is_empty(),
    );
    println!("   {:.0} s in all.", began.elapsed().as_secs_f64());
    report.print();
    Ok(report.held())
}

/// Steps three to six.
fn steps(lab: &Lab, naru: &Path, stay: bool, report: &mut Report) -> anyhow::Result<()> {
    heading(3, "The agent on nuc01, with ordinary Kubernetes YAML");
    let service = ServiceSpec::nest_server();
    let manifests = Manifests::create(lab.dir().join("manifests"))?;
    manifests.service(&service)?;
    manifests.endpoints(&service, &lab.topology().pods)?;
    println!("{}", indented(&service.yaml()));
    println!("   and an EndpointSlice with the five pods.");
    let began = Instant::now();
    let agent = lab.agent(NODE, AgentOptions::new(naru).manifests(&manifests))?;
    println!(
        "   The agent is ready after {} ms.",
        began.elapsed().as_millis()
    );
    let demo = Demo {
        lab,
        service,
        manifests,
        agent,
        client: lab.client(),
    };

    heading(4, "The client asks");
    demo.arp(report)?;
    demo.distribution(report)?;
    heading(5, "A pod dies; then the agent dies");
    let open = demo.pod_dies(report)?;
    demo.agent_dies(&open, report)?;
    drop(open);
    heading(6, if stay { "Live" } else { "The end" });
    if stay {
        let background = LoadOptions {
            connections: 2,
            pause: Duration::from_millis(10),
            limit: Duration::MAX,
            ..LoadOptions::default()
        };
        let until = interrupt::catch();
        let load = demo.client.load(&demo.service.url("/"), background);
        let shown = live::show(&demo.agent, &load, &until);
        report.expect_all_answered("requests while the table was shown", &load.stop()?);
        shown?;
    }
    demo.agent.detach()?;
    println!("   The agent is stopped and detached.");
    Ok(())
}

struct Demo<'lab> {
    lab: &'lab Lab,
    service: ServiceSpec,
    manifests: Manifests,
    agent: Agent,
    client: Client,
}

impl Demo<'_> {
    fn arp(&self, report: &mut Report) -> anyhow::Result<()> {
        let expected = mac(self.lab.node(NODE).mac(UPLINK)?);
        let seen = self.client.resolve(self.service.address.into()).map(mac);
        let held = seen.as_ref().is_ok_and(|seen| *seen == expected);
        let seen = seen.unwrap_or_else(|error| error.to_string());
        let what = format!("{} resolves by ARP to {NODE}", self.service.address);
        report.expect(what, expected, seen, held);
        Ok(())
    }

    /// Ten requests by round robin, a thousand by Maglev.
    fn distribution(&self, report: &mut Report) -> anyhow::Result<()> {
        let url = self.service.url("/");
        println!("   Ten requests, each on a connection of its own:");
        let ten = self.client.many(&url, 10)?;
        let order = in_order(&ten);
        for (number, pod) in order.iter().enumerate() {
            println!("   {:>4}  {pod}", number + 1);
        }
        let in_turn = Tally::of(&ten);
        let pods = &self.lab.topology().pods;
        let twice = pods.iter().all(|pod| of(&in_turn.by_pod, &pod.name) == 2);
        let turns = order[..5] == order[5..];
        let seen = match (twice, turns) {
            (true, true) => "twice each, in turn".to_owned(),
            (true, false) => "twice each, in another order".to_owned(),
            _ => spread(&in_turn, pods),
        };
        report.expect(
            "ten requests by round robin",
            "twice each, in turn",
            seen,
            twice && turns,
        );

        println!("\n   Now the annotation naru.dev/algorithm: maglev, and a thousand requests.");
        self.manifests
            .service(&self.service.clone().by(Algorithm::Maglev))?;
        let took = until("the service is balanced by Maglev", || {
            let services = self.agent.json(&["services"])?;
            let ServiceSpec {
                namespace,
                name,
                port,
                ..
            } = &self.service;
            let listed = format!("{namespace}/{name}:{port}");
            let named = |row: &&Value| is(row, "name", &listed);
            let algorithm = rows(&services)
                .find(named)
                .and_then(|row| row["algorithm"].as_str());
            Ok(algorithm.is_some_and(|name| name.eq_ignore_ascii_case(Algorithm::Maglev.name())))
        })?;
        println!("   In force after {} ms.", took.as_millis());
        let hashed = Tally::of(&self.client.many(&url, 1000)?);
        println!(
            "{}",
            counts(
                self.lab.topology(),
                &[("round robin", &in_turn), ("Maglev", &hashed)]
            )
        );
        report.expect_all_answered("a thousand requests by Maglev", &hashed);
        let everyone = pods.iter().all(|pod| of(&hashed.by_pod, &pod.name) > 0);
        report.expect(
            "pods that Maglev uses",
            "all five",
            spread(&hashed, pods),
            everyone,
        );
        Ok(())
    }

    /// Kills a pod that has connections; gives back those of the others.
    fn pod_dies(&self, report: &mut Report) -> anyhow::Result<Vec<LongLived>> {
        let (mut open, victim) = self.open_connections()?;
        println!("   Open connections: {}", by_pod(&open));
        println!(
            "   {} on {} is killed and taken out of the EndpointSlice.",
            victim.name, victim.node
        );
        let before = self.condition(&victim)?;
        self.lab.pod(&victim.name).kill()?;
        let pods = &self.lab.topology().pods;
        self.manifests
            .endpoints(&self.service, pods.iter().filter(|pod| **pod != victim))?;
        // Gone, or no longer what it was: the agent may list it while it drains.
        let took = until("the dead pod is no backend", || {
            let now = self.condition(&victim)?;
            Ok(now.is_none() || now != before)
        })?;
        println!("   In force after {} ms.", took.as_millis());

        let after = Tally::of(&self.client.many(&self.service.url("/"), 300)?);
        report.expect_all_answered("requests after the change", &after);
        let late = of(&after.by_pod, &victim.name);
        report.expect("answers of the dead pod", 0, late, late == 0);
        open.retain(|connection| connection.pod() != victim.name);
        sleep(Duration::from_millis(1100));
        expect_alive("connections to the other pods live on", &open, report);
        Ok(open)
    }

    /// Kills the agent while requests are made, and starts it again.
    fn agent_dies(&self, open: &[LongLived], report: &mut Report) -> anyhow::Result<()> {
        println!("\n   Requests on four connections at a time; the agent is killed (SIGKILL).");
        let load = self
            .client
            .load(&self.service.url("/"), LoadOptions::default());
        sleep(Duration::from_secs(1));
        self.agent.kill()?;
        let killed = load.tally();
        sleep(Duration::from_secs(2));
        let alone = load.tally();
        println!(
            "   {} answers without any agent; now it starts again.",
            alone.ok - killed.ok
        );
        let restarted = self.agent.restart();
        sleep(Duration::from_secs(1));
        let tally = load.stop()?;
        restarted?;
        println!(
            "   The slowest answer took {} ms.",
            tally.slowest.as_millis()
        );
        report.expect_all_answered("requests while the agent was killed and restarted", &tally);
        expect_alive("connections live on under the new agent", open, report);
        Ok(())
    }

    /// Connections to every pod, and a pod that is not the agent's neighbour to kill.
    fn open_connections(&self) -> anyhow::Result<(Vec<LongLived>, PodSpec)> {
        let url = self.service.url("/stream");
        let mut open: Vec<LongLived> = Vec::new();
        let pods = &self.lab.topology().pods;
        for _ in 0..60 {
            open.push(self.client.long_lived(&url)?);
            let has = |pod: &&PodSpec| open.iter().any(|connection| connection.pod() == pod.name);
            if open.len() >= 10 && pods.iter().all(|pod| has(&pod)) {
                break;
            }
        }
        let remote = pods.iter().filter(|pod| pod.node != NODE);
        let used = |pod: &PodSpec| open.iter().any(|connection| connection.pod() == pod.name);
        match remote.into_iter().find(|pod| used(pod)) {
            Some(pod) => Ok((open, pod.clone())),
            None => bail!(
                "none of {} connections goes to a pod on another node",
                open.len()
            ),
        }
    }

    /// The condition of a pod as the agent lists it.
    fn condition(&self, pod: &PodSpec) -> naru_lab::Result<Option<Value>> {
        let backends = self.agent.json(&["backends"])?;
        let address = format!("{}:{}", pod.address, pod.port);
        let listed = rows(&backends).find(|row| {
            is(row, "name", &pod.name)
                || is(row, "address", &address)
                || is(row, "address", &pod.address.to_string())
        });
        Ok(listed.map(|row| row["condition"].clone()))
    }
}

fn expect_alive(what: &str, open: &[LongLived], report: &mut Report) {
    let alive = open
        .iter()
        .filter(|connection| connection.is_alive())
        .count();
    println!("   Open connections: {}", by_pod(open));
    report.expect(
        what,
        format!("all {}", open.len()),
        alive,
        alive == open.len(),
    );
    for connection in open.iter().filter(|connection| !connection.is_alive()) {
        let why = connection.ended().unwrap_or_else(|| "silent".to_owned());
        println!("     to {}: {why}", connection.pod());
    }
}

/// Living connections of all, by pod.
fn by_pod(open: &[LongLived]) -> String {
    let mut pods: Vec<&str> = open.iter().map(LongLived::pod).collect();
    pods.sort_unstable();
    pods.dedup();
    let count = |pod: &&str| {
        let of_pod = open.iter().filter(|connection| connection.pod() == *pod);
        let alive = of_pod.filter(|connection| connection.is_alive()).count();
        format!("{pod} {alive}")
    };
    pods.iter().map(count).collect::<Vec<_>>().join(", ")
}

/// From the least used pod to the most used.
fn spread(tally: &Tally, pods: &[PodSpec]) -> String {
    let counts = || pods.iter().map(|pod| of(&tally.by_pod, &pod.name));
    let used = counts().filter(|count| *count > 0).count();
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    format!("{used} of {}, {least} to {most} requests each", pods.len())
}

/// Waits until something is so; says how long that took.
fn until(what: &str, mut so: impl FnMut() -> naru_lab::Result<bool>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !so()? {
        if began.elapsed() > IN_FORCE {
            bail!(
                "{} s after the manifest was written, not yet: {what}",
                IN_FORCE.as_secs()
            );
        }
        sleep(Duration::from_millis(10));
    }
    Ok(began.elapsed())
}

fn rows(listed: &Value) -> impl Iterator<Item = &Value> {
    listed.as_array().into_iter().flatten()
}

fn is(row: &Value, field: &str, value: &str) -> bool {
    row[field].as_str() == Some(value)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("     {line}\n")).collect()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
