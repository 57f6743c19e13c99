//! The life of a pod: a place, a server that is started again where it ends, readiness, and an
//! end that gives it time.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Shared,
    image::{self, Server},
    place::Place,
    probe::Question,
    status::{self, Condition, State},
    view,
};
use crate::{
    error::{Error, Result},
    interrupt,
};

/// How often a pod that has not been ready yet is asked: sooner than a kubelet would, since what is
/// measured begins with its answer.
const EAGER: Duration = Duration::from_millis(50);
/// The pauses before a server that has ended is started again.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// What cannot be written is tried again after so long.
const AGAIN: Duration = Duration::from_millis(500);

/// A pod's.
pub(super) struct Life {
    shared: Arc<Shared>,
    pod: Pod,
    name: String,
    place: Option<Place>,
    now: Condition,
}

impl Life {
    pub(super) fn new(shared: &Arc<Shared>, pod: Pod) -> Self {
        Self {
            shared: Arc::clone(shared),
            name: pod.metadata.name.clone().unwrap_or_default(),
            pod,
            place: None,
            now: Condition {
                state: State::Waiting("ContainerCreating"),
                ready: false,
                restarts: 0,
            },
        }
    }

    /// Lives it, until `end` says how many seconds it may still take, and it has ended.
    pub(super) async fn run(mut self, mut end: watch::Receiver<Option<i64>>) {
        if let Err(error) = self.live(&mut end).await {
            self.shared.tell(&format!("pod {}: {error}", self.name));
            self.report(State::Waiting("CreateContainerError"), false)
                .await;
        }
        // Whatever it came to, its object stays until somebody wants it gone.
        let _ = end.wait_for(Option::is_some).await;
        if let Some(place) = self.place.take() {
            let shared = Arc::clone(&self.shared);
            // It says nothing, and is waited for in the end of the namespace's processes.
            let _ = spawn_blocking(move || shared.places.remove(&place)).await;
        }
        self.vanish().await;
    }

