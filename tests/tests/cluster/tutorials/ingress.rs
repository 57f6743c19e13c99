//! E: an ingress controller behind an address, which routes by host and path, ends TLS, and passes
//! a database's sessions through.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use naru_lab::{Kube, NetNs};

use crate::scene::{class_room, field, load, none_failed, pods, report, wait};

const ADDRESS: &str = "192.168.56.12";

#[test]
fn e_an_ingress_behind_an_address() {
    let kube = class_room();
    kube.start_dns().unwrap();
    for (app, create) in [
        ("frontend", "--image=frontend --replicas=3 --port=80"),
        ("backend", "--image=backend --replicas=2 --port=8000"),
    ] {
        kube.kubectl(&format!("create deployment {app} {create}"))
            .unwrap();
        kube.kubectl(&format!("expose deployment {app}")).unwrap();
    }
    kube.apply(DATABASE).unwrap();
    kube.kubectl("rollout status deployment postgres --timeout=100s")
        .unwrap();
    secret(&kube);
    kube.apply(CONTROLLER).unwrap();
    kube.apply(INGRESS).unwrap();
    let service = "service ingress-nginx-controller -n ingress-nginx";
    wait("the controller's Service has the address", || {
        field(&kube, service, ".status.loadBalancer.ingress[0].ip") == ADDRESS
    });

    // By host and path, by HTTP and HTTPS.
    let client = kube.lab().node("client");
    let curl = |options: &str, url: &str| {
        let fixed = format!(
            "curl -sS --max-time 5 -k --resolve shop.example.com:443:{ADDRESS} \
             --resolve shop.example.com:80:{ADDRESS} --resolve plain.example.com:80:{ADDRESS}"
        );
        client.run("sh", &["-c", &format!("{fixed} {options} {url}")])
    };
    let answers = |url: &str, app: &str| {
        wait(&format!("{url} is answered by {app}"), || {
            curl("", url).is_ok_and(|it| it.starts_with(&format!("{app}-")))
        });
    };
    answers("http://plain.example.com/", "frontend");
    answers("http://plain.example.com/api", "backend");
    answers("https://shop.example.com/", "frontend");
    answers("https://shop.example.com/api/items", "backend");
    // A prefix is one of whole elements.
    answers("https://shop.example.com/apis", "frontend");
    let code = "-o /dev/null -w %{http_code}";
    assert_eq!(curl(code, "http://shop.example.com/").unwrap(), "308");
    assert_eq!(curl(code, &format!("http://{ADDRESS}/")).unwrap(), "404");

    // A database's name resolves in a pod, and a session of it crosses the balancer twice.
    let (pod, node) = pods(&kube, "frontend").remove(0);
    let ip = field(&kube, "service db-service", ".spec.clusterIP");
    let resolved = "getent ahostsv4 db-service | head -1 | cut -d' ' -f1";
    assert_eq!(kube.exec(&node, &pod, resolved).unwrap().trim(), ip);
    let mut session = Session::open(client);
    session.ask("create temporary table seen (n int); select 0");

    // Front ends are replaced, all of them, twice.
    let requests = load(&kube, &format!("http://{ADDRESS}/plain"));
    let mut sent = 0;
    let mut ask = |session: &mut Session| {
        for url in ["https://shop.example.com/", "http://plain.example.com/"] {
            let said = curl("", url).unwrap();
            assert!(said.starts_with("frontend-"), "{said}");
            sent += 1;
        }
        session.ask("insert into seen values (1); select count(*) from seen")
    };
    for image in ["frontend:v2", "frontend:v3"] {
        kube.kubectl(&format!("set image deployment frontend frontend={image}"))
            .unwrap();
        wait("it is rolled out", || {
            ask(&mut session);
            let status = "rollout status deployment frontend --watch=false";
            kube.kubectl(status).unwrap().contains("successfully")
        });
    }
    let count: u64 = ask(&mut session).parse().unwrap();
    assert!(count >= 3, "the session is the one that it was");
    report("E", sent, 0);
    none_failed("E", requests);

    // The older form.
    kube.apply(OLDER).unwrap();
    for node in ["192.168.56.101", "192.168.56.103"] {
        let http = "--resolve plain.example.com:30100:";
        let url = "http://plain.example.com:30100/";
        wait("it answers on a node's port", || {
            curl(&format!("{http}{node}"), url).is_ok_and(|it| it.starts_with("frontend-"))
        });
        let https = "--resolve shop.example.com:30101:";
        let url = "https://shop.example.com:30101/";
        let said = curl(&format!("{https}{node}"), url).unwrap();
        assert!(said.starts_with("frontend-"), "{said}");
    }
}

