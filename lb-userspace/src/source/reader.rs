//! A source that is read again and again.

use std::{fs, path::PathBuf};

use super::{
    Outcome, Source,
    cluster::Cluster,
    config,
    flags::Flags,
    manifest::{Directory, Touched},
    stamp::Stamp,
};

/// Reads a source, and remembers of it what need not be read again.
#[derive(Debug)]
pub(super) enum Reader {
    Manifests(Box<Directory>),
    Config {
        file: PathBuf,
        /// As it was before it was read.
        seen: Option<Stamp>,
    },
    Flags(Flags),
    Cluster(Cluster),
}

impl Reader {
    /// Nothing is read yet.
    pub(super) fn new(source: &Source) -> Self {
        match source {
            Source::Manifests(dir) => Self::Manifests(Box::new(Directory::new(dir.clone()))),
            Source::Config(file) => Self::Config {
                file: file.clone(),
                seen: None,
            },
            Source::Flags(flags) => Self::Flags(flags.clone()),
            Source::Cluster(cluster) => Self::Cluster(cluster.clone()),
        }
    }

    /// What the source says now. Blocks on the file system.
    pub(super) fn read(&mut self) -> Outcome {
        self.read_touched(&Touched::All)
    }

    /// The same, where nothing but this may have changed since.
    pub(super) fn read_touched(&mut self, touched: &Touched) -> Outcome {
        match self {
            Self::Manifests(directory) => directory.load_touched(touched),
            Self::Config { file, seen } => {
                // First, so that a change in between is seen the next time.
                *seen = stamp(file);
                config::load(file)
            }
            Self::Flags(flags) => flags.desired(),
            Self::Cluster(cluster) => cluster.load(),
        }
    }

    /// Whether the source may say something else since it was read. Blocks on the file system.
    pub(super) fn is_stale(&self) -> bool {
        match self {
            Self::Manifests(directory) => directory.is_stale(),
            Self::Config { file, seen } => stamp(file) != *seen,
            Self::Flags(_) | Self::Cluster(_) => false,
        }
    }
}

fn stamp(file: &PathBuf) -> Option<Stamp> {
    fs::metadata(file).ok().as_ref().map(Stamp::of)
}
