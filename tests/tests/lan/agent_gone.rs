//! The kernel side without its agent, and under the next one.

use std::{thread::sleep, time::Duration};

use naru_lab::{Load, LoadOptions, LongLived, Tally};

use crate::{
    probe,
    scene::{self, Scene, VIP},
};

/// Load on connections of all kinds, which no restart may disturb.
pub struct Busy {
    short: Load,
    kept: Load,
    open: Vec<LongLived>,
}

impl Busy {
    pub fn start(scene: &Scene) -> Self {
        let (client, service) = (scene.client(), &scene::services()[0]);
        let load = |keep_alive| {
            let options = LoadOptions {
                connections: 2,
                keep_alive,
                ..LoadOptions::default()
            };
            client.load(&service.url("/"), options)
        };
        let stream = |_| client.long_lived(&service.url("/stream")).unwrap();
        Self {
            short: load(false),
            kept: load(true),
            open: (0..5).map(stream).collect(),
        }
    }

    pub fn goes_on_for(&self, time: Duration) {
        let before = self.answered();
        sleep(time);
        assert!(
            self.answered() > before,
            "no request was answered within {time:?}"
        );
    }

    fn answered(&self) -> u64 {
        self.short.tally().ok + self.kept.tally().ok
    }

    pub fn end(self) {
        let failed = |tally: Tally| assert_eq!(tally.failed, 0, "{:?}", tally.failures);
        failed(self.short.stop().unwrap());
        failed(self.kept.stop().unwrap());
        for connection in &self.open {
            assert!(connection.is_alive(), "{:?}", connection.ended());
        }
    }
}

#[test]
fn an_agent_killed_three_times_under_load_loses_no_request() {
    let scene = Scene::new();
    let busy = Busy::start(&scene);
    busy.goes_on_for(Duration::from_millis(300));
    for _ in 0..3 {
        scene.agent.kill().unwrap();
        busy.goes_on_for(Duration::from_secs(2));
        scene.agent.restart().unwrap();
        busy.goes_on_for(Duration::from_millis(300));
    }
    busy.end();
}

#[test]
fn an_agent_stopped_and_an_upgrade_with_other_flags_lose_no_request() {
    let mut scene = Scene::new();
    let busy = Busy::start(&scene);
    scene.agent.stop().unwrap();
    busy.goes_on_for(Duration::from_secs(1));
    scene.agent.restart().unwrap();
    busy.goes_on_for(Duration::from_millis(300));

    // Flows keep the source ports that they have; new ones get theirs out of the new range.
    let options = scene::options(&scene.manifests);
    let others = [
        "--attach",
        "native",
        "--snat-ports",
        "50001-50400",
        "--seed",
        "7",
    ];
    scene.agent.restart_with(options.args(others)).unwrap();
    busy.goes_on_for(Duration::from_millis(300));
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["attachments"][0]["native"], true);
    let client = scene.lab.node("client");
    let mut remote = 0;
    for _ in scene.pods() {
        let mut stream = probe::connect(client, 0, probe::at(VIP, 80)).unwrap();
        let (pod, seen) = probe::seen_as(&mut stream);
        if scene.pod(&pod).node != scene::NODE {
            assert!((50_001..=50_400).contains(&seen.port()), "{seen}");
            remote += 1;
        }
    }
    assert!(remote > 0);
    busy.end();
}

#[test]
fn what_changed_while_the_agent_was_away_is_in_force_when_it_is_back() {
    let scene = Scene::new();
    // While no agent answers ARP, clients live on what they know.
    scene.client().resolve(VIP.into()).unwrap();
    scene.agent.kill().unwrap();
    let last = scene.pods().last().unwrap();
    let left: Vec<_> = scene
        .pods()
        .iter()
        .filter(|pod| *pod != last)
        .cloned()
        .collect();
    for service in scene::services() {
        scene.manifests.endpoints(&service, &left).unwrap();
    }
    let client = scene.lab.node("client");
    let vip = probe::at(VIP, 80);
    let before = probe::ask_from(client, 20_000..20_010, vip);
    scene::assert_in_turn(&before, scene.pods());
    scene.agent.restart().unwrap();
    scene::assert_in_turn(&probe::ask_from(client, 21_000..21_008, vip), &left);
    // Flows of before go on where they were.
    let again = probe::ask_from(client, 20_000..20_010, vip);
    for (old, new) in before.iter().zip(&again) {
        assert!(old == new || *old == last.name, "{old} became {new}");
    }
}

#[test]
fn an_upgrade_between_filters_and_links_loses_no_request_and_leaves_one_of_them() {
    let mut scene = Scene::new();
    let busy = Busy::start(&scene);
    for kind in ["clsact", "clsact", "tcx", "clsact", "auto"] {
        let options = scene::options(&scene.manifests).args(["--tc", kind]);
        scene.agent.restart_with(options).unwrap();
        busy.goes_on_for(Duration::from_millis(300));
        let expected = if kind == "clsact" { "clsact" } else { "tcx" };
        let status = scene.agent.json(&["status"]).unwrap();
        assert_eq!(status["attachments"][0]["tc"], expected, "{kind}");
        let filters = usize::from(kind == "clsact");
        for direction in ["ingress", "egress"] {
            assert_eq!(scene.filters(direction), filters, "{kind} {direction}");
        }
    }
    // Killed with filters in force, which then carry on, and taken away without an agent.
    let options = scene::options(&scene.manifests).args(["--tc", "clsact"]);
    scene.agent.restart_with(options).unwrap();
    scene.agent.kill().unwrap();
    busy.goes_on_for(Duration::from_millis(500));
    busy.end();
    scene.agent.detach().unwrap();
    for direction in ["ingress", "egress"] {
        assert_eq!(scene.filters(direction), 0, "{direction}");
    }
}

#[test]
fn filters_that_another_hand_took_away_are_made_anew_by_the_next_agent() {
    let scene = Scene::with(naru_lab::Topology::nuc(), &["--tc", "clsact"]);
    let node = scene.lab.node(scene::NODE);
    let qdisc = ["qdisc", "delete", "dev", naru_lab::UPLINK, "clsact"];
    node.run("tc", &qdisc).unwrap();
    assert_eq!(scene.filters("ingress"), 0);
    scene.agent.restart().unwrap();
    assert_eq!(scene.filters("ingress"), 1);
    assert_eq!(scene.filters("egress"), 1);
}

impl Scene {
    /// How many of Naru's filters the uplink has.
    fn filters(&self, direction: &str) -> usize {
        let show = ["filter", "show", "dev", naru_lab::UPLINK, direction];
        let shown = self.lab.node(scene::NODE).run("tc", &show).unwrap();
        shown.matches("handle 0x6e617275 ").count()
    }
}

#[test]
fn an_upgrade_to_the_other_kind_of_xdp_and_back_serves_on() {
    let mut scene = Scene::new();
    let client = scene.lab.node("client");
    let vip = probe::at(VIP, 80);
    let mut open = probe::connect(client, 0, vip).unwrap();
    let pod = probe::who(&mut open).unwrap();
    for (kind, native) in [("generic", false), ("native", true), ("auto", false)] {
        let options = scene::options(&scene.manifests).args(["--attach", kind]);
        scene.agent.restart_with(options).unwrap();
        let status = scene.agent.json(&["status"]).unwrap();
        assert_eq!(status["attachments"][0]["native"], native, "{kind}");
        assert_eq!(probe::who(&mut open).unwrap(), pod);
        let client = scene.lab.node("client");
        let requests = probe::ask_from(client, 20_000..20_010, vip);
        scene::assert_everyone(&requests, scene.pods());
    }
}
