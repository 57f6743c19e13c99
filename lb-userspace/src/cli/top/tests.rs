//! What is on the screen after answers and keys.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::{
    app::{App, Next},
    draw::{Palette, draw},
    picture::Picture,
    sample::{News, Sample, Timed},
    views::View,
};
use crate::control::Owner;

const INTERVAL: Duration = Duration::from_secs(1);

/// An agent whose answers are made up, and the screen on which they are looked at.
struct Scene {
    start: Instant,
    app: App,
}

/// What an agent says after so many seconds, with the second node's word of what it announces.
fn sample(start: Instant, seconds: u64, elsewhere: &[&str]) -> Sample {
    let traffic = |per_second: u64| {
        json!({
            "flows": 10 * per_second * seconds, "packets_in": 100 * per_second * seconds,
            "bytes_in": 6_400 * per_second * seconds, "packets_out": 90 * per_second * seconds,
            "bytes_out": 90_000 * per_second * seconds,
        })
    };
    let with = |mut it: Value, traffic: Value| {
        let fields = traffic.as_object().cloned().unwrap_or_default();
        it.as_object_mut().expect("an object").extend(fields);
        it
    };
    let service = |name: &str, frontends: &[&str], ready: usize, per_second| {
        let it = json!({
            "name": name, "frontends": frontends, "node_port": 30080, "algorithm": "maglev",
            "slots": 65537, "backends": ready, "external_policy": "Cluster",
            "internal_policy": "Cluster", "session_affinity": null, "health_check": null,
            "source_ranges": [],
        });
        with(it, traffic(per_second))
    };
    let backend = |service: &str, number: u32, condition: &str, per_second| {
        let it = json!({
            "service": service, "address": format!("10.244.{number}.2:8080"),
            "name": format!("web-7d4b9c6f5-x{number}"), "node": format!("nuc0{number}"),
            "mode": if number == 1 { "local" } else { "nat" }, "weight": 1,
            "condition": condition, "health": null, "id": number.to_string(),
        });
        with(it, traffic(per_second))
    };
    let announced = |vip: &str| {
        json!({
            "vip": vip, "interface": "eth0", "state": "answering", "requests_received": 1,
            "responses_sent": 1, "gratuitous_sent": 5, "conflicts": 0,
        })
    };
    let member = |number: u32, vips: &[&str]| json!({"address": format!("192.168.56.10{number}:7947"), "state": "ready", "announces": vips});
    let count = |hook: &str, verdict: &str, per_second: u64| {
        json!({
            "hook": hook, "verdict": verdict, "packets": per_second * seconds,
            "bytes": 64 * per_second * seconds,
        })
    };
    let status = json!({
        "version": "0.1.0", "pid": 7, "uptime": 3600, "node": "nuc01", "abi": 9,
        "pin_dir": "/sys/fs/bpf/naru",
        "attachments": [{"interface": "eth0", "ifindex": 2, "native": true, "tc": "tcx"}],
        "missing_interfaces": [],
        "source": {
            "from": "manifests in /etc/naru/manifests", "current": true, "problems": [], "stale": false,
            "notes": ["Service default/web: a field that is not used"], "age": 300,
        },
        "services": 3, "backends": 3,
        "gossip": {
            "running": true, "settled": true, "lost": [], "received": 1, "sent": 1,
            "rejected": 0, "oversized": 0,
            "members": {
                "nuc01": member(1, &["192.168.56.11"]), "nuc02": member(2, elsewhere),
            },
        },
        "announced": [announced("192.168.56.11")],
        "drained": [], "verdicts": [], "warnings": [],
    });
    let services = json!([
        service("default/idle:80", &[], 0, 0),
        service("default/mail:25", &["192.168.56.9:25/tcp"], 0, 1),
        service(
            "default/web:80",
            &["192.168.56.11:80/tcp", "192.168.56.101:30080/tcp"],
            2,
            40,
        ),
    ]);
    let backends = json!([
        backend("default/web:80", 1, "ready", 10),
        backend("default/web:80", 2, "ready", 30),
        backend("default/web:80", 3, "draining", 0),
    ]);
    let verdicts = json!([
        count("xdp", "forward_nat", 3000),
        count("xdp", "not_ours", 12),
        count("xdp", "vip_port", 2),
    ]);
    let at = start + Duration::from_secs(seconds);
    Sample {
        status: timed(at, status),
        verdicts: timed(at, verdicts),
        services: timed(at, services),
        backends: timed(at, backends),
    }
}

