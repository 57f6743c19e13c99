//! Objects that are written many at a time, or whose time counts: `kubectl` takes a tenth of a
//! second for itself.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::Value;

use super::Kube;
use crate::{
    error::{Error, Result},
    kubelet,
};

/// So many at a time.
const AT_ONCE: usize = 16;
/// Who writes, as the objects name it.
const MANAGER: &str = "naru-lab";

impl Kube {
    /// Has the API server apply these objects; gives when it had taken each.
    ///
    /// # Errors
    /// Where it refuses one, or one has no kind, name or namespace.
    pub fn write(&self, objects: &[Value]) -> Result<Vec<Instant>> {
        let machine = &self.lab.topology().nodes[0].name;
        let wrong = |reason: String| Error::ControlPlane {
            machine: machine.clone(),
            reason,
        };
        let config = self.plane.kubeconfig("admin");
        let work = || -> Result<Vec<Instant>> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::io("writing objects"))?;
            runtime.block_on(async {
                let client = kubelet::client(&config).await;
                let client = client.map_err(|error| wrong(error.to_string()))?;
                let writing = objects.iter().map(|it| one(client.clone(), it));
                stream::iter(writing)
                    .buffered(AT_ONCE)
                    .try_collect()
                    .await
                    .map_err(wrong)
            })
        };
        self.lab.node(machine).enter(work)?
    }
}

async fn one(client: Client, object: &Value) -> Result<Instant, String> {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str);
    let missing = || format!("an object without kind, name or namespace: {object}");
    let version = text("/apiVersion").ok_or_else(missing)?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let kind = text("/kind").ok_or_else(missing)?;
    let name = text("/metadata/name").ok_or_else(missing)?;
    let namespace = text("/metadata/namespace").ok_or_else(missing)?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    let params = PatchParams::apply(MANAGER).force();
    let taken = api.patch(name, &params, &Patch::Apply(object)).await;
    taken.map_err(|error| format!("{kind} {namespace}/{name}: {error}"))?;
    Ok(Instant::now())
}
