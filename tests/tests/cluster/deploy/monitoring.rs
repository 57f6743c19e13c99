//! Metrics as Debian's Prometheus reads them, with the rules and the dashboard of `deploy/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use naru_lab::{Kube, KubeOptions};
use serde_json::{Value, json};

use super::deployed;
use crate::scene::{control_plane, expose, naru, start, wait, wait_answering};

const AGENTS: u16 = 7948;
const CONTROLLER: &str = "127.0.0.1:7949";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// Where Prometheus and the controller are.
const NODE: &str = "nuc01";

/// What may have nothing to show where all is well.
const QUIET: [&str; 4] = [
    "Dropped, by verdict",
    "Refused, by verdict",
    "Backends that take no new flows",
    "Notes and warnings",
];
/// What `promtool` says to names that MetalLB has chosen for what can go down again.
const COMPLAINTS: [&str; 2] = [
    r#"metallb_allocator_addresses_in_use_total non-counter metrics should not have "_total" suffix"#,
    r#"metallb_allocator_addresses_total non-counter metrics should not have "_total" suffix"#,
];

#[test]
fn prometheus_has_what_rules_and_dashboard_ask_for() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    let kube = start(KubeOptions {
        args: words(&format!("--metrics 0.0.0.0:{AGENTS}")),
        controller_args: words(&format!("--metrics {CONTROLLER}")),
        ..KubeOptions::new(naru(), control_plane())
    });
    let node = kube.lab().node(NODE);
    let rules = deployed("prometheus/rules.yaml");
    node.run("promtool", &["check", "rules", &rules]).unwrap();
    let tests = deployed("prometheus/tests.yaml");
    node.run("promtool", &["test", "rules", &tests]).unwrap();
    let dashboard = Dashboard::read();
    dashboard.check_by_promtool(&kube);

    let mut targets: Vec<String> = vec![CONTROLLER.to_owned()];
    let nodes = &kube.lab().topology().nodes;
    targets.extend(nodes.iter().map(|it| format!("{}:{AGENTS}", it.address)));
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "scrape_configs": [{"job_name": "naru", "static_configs": [{"targets": targets}]}],
    });
    let dir = kube.lab().dir();
    let file = dir.join("prometheus.yaml").display().to_string();
    fs::write(&file, config.to_string()).unwrap();
    let data = dir.join("prometheus").display().to_string();
    let args = [
        format!("--config.file={file}"),
        format!("--storage.tsdb.path={data}"),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    let log = dir.join("prometheus.log");
    let _prometheus = node.start("prometheus", &args, &log).unwrap();

    let ip = expose(
        &kube,
        "web",
        "--image=nginx --replicas=3 --port=80",
        "--port=80",
    );
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 3);
    let up = || ask(&kube, "up == 1").unwrap_or_default();
    wait("all are scraped", || up().len() == targets.len());
    let rate = r#"naru:service_flows:rate1m{service="default/web:80"} > 0"#;
    wait("new flows are seen", || {
        let _ = kube.lab().client().many(&url, 20);
        ask(&kube, rate).is_some_and(|it| !it.is_empty())
    });

    // The names are those that there are, and that Prometheus would have.
    let mut offered: BTreeSet<String> = BTreeSet::new();
    let mut complaints: BTreeSet<String> = BTreeSet::new();
    for target in &targets {
        let url = format!("http://{target}/metrics");
        let page = node.run("curl", &["-sS", "--max-time", "5", &url]).unwrap();
        complaints.extend(complaints_about(&kube, &page));
        offered.extend(sampled(&page));
    }
    assert_eq!(complaints, COMPLAINTS.map(str::to_owned).into());
    let groups = api(&kube, "rules", &[]).unwrap();
    let mut recorded: BTreeMap<String, String> = BTreeMap::new();
    for rule in groups["groups"][0]["rules"].as_array().unwrap() {
        assert_eq!(rule["health"], "ok", "{rule}");
        let text = |field: &str| rule[field].as_str().unwrap().to_owned();
        recorded.insert(text("name"), text("query"));
    }
    assert!(recorded.len() > 7, "{recorded:?}");
    let all = recorded.values().chain(dashboard.0.iter().map(|it| &it.1));
    for expression in all {
        let names = named(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            let is_known = offered.contains(name) || recorded.contains_key(name);
            assert!(is_known, "nobody offers {name}: {expression}");
        }
    }

    // Each panel shows something.
    for (title, expression) in &dashboard.0 {
        let quiet = QUIET.contains(&title.as_str());
        wait(&format!("there is something: {title}"), || {
            let _ = kube.lab().client().many(&url, 5);
            ask(&kube, expression).is_some_and(|it| quiet || !it.is_empty())
        });
    }

    // No alert, until there is a reason.
    assert_eq!(alerts(&kube), BTreeSet::new());
    kube.kubectl("scale deployment web --replicas=0").unwrap();
    kube.kill_controller(0);
    let expected = ["NaruNoController", "NaruServiceWithoutBackends"];
    let expected = BTreeSet::from(expected.map(str::to_owned));
    wait("two alerts are near", || alerts(&kube) == expected);
}

