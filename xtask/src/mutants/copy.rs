//! A copy of the tree, kept from run to run so that little is built anew.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};

/// Makes `to` hold the files of `from` and no others, but for what is built and what is
/// hidden. Files that are the same are not written: cargo goes by their times.
pub(super) fn update(from: &Path, to: &Path) -> Result<()> {
    copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            remove(&entry.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (source, copied) = (entry.path(), to.join(&name));
        if source.is_dir() {
            copy(&source, &copied)?;
            continue;
        }
        let bytes = fs::read(&source)?;
        if fs::read(&copied).ok().as_ref() != Some(&bytes) {
            fs::write(&copied, bytes)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
