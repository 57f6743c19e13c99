//! A directory of manifests, read again and again: only the files that have changed are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

use super::{
    contents, is_manifest_name, kubernetes, name, no_directory, no_files, outcome, read_text,
    unreadable,
};
use crate::source::{Findings, Outcome, stamp::Stamp};

/// A directory, and what its files said when they were read last.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Of the directory itself, and of everything in it that could be a manifest.
    seen: Listing,
    /// By name.
    files: BTreeMap<OsString, File>,
    services: kubernetes::Known,
}

/// What may have changed in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Anything.
    All,
    /// The files of these names.
    Files(BTreeSet<OsString>),
}

/// What `stat` says of the files of a directory, and of itself; nothing where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    itself: Option<Stamp>,
    files: BTreeMap<OsString, Option<Stamp>>,
}

/// A file that could be read.
#[derive(Debug)]
struct File {
    stamp: Stamp,
    /// Whether another text may have come in its place without another stamp.
    young: bool,
    digest: [u8; 32],
    parsed: Parsed,
}

/// What a file says.
#[derive(Debug, Default)]
struct Parsed {
    objects: kubernetes::Objects,
    findings: Findings,
}

impl Directory {
    /// Nothing of it is read yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Listing::default(),
            files: BTreeMap::new(),
            services: kubernetes::Known::default(),
        }
    }

    /// Whether something has changed since [`Self::load`], or may have without showing it.
    pub(crate) fn is_stale(&self) -> bool {
        let now = SystemTime::now();
        let settled = |file: &File| file.young && !file.stamp.is_young(now);
        self.files.values().any(settled) || Listing::of(&self.path).0 != self.seen
    }

    /// What it says now.
    pub(crate) fn load(&mut self) -> Outcome {
        self.load_touched(&Touched::All)
    }

    /// The same, where nothing but this may have changed since it was asked for last.
    pub(crate) fn load_touched(&mut self, touched: &Touched) -> Outcome {
        let mut findings = Findings::default();
        let error = match touched {
            Touched::Files(names) if self.seen.itself.is_some() => {
                self.seen.look_at(&self.path, names);
                None
            }
            _ => {
                let (listing, error) = Listing::of(&self.path);
                self.seen = listing;
                error
            }
        };
        match error {
            Some(error) => no_directory(&self.path, &error, &mut findings),
            None if self.seen.files.is_empty() => no_files(&self.path, &mut findings),
            None => {}
        }
        self.files
            .retain(|name, _| self.seen.files.contains_key(name));
        for (name, stamp) in &self.seen.files {
            let is_known = |it: &File| !it.young && Some(it.stamp) == *stamp;
            if self.files.get(name).is_some_and(is_known) {
                continue;
            }
            let path = self.path.join(name);
            match File::read(&path, *stamp, self.files.remove(name)) {
                Ok(file) => {
                    self.files.insert(name.clone(), file);
                }
                Err(error) => unreadable(&path, &error, &mut findings),
            }
        }
        for file in self.files.values() {
            findings.add(&file.parsed.findings);
        }
        let objects = self.files.values().map(|it| &it.parsed.objects);
        outcome(objects, &mut self.services, findings)
    }
}

impl Touched {
    /// Adds what else may have changed.
    pub(crate) fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Files(names), Self::Files(more)) => names.extend(more),
            (all, Self::All) => *all = Self::All,
            (Self::All, Self::Files(_)) => {}
        }
    }
}

impl Default for Touched {
    /// Nothing.
    fn default() -> Self {
        Self::Files(BTreeSet::new())
    }
}

impl Listing {
    /// Lists a directory, or says why it cannot be; no file is among them then.
    fn of(dir: &Path) -> (Self, Option<io::Error>) {
        let itself = fs::metadata(dir).ok().map(|it| Stamp::of(&it));
        match Self::files(dir) {
            Ok(files) => (Self { itself, files }, None),
            // Nor is it known: it is to be listed again.
            Err(error) => (Self::default(), Some(error)),
        }
    }

    /// Looks again at these files alone.
    fn look_at(&mut self, dir: &Path, names: &BTreeSet<OsString>) {
        self.itself = fs::metadata(dir).ok().map(|it| Stamp::of(&it));
        for name in names {
            match Self::file(dir, name) {
                Some(stamp) => self.files.insert(name.clone(), stamp),
                None => self.files.remove(name),
            };
        }
    }

    /// What `stat` says of a file; none where there is none of this name.
    fn file(dir: &Path, name: &OsStr) -> Option<Option<Stamp>> {
        let path = dir.join(name);
        let facts = fs::metadata(&path).ok();
        let gone = || {
            let error = fs::symlink_metadata(&path).err();
            error.is_some_and(|it| it.kind() == io::ErrorKind::NotFound)
        };
        match facts {
            Some(facts) => (!facts.is_dir()).then(|| Some(Stamp::of(&facts))),
            None => (!gone()).then_some(None),
        }
    }

    fn files(dir: &Path) -> io::Result<BTreeMap<OsString, Option<Stamp>>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !is_manifest_name(Some(&name)) {
                continue;
            }
            // Gone since it was listed: that is a change of its own.
            if let Some(stamp) = Self::file(dir, &name) {
                files.insert(name, stamp);
            }
        }
        Ok(files)
    }
}

impl File {
    /// What a file says that had this `stamp` a moment ago. It is not parsed again where it says
    /// the same as `before`. A failure is not kept: the next look may succeed.
    fn read(path: &Path, stamp: Option<Stamp>, before: Option<Self>) -> io::Result<Self> {
        // Before it is read: what is written after this moment has another stamp, or finds
        // the file young.
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => Stamp::of(&fs::metadata(path)?),
        };
        let young = stamp.is_young(SystemTime::now());
        let text = contents(path)?;
        let digest = Sha256::digest(&text).into();
        let same = before.filter(|it| it.digest == digest);
        let parsed = same.map_or_else(|| Parsed::of(path, &text), |it| it.parsed);
        Ok(Self {
            stamp,
            young,
            digest,
            parsed,
        })
    }
}

impl Parsed {
    fn of(path: &Path, text: &str) -> Self {
        let mut parsed = Self::default();
        let Self { objects, findings } = &mut parsed;
        read_text(&name(path), text, objects, findings);
        parsed
    }
}

#[cfg(test)]
mod tests;