    /// Until it is to end, or has ended for good.
    async fn live(&mut self, end: &mut watch::Receiver<Option<i64>>) -> Result<()> {
        if end.borrow().is_some() {
            return Ok(());
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let Some(container) = spec.containers.first().cloned() else {
            return Ok(());
        };
        let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
        let made = spawn_blocking(move || shared.places.make(&name)).await;
        let place = made.map_err(|error| self.error(error))??;
        self.place = Some(place.clone());
        // What it mounts may be made after it.
        while let Err(error) = view::write(&self.shared, &self.pod, &place.view).await {
            self.shared.tell(&format!("pod {}: {error}", self.name));
            tokio::select! {
                () = sleep(AGAIN) => {}
                _ = end.wait_for(Option::is_some) => return Ok(()),
            }
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let mut server = self.server(&container, &place)?;
            let to = server.port.map(|it| SocketAddr::from((place.address, it)));
            let question = Question::new(&container, to);
            let (before_end, last) = (server.before_end, server.end);
            let ingresses = server.ingresses.take();
            let mut child = self.launch(server)?;
            let pid = child.id().unwrap_or_default();
            let labels = self.pod.metadata.labels.clone().unwrap_or_default();
            let roll = self.shared.options.roll.clone();
            roll.started(self.key(), labels, &container.name, pid);
            self.now.state = State::Running(Timestamp::now());
            let shared = Arc::clone(&self.shared);
            let keep = async {
                if let Some(ingresses) = ingresses {
                    let tell = |what: &str| shared.tell(what);
                    ingresses.keep(shared.client.clone(), pid, tell).await;
                }
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                ended = self.serve(&mut child, question) => Some(ended),
                _ = end.wait_for(Option::is_some) => None,
                () = keep => None,
            };
            let Some(ended) = ended else {
                finish(&mut child, end, before_end, last).await;
                roll.ended(&self.key());
                return Ok(());
            };
            roll.ended(&self.key());
            let code = ended
                .code()
                .unwrap_or(128 + ended.signal().unwrap_or_default());
            let again = match spec.restart_policy.as_deref() {
                Some("Never") => false,
                Some("OnFailure") => code != 0,
                _ => true,
            };
            if !again {
                self.report(State::Ended(code), false).await;
                return Ok(());
            }
            self.now.restarts += 1;
            self.report(State::Waiting("CrashLoopBackOff"), false).await;
            let pause = pauses.next().unwrap_or(PAUSES[PAUSES.len() - 1]);
            tokio::select! {
                () = sleep(pause) => {}
                _ = end.wait_for(Option::is_some) => return Ok(()),
            }
        }
    }

    /// Says whether it is ready, until its server ends.
    async fn serve(&mut self, child: &mut Child, question: Option<Question>) -> ExitStatus {
        let running = self.now.state.clone();
        let ready = async {
            self.report(running.clone(), question.is_none()).await;
            let Some(question) = question else {
                return std::future::pending().await;
            };
            sleep(question.delay).await;
            loop {
                let ready = question.ask().await;
                if ready != self.now.ready {
                    self.report(running.clone(), ready).await;
                }
                sleep(if ready { question.period } else { EAGER }).await;
            }
        };
        tokio::select! {
            ended = child.wait() => ended.unwrap_or_default(),
            () = ready => ExitStatus::default(),
        }
    }

    fn server(&self, container: &Container, place: &Place) -> Result<Server> {
        let options = &self.shared.options;
        image::server(options, &self.name, container, place, &self.base())
    }

    fn launch(&self, server: Server) -> Result<Child> {
        let _gate = interrupt::gate();
        let log = self.base().with_extension("log");
        let failed = || Error::io(log.display().to_string());
        let log_file = File::options().create(true).append(true).open(&log);
        let log_file = log_file.map_err(failed())?;
        let mut command = server.command;
        command
            .stdout(Stdio::from(log_file.try_clone().map_err(failed())?))
            .stderr(log_file)
            // Ctrl-C is for the lab, which ends its pods in order.
            .process_group(0);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let child = command.spawn().map_err(|error| self.error(error))?;
        if let Some(pid) = child.id() {
            self.shared.options.cgroup.take(pid)?;
        }
        Ok(child)
    }

    /// Where its files are.
    fn base(&self) -> PathBuf {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        base(&self.shared, namespace, &self.name)
    }

    /// Says how it is, until that is written.
    async fn report(&mut self, state: State, ready: bool) {
        self.now.state = state;
        self.now.ready = ready;
        let node = &self.shared.options.node;
        let status = status::of(&self.pod, node, self.place.as_ref(), &self.now);
        self.pod.status = Some(status.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        let api = self.api();
        loop {
            match api
                .patch_status(&self.name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => return self.shared.options.roll.told(&self.key(), ready),
                Err(kube::Error::Api(said)) if said.code == 404 => return,
                Err(error) => self.shared.tell(&format!("pod {}: {error}", self.name)),
            }
            sleep(AGAIN).await;
        }
    }

    /// Has its object go: it has ended.
    async fn vanish(&self) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        loop {
            match self.api().delete(&self.name, &params).await {
                Ok(_) => return,
                // Gone, or somebody else by the same name.
                Err(kube::Error::Api(said)) if matches!(said.code, 404 | 409) => return,
                Err(error) => self.shared.tell(&format!("pod {}: {error}", self.name)),
            }
            sleep(AGAIN).await;
        }
    }

    /// By which all kubelets know it.
    fn key(&self) -> (String, String) {
        let namespace = self.pod.metadata.namespace.clone();
        (namespace.unwrap_or_default(), self.name.clone())
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.shared.client.clone(), namespace)
    }

    fn error(&self, reason: impl ToString) -> Error {
        Error::Pod {
            pod: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Where the files of a pod are.
pub(super) fn base(shared: &Shared, namespace: &str, pod: &str) -> PathBuf {
    shared.options.dir.join(format!("{namespace}_{pod}"))
}

/// Ends a server within the grace that it is given, which may become less meanwhile.
async fn finish(
    child: &mut Child,
    grace: &mut watch::Receiver<Option<i64>>,
    before: Duration,
    last: Signal,
) {
    let began = Instant::now();
    let mut asked = false;
    loop {
        let seconds = grace.borrow_and_update().unwrap_or_default();
        let deadline = began + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let ask = (began + before).min(deadline);
        if !asked && Instant::now() >= ask {
            asked = true;
            if let Some(pid) = child.id().and_then(|it| i32::try_from(it).ok()) {
                // It has not been waited for, so the number is its own.
                let _ = kill(Pid::from_raw(pid), last);
            }
        }
        if asked && Instant::now() >= deadline {
            let _ = child.kill().await;
            return;
        }
        let next = if asked { deadline } else { ask };
        tokio::select! {
            ended = timeout_at(next, child.wait()) => if ended.is_ok() {
                return;
            },
            changed = grace.changed() => if changed.is_err() {
                let _ = child.kill().await;
                return;
            }
        }
    }
}
