//! When EndpointSlices say that pods are ready: what a balancer can know soonest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use super::Kube;
use crate::{
    error::{Error, Result},
    kubelet,
};

/// By the names of pods.
type Times = Arc<Mutex<BTreeMap<String, Instant>>>;

/// Follows all EndpointSlices until it is dropped.
#[derive(Debug)]
pub struct EndpointWatch {
    ready: Times,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl EndpointWatch {
    pub(super) fn start(kube: &Kube) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let ready = Times::default();
        let (times, config) = (Arc::clone(&ready), kube.plane.kubeconfig("admin"));
        let machine = kube.lab.topology().nodes[0].name.clone();
        let namespace = kube.lab.node(&machine).clone();
        let thread = namespace.spawn(move || {
            let wrong = |reason: String| Error::ControlPlane { machine, reason };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::io("following EndpointSlices"))?;
            runtime.block_on(async {
                let client = kubelet::client(&config).await;
                let client = client.map_err(|error| wrong(error.to_string()))?;
                tokio::select! {
                    () = follow(Api::all(client), &times) => {}
                    _ = stopped.wait_for(|it| *it) => {}
                }
                Ok(())
            })
        });
        Self {
            ready,
            stop,
            thread: Some(thread),
        }
    }

    /// When an EndpointSlice was first seen to say that a pod is ready.
    pub fn ready_since(&self, pod: &str) -> Option<Instant> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(pod).copied()
    }
}

impl Drop for EndpointWatch {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(Err(error)) | Err(error))) => eprintln!("{error}"),
            Some(Err(_)) => eprintln!("the thread that followed EndpointSlices has panicked"),
            Some(Ok(Ok(Ok(())))) | None => {}
        }
    }
}

async fn follow(api: Api<EndpointSlice>, ready: &Times) {
    let config = watcher::Config::default().timeout(20);
    let slices = watcher(api, config).default_backoff().applied_objects();
    let mut slices = slices.boxed();
    while let Some(slice) = slices.next().await {
        let now = Instant::now();
        // What goes wrong it tries again by itself.
        let endpoints = slice
            .into_iter()
            .flat_map(|it| it.endpoints.into_iter().flatten());
        let pods = endpoints.filter_map(|it| {
            let is_ready = it.conditions?.ready?;
            is_ready.then_some(it.target_ref?.name?)
        });
        let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
        for pod in pods {
            ready.entry(pod).or_insert(now);
        }
    }
}
