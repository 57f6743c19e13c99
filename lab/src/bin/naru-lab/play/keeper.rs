//! The process that owns a lab, and does what it is told.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};

use super::Wanted;
use super::ask::{Reply, Request};
use super::kept::{self, Kept};
use super::record::{self, Record};
use super::show;

/// Makes the lab, and keeps it until it is told to take it down.
pub(super) fn run(
    naru: &Path,
    control_plane: Option<&Path>,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    let name = wanted.name.text();
    let Some(_lock) = record::lock(name)? else {
        bail!("there is a lab {name} already");
    };
    let kept = kept::make(naru, control_plane, wanted)?;
    let record = Record::of(name, naru, &*kept)?;
    let listener =
        UnixListener::bind(&record.socket).with_context(|| record.socket.display().to_string())?;
    fs::set_permissions(&record.socket, fs::Permissions::from_mode(0o600))?;
    record.publish()?;
    for stream in listener.incoming() {
        let stream = stream.context("waiting for a command")?;
        match read(&stream) {
            Ok(Request::Down) => {
                let began = Instant::now();
                let removed = kept.teardown();
                let took = began.elapsed().as_secs_f64();
                let reply = removed.map(|()| format!("lab {name} is removed, {took:.1} s"));
                return answer(&stream, reply.map_err(Into::into));
            }
            // Who asked may be gone: that is no reason for the lab to end.
            Ok(request) => drop(answer(&stream, act(&*kept, &request))),
            Err(error) => drop(answer(&stream, Err(error))),
        }
    }
    Ok(())
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

fn act(kept: &dyn Kept, request: &Request) -> anyhow::Result<String> {
    let lab = kept.lab();
    Ok(match request {
        Request::Cut(machine) => {
            match kept.agent(machine) {
                Ok(_) => kept.cut(machine)?,
                Err(_) => lab.cut(machine)?,
            }
            format!("{machine}: the cable is pulled")
        }
        Request::Heal(machine) => {
            match kept.agent(machine) {
                Ok(_) if kept.is_off(machine) => {
                    bail!("{machine} has no power: `lab on {machine}`")
                }
                Ok(_) => kept.heal(machine)?,
                Err(_) => lab.heal(machine)?,
            }
            format!("{machine}: the cable is plugged in")
        }
        Request::Off(node) => {
            kept.off(node)?;
            format!("{node} has no power: agent and pods are gone, its kernel has forgotten all")
        }
        Request::On(node) => {
            if !kept.is_off(node) {
                bail!("{node} has power");
            }
            let began = Instant::now();
            kept.on(node)?;
            let took = began.elapsed().as_secs_f64();
            format!("{node} is on again, its agent ready after {took:.1} s")
        }
        Request::Status => show::status(kept)?,
        Request::Down => String::new(),
    })
}
