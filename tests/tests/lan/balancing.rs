//! Who gets the next request.

use std::collections::BTreeMap;

use naru_lab::{Algorithm, PodKind, Protocol, ServiceSpec, Tally, Topology};

use crate::{
    probe,
    scene::{self, CLIENT_ADDRESS, Scene, VIP, assert_everyone, assert_in_turn, order},
};

#[test]
fn ten_requests_reach_each_of_five_pods_twice_in_turn_over_tcp_and_udp() {
    let scene = Scene::new();
    let url = scene::services()[0].url("/");
    let answers = scene.client().many(&url, 10).unwrap();
    assert_in_turn(&order(answers), scene.pods());
    let client = scene.lab.node("client");
    let answers = probe::ask_from(client, 20_000..20_010, probe::at(VIP, 80));
    assert_in_turn(&answers, scene.pods());
}

#[test]
fn weights_by_annotation_give_exact_counts() {
    let (lab, manifests) = scene::set_up(scene::class_room(3));
    let pods = lab.topology().pods.clone();
    let weights: Vec<_> = pods
        .iter()
        .zip([3, 1, 0])
        .map(|(it, n)| format!("{}={n}", it.name))
        .collect();
    for service in scene::services() {
        manifests
            .service(&service.annotated("naru.dev/weights", &weights.join(",")))
            .unwrap();
    }
    let agent = lab.agent(scene::NODE, scene::options(&manifests)).unwrap();
    let client = lab.node("client");
    let vip = probe::at(VIP, 80);
    let by_tcp = order(
        lab.client()
            .many(&scene::services()[0].url("/"), 8)
            .unwrap(),
    );
    for answers in [by_tcp, probe::ask_from(client, 20_000..20_008, vip)] {
        // Each four in a row hold the weights, so the light one is not starved meanwhile.
        for turn in answers.chunks(4) {
            let count = |at: usize| turn.iter().filter(|name| **name == pods[at].name).count();
            assert_eq!((count(0), count(1), count(2)), (3, 1, 0), "{answers:?}");
        }
    }
    drop(agent);
}

#[test]
fn a_thousand_by_maglev_reach_every_pod_and_an_address_and_port_always_the_same_one() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    for service in scene::services() {
        manifests.service(&service.by(Algorithm::Maglev)).unwrap();
    }
    let agent = lab.agent(scene::NODE, scene::options(&manifests)).unwrap();
    let pods = &lab.topology().pods;

    let url = scene::services()[0].url("/");
    let tally = Tally::of(&lab.client().many(&url, 1000).unwrap());
    let told = || {
        let status = agent.cli(&["status"]);
        status.unwrap_or_else(|error| error.to_string())
    };
    let counts = (tally.ok, tally.failed);
    // Should one be reset, the verdicts tell by whom.
    assert_eq!(counts, (1000, 0), "{:?}\n{}", tally.failures, told());
    assert_everyone(&tally.by_pod.keys().cloned().collect::<Vec<_>>(), pods);

    let (client, vip) = (lab.node("client"), probe::at(VIP, 80));
    let udp = || probe::ask_from(client, 20_000..21_000, vip);
    let first = udp();
    let mut counts = BTreeMap::new();
    first
        .iter()
        .for_each(|pod| *counts.entry(pod).or_insert(0) += 1);
    // Each has a fifth; what is beyond four standard deviations is no chance.
    assert!(
        counts.len() == 5 && counts.values().all(|n| (150..=250).contains(n)),
        "{counts:?}"
    );
    assert_eq!(udp(), first, "the same ports again");

    // A connection that was reset is forgotten at once: the hash alone decides again.
    let tcp = || probe::who_from(client, 20_000..20_100, vip);
    let connections = tcp();
    assert_everyone(&connections, pods);
    assert_eq!(tcp(), connections, "the same ports again");

    // Nothing at all is remembered of a datapath that was taken away.
    agent.detach().unwrap();
    agent.restart().unwrap();
    assert_eq!(tcp(), connections, "the same ports through a new datapath");
    assert_eq!(udp(), first, "the same ports through a new datapath");
}

#[test]
fn dns_servers_behind_the_address_answer_dig_in_turn_over_udp_and_tcp() {
    let mut topology = Topology::nuc_without_pods();
    topology.add_pods("dns", PodKind::Dns, 5353, 3);
    let (lab, manifests) = scene::set_up(topology);
    for service in scene::services() {
        manifests.remove(&format!("{}.yaml", service.name)).unwrap();
        manifests
            .remove(&format!("{}-endpoints.yaml", service.name))
            .unwrap();
    }
    let pods = &lab.topology().pods;
    for (name, protocol) in [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp)] {
        let service = ServiceSpec::new(name, VIP, 53, 5353).over(protocol);
        manifests.service(&service).unwrap();
        manifests.endpoints(&service, pods).unwrap();
    }
    let agent = lab.agent(scene::NODE, scene::options(&manifests)).unwrap();

    // dig takes an answer only from the address and port that it has asked.
    let dig = |record: &str, transport: &str| {
        let server = format!("@{VIP}");
        let args = [
            &server,
            "who.test",
            record,
            transport,
            "+short",
            "+tries=1",
            "+timeout=3",
        ];
        let said = lab.node("client").run("dig", &args).unwrap();
        said.trim().trim_matches('"').to_owned()
    };
    for transport in ["+notcp", "+tcp"] {
        let names: Vec<_> = (0..6).map(|_| dig("TXT", transport)).collect();
        assert_in_turn(&names, pods);
    }
    let mut addresses: Vec<_> = (0..3).map(|_| dig("A", "+notcp")).collect();
    addresses.sort();
    let mut expected: Vec<_> = pods.iter().map(|pod| pod.address.to_string()).collect();
    expected.sort();
    assert_eq!(addresses, expected);

    let flows = agent.json(&["flows"]).unwrap();
    let flows = scene::rows(&flows["flows"]);
    let client = format!("{CLIENT_ADDRESS}:");
    let udp = flows.iter().filter(|it| it["protocol"] == "udp");
    assert!(udp.clone().count() >= 9, "{flows:#?}");
    for flow in udp {
        assert!(scene::text(flow, "client").starts_with(&client), "{flow}");
        assert_eq!(
            (&flow["frontend"], &flow["state"]),
            (&format!("{VIP}:53").into(), &"replied".into())
        );
    }
}
