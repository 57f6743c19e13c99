//! The agent's end of the control socket.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{MAX_REQUEST, Reply, Request, SOCKET};

/// Clients served at a time; further ones wait.
pub const MAX_CLIENTS: usize = 16;
/// How long a client may take to state its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request with the way back to whoever made it.
pub type Call = (Request, oneshot::Sender<Reply>);

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another agent holds the directory.
    #[error(
        "another naru agent (pid {pid}) runs with the directory {dir}; stop it, or give this \
         one its own --state-dir and --pin-dir"
    )]
    Running {
        /// The directory.
        dir: PathBuf,
        /// As the other one wrote it.
        pid: String,
    },
    /// The directory or the socket cannot be made.
    #[error("{path}: {source}")]
    File {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Holds the directory of the socket: at most one agent at a time has it.
pub struct RunDir {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

impl RunDir {
    /// Makes the directory, for root alone, and locks it.
    pub fn lock(path: &Path) -> Result<Self, ControlError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ControlError::File { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed(path))?;
        let lock = path.join("agent.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock)
            .map_err(failed(&lock))?;
        let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let pid = fs::read_to_string(&lock).unwrap_or_default();
            ControlError::Running {
                dir: path.to_path_buf(),
                pid: pid.trim().to_owned(),
            }
        })?;
        held.set_len(0)
            .and_then(|()| writeln!(held, "{}", std::process::id()))
            .map_err(failed(&lock))?;
        Ok(Self {
            path: path.to_path_buf(),
            _lock: held,
        })
    }

    /// Opens the socket and serves it until the receiver of `calls` is dropped.
    pub fn serve(&self, calls: mpsc::Sender<Call>) -> Result<(), ControlError> {
        let path = self.path.join(SOCKET);
        let failed = |source| ControlError::File {
            path: path.clone(),
            source,
        };
        // The lock is held, so a socket that is there is a dead agent's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        tokio::spawn(accept(listener, calls));
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Best effort: a socket that stays is taken over by the next agent.
        let _ = fs::remove_file(self.path.join(SOCKET));
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let (read, write) = stream.into_split();
                    if let Err(error) = serve(read, write, calls).await {
                        tracing::debug!("control socket: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one client: reads a request, hands it on, writes the reply.
pub async fn serve(
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    calls: mpsc::Sender<Call>,
) -> io::Result<()> {
    let mut line = String::new();
    timeout(
        PATIENCE,
        BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line),
    )
    .await??;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => ask(request, &calls).await,
        Err(error) => Reply::Failed(format!("the request is not understood: {error}")),
    };
    let mut bytes = serde_json::to_vec(&reply)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write.write_all(&bytes)).await??;
    Ok(())
}

async fn ask(request: Request, calls: &mpsc::Sender<Call>) -> Reply {
    let (sender, reply) = oneshot::channel();
    if calls.send((request, sender)).await.is_err() {
        return Reply::Failed("the agent is stopping".into());
    }
    reply
        .await
        .unwrap_or_else(|_| Reply::Failed("the agent is stopping".into()))
}
