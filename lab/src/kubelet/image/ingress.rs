//! An ingress controller as a pod: nginx, configured by what Ingress objects ask for.
//!
//! Hosts, paths, TLS, and plain TCP by the ConfigMap that `--tcp-services-configmap` names, as
//! ingress-nginx has it. Requests go to the cluster IP of the Service that an Ingress names, as
//! with its `service-upstream`: they are balanced once more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ConfigMap, Secret, Service},
        networking::v1::{HTTPIngressPath, Ingress, IngressServiceBackend},
    },
};
use kube::{Api, Client, api::ListParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

use crate::{
    error::{Error, Result},
    nginx,
};

/// How its image's name ends.
pub(super) const IMAGE: &str = "ingress-nginx/controller";
/// The argument that names a ConfigMap, `namespace/name`.
const TCP: &str = "--tcp-services-configmap=";
/// How often the objects are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Where Debian has the module for plain TCP.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The configuration of one controller.
#[derive(Debug)]
pub(in crate::kubelet) struct Ingresses {
    base: PathBuf,
    /// The ConfigMap of plain TCP, by its namespace and name.
    tcp: Option<(String, String)>,
    written: String,
}

/// All that a configuration is made of.
#[derive(Default)]
struct Wanted {
    /// Locations by host; none: any.
    hosts: BTreeMap<Option<String>, Vec<String>>,
    /// The certificate's file of each host that has one.
    certificates: BTreeMap<String, PathBuf>,
    /// Where plain TCP goes, by port.
    tcp: BTreeMap<u16, String>,
}

impl Ingresses {
    /// One that serves nothing yet, and the file of its configuration.
    pub(super) fn new(base: &Path, args: Option<&[String]>) -> Result<(Self, PathBuf)> {
        let mut args = args.unwrap_or_default().iter();
        let named = args.find_map(|it| it.strip_prefix(TCP));
        let named = named.and_then(|it| it.split_once('/'));
        let mut new = Self {
            base: base.to_owned(),
            tcp: named.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            written: String::new(),
        };
        let config = base.with_extension("conf");
        new.write(&Wanted::default())?;
        Ok((new, config))
    }

    /// Keeps the configuration of a running nginx in step with the objects; `tell` is told what
    /// goes wrong.
    pub(in crate::kubelet) async fn keep(mut self, client: Client, pid: u32, tell: impl Fn(&str)) {
        loop {
            let written = match self.read(&client).await {
                Ok(wanted) => self.write(&wanted).map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match written {
                Ok(true) => reload(pid, &tell),
                Ok(false) => {}
                Err(error) => tell(&format!("ingress controller: {error}")),
            }
            sleep(LOOK).await;
        }
    }

    async fn read(&self, client: &Client) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        let api: Api<Ingress> = Api::all(client.clone());
        let all = api.list(&ListParams::default()).await.map_err(text)?;
        for ingress in all {
            let namespace = ingress.metadata.namespace.unwrap_or_default();
            let spec = ingress.spec.unwrap_or_default();
            for tls in spec.tls.iter().flatten() {
                let secret = tls.secret_name.as_deref().unwrap_or_default();
                let file = self.certificate(client, &namespace, secret).await?;
                let hosts = tls.hosts.iter().flatten().cloned();
                wanted
                    .certificates
                    .extend(hosts.map(|it| (it, file.clone())));
            }
            for rule in spec.rules.into_iter().flatten() {
                let locations = wanted.hosts.entry(rule.host).or_default();
                for path in rule.http.into_iter().flat_map(|it| it.paths) {
                    let Some(of) = &path.backend.service else {
                        continue;
                    };
                    let backend = backend(client, &namespace, of).await?;
                    locations.extend(location(&path, &backend));
                }
            }
        }
        if let Some((namespace, name)) = &self.tcp {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let found = api.get_opt(name).await.map_err(text)?;
            for (port, of) in found.and_then(|it| it.data).unwrap_or_default() {
                let port = port.parse().map_err(|_| format!("{TCP}: port {port}"))?;
                wanted.tcp.insert(port, stream(client, &of).await?);
            }
        }
        Ok(wanted)
    }

    /// Writes a certificate with its key into one file, as nginx may have it.
    async fn certificate(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf, String> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = api.get(name).await.map_err(text)?;
        let data = secret.data.unwrap_or_default();
        let mut both = Vec::new();
        for key in ["tls.crt", "tls.key"] {
            let ByteString(pem) = data
                .get(key)
                .ok_or_else(|| format!("Secret {namespace}/{name} has no {key}"))?;
            both.extend_from_slice(pem);
        }
        let file = self.base.with_extension(format!("{namespace}.{name}.pem"));
        fs::write(&file, both).map_err(text)?;
        Ok(file)
    }

    /// Writes it where it is another one; says whether it was.
    fn write(&mut self, wanted: &Wanted) -> Result<bool> {
        let text = self.render(wanted);
        if text == self.written {
            return Ok(false);
        }
        let file = self.base.with_extension("conf");
        fs::write(&file, &text).map_err(Error::io(file.display().to_string()))?;
        self.written = text;
        Ok(true)
    }

    fn render(&self, wanted: &Wanted) -> String {
        let mut servers = String::new();
        let any = wanted.hosts.get(&None).map_or(&[][..], Vec::as_slice);
        if !wanted.hosts.is_empty() {
            let certificate = wanted.certificates.values().next();
            servers += &server("default_server", "_", any, certificate);
        }
        for (host, locations) in &wanted.hosts {
            if let Some(host) = host {
                servers += &server("", host, locations, wanted.certificates.get(host));
            }
        }
        let mut streams = String::new();
        for (port, backend) in &wanted.tcp {
            // Writing to a string cannot fail.
            let _ = writeln!(
                streams,
                "    server {{ listen {port}; proxy_pass {backend}; proxy_timeout 1h; }}"
            );
        }
        format!(
            "load_module {STREAM};
daemon off;
user root;
worker_processes 1;
pid {base}.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
{http}    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
{servers}}}
stream {{
{streams}}}
",
            base = self.base.display(),
            http = nginx::http(&self.base, true),
        )
    }
}