/// The expressions of the dashboard, each with the title of its panel, as Grafana would ask them.
struct Dashboard(Vec<(String, String)>);

impl Dashboard {
    fn read() -> Self {
        let text = fs::read_to_string(deployed("grafana/naru.json")).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let mut all = Vec::new();
        for panel in whole["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().into_iter().flatten();
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                let expression = expression
                    .replace("$__rate_interval", "1m")
                    .replace("$__range", "1h")
                    .replace("$service", ".*");
                assert!(!expression.contains('$'), "{title}: {expression}");
                all.push((title.to_owned(), expression));
            }
        }
        assert!(all.len() > 20, "{all:?}");
        Self(all)
    }

    /// Has them checked as if they were rules.
    fn check_by_promtool(&self, kube: &Kube) {
        let numbered = self.0.iter().enumerate();
        let rules = numbered.map(|(at, (_, expression))| {
            json!({"record": format!("dashboard:{at}"), "expr": expression})
        });
        let rules: Vec<Value> = rules.collect();
        let file = kube.lab().dir().join("dashboard.yaml");
        let text = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let check = ["check", "rules", &file];
        kube.lab().node(NODE).run("promtool", &check).unwrap();
    }
}

/// Asks Prometheus' HTTP API.
fn api(kube: &Kube, what: &str, query: &[&str]) -> Option<Value> {
    let url = format!("http://{PROMETHEUS}/api/v1/{what}");
    let mut args = vec!["-sS", "--max-time", "10", "-G", &url];
    for part in query {
        args.extend(["--data-urlencode", part]);
    }
    let said = kube.lab().node(NODE).run("curl", &args).ok()?;
    let mut said: Value = serde_json::from_str(&said).ok()?;
    assert_eq!(said["status"], "success", "{query:?}: {said}");
    Some(said["data"].take())
}

/// The series that an expression gives now; none where Prometheus does not answer.
fn ask(kube: &Kube, expression: &str) -> Option<Vec<Value>> {
    let query = format!("query={expression}");
    let data = api(kube, "query", &[&query])?;
    data["result"].as_array().cloned()
}

/// Alerts that fire, or will if it goes on so.
fn alerts(kube: &Kube) -> BTreeSet<String> {
    let data = api(kube, "alerts", &[]).unwrap();
    let alerts = data["alerts"].as_array().unwrap().iter();
    alerts
        .map(|it| it["labels"]["alertname"].as_str().unwrap().to_owned())
        .collect()
}

/// The metrics of these names that Naru's pages or rules are to have.
fn named(expression: &str) -> BTreeSet<&str> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | ':');
    let words = expression.split(|it| !is_part(it));
    let ours = ["naru_", "naru:", "metallb_", "process_"];
    words
        .filter(|word| ours.iter().any(|it| word.starts_with(it)))
        .collect()
}

/// The names of a page's samples.
fn sampled(page: &str) -> impl Iterator<Item = String> {
    let samples = page.lines().filter(|it| !it.starts_with('#'));
    samples.filter_map(|it| Some(it.split(['{', ' ']).next()?.to_owned()))
}

/// What `promtool check metrics` says to a page.
fn complaints_about(kube: &Kube, page: &str) -> BTreeSet<String> {
    // It reads the older format, in which a counter is described by its whole name.
    let counters: BTreeSet<&str> = page
        .lines()
        .filter_map(|it| it.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::new();
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        text += &match words[..] {
            ["#", what, name, rest] if counters.contains(name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        };
    }
    let file = kube.lab().dir().join("page").display().to_string();
    fs::write(&file, text).unwrap();
    // It fails where it has anything to say.
    let check = format!("promtool check metrics < {file} 2>&1 || true");
    let said = kube.lab().node(NODE).run("sh", &["-c", &check]).unwrap();
    said.lines().map(str::to_owned).collect()
}
