//! What the lab runs for an image, by its name.
//!
//! | image | server |
//! |---|---|
//! | `nginx` | nginx, which answers with the pod's name |
//! | `ingress-nginx/controller` | nginx, configured by what Ingress objects ask for |
//! | `postgres` | PostgreSQL |
//! | `coredns` | CoreDNS |
//! | `failing` | a program that ends with an error at once |
//! | `slow` | as any other, five seconds after it was started |
//! | `hpa-example` | as any other, with some milliseconds of work for each request |
//! | any other | HTTP and UDP that answer with the pod's name; its address where it ends in `-ip` |
//!
//! A container that says what to run runs that, as a program of the machine.

mod ingress;
mod postgres;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::Signal;

pub(super) use self::ingress::Ingresses;
use super::{Options, place::Place, view};
use crate::{error::Result, nginx};

/// A container as it is run.
pub(super) struct Server {
    pub(super) command: Command,
    /// Where it serves; none: nowhere.
    pub(super) port: Option<u16>,
    /// What asks it to end.
    pub(super) end: Signal,
    /// How long it is left alone before that, since it takes no connection any more from then on:
    /// what a preStop hook of a second does elsewhere.
    pub(super) before_end: Duration,
    /// What it is to be configured by while it runs.
    pub(super) ingresses: Option<Ingresses>,
}

/// How long the server of `slow` takes to start, in seconds.
const SLOW: u32 = 5;
/// The work of `hpa-example` for a request, in milliseconds.
const WORK: u32 = 2;
/// Longer than anything needs to hear that a pod ends.
const LAME: Duration = Duration::from_secs(2);

impl Server {
    /// One that goes on for a while by itself when it is asked to end.
    fn new(command: Command, port: Option<u16>) -> Self {
        Self {
            command,
            port,
            end: Signal::SIGTERM,
            before_end: Duration::ZERO,
            ingresses: None,
        }
    }

    /// nginx with this configuration.
    fn nginx(mut command: Command, config: &Path, port: u16) -> Self {
        command.args(["-e", "stderr", "-c"]).arg(config);
        Self {
            // Which lets requests finish.
            end: Signal::SIGQUIT,
            before_end: LAME,
            ..Self::new(command, Some(port))
        }
    }
}

/// An image's name without its registry, and its tag.
fn parts(image: &str) -> (&str, &str) {
    let image = image.split('@').next().unwrap_or(image);
    let (path, tag) = match image.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (image, "latest"),
    };
    let last = path.rsplit('/').next().unwrap_or(path);
    match path.ends_with(ingress::IMAGE) {
        true => (ingress::IMAGE, tag),
        false => (last, tag),
    }
}

/// The server of a container in its place; its files begin with `base`.
pub(super) fn server(
    options: &Options,
    pod: &str,
    container: &Container,
    place: &Place,
    base: &Path,
) -> Result<Server> {
    let (name, tag) = parts(container.image.as_deref().unwrap_or_default());
    let ports = container.ports.iter().flatten();
    let declared = ports.map(|it| it.container_port).next();
    let declared = declared.and_then(|it| u16::try_from(it).ok());
    let inside = |program: &str| view::command(&place.namespace, &place.view, program);
    let mut server = match (container.command.as_deref(), name) {
        (Some([program, rest @ ..]), _) => {
            let mut command = inside(program);
            command.args(rest).args(container.args.iter().flatten());
            Server::new(command, declared)
        }
        (_, "failing") => Server::new(inside("false"), None),
        (_, "nginx") => {
            let port = declared.unwrap_or(80);
            let config = base.with_extension("conf");
            nginx::write(&config, pod, &format!("{}:{port}", place.address), true)?;
            Server::nginx(inside("nginx"), &config, port)
        }
        (_, ingress::IMAGE) => {
            let (ingresses, config) = Ingresses::new(base, container.args.as_deref())?;
            Server {
                ingresses: Some(ingresses),
                ..Server::nginx(inside("nginx"), &config, declared.unwrap_or(80))
            }
        }
        (_, "postgres") => {
            let port = declared.unwrap_or(5432);
            let command = postgres::command(inside, place.address, port, base)?;
            Server {
                // It ends sessions rather than waiting for them.
                end: Signal::SIGINT,
                ..Server::new(command, Some(port))
            }
        }
        (_, "coredns") => {
            let program = options.control_plane.join("coredns");
            let mut command = inside(&program.display().to_string());
            command.args(container.args.iter().flatten());
            Server::new(command, declared.or(Some(53)))
        }
        _ => {
            let port = declared.unwrap_or(8080);
            let called = match name.ends_with("-ip") {
                true => place.address.to_string(),
                false => pod.to_owned(),
            };
            let program = options.program.display().to_string();
            let mut command = match name {
                "slow" => {
                    let mut command = inside("sh");
                    let line = format!("sleep {SLOW}; exec \"$0\" \"$@\"");
                    command.args(["-c", &line]).arg(&program);
                    command
                }
                _ => inside(&program),
            };
            let listen = format!("{}:{port}", place.address);
            command.args(["pod", "--log", "--name", &called]);
            command.args(["--version", tag, "--listen", &listen]);
            if name == "hpa-example" {
                command.args(["--work-ms", &WORK.to_string()]);
            }
            Server::new(command, Some(port))
        }
    };
    let variables = container.env.iter().flatten();
    server
        .command
        .envs(variables.filter_map(|it| Some((&it.name, it.value.as_ref()?))))
        .env("HOSTNAME", pod)
        .env("KUBERNETES_SERVICE_HOST", options.api_server.to_string())
        .env("KUBERNETES_SERVICE_PORT", "443")
        .stdin(Stdio::null());
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_by_the_end_of_its_name() {
        assert_eq!(parts("nginx"), ("nginx", "latest"));
        assert_eq!(parts("docker.io/library/nginx:1.27"), ("nginx", "1.27"));
        assert_eq!(
            parts("localhost:5000/nest-server"),
            ("nest-server", "latest")
        );
        let controller = "registry.k8s.io/ingress-nginx/controller:v1.12.0@sha256:00";
        assert_eq!(parts(controller), ("ingress-nginx/controller", "v1.12.0"));
    }
}
