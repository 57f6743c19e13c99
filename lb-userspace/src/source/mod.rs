//! Where services come from: a cluster, manifests, a configuration file, flags.
//!
//! Every source is read as a whole and ends in one [`Desired`]. It is either valid
//! and taken whole, or refused whole with every problem that was found; what was in
//! force before stays in force then.

pub mod check;
pub mod cluster;
pub mod config;
pub mod flags;
mod health;
pub mod kubernetes;
pub mod manifest;
pub mod metallb;
mod plain;
mod reader;
mod rules;
mod stamp;
pub mod watch;
mod yaml;

use std::{fmt, path::PathBuf, sync::Arc};

use tokio::{sync::mpsc, time::Instant};

use crate::desired::Desired;

/// A place that says which services shall exist.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory of Kubernetes YAML, see [`manifest`].
    Manifests(PathBuf),
    /// One YAML file in Naru's own form, see [`config`].
    Config(PathBuf),
    /// `--vip` and `--backend`, see [`flags`].
    Flags(flags::Flags),
    /// The API server of a cluster, see [`cluster`].
    Cluster(cluster::Cluster),
}

impl Source {
    /// Reads the source once. Blocks on the file system, or until a cluster has answered.
    pub fn load(&self) -> Outcome {
        reader::Reader::new(self).read()
    }

    /// Reads the source now and after every change, until the receiver is dropped.
    ///
    /// The first outcome is the state found at the call. An outcome that equals the
    /// one before it is not sent again. Needs a running tokio runtime.
    pub fn watch(self) -> mpsc::Receiver<News<Outcome>> {
        watch::spawn(self)
    }
}

/// What a source says now.
#[derive(Clone, Debug)]
pub struct News<T> {
    /// It.
    pub what: T,
    /// When the first word came of what is new in it.
    pub since: Instant,
}

impl<T> News<T> {
    /// What nobody had to wait for.
    pub fn now(what: T) -> Self {
        let since = Instant::now();
        Self { what, since }
    }
}

/// What reading a source gives.
pub type Outcome = Result<Loaded, Rejected>;

/// A source that was valid as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The services it asks for.
    pub desired: Desired,
    /// What its author may want to know, in the order of files and lines.
    pub notes: Vec<Note>,
}

impl Loaded {
    /// Whether some of what the administrators of a cluster say does not count as it is; what
    /// authors of its Services say is not about all.
    pub fn is_stale(&self) -> bool {
        let theirs = |it: &Note| {
            let kind = it.object.split(' ').next();
            matches!(kind, Some("Service" | "EndpointSlice"))
        };
        self.notes.iter().any(|it| it.refused && !theirs(it))
    }
}

/// A source that was refused, with all that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejected {
    /// Never empty; in the order of files and lines.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file.
    File {
        /// Name of the file, relative to what the user named.
        file: Arc<str>,
        /// Line, from 1; 0 for the file as a whole.
        line: u64,
    },
    /// The API of a cluster.
    Cluster,
    /// The command line.
    CommandLine,
}

impl Origin {
    pub(crate) fn file(file: &str) -> Self {
        Self::line(&Arc::from(file), 0)
    }

    pub(crate) fn line(file: &Arc<str>, line: u64) -> Self {
        Self::File {
            file: Arc::clone(file),
            line,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Cluster => f.write_str("cluster"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// One thing that makes a source invalid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The object, as in `Service default/web`; empty where there is none yet.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// The other object that it cannot stand beside; empty where it is wrong in itself.
    pub against: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        message(f, &self.origin, &self.object, &self.what)?;
        write!(f, "; {}", self.remedy)
    }
}

/// Something that is no error, but may not be what the author expects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub origin: Origin,
    /// The object, as in `Service default/web`; empty where there is none.
    pub object: String,
    /// What there is to know.
    pub what: String,
    /// Whether the object does not count as it is.
    pub refused: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        message(f, &self.origin, &self.object, &self.what)
    }
}

fn message(f: &mut fmt::Formatter<'_>, origin: &Origin, object: &str, what: &str) -> fmt::Result {
    write!(f, "{origin}: ")?;
    if !object.is_empty() {
        write!(f, "{object}: ")?;
    }
    f.write_str(what)
}

/// Collects what a pass over a source finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Note>,
}

impl Findings {
    pub(crate) fn problem(
        &mut self,
        origin: &Origin,
        object: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.conflict(origin, object, "", what, remedy);
    }

    /// A problem of two objects that cannot stand beside each other, told of the first.
    pub(crate) fn conflict(
        &mut self,
        origin: &Origin,
        object: &str,
        against: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem {
            origin: origin.clone(),
            object: object.to_owned(),
            against: against.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    pub(crate) fn note(&mut self, origin: &Origin, object: &str, what: impl Into<String>) {
        self.notes.push(Note {
            origin: origin.clone(),
            object: object.to_owned(),
            what: what.into(),
            refused: false,
        });
    }

    /// Takes over what another pass has found.
    pub(crate) fn add(&mut self, other: &Self) {
        self.problems.extend_from_slice(&other.problems);
        self.notes.extend_from_slice(&other.notes);
    }

    /// Valid with `desired` unless a problem was found.
    pub(crate) fn outcome(mut self, desired: Desired) -> Outcome {
        if self.problems.is_empty() {
            self.notes.sort();
            self.notes.dedup();
            Ok(Loaded {
                desired,
                notes: self.notes,
            })
        } else {
            self.problems.sort();
            self.problems.dedup();
            Err(Rejected {
                problems: self.problems,
            })
        }
    }
}
