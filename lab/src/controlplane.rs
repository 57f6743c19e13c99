//! A real control plane on a machine of the lab: etcd, Kubernetes' API server, controllers and
//! scheduler, each a program of that name in one directory.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    netns::NetNs,
    process::Process,
};

/// How long a part of it may take to be ready: seconds of one core, which others may want.
const START: Duration = Duration::from_secs(120);
/// The port of the API server.
const PORT: u16 = 6443;
/// By which tokens of service accounts are signed.
const KEY: &str = "service-accounts.key";
/// Whence Services have their cluster IPs.
const SERVICES: &str = "10.96.0.0/16";
/// Of the one who may do everything, of the agents, and of the controllers.
const USERS: [(&str, &str, &str); 3] = [
    ("admin", "lab-admin-token", "system:masters"),
    ("naru", "lab-naru-token", "naru"),
    ("controller", "lab-controller-token", "naru-controller"),
];
/// A node that was silent for so long is gone, and its pods are made elsewhere after this many
/// seconds: minutes by default, which nobody waits for in a lab.
const SILENT: &str = "10s";
const TOLERATED: &str = "2";

/// A control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    namespace: NetNs,
    address: Ipv4Addr,
    dir: PathBuf,
    server: Mutex<Option<Process>>,
    /// The controllers and the scheduler.
    followers: Mutex<Vec<Process>>,
    _etcd: Process,
}

impl ControlPlane {
    /// Starts it in a namespace that has this address on the LAN, with its files in `dir`; returns
    /// when it answers. Its parts and `kubectl` are in the directory `programs`.
    ///
    /// # Errors
    /// Where a part of it does not start, with the end of what it said.
    pub fn start(programs: &Path, namespace: NetNs, address: Ipv4Addr, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
        write_identities(dir, address)?;
        let path = |name: &str| dir.join(name).display().to_string();
        namespace.run("openssl", &["genrsa", "-out", &path(KEY), "2048"])?;
        let etcd = programs.join("etcd").display().to_string();
        let args = ["--data-dir", &path("etcd"), "--log-level=warn"];
        let etcd = namespace.start(&etcd, &args, &dir.join("etcd.log"))?;
        let plane = Self {
            programs: programs.to_owned(),
            namespace,
            address,
            dir: dir.to_owned(),
            server: Mutex::default(),
            followers: Mutex::default(),
            _etcd: etcd,
        };
        plane.start_server()?;
        Ok(plane)
    }

    /// The certificate that it made for itself, and its key.
    pub(crate) fn identity(&self) -> [PathBuf; 2] {
        ["apiserver.crt", "apiserver.key"].map(|it| self.dir.join(it))
    }

    /// The file by which `admin`, `naru` or `controller` reaches the API server.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    /// Runs `kubectl` as the one who may do everything; gives what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.namespace
            .run(&self.program("kubectl"), &self.with_config(args))
    }

    /// `kubectl apply -f -` of these objects.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let args = self.with_config(&["apply", "-f", "-"]);
        self.namespace.feed(&self.program("kubectl"), &args, yaml)
    }

    /// Ends the API server at once; whoever asks is refused by the machine. The controllers and
    /// the scheduler end with it, as they do where they have lost their leases.
    pub fn stop_server(&self) {
        self.followers().clear();
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again, and them; returns when it answers.
    pub fn start_server(&self) -> Result<()> {
        self.serve()?;
        let config = self.kubeconfig("admin").display().to_string();
        let scheduler = ["--kubeconfig", &config, "--leader-elect=false"];
        let mut controllers = scheduler.to_vec();
        let (key, authority) = (self.path(KEY), self.path("apiserver.crt"));
        controllers.extend([
            "--service-account-private-key-file",
            &key,
            "--root-ca-file",
            &authority,
            "--node-monitor-period=1s",
            "--node-monitor-grace-period",
            SILENT,
            // An autoscaler that nobody needs to wait for.
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        ]);
        *self.followers() = vec![
            self.part("kube-controller-manager", &controllers)?,
            self.part("kube-scheduler", &scheduler)?,
        ];
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        let address = self.address.to_string();
        let (key, dir) = (self.path(KEY), self.path(""));
        let process = self.part(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address",
                &address,
                "--advertise-address",
                &address,
                "--secure-port",
                &PORT.to_string(),
                "--cert-dir",
                &dir,
                "--token-auth-file",
                &self.path("tokens.csv"),
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range",
                SERVICES,
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-signing-key-file",
                &key,
                "--service-account-key-file",
                &key,
                "--default-not-ready-toleration-seconds",
                TOLERATED,
                "--default-unreachable-toleration-seconds",
                TOLERATED,
                // It is on no network of the cluster's Services: it asks their endpoints.
                "--enable-aggregator-routing=true",
                // What it has in hand when it is asked to end is not waited for.
                "--shutdown-delay-duration=0s",
            ],
        )?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        let deadline = Instant::now() + START;
        loop {
            let ready = self.kubectl(&["get", "--raw=/readyz"]);
            match ready {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline || !self.is_serving() => {
                    let said = tail(&self.log("kube-apiserver"));
                    return Err(self.error(&format!("it is not ready: {error}\n{said}")));
                }
                Err(_) => sleep(Duration::from_millis(200)),
            }
        }
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Process>> {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_serving(&self) -> bool {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.as_mut().is_some_and(Process::is_running)
    }

    fn part(&self, name: &str, args: &[&str]) -> Result<Process> {
        self.namespace
            .start(&self.program(name), args, &self.log(name))
    }

    fn with_config(&self, args: &[&str]) -> Vec<String> {
        let config = self.kubeconfig("admin").display().to_string();
        let before = ["--kubeconfig".to_owned(), config];
        let args = args.iter().map(|&arg| arg.to_owned());
        before.into_iter().chain(args).collect()
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn error(&self, reason: &str) -> Error {
        Error::ControlPlane {
            machine: self.namespace.name().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Who may ask, and how.
fn write_identities(dir: &Path, address: Ipv4Addr) -> Result<()> {
    let authority = dir.join("apiserver.crt");
    let mut tokens = String::new();
    for (user, token, group) in USERS {
        // Writing to a string cannot fail.
        let _ = writeln!(tokens, "{token},{user},{user},{group}");
        let config = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters: [{{name: lab, cluster: {{server: 'https://{address}:{PORT}', \
             certificate-authority: {authority}}}}}]\n\
             users: [{{name: {user}, user: {{token: {token}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: {user}, namespace: \
             {namespace}}}}}]\n\
             current-context: lab\n",
            authority = authority.display(),
            namespace = if user == "admin" {
                "default"
            } else {
                "naru-system"
            },
        );
        private(&dir.join(format!("{user}.kubeconfig")), &config)?;
    }
    private(&dir.join("tokens.csv"), &tokens)
}

/// Writes a file that its owner alone may read.
fn private(path: &Path, text: &str) -> Result<()> {
    let failed = || Error::io(path.display().to_string());
    fs::write(path, text).map_err(failed())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed())
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
