//! The CLI's end of the control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Reply, Request, SOCKET};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no naru agent answers at {path}: start one with `naru agent …`, or name its directory with \
         --state-dir or --run-dir"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is root's.
    #[error("{path}: permission denied; the control socket is for root alone, use sudo")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke, or what came is not an answer.
    #[error("talking to the agent at {path}: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The agent could not do it.
    #[error("{0}")]
    Failed(String),
}

/// Asks the agent whose socket is in `run_dir`. A refusal is an error.
pub fn call(run_dir: &Path, request: &Request) -> Result<Reply, ClientError> {
    let path = run_dir.join(SOCKET);
    match exchange(&path, request) {
        Ok(Reply::Failed(reason)) => Err(ClientError::Failed(reason)),
        Ok(reply) => Ok(reply),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { path },
            _ => ClientError::Broken { path, source },
        }),
    }
}

fn exchange(path: &Path, request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    read(stream)
}

/// Reads what the agent answers.
pub fn read(stream: impl Read) -> io::Result<Reply> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
