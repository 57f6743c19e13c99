//! D: an address of one's own choice, and even shares. G: generators of load. H: autoscaling.

use std::{
    collections::BTreeMap,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use naru_lab::{Kube, LoadOptions};

use crate::scene::{
    NODES, class_room, expose, field, figure, given, load, measured, metrics, none_failed, pods,
    report, value, wait, wait_answering,
};

/// The user chooses the address; `ab` from outside, and what each pod served is counted as the
/// tutorial counts it, by its log.
#[test]
fn d_an_address_that_was_asked_for() {
    let kube = class_room();
    kube.kubectl("create deployment web --image=nginx --replicas=3 --port=80")
        .unwrap();
    kube.apply(
        "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerIP: 192.168.56.12
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
",
    )
    .unwrap();
    assert_eq!(given(&kube, "web"), "192.168.56.12");
    let url = "http://192.168.56.12/";
    wait_answering(&kube, url, 3);
    let pool = "ipaddresspool nginx-ip-range -n naru-system";
    wait("the pool says how full it is", || {
        field(&kube, pool, ".status.assignedIPv4") == "1"
            && field(&kube, pool, ".status.availableIPv4") == "2"
    });
    let before = served(&kube, "web");
    let client = kube.lab().node("client");
    let said = client
        .run("ab", &["-q", "-n", "1000", "-c", "10", url])
        .unwrap();
    let failed = said.lines().find(|it| it.starts_with("Failed requests:"));
    assert!(failed.is_some_and(|it| it.ends_with(" 0")), "{said}");
    report("D", 1000, 0);
    assert_even(&before, &served(&kube, "web"), 1000);
}

/// Three generators at once, then some that die; what it costs and what each pod gets can be read
/// meanwhile.
#[test]
fn g_load() {
    let kube = measured();
    let create = "--image=nginx --replicas=3 --port=80";
    let ip = expose(&kube, "myapp", create, "--port=8080 --target-port=80");
    let url = format!("http://{ip}:8080/");
    wait_answering(&kube, &url, 3);
    let client = kube.lab().node("client");
    let before = served(&kube, "myapp");
    scope(|scope| {
        let generator = || {
            let args = ["-disable-keepalive", "-n", "1000", "-c", "100", &url];
            client.run("hey", &args).unwrap()
        };
        let all = [(); 3].map(|()| scope.spawn(generator));
        for said in all.map(|it| it.join().unwrap()) {
            // `hey` makes as many for each of its connections.
            assert!(said.contains("[200]\t1000 responses"), "{said}");
            assert!(!said.contains("Error distribution"), "{said}");
            report("G", 1000, 0);
        }
    });
    let after = served(&kube, "myapp");
    assert_even(&before, &after, 3000);

    // The same by metrics, of the node that the clients come to, with what it costs.
    let announcing = r#"metallb_speaker_announced{service="default/myapp""#;
    let pages = NODES.map(|node| metrics(&kube, node));
    let mut pages = pages.iter().filter(|it| it.contains(announcing));
    let page = pages.next().unwrap();
    assert_eq!(pages.next(), None, "one node announces");
    for pod in after.keys() {
        let flows = value(page, "naru_backend_flows_total", &format!(r#"pod="{pod}""#));
        assert!(flows >= 900.0, "{pod}: {flows}");
    }
    assert!(value(page, "process_cpu_seconds_total", "") > 0.0);
    assert!(value(page, "process_resident_memory_bytes", "") > 1e6);

    // Generators in the cluster, of which one dies, and comes back.
    kube.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: fortio}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: fortio}}}}
  template:
    metadata: {{labels: {{app: fortio}}}}
    spec:
      containers:
      - name: fortio
        image: fortio
        command: [hey, -z, 10m, -q, '20', -c, '2', '{url}']
"
    ))
    .unwrap();
    kube.kubectl("rollout status deployment fortio --timeout=100s")
        .unwrap();
    let requests = load(&kube, &url);
    let (victim, node) = pods(&kube, "fortio").remove(0);
    kube.exec(&node, &victim, "pkill -9 -x hey").unwrap();
    wait("it comes back", || {
        let of = format!("pod {victim}");
        field(&kube, &of, ".status.containerStatuses[0].restartCount") == "1"
            && kube.exec(&node, &victim, "pgrep -x hey").is_ok()
    });
    none_failed("G", requests);
}