fn timed<T: serde::de::DeserializeOwned>(at: Instant, is: Value) -> Timed<T> {
    let is = serde_json::from_value(is).expect("as the agent says it");
    Timed { at, is }
}

impl Scene {
    fn new(view: View) -> Self {
        let start = Instant::now();
        let first = Picture::new(sample(start, 1, &["192.168.56.9"]), None);
        let app = App::new(view, first, INTERVAL);
        Self { start, app }
    }

    /// The same a second later.
    fn measured(view: View) -> Self {
        let mut scene = Self::new(view);
        scene.hear(2, &["192.168.56.9"]);
        scene
    }

    fn hear(&mut self, seconds: u64, elsewhere: &[&str]) {
        let sample = sample(self.start, seconds, elsewhere);
        self.app.hear(News::Sample(Box::new(sample)));
    }

    fn press(&mut self, keys: &str) -> Next {
        let code = |name| match name {
            "Tab" => KeyCode::Tab,
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "End" => KeyCode::End,
            "Home" => KeyCode::Home,
            letter => KeyCode::Char(letter.chars().next().expect("a key")),
        };
        let mut next = Next::Go;
        for name in keys.split(' ') {
            next = self
                .app
                .press(KeyEvent::new(code(name), KeyModifiers::NONE));
        }
        next
    }

    fn selected(&self) -> &str {
        let row = self.app.sheet.rows.get(self.app.cursor);
        row.map_or("", |it| &it.key)
    }

    fn screen(&mut self, width: u16, height: u16, seconds: u64) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let now = self.start + Duration::from_secs(seconds);
        let palette = Palette { colours: true };
        let screen = terminal.draw(|frame| draw(frame, &mut self.app, palette, now));
        screen.expect("drawn");
        let lines = terminal.backend().to_string();
        let lines = lines.lines().map(|it| it.trim_matches('"').trim_end());
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn services_are_shown_with_rates_and_owners() {
    let mut scene = Scene::new(View::Services);
    insta::assert_snapshot!("services-first", scene.screen(80, 16, 1));
    scene.hear(2, &["192.168.56.9"]);
    insta::assert_snapshot!("services-80", scene.screen(80, 16, 2));
    insta::assert_snapshot!("services-140", scene.screen(140, 16, 2));
    insta::assert_snapshot!("services-40", scene.screen(40, 16, 2));
    // However little room there is, it is no reason to end.
    for (width, height) in [(1, 1), (10, 3), (80, 6), (300, 100)] {
        scene.screen(width, height, 2);
    }
}

#[test]
fn a_service_is_entered_and_left() {
    let mut scene = Scene::measured(View::Services);
    assert_eq!(scene.selected(), "default/web:80 192.168.56.11:80/tcp");
    scene.press("Enter");
    insta::assert_snapshot!("backends", scene.screen(120, 16, 2));
    assert_eq!(scene.press("Esc"), Next::Go);
    assert_eq!(scene.app.view, View::Services);
    scene.press("j Enter");
    assert!(scene.app.sheet.rows.is_empty(), "default/mail:25 has none");
    assert_eq!(scene.press("Esc"), Next::Go);
    assert_eq!(scene.selected(), "default/mail:25 192.168.56.9:25/tcp");
    assert_eq!(scene.press("Esc"), Next::Quit);
}

#[test]
fn owners_tell_of_a_move() {
    let mut scene = Scene::measured(View::Owners);
    assert_eq!(scene.app.address(), "192.168.56.9".parse().ok());
    scene.hear(10, &[]);
    let owner = json!({
        "ip": "192.168.56.9", "together": ["192.168.56.9"], "services": ["default/mail:25"],
        "owner": null, "nobody": null, "order": [],
    });
    let owner: Owner = serde_json::from_value(owner).expect("an owner");
    scene.app.hear(News::Owner(owner));
    scene.hear(13, &[]);
    insta::assert_snapshot!("owners", scene.screen(80, 12, 13));
}

#[test]
fn verdicts_say_what_to_do() {
    let mut scene = Scene::measured(View::Verdicts);
    scene.press("End");
    insta::assert_snapshot!("verdicts", scene.screen(80, 12, 2));
}

#[test]
fn keys_are_explained() {
    let mut scene = Scene::measured(View::Services);
    scene.press("?");
    insta::assert_snapshot!("help", scene.screen(80, 24, 2));
    assert_eq!(scene.press("q"), Next::Go);
    assert!(!scene.app.help);
    assert_eq!(scene.press("q"), Next::Quit);
}

#[test]
fn rows_keep_their_selection_and_are_sorted_and_filtered() {
    let mut scene = Scene::measured(View::Services);
    let names = |scene: &Scene| {
        let keys = scene.app.sheet.rows.iter().map(|it| it.key.clone());
        keys.map(|it| it.split(' ').next().map(str::to_owned).unwrap_or_default())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&scene),
        ["default/web:80", "default/mail:25", "default/idle:80"]
    );
    scene.press("j");
    let chosen = scene.selected().to_owned();
    scene.press("r");
    assert_eq!(
        names(&scene),
        ["default/idle:80", "default/mail:25", "default/web:80"]
    );
    assert_eq!(scene.selected(), chosen);
    // PPS-OUT, BPS-IN and BPS-OUT, and then the names.
    scene.press("s s s s");
    assert_eq!(
        names(&scene),
        ["default/idle:80", "default/mail:25", "default/web:80"]
    );
    scene.press("/ W E B");
    assert_eq!(names(&scene), ["default/web:80"]);
    scene.press("q Enter");
    assert!(
        scene.app.sheet.rows.is_empty(),
        "q was typed into the filter"
    );
    assert!(scene.screen(80, 10, 2).contains("/WEBq"));
    assert_eq!(scene.press("Esc"), Next::Go);
    assert_eq!(names(&scene).len(), 3);
    assert_eq!(scene.selected(), chosen);
    scene.press("Tab Tab Tab Tab");
    assert_eq!(scene.selected(), chosen);
    let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    scene.press("/");
    assert_eq!(scene.app.press(key), Next::Quit);
}