/// A session of the database, by plain TCP through the ingress controller.
struct Session {
    psql: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(client: &NetNs) -> Self {
        let mut psql = client
            .command("psql")
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                ADDRESS,
            ])
            .args(["-U", "shop", "-d", "shop"])
            .env("PGPASSWORD", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: psql.stdin.take().unwrap(),
            output: BufReader::new(psql.stdout.take().unwrap()),
            psql,
        }
    }

    /// Has it do something; gives the one line that it answers.
    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};").unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        let length = self.output.read_line(&mut line).unwrap();
        assert!(length > 0, "the session has ended: {:?}", self.psql.wait());
        line.trim().to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// A certificate for the host that has TLS.
fn secret(kube: &Kube) {
    let dir = kube.lab().dir().join("tls");
    let make = format!(
        "mkdir {dir} && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.example.com \
         -addext subjectAltName=DNS:shop.example.com -keyout {dir}/key -out {dir}/crt 2>&1",
        dir = dir.display()
    );
    kube.lab().node("nuc01").run("sh", &["-ec", &make]).unwrap();
    let create = format!(
        "create secret tls shop-tls --cert={dir}/crt --key={dir}/key",
        dir = dir.display()
    );
    kube.kubectl(&create).unwrap();
}

const DATABASE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: postgres}
spec:
  replicas: 1
  selector: {matchLabels: {app: postgres}}
  template:
    metadata: {labels: {app: postgres}}
    spec:
      containers:
      - name: postgres
        image: postgres:15
        ports: [{containerPort: 5432}]
        env:
        - {name: POSTGRES_USER, value: shop}
        - {name: POSTGRES_PASSWORD, value: secret}
        - {name: POSTGRES_DB, value: shop}
---
apiVersion: v1
kind: Service
metadata: {name: db-service}
spec:
  selector: {app: postgres}
  ports: [{port: 5432}]
";

/// As ingress-nginx is installed, as far as it concerns traffic.
const CONTROLLER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: ingress-nginx}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tcp-services, namespace: ingress-nginx}
data: {'5432': 'default/db-service:5432'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
spec:
  replicas: 1
  selector: {matchLabels: {app: ingress-nginx}}
  template:
    metadata: {labels: {app: ingress-nginx}}
    spec:
      containers:
      - name: controller
        image: registry.k8s.io/ingress-nginx/controller:v1.12.0
        args:
        - /nginx-ingress-controller
        - --tcp-services-configmap=ingress-nginx/tcp-services
        ports:
        - {name: http, containerPort: 80}
        - {name: https, containerPort: 443}
        - {name: database, containerPort: 5432}
---
apiVersion: v1
kind: Service
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
spec:
  type: LoadBalancer
  loadBalancerIP: 192.168.56.12
  selector: {app: ingress-nginx}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: https, port: 443, targetPort: https}
  - {name: database, port: 5432, targetPort: database}
";

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example.com], secretName: shop-tls}]
  rules:
  - host: shop.example.com
    http: &http
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: frontend, port: {number: 80}}}
      - path: /api
        pathType: Prefix
        backend: {service: {name: backend, port: {number: 8000}}}
  - host: plain.example.com
    http: *http
  - http:
      paths:
      - path: /plain
        pathType: Exact
        backend: {service: {name: frontend, port: {number: 80}}}
";

const OLDER: &str = "
apiVersion: v1
kind: Service
metadata: {name: ingress-nginx-nodeport, namespace: ingress-nginx}
spec:
  type: NodePort
  selector: {app: ingress-nginx}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30100}
  - {name: https, port: 443, targetPort: https, nodePort: 30101}
";
