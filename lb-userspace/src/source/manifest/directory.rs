//! A directory of manifests, read again and again: only the files that have changed are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
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
        let mut findings = Findings::default();
        let (listing, error) = Listing::of(&self.path);
        self.seen = listing;
        match error {
            Some(error) => no_directory(&self.path, &error, &mut findings),
            None if self.seen.files.is_empty() => no_files(&self.path, &mut findings),
            None => {}
        }
        let mut before = std::mem::take(&mut self.files);
        for (name, stamp) in &self.seen.files {
            let path = self.path.join(name);
            match File::read(&path, *stamp, before.remove(name)) {
                Ok(file) => {
                    findings.add(&file.parsed.findings);
                    self.files.insert(name.clone(), file);
                }
                Err(error) => unreadable(&path, &error, &mut findings),
            }
        }
        let objects = self.files.values().map(|it| &it.parsed.objects);
        outcome(objects, &mut self.services, findings)
    }
}

impl Listing {
    /// Lists a directory, or says why it cannot be; no file is among them then.
    fn of(dir: &Path) -> (Self, Option<io::Error>) {
        let itself = fs::metadata(dir).ok().map(|it| Stamp::of(&it));
        let (files, error) = match Self::files(dir) {
            Ok(files) => (files, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        (Self { itself, files }, error)
    }

    fn files(dir: &Path) -> io::Result<BTreeMap<OsString, Option<Stamp>>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !is_manifest_name(Some(&name)) {
                continue;
            }
            let facts = fs::metadata(dir.join(&name)).ok();
            if !facts.as_ref().is_some_and(fs::Metadata::is_dir) {
                files.insert(name, facts.as_ref().map(Stamp::of));
            }
        }
        Ok(files)
    }
}

impl File {
    /// What a file says that had this `stamp` a moment ago. It is not read again where it is
    /// as it was `before`, and not parsed again where it says the same. A failure is not
    /// kept: the next look may succeed.
    fn read(path: &Path, stamp: Option<Stamp>, before: Option<Self>) -> io::Result<Self> {
        let before = match before {
            Some(file) if Some(file.stamp) == stamp && !file.young => return Ok(file),
            before => before,
        };
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