/// One to thirty pods by what they use, and back.
#[test]
fn h_autoscaling() {
    let kube = class_room();
    kube.start_metrics().unwrap();
    kube.apply(AUTOSCALED).unwrap();
    let ip = given(&kube, "php-apache");
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 1);
    wait("what it uses is known", || {
        let current = field(&kube, "hpa php-apache", ".status.currentMetrics[0].type");
        current == "Resource"
    });

    let endpoints = kube.endpoints();
    let looping = |connections: usize, pause: Duration| {
        let limit = Duration::from_secs(300);
        let options = LoadOptions {
            connections,
            pause,
            limit,
            ..LoadOptions::default()
        };
        kube.lab().client().load(&url, options)
    };
    // A client in a loop: more than the pods are to do, and less than the machine can.
    let requests = looping(4, Duration::from_millis(10));
    let mut first: BTreeMap<String, Instant> = BTreeMap::new();
    wait("there are thirty", || {
        for _ in 0..20 {
            let now = Instant::now();
            for pod in requests.tally().by_pod.into_keys() {
                first.entry(pod).or_insert(now);
            }
            sleep(Duration::from_millis(10));
        }
        first.len() >= 30
    });
    // Each took requests within a second of being ready, as far as that is known to anybody: the
    // controller of EndpointSlices waits a second itself where its view was old.
    let mut told = Duration::ZERO;
    let mut asked = Duration::ZERO;
    for (pod, at) in &first {
        let ready = kube.roll().ready_since("default", pod).unwrap();
        let known = endpoints.ready_since(pod).unwrap();
        told = told.max(known.saturating_duration_since(ready));
        asked = asked.max(at.saturating_duration_since(known));
    }
    figure(&format!(
        "thirty pods that were added, the slowest: EndpointSlice {} ms after it was ready, first \
         request {} ms after that",
        told.as_millis(),
        asked.as_millis()
    ));
    assert!(asked < Duration::from_secs(1), "{asked:?}");
    none_failed("H", requests);

    // The load ends but for a little, which is less than one pod is to do: one by one they go, and
    // nobody is let down.
    let requests = looping(1, Duration::from_millis(500));
    wait("there is one", || pods(&kube, "php-apache").len() == 1);
    wait_answering(&kube, &url, 1);
    none_failed("H", requests);
}

/// The tutorial's, quicker: by its default an autoscaler waits five minutes before it takes pods
/// away, and fifteen seconds between steps.
const AUTOSCALED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: php-apache}
spec:
  replicas: 1
  selector: {matchLabels: {app: php-apache}}
  template:
    metadata: {labels: {app: php-apache}}
    spec:
      containers:
      - name: php-apache
        image: registry.k8s.io/hpa-example
        ports: [{containerPort: 80}]
        resources: {requests: {cpu: 10m}}
---
apiVersion: v1
kind: Service
metadata: {name: php-apache}
spec:
  type: LoadBalancer
  selector: {app: php-apache}
  ports: [{port: 80}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: php-apache}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: php-apache}
  minReplicas: 1
  maxReplicas: 30
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
  behavior:
    scaleUp:
      policies: [{type: Percent, value: 100, periodSeconds: 5}]
    scaleDown:
      stabilizationWindowSeconds: 0
      policies: [{type: Pods, value: 1, periodSeconds: 1}]
";

/// Lines by pod of `kubectl logs --prefix`.
fn served(kube: &Kube, app: &str) -> BTreeMap<String, u64> {
    let line = format!("logs -l app={app} --prefix --tail=-1");
    let mut served = BTreeMap::new();
    for line in kube.kubectl(&line).unwrap().lines() {
        // `[pod/NAME/CONTAINER] …`
        let pod = line.split('/').nth(1).unwrap_or_default();
        *served.entry(pod.to_owned()).or_default() += 1;
    }
    served
}

/// Each of three pods has had its third of so many requests, within a tenth.
#[track_caller]
fn assert_even(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, all: u64) {
    assert_eq!(after.len(), 3, "{after:?}");
    let shares: Vec<u64> = after.iter().map(|(pod, it)| it - before[pod]).collect();
    assert_eq!(shares.iter().sum::<u64>(), all, "{shares:?}");
    let third = all / 3;
    let even = third * 9 / 10..=third * 11 / 10;
    assert!(shares.iter().all(|it| even.contains(it)), "{shares:?}");
}
