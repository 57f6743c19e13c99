//! What the lab runs for an image, by its name.
//!
//! | image | server |
//! |---|---|
//! | `nginx` | nginx, which answers with the pod's name |
//! | `failing` | a program that ends with an error at once |
//! | `slow` | as any other, five seconds after it was started |
//! | any other | HTTP and UDP that answer with the pod's name; its address where it ends in `-ip` |
//!
//! A container that says what to run runs that, as a program of the machine.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::Signal;

use super::{Options, place::Place};
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
}

/// How long the server of `slow` takes to start, in seconds.
const SLOW: u32 = 5;
/// Longer than anything needs to hear that a pod ends.
const LAME: Duration = Duration::from_secs(2);

/// The last part of an image's name, and its tag.
fn parts(image: &str) -> (&str, &str) {
    let last = image.rsplit('/').next().unwrap_or(image);
    let last = last.split('@').next().unwrap_or(last);
    last.split_once(':').unwrap_or((last, "latest"))
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
    let inside = |program: &str| place.namespace.command(program);
    let mut server = match (container.command.as_deref(), name) {
        (Some([program, rest @ ..]), _) => {
            let mut command = inside(program);
            command.args(rest).args(container.args.iter().flatten());
            Server {
                command,
                port: declared,
                end: Signal::SIGTERM,
                before_end: Duration::ZERO,
            }
        }
        (_, "failing") => Server {
            command: inside("false"),
            port: None,
            end: Signal::SIGTERM,
            before_end: Duration::ZERO,
        },
        (_, "nginx") => {
            let port = declared.unwrap_or(80);
            let config = base.with_extension("conf");
            nginx::write(&config, pod, &format!("{}:{port}", place.address), true)?;
            let mut command = inside("nginx");
            command.args(["-e", "stderr", "-c"]).arg(config);
            Server {
                command,
                port: Some(port),
                // Which lets requests finish.
                end: Signal::SIGQUIT,
                before_end: LAME,
            }
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
            Server {
                command,
                port: Some(port),
                end: Signal::SIGTERM,
                // It has a grace of its own.
                before_end: Duration::ZERO,
            }
        }
    };
    let variables = container.env.iter().flatten();
    server
        .command
        .envs(variables.filter_map(|it| Some((&it.name, it.value.as_ref()?))))
        .env("HOSTNAME", pod)
        .stdin(Stdio::null());
    Ok(server)
}
