//! Nodes that give addresses out of the same pools and elect the same owners, each by a
//! directory of manifests of its own.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{Agent, Lab, Manifests, PodKind, ServiceSpec, Tally, Topology};
use serde_json::Value;

use crate::scene::{self, naru, rows, text, wait};

const POOLS: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: metallb-system}
spec: {addresses: [192.168.56.20-192.168.56.22]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
";

/// Three nodes and what each of them reads.
struct Nodes {
    agents: BTreeMap<String, Agent>,
    manifests: BTreeMap<String, Manifests>,
    lab: Lab,
}

impl Nodes {
    /// With pods for each of these apps, and no service yet.
    fn new(apps: &[&str]) -> Self {
        let mut topology = Topology::nuc_without_pods();
        for app in apps {
            topology.add_pods(app, PodKind::Echo, 3000, 3);
        }
        let lab = Lab::build(topology).unwrap();
        let key = lab.dir().join("gossip.key");
        fs::write(&key, "no secret, but long enough\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let mut nodes = Self {
            agents: BTreeMap::new(),
            manifests: BTreeMap::new(),
            lab,
        };
        let names: Vec<String> = nodes.names().collect();
        for name in names {
            let dir = nodes.lab.dir().join(format!("manifests-{name}"));
            let manifests = Manifests::create(dir).unwrap();
            manifests.nodes(nodes.lab.topology()).unwrap();
            manifests.write("pools.yaml", POOLS).unwrap();
            let options = scene::options(&manifests).arg("--gossip-key").arg(&key);
            let agent = nodes.lab.agent(&name, options).unwrap();
            nodes.agents.insert(name.clone(), agent);
            nodes.manifests.insert(name, manifests);
        }
        nodes
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let nodes = self.lab.topology().nodes.iter();
        nodes.map(|node| node.name.clone())
    }

    /// Writes a service on some of the nodes.
    fn expose(&self, on: &[&str], app: &str) {
        let service = of_pool(app, 0);
        for name in on {
            let manifests = &self.manifests[*name];
            let pods = self.lab.topology().pods_of(app);
            manifests.endpoints(&service, pods).unwrap();
            manifests.service(&service).unwrap();
        }
    }

    fn withdraw(&self, on: &[&str], app: &str) {
        for name in on {
            self.manifests[*name]
                .remove(&format!("{app}.yaml"))
                .unwrap();
        }
    }

    /// Waits until these nodes serve the app by this address.
    fn serve(&self, on: &[&str], app: &str, last: u8) {
        let frontend = format!("192.168.56.{last}:80/tcp");
        for name in on {
            wait(&format!("{name} serves {app} by {frontend}"), || {
                frontends(&self.agents[*name], app) == [&*frontend]
            });
        }
    }

    /// Whether requests to an app get to so many pods of it, wherever its address is announced.
    fn assert_answers(&self, app: &str, last: u8, pods: usize) {
        let service = of_pool(app, last);
        wait(&format!("{app} is announced"), || {
            self.lab.client().resolve(service.address.into()).is_ok()
        });
        let tally = Tally::of(&self.lab.client().many(&service.url("/"), 12).unwrap());
        assert_eq!(tally.failed, 0, "{app}: {:?}", tally.failures);
        assert_eq!(tally.by_pod.len(), pods, "{app}: {:?}", tally.by_pod);
    }
}

fn of_pool(app: &str, last: u8) -> ServiceSpec {
    let address = Ipv4Addr::new(192, 168, 56, last);
    ServiceSpec::new(app, address, 80, 3000).from_pool()
}

fn frontends(agent: &Agent, app: &str) -> Vec<String> {
    let Ok(services) = agent.json(&["services"]) else {
        return Vec::new();
    };
    let name = format!("default/{app}:80");
    let of_app = rows(&services)
        .iter()
        .filter(|row| text(row, "name") == name);
    of_app
        .flat_map(|row| rows(&row["frontends"]))
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn nodes_agree_on_addresses_whatever_each_learns_first() {
    let all = ["nuc01", "nuc02", "nuc03"];
    let nodes = Nodes::new(&["alpha", "beta", "gamma"]);
    // The one that gives addresses out does not know the service yet: nobody makes one up.
    nodes.expose(&["nuc02", "nuc03"], "beta");
    wait("the others wait for it", || {
        let pools = nodes.agents["nuc02"].json(&["pools"]).unwrap();
        let why = &pools["without_address"]["default/beta"];
        why.as_str().is_some_and(|it| it.contains("nuc01"))
    });
    assert!(frontends(&nodes.agents["nuc03"], "beta").is_empty());
    nodes.expose(&["nuc01"], "beta");
    nodes.serve(&all, "beta", 20);
    nodes.assert_answers("beta", 20, 3);
    // By name it comes first, and takes nothing from who was there before.
    nodes.expose(&all, "alpha");
    nodes.serve(&all, "alpha", 21);
    nodes.serve(&all, "beta", 20);

    // Who gives out next knows what was given.
    nodes.agents["nuc01"].kill().unwrap();
    let left = ["nuc02", "nuc03"];
    // Each finds out for itself, up to 0.2 s apart.
    for name in left {
        wait(&format!("{name} misses it"), || {
            let status = nodes.agents[name].json(&["status"]).unwrap();
            let lost = rows(&status["gossip"]["lost"]);
            lost.iter().any(|it| it == "nuc01")
        });
    }
    nodes.expose(&left, "gamma");
    nodes.serve(&left, "gamma", 22);
    // What is on the node that was lost takes no requests.
    nodes.assert_answers("beta", 20, 2);
    nodes.withdraw(&left, "beta");
    nodes.serve(&left, "alpha", 21);

    // It comes back without anything that it knew, and with manifests of the day before.
    let forgotten = nodes.agents["nuc01"].state_dir().join("state.json");
    fs::remove_file(forgotten).unwrap();
    nodes.agents["nuc01"].restart().unwrap();
    nodes.serve(&all, "alpha", 21);
    wait("it gives addresses out again", || {
        let status = nodes.agents["nuc02"].json(&["status"]).unwrap();
        text(&status["gossip"]["members"]["nuc01"], "state") == "ready"
    });
    // It does not take away what it does not know, and learns who has it.
    nodes.serve(&left, "gamma", 22);
    nodes.expose(&["nuc01"], "gamma");
    nodes.serve(&all, "gamma", 22);
    nodes.serve(&all, "alpha", 21);
    nodes.assert_answers("alpha", 21, 3);
}

/// What a node says of an election.
fn owner(agent: &Agent, args: &[&str]) -> Value {
    agent.json(&[&["owner"], args].concat()).unwrap()
}

fn order(owner: &Value) -> Vec<String> {
    let rows = rows(&owner["order"]).iter();
    rows.map(|row| text(row, "node").to_owned()).collect()
}

#[test]
fn every_node_names_the_same_owner_and_that_one_answers() {
    let nodes = Nodes::new(&["alpha"]);
    let all = ["nuc01", "nuc02", "nuc03"];
    nodes.expose(&all, "alpha");
    nodes.serve(&all, "alpha", 20);
    nodes.assert_answers("alpha", 20, 3);
    let ip = "192.168.56.20";
    let eth0 = naru_lab::UPLINK;
    let answering = |named: &str| {
        let found = nodes.lab.client().resolve(ip.parse().unwrap());
        found.is_ok_and(|mac| mac == nodes.lab.node(named).mac(eth0).unwrap())
    };
    wait(
        "all are there, name one owner, and that one answers",
        || {
            let named = all.map(|name| owner(&nodes.agents[name], &[ip])["owner"].clone());
            let status = nodes.agents["nuc01"].json(&["status"]).unwrap();
            let members = status["gossip"]["members"].as_object().unwrap().values();
            members.filter(|it| text(it, "state") == "ready").count() == 3
                && named.iter().all(|it| *it == named[0])
                && named[0].as_str().is_some_and(answering)
        },
    );
    let first = owner(&nodes.agents["nuc01"], &[ip]);

    // The same without an agent, by the names alone.
    let offline = scene::naru_on(
        &nodes.lab,
        "client",
        &[
            "owner",
            ip,
            "--nodes",
            "nuc01,nuc02,nuc03",
            "--offline",
            "-o",
            "json",
        ],
    );
    let offline: Value = run(offline);
    assert_eq!(order(&offline), order(&first));
    // And by the manifests, one of which makes it prefer a node.
    let prefer = "\
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: preferring, namespace: metallb-system}
spec:
  preferredNodeSelectors:
    - weight: 10
      preference: {matchLabels: {disk: fast}}
";
    let last = order(&first).pop().unwrap();
    for name in all {
        let manifests = &nodes.manifests[name];
        manifests.write("prefer.yaml", prefer).unwrap();
        let text = fs::read_to_string(manifests.dir().join("nodes.yaml")).unwrap();
        let labelled = text.replace(
            &format!("  name: {last}\n"),
            &format!("  name: {last}\n  labels: {{disk: fast}}\n"),
        );
        manifests.write("nodes.yaml", &labelled).unwrap();
    }
    let dir = nodes.manifests["nuc01"].dir().display().to_string();
    let by_manifests = ["owner", ip, "--manifests", &dir, "-o", "json"];
    let by_manifests = run(scene::naru_on(&nodes.lab, "client", &by_manifests));
    assert_eq!(text(&by_manifests, "owner"), last, "{by_manifests}");
    for name in all {
        wait(&format!("{name} knows the preferred owner"), || {
            owner(&nodes.agents[name], &[ip])["owner"] == *last
        });
    }
    wait("it answers", || answering(&last));
}

fn run(mut command: std::process::Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nodes_whose_manifests_differ_do_not_announce_beside_each_other() {
    let nodes = Nodes::new(&["alpha"]);
    let all = ["nuc01", "nuc02", "nuc03"];
    nodes.expose(&all, "alpha");
    nodes.serve(&all, "alpha", 20);
    nodes.assert_answers("alpha", 20, 3);
    // Each thinks that the address is its own.
    for name in all {
        let manifests = &nodes.manifests[name];
        let other = "  name: nuc0X\n".replace("nuc0X", name);
        let text = fs::read_to_string(manifests.dir().join("nodes.yaml")).unwrap();
        let labelled = text.replace(&other, &format!("{other}  labels: {{mine: \"yes\"}}\n"));
        manifests.write("nodes.yaml", &labelled).unwrap();
        let mine = "spec: {nodeSelectors: [{matchLabels: {mine: \"yes\"}}]}\n";
        manifests
            .write("pools.yaml", &format!("{POOLS}{mine}"))
            .unwrap();
    }
    let ip = "192.168.56.20";
    for name in all {
        wait(&format!("{name} elects itself"), || {
            owner(&nodes.agents[name], &[ip])["owner"] == *name
        });
    }
    let warned = || {
        let status = all.map(|name| nodes.agents[name].json(&["status"]).unwrap());
        let warnings = status.each_ref().map(|it| it["warnings"].to_string());
        let says = |it: &&String| it.contains("192.168.56.20 is announced by nuc0");
        warnings.iter().filter(says).count() == 2
    };
    wait("those that do not announce it tell of it", warned);
    let began = Instant::now();
    let period = Duration::from_millis(20);
    let watch =
        naru_lab::OwnerWatch::start(&nodes.lab, "client", ip.parse().unwrap(), period, began);
    let watch = watch.unwrap();
    sleep(Duration::from_secs(2));
    let seen = watch.stop().unwrap();
    assert_eq!(seen.since(Duration::ZERO).len(), 1, "{seen:?}");
    nodes.assert_answers("alpha", 20, 3);
}

#[test]
fn a_node_that_cannot_serve_an_address_leaves_it_to_one_that_can() {
    let nodes = Nodes::new(&["alpha"]);
    let all = ["nuc01", "nuc02", "nuc03"];
    nodes.expose(&all, "alpha");
    nodes.serve(&all, "alpha", 20);
    nodes.assert_answers("alpha", 20, 3);
    let ip = "192.168.56.20";
    let first = text(&owner(&nodes.agents["nuc01"], &[ip]), "owner").to_owned();
    // Its own word for it: all endpoints are taken out there by hand.
    for pod in nodes.lab.topology().pods_of("alpha") {
        let pod = format!("default/{}", pod.name);
        nodes.agents[&first].cli(&["drain", &pod]).unwrap();
    }
    wait("another node announces it", || {
        all.iter().filter(|name| **name != first).all(|name| {
            let now = owner(&nodes.agents[*name], &[ip]);
            now["owner"].is_string() && now["owner"] != *first
        })
    });
    nodes.assert_answers("alpha", 20, 3);
    let asked = owner(&nodes.agents[&first], &[ip]);
    let own = rows(&asked["order"])
        .iter()
        .find(|row| text(row, "node") == first);
    assert_eq!(text(own.unwrap(), "objection"), "withheld", "{asked}");
}

#[test]
fn another_key_is_none_of_ours() {
    let nodes = Nodes::new(&["alpha"]);
    let key = nodes.lab.dir().join("other.key");
    fs::write(&key, "another secret, long enough as well\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    wait("three are there", || {
        let status = nodes.agents["nuc01"].json(&["status"]).unwrap();
        status["gossip"]["members"].as_object().unwrap().len() == 3
    });
    nodes.agents["nuc03"].stop().unwrap();
    let options = naru_lab::AgentOptions::new(naru()).manifests(&nodes.manifests["nuc03"]);
    let stranger = nodes
        .lab
        .agent("nuc03", options.arg("--gossip-key").arg(&key))
        .unwrap();
    wait("it is counted and ignored", || {
        let status = nodes.agents["nuc01"].json(&["status"]).unwrap();
        status["gossip"]["rejected"].as_u64().unwrap() > 10
            && status["gossip"]["members"].as_object().unwrap().len() == 2
    });
    let status = stranger.json(&["status"]).unwrap();
    assert_eq!(status["gossip"]["members"].as_object().unwrap().len(), 1);
    // A key that others can read is none.
    stranger.stop().unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = stranger.restart().unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
