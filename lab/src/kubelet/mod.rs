//! A small kubelet: runs the Pods that a control plane puts on a node of the lab, each in a network
//! namespace of its own, with a real server in it.
//!
//! Enough for `kubectl create`, `scale`, `expose`, `rollout`, `delete`, `get` and `logs` to work
//! unmodified, and for a cluster's DNS, an ingress controller, a database and autoscaling. What a
//! kubelet does that nobody of the lab asks for (images, exec, liveness) it does not do.

mod image;
mod life;
mod node;
mod place;
mod probe;
mod roll;
mod serve;
mod status;
pub(crate) mod view;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

pub use self::roll::Roll;
use self::{life::Life, place::Places};
pub(crate) use self::{roll::API as METRICS_API, serve::PORT};
use crate::{
    cgroup::Cgroup,
    error::{Error, Result},
    netns::NetNs,
    topology::Node,
};

/// What a kubelet is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Its node.
    pub(crate) node: Node,
    /// The node's namespace.
    pub(crate) namespace: NetNs,
    /// Where the node's processes are.
    pub(crate) cgroup: Cgroup,
    /// What names of pods' namespaces begin with.
    pub(crate) prefix: String,
    /// Where pods' files are.
    pub(crate) dir: PathBuf,
    /// The `naru-lab` that pods run.
    pub(crate) program: PathBuf,
    /// Where `coredns` is.
    pub(crate) control_plane: PathBuf,
    /// Where pods ask for names.
    pub(crate) dns: Ipv4Addr,
    /// Where pods reach the API server: its Service's cluster IP.
    pub(crate) api_server: Ipv4Addr,
    /// What all kubelets know.
    pub(crate) roll: Roll,
    /// How to reach the API server.
    pub(crate) kubeconfig: PathBuf,
    /// A certificate and its key: the API server asks by TLS, of whomever.
    pub(crate) identity: [PathBuf; 2],
}

/// A running kubelet. Dropping it ends it with its pods at once, as a power cut would.
#[derive(Debug)]
pub struct Kubelet {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

/// What all its tasks share.
struct Shared {
    options: Options,
    client: Client,
    places: Places,
    /// The pods that there are, by their uid, and how to tell one that it is to end.
    lives: Mutex<BTreeMap<String, watch::Sender<Option<i64>>>>,
}

impl Kubelet {
    pub(crate) fn start(options: Options) -> Self {
        let (stop, stopped) = watch::channel(false);
        let namespace = options.namespace.clone();
        // Its sockets are those of the node.
        let thread = namespace.spawn(move || {
            let failed = Error::io(format!("kubelet of {}", options.node.name));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(failed)?;
            runtime.block_on(tokio::task::LocalSet::new().run_until(run(options, stopped)))
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            None => Ok(()),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<()> {
    let client = client(&options.kubeconfig).await;
    let client = client.map_err(|error| wrong(&options, error))?;
    let shared = Arc::new(Shared {
        places: Places::new(&options),
        options,
        client,
        lives: Mutex::default(),
    });
    let server = serve::listen(Arc::clone(&shared)).await;
    let server = server.map_err(|error| wrong(&shared.options, error))?;
    let work = async {
        tokio::join!(server, node::keep(&shared), follow(&shared));
    };
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|it| *it) => {}
    }
    // Its tasks end with the runtime, and what they have started with them.
    shared.places.clear();
    Ok(())
}

/// A client by a kubeconfig.
pub(crate) async fn client(
    kubeconfig: &Path,
) -> std::result::Result<Client, Box<dyn std::error::Error>> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Has every Pod of the node live its life.
async fn follow(shared: &Arc<Shared>) {
    let api: Api<Pod> = Api::all(shared.client.clone());
    let ours = format!("spec.nodeName={}", shared.options.node.name);
    let config = watcher::Config::default().fields(&ours).timeout(20);
    let pods = watcher(api, config).default_backoff().applied_objects();
    let mut pods = pods.boxed();
    while let Some(pod) = pods.next().await {
        match pod {
            Ok(pod) => shared.take(pod),
            // It goes on by itself.
            Err(error) => shared.tell(&format!("following pods: {error}")),
        }
    }
}

impl Shared {
    /// Begins a life, or tells one that it ends.
    fn take(self: &Arc<Self>, pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
            let grace = pod.metadata.deletion_grace_period_seconds;
            grace.unwrap_or_default()
        });
        let mut lives = self.lives();
        if let Some(end) = lives.get(&uid) {
            end.send_if_modified(|it| {
                let news = grace.is_some() && *it != grace;
                *it = grace.or(*it);
                news
            });
            return;
        }
        let over = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        if matches!(over, Some("Succeeded" | "Failed")) && grace.is_none() {
            return;
        }
        let (end, ended) = watch::channel(grace);
        lives.insert(uid.clone(), end);
        let shared = Arc::clone(self);
        tokio::task::spawn_local(async move {
            Life::new(&shared, pod).run(ended).await;
            shared.lives().remove(&uid);
        });
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<Option<i64>>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the kubelet's log.
    fn tell(&self, what: &str) {
        use std::io::Write;
        let log = self.options.dir.join("kubelet.log");
        let file = std::fs::File::options().create(true).append(true).open(log);
        // What cannot be logged is not worth more.
        let _ = file.and_then(|mut file| writeln!(file, "{what}"));
    }
}

fn wrong(options: &Options, error: impl std::fmt::Display) -> Error {
    Error::ControlPlane {
        machine: options.node.name.clone(),
        reason: format!("kubelet: {error}"),
    }
}
