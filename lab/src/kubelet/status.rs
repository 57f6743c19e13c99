//! What a kubelet writes into a Pod's status.

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::place::Place;
use crate::topology::Node;

/// How a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) state: State,
    pub(super) ready: bool,
    pub(super) restarts: i32,
}

/// What its container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs, since then.
    Running(Timestamp),
    /// It is to be started again, for this reason.
    Waiting(&'static str),
    /// It has ended for good, with this exit code.
    Ended(i32),
}

/// The status of a pod that is so.
pub(super) fn of(pod: &Pod, node: &Node, place: Option<&Place>, now: &Condition) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let at = Time(Timestamp::now());
    let conditions = before.conditions.clone().unwrap_or_default();
    let condition = |kind: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        let same = |it: &&PodCondition| it.type_ == kind && it.status == status;
        let since = conditions.iter().find(same);
        let since = since.and_then(|it| it.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: since.or_else(|| Some(at.clone())),
            ..PodCondition::default()
        }
    };
    let mut kept: Vec<PodCondition> = conditions
        .iter()
        .filter(|it| it.type_ == "PodScheduled")
        .cloned()
        .collect();
    kept.extend([
        condition("PodReadyToStartContainers", place.is_some()),
        condition("Initialized", true),
        condition("ContainersReady", now.ready),
        condition("Ready", now.ready),
    ]);
    let containers = pod.spec.iter().flat_map(|it| &it.containers);
    let containers = containers.map(|it| ContainerStatus {
        name: it.name.clone(),
        image: it.image.clone().unwrap_or_default(),
        image_id: it.image.clone().unwrap_or_default(),
        ready: now.ready,
        started: Some(matches!(now.state, State::Running(_))),
        restart_count: now.restarts,
        state: Some(state(&now.state, &at)),
        ..ContainerStatus::default()
    });
    let address = place.map(|it| it.address.to_string());
    let host = node.address.to_string();
    PodStatus {
        phase: Some(phase(&now.state).to_owned()),
        conditions: Some(kept),
        container_statuses: Some(containers.collect()),
        start_time: before.start_time.clone().or(Some(at)),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        host_ips: Some(vec![HostIP { ip: host.clone() }]),
        host_ip: Some(host),
        ..before
    }
}

fn phase(state: &State) -> &'static str {
    match state {
        State::Running(_) | State::Waiting("CrashLoopBackOff") => "Running",
        State::Waiting(_) => "Pending",
        State::Ended(0) => "Succeeded",
        State::Ended(_) => "Failed",
    }
}

fn state(state: &State, at: &Time) -> ContainerState {
    let mut all = ContainerState::default();
    match state {
        State::Running(since) => {
            all.running = Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            });
        }
        State::Waiting(reason) => {
            all.waiting = Some(ContainerStateWaiting {
                reason: Some((*reason).to_owned()),
                ..ContainerStateWaiting::default()
            });
        }
        State::Ended(code) => {
            all.terminated = Some(ContainerStateTerminated {
                exit_code: *code,
                finished_at: Some(at.clone()),
                reason: Some(if *code == 0 { "Completed" } else { "Error" }.to_owned()),
                ..ContainerStateTerminated::default()
            });
        }
    }
    all
}
