//! A node's own objects: what it is, and that it is there.

use std::time::Duration;

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Shared, serve};
use crate::topology;

/// From one sign of life to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Who writes, as the objects name it.
const MANAGER: &str = "naru-lab-kubelet";

/// Registers the node, and goes on saying that it is there.
pub(super) async fn keep(shared: &Shared) {
    loop {
        match register(shared).await {
            Ok(()) => break,
            Err(error) => shared.tell(&format!("registering: {error}")),
        }
        sleep(PERIOD).await;
    }
    loop {
        if let Err(error) = live(shared).await {
            shared.tell(&format!("saying that it lives: {error}"));
        }
        sleep(PERIOD).await;
    }
}

async fn register(shared: &Shared) -> kube::Result<()> {
    let node = &shared.options.node;
    let api: Api<Node> = Api::all(shared.client.clone());
    let params = PatchParams::apply(MANAGER).force();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {
            "podCIDR": node.pod_net.to_string(),
            "podCIDRs": [node.pod_net.to_string()],
        },
    });
    api.patch(&node.name, &params, &Patch::Apply(object))
        .await?;
    let status = Patch::Apply(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "status": status(node),
    }));
    api.patch_status(&node.name, &params, &status).await?;
    live(shared).await
}

fn status(node: &topology::Node) -> Value {
    let room = json!({ "cpu": "8", "memory": "16Gi", "pods": "250" });
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, holds: bool, reason: &str| {
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": reason,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        })
    };
    json!({
        "addresses": [{ "type": "InternalIP", "address": node.address.to_string() }],
        "capacity": room,
        "allocatable": room,
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID"),
            condition("Ready", true, "KubeletReady"),
        ],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": serve::PORT } },
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "",
            "containerRuntimeVersion": "netns://1",
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": concat!("naru-lab-", env!("CARGO_PKG_VERSION")),
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "naru-lab",
            "systemUUID": "",
        },
    })
}

/// Renews its Lease, by which the node controller goes; and its condition, where that was taken
/// away meanwhile.
async fn live(shared: &Shared) -> kube::Result<()> {
    let name = &shared.options.node.name;
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), "kube-node-lease");
    let now = Timestamp::now();
    let lease = Patch::Apply(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": 10,
            "renewTime": format!("{now:.6}"),
        },
    }));
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &lease).await?;
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let node = nodes.get(name).await?;
    let conditions = node.status.and_then(|it| it.conditions).unwrap_or_default();
    let ready = conditions.iter().find(|it| it.type_ == "Ready");
    if ready.is_none_or(|it| it.status != "True") {
        let status = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "status": status(&shared.options.node),
        }));
        nodes.patch_status(name, &params, &status).await?;
    }
    Ok(())
}