#[test]
fn a_pause_holds_what_is_shown() {
    let mut scene = Scene::new(View::Services);
    scene.press("p");
    scene.hear(2, &[]);
    let held = scene.screen(80, 16, 2);
    assert!(
        held.contains("PAUSED") && held.contains("in - pps"),
        "{held}"
    );
    scene.press("p");
    let now = scene.screen(80, 16, 2);
    assert!(
        !now.contains("PAUSED") && now.contains("in 4.1k pps"),
        "{now}"
    );
}

#[test]
fn an_agent_that_is_silent_is_told_of_until_it_answers() {
    let mut scene = Scene::measured(View::Services);
    assert_eq!(scene.app.silence(scene.start + 5 * INTERVAL), None);
    scene
        .app
        .hear(News::Silence("no naru agent answers".to_owned()));
    let screen = scene.screen(80, 16, 9);
    let told = "NO ANSWER, data of 7s ago: no naru agent answers";
    assert!(screen.contains(told), "{screen}");
    scene.hear(10, &[]);
    assert!(!scene.screen(80, 16, 10).contains("NO ANSWER"));
    // One that says nothing at all is as silent.
    assert!(scene.screen(80, 16, 20).contains("data of 10s ago"));
}

#[test]
fn counters_that_begin_anew_have_no_rate() {
    let start = Instant::now();
    let before = Picture::new(sample(start, 100, &[]), None);
    let mut after = sample(start, 2, &[]);
    after.status.at = start + Duration::from_secs(101);
    for at in [
        &mut after.verdicts.at,
        &mut after.services.at,
        &mut after.backends.at,
    ] {
        *at = start + Duration::from_secs(101);
    }
    let now = Picture::new(after, Some(&before));
    // The first one had counted nothing.
    assert!(now.services[1..].iter().all(Option::is_none));
    assert!(now.verdicts.iter().all(Option::is_none));
    assert_eq!(now.total.map(|it| it.packets_in), Some(0.0));
    let owners: BTreeMap<_, _> = now
        .owners
        .iter()
        .map(|(ip, it)| (ip.to_string(), it.seen))
        .collect();
    assert_eq!(
        owners,
        BTreeMap::from([
            ("192.168.56.11".to_owned(), false),
            ("192.168.56.9".to_owned(), false)
        ])
    );
}