/// A server for a host. Where it has a certificate, whoever comes without TLS is sent to it.
fn server(default: &str, name: &str, locations: &[String], secured: Option<&PathBuf>) -> String {
    let mut locations: String = locations.concat();
    if !locations.contains("location / {") {
        locations += "        location / { return 404; }\n";
    }
    let plain = match (secured, default) {
        (Some(_), "") => "        return 308 https://$host$request_uri;\n",
        _ => &locations,
    };
    let mut text = format!(
        "    server {{\n        listen 80 {default};\n        server_name {name};\n{plain}    }}\n"
    );
    if let Some(file) = secured {
        let file = file.display();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "    server {{\n        listen 443 ssl {default};\n        server_name {name};\n        \
             ssl_certificate {file};\n        ssl_certificate_key {file};\n{locations}    }}\n"
        );
    }
    text
}

/// The locations of a path: a prefix is one of whole elements.
fn location(path: &HTTPIngressPath, backend: &str) -> Vec<String> {
    let wanted = path.path.as_deref().unwrap_or("/");
    let to = |at: String| format!("        location {at} {{ proxy_pass http://{backend}; }}\n");
    let whole = wanted.trim_end_matches('/');
    match (path.path_type.as_str(), whole) {
        ("Exact", _) => vec![to(format!("= {wanted}"))],
        (_, "") => vec![to("/".to_owned())],
        _ => vec![to(format!("= {whole}")), to(format!("{whole}/"))],
    }
}

/// The cluster IP and port of a Service that an Ingress names.
async fn backend(
    client: &Client,
    namespace: &str,
    of: &IngressServiceBackend,
) -> Result<String, String> {
    let port = of.port.clone().unwrap_or_default();
    let spec = spec(client, namespace, &of.name).await?;
    let named = || {
        let ports = spec.1.iter();
        ports.filter(|it| it.0 == port.name).map(|it| it.1).next()
    };
    let number = port.number.or_else(named);
    let number =
        number.ok_or_else(|| format!("Service {namespace}/{} has no such port", of.name))?;
    Ok(format!("{}:{number}", spec.0))
}

/// The same of `namespace/name:port`.
async fn stream(client: &Client, of: &str) -> Result<String, String> {
    let wrong = || format!("{of:?} is no namespace/service:port");
    let (service, port) = of.split_once(':').ok_or_else(wrong)?;
    let (namespace, name) = service.split_once('/').ok_or_else(wrong)?;
    let (address, _) = spec(client, namespace, name).await?;
    Ok(format!("{address}:{port}"))
}

/// The cluster IP of a Service, and its ports by name.
async fn spec(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<(String, BTreeSet<(Option<String>, i32)>), String> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = api.get(name).await.map_err(text)?;
    let spec = service.spec.unwrap_or_default();
    let ports = spec.ports.into_iter().flatten();
    let ports = ports.map(|it| (it.name, it.port)).collect();
    Ok((spec.cluster_ip.unwrap_or_default(), ports))
}

fn reload(pid: u32, tell: &impl Fn(&str)) {
    let pid = i32::try_from(pid).unwrap_or_default();
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGHUP) {
        tell(&format!("ingress controller: {}", io::Error::from(error)));
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
