//! What the keeper of a lab is asked, and how: a line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::record::Record;

/// What the keeper does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Pulls a machine's cable.
    Cut(String),
    /// Plugs it in.
    Heal(String),
    /// Takes a node's power away.
    Off(String),
    /// Gives it back.
    On(String),
    /// Tells how everything is.
    Status,
    /// Removes the lab and ends.
    Down,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Whether it was done.
    pub(super) done: bool,
    /// What to show.
    pub(super) text: String,
}

/// Asks the keeper of a lab; what it could not do is an error.
pub(super) fn keeper(record: &Record, request: &Request) -> anyhow::Result<Reply> {
    let socket = record.socket.display();
    let mut stream = UnixStream::connect(&record.socket)
        .with_context(|| format!("the keeper of lab {} at {socket}", record.name))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let reply: Reply = serde_json::from_str(&line)
        .with_context(|| format!("the keeper of lab {} ended without an answer", record.name))?;
    if !reply.done {
        bail!(reply.text);
    }
    Ok(reply)
}
