//! What can go wrong in a lab; each error names the object and, where there is one,
//! the remedy.

use std::io;

/// The result of what a lab does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces need root.
    #[error("a lab makes network namespaces, which needs root: run it through sudo")]
    NotRoot,
    /// A tool could not be started at all.
    #[error("`{command}` could not be started: {source}{remedy}")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
        /// What to install, with a leading separator; empty where unknown.
        remedy: String,
    },
    /// A tool ran and failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line, with the failing line of a batch.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A file or a system call.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A pod that does not do what it should.
    #[error("pod {pod}: {reason}")]
    Pod {
        /// The pod's name.
        pod: String,
        /// What is wrong.
        reason: String,
    },
    /// A control plane that does not do what it should.
    #[error("control plane on {machine}: {reason}")]
    ControlPlane {
        /// The machine's name.
        machine: String,
        /// What is wrong, with the end of a log where that helps.
        reason: String,
    },
    /// An agent that does not do what it should.
    #[error("agent on {node}: {reason}")]
    Agent {
        /// The node's name.
        node: String,
        /// What is wrong, with the end of the agent's log where that helps.
        reason: String,
    },
    /// A request of a client that was not answered.
    #[error("{target}: {reason}")]
    Request {
        /// The URL or address asked.
        target: String,
        /// What came instead of an answer.
        reason: String,
    },
    /// The topology does not make sense, or names something that is not there.
    #[error("topology: {0}")]
    Topology(String),
}

impl Error {
    /// For `map_err`: an I/O error together with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same for the error numbers of [`nix`].
    pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}
