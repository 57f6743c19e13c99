//! What a pod sees of files: the machine's, with its volumes and its resolv.conf laid over them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{
            ConfigMap, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
            Volume, VolumeProjection,
        },
    },
};
use kube::{Api, api::PostParams};

use super::Shared;
use crate::{
    error::{Error, Result},
    netns::NetNs,
    ownership,
};

/// How long a token of a pod's is good: a lab does not live longer, and nobody renews it.
const TOKEN: i64 = 24 * 3600;
/// Lays the files over the machine's for one command and those that it starts: `$1` is where they
/// are, `$2` where the lab's own files are, which stay. What is in /etc is seen with the rest of the
/// machine's; /run is the pod's alone.
const SCRIPT: &str = r#"
mount -t overlay -o "ro,lowerdir=$1/etc:/etc" lab /etc
mkdir -p "$1/run${2#/run}"
mount --bind "$2" "$1/run${2#/run}"
mount --rbind "$1/run" /run
shift 2
exec "$@""#;

/// Files by their names.
type Files = BTreeMap<String, Vec<u8>>;

/// Where the files of a pod's view are, of a kubelet with its files in `dir`.
pub(crate) fn of(dir: &Path, pod: &str) -> PathBuf {
    dir.join(format!("{pod}.view"))
}

/// A command in a namespace that sees the files that are in this directory.
pub(crate) fn command(namespace: &NetNs, view: &Path, program: &str) -> Command {
    let mut command = namespace.command("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", SCRIPT])
        .arg("sh")
        .arg(view)
        .args([ownership::RUN, program]);
    command
}

/// Writes the files of a pod into a directory. Its volumes may be ConfigMaps, Secrets, and what the
/// API server adds for a service account; they are mounted below /etc and /run.
pub(super) async fn write(shared: &Shared, pod: &Pod, view: &Path) -> Result<()> {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for root in ["etc", "run"] {
        let dir = view.join(root);
        fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
    }
    if spec.dns_policy.as_deref() != Some("Default") {
        let text = format!(
            "nameserver {}\n\
             search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
             options ndots:5\n",
            shared.options.dns
        );
        put(&view.join("etc/resolv.conf"), text.as_bytes())?;
    }
    let volumes = Volumes { shared, namespace };
    for container in &spec.containers {
        for mount in container.volume_mounts.iter().flatten() {
            let path = below(view, &mount.mount_path)?;
            let mut all = spec.volumes.iter().flatten();
            let Some(volume) = all.find(|it| it.name == mount.name) else {
                continue;
            };
            let account = spec.service_account_name.as_deref().unwrap_or("default");
            for (name, content) in volumes.read(volume, account).await? {
                put(&path.join(name), &content)?;
            }
        }
    }
    Ok(())
}

/// Where in a view something is that is mounted there.
fn below(view: &Path, mounted: &str) -> Result<PathBuf> {
    let path = mounted.trim_start_matches('/');
    let path = path.strip_prefix("var/run/").map_or_else(
        || path.to_owned(),
        // It is the same on every machine of today.
        |rest| format!("run/{rest}"),
    );
    match path.starts_with("etc/") || path.starts_with("run/") {
        true => Ok(view.join(path)),
        false => Err(Error::Topology(format!(
            "a volume is mounted at {mounted}: pods of the lab have them below /etc and /run"
        ))),
    }
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    let failed = || Error::io(path.display().to_string());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed())?;
    }
    fs::write(path, content).map_err(failed())
}

/// The volumes of one namespace's pods.
struct Volumes<'a> {
    shared: &'a Shared,
    namespace: &'a str,
}

impl Volumes<'_> {
    async fn read(&self, volume: &Volume, account: &str) -> Result<Files> {
        if let Some(of) = &volume.config_map {
            return Ok(picked(
                self.config_map(&of.name).await?,
                of.items.as_deref(),
            ));
        }
        if let Some(of) = &volume.secret {
            let name = of.secret_name.as_deref().unwrap_or_default();
            return Ok(picked(self.secret(name).await?, of.items.as_deref()));
        }
        let mut all = Files::new();
        let projected = volume.projected.iter();
        for source in projected.flat_map(|it| it.sources.iter().flatten()) {
            all.extend(self.projected(source, account).await?);
        }
        // What else there may be (emptyDir, …) has nothing in it.
        Ok(all)
    }

    async fn projected(&self, source: &VolumeProjection, account: &str) -> Result<Files> {
        if let Some(of) = &source.service_account_token {
            return self.token(of, account).await;
        }
        if let Some(of) = &source.config_map {
            return Ok(picked(
                self.config_map(&of.name).await?,
                of.items.as_deref(),
            ));
        }
        if let Some(of) = &source.secret {
            return Ok(picked(self.secret(&of.name).await?, of.items.as_deref()));
        }
        // All that the API server has told here is the pod's namespace.
        let fields = source.downward_api.iter();
        let fields = fields.flat_map(|it| it.items.iter().flatten());
        let namespace = self.namespace.as_bytes().to_vec();
        Ok(fields
            .map(|it| (it.path.clone(), namespace.clone()))
            .collect())
    }

    async fn config_map(&self, name: &str) -> Result<Files> {
        let api: Api<ConfigMap> = self.api();
        let found = api.get(name).await;
        let found = found.map_err(|error| self.error("ConfigMap", name, error))?;
        let data = found.data.unwrap_or_default();
        Ok(data
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes()))
            .collect())
    }

    async fn secret(&self, name: &str) -> Result<Files> {
        let api: Api<Secret> = self.api();
        let found = api.get(name).await;
        let found = found.map_err(|error| self.error("Secret", name, error))?;
        let data = found.data.unwrap_or_default();
        Ok(data
            .into_iter()
            .map(|(key, ByteString(content))| (key, content))
            .collect())
    }

    async fn token(&self, of: &ServiceAccountTokenProjection, account: &str) -> Result<Files> {
        let api: Api<ServiceAccount> = self.api();
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(of.audience.iter().cloned().collect()),
                expiration_seconds: Some(TOKEN),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let asked = api
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        let asked = asked.map_err(|error| self.error("a token of", account, error))?;
        let token = asked.status.and_then(|it| it.token).unwrap_or_default();
        Ok([(of.path.clone(), token.into_bytes())].into())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.shared.client.clone(), self.namespace)
    }

    fn error(&self, kind: &str, name: &str, error: kube::Error) -> Error {
        Error::ControlPlane {
            machine: self.shared.options.node.name.clone(),
            reason: format!("{kind} {}/{name}: {error}", self.namespace),
        }
    }
}

/// Those that are asked for, by the names that they are to have; all where none is.
fn picked(mut files: Files, items: Option<&[KeyToPath]>) -> Files {
    let Some(items) = items else {
        return files;
    };
    let picked = items
        .iter()
        .filter_map(|it| Some((it.path.clone(), files.remove(&it.key)?)));
    picked.collect()
}
