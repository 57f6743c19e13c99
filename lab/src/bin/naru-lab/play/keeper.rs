//! The process that owns a lab, and does what it is told.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use naru_lab::{Algorithm, Cluster, ClusterOptions, Condition, ServiceSpec, tutorial_services};

use super::Wanted;
use super::ask::{Reply, Request};
use super::record::{self, Record};
use super::show;

/// Makes the lab, and keeps it until it is told to take it down.
pub(super) fn run(naru: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let name = wanted.name.text();
    let Some(_lock) = record::lock(name)? else {
        bail!("there is a lab {name} already");
    };
    let options = ClusterOptions::new(naru)
        .owner(wanted.owner())
        .services(services());
    let cluster = Cluster::start(wanted.topology(), &options)?;
    let record = Record::of(name, naru, &cluster)?;
    let listener =
        UnixListener::bind(&record.socket).with_context(|| record.socket.display().to_string())?;
    fs::set_permissions(&record.socket, fs::Permissions::from_mode(0o600))?;
    record.publish()?;
    for stream in listener.incoming() {
        let stream = stream.context("waiting for a command")?;
        match read(&stream) {
            Ok(Request::Down) => {
                let began = Instant::now();
                let removed = cluster.teardown();
                let took = began.elapsed().as_secs_f64();
                let reply = removed.map(|()| format!("lab {name} is removed, {took:.1} s"));
                return answer(&stream, reply.map_err(Into::into));
            }
            // Who asked may be gone: that is no reason for the lab to end.
            Ok(request) => drop(answer(&stream, act(&cluster, &request))),
            Err(error) => drop(answer(&stream, Err(error))),
        }
    }
    Ok(())
}

/// The tutorial's service by both transports, and two more addresses: one by Maglev with
/// direct server return, one as users without pools of their own have it.
fn services() -> Vec<ServiceSpec> {
    let [tcp, udp] = tutorial_services();
    let more = |name: &str, last: u8| ServiceSpec {
        name: name.to_owned(),
        address: [192, 168, 56, last].into(),
        ..tcp.clone()
    };
    let maglev = more("nest-maglev", 12)
        .by(Algorithm::Maglev)
        .annotated("naru.dev/mode", "dsr");
    vec![tcp.clone(), udp, maglev, more("nest-third", 13)]
}

fn read(stream: &UnixStream) -> anyhow::Result<Request> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn answer(mut stream: &UnixStream, reply: anyhow::Result<String>) -> anyhow::Result<()> {
    let reply = match reply {
        Ok(text) => Reply { done: true, text },
        Err(error) => Reply {
            done: false,
            text: format!("{error:#}"),
        },
    };
    writeln!(stream, "{}", serde_json::to_string(&reply)?)?;
    Ok(())
}

fn act(cluster: &Cluster, request: &Request) -> anyhow::Result<String> {
    let lab = cluster.lab();
    Ok(match request {
        Request::Cut(machine) => {
            match cluster.agent(machine) {
                Ok(_) => cluster.cut(machine)?,
                Err(_) => lab.cut(machine)?,
            }
            format!("{machine}: the cable is pulled")
        }
        Request::Heal(machine) => {
            match cluster.agent(machine) {
                Ok(_) if cluster.condition(machine) == Condition::Off => {
                    bail!("{machine} has no power: `lab on {machine}`")
                }
                Ok(_) => cluster.heal(machine)?,
                Err(_) => lab.heal(machine)?,
            }
            format!("{machine}: the cable is plugged in")
        }
        Request::Off(node) => {
            cluster.off(node)?;
            format!("{node} has no power: agent and pods are gone, its kernel has forgotten all")
        }
        Request::On(node) => {
            if cluster.condition(node) != Condition::Off {
                bail!("{node} has power");
            }
            let began = Instant::now();
            cluster.on(node)?;
            let took = began.elapsed().as_secs_f64();
            format!("{node} is on again, its agent ready after {took:.1} s")
        }
        Request::Status => show::status(cluster)?,
        Request::Down => String::new(),
    })
}
