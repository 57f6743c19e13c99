//! Kernels of Debian, unpacked in a cache of their own; nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    mirror::Mirror,
    series::{self, Series},
};
use crate::{
    host,
    setup::{Step, show},
};

/// The cache of kernels.
pub(in crate::test) struct Store {
    root: PathBuf,
    mirror: Mirror,
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(in crate::test) struct Kernel {
    pub(in crate::test) series: Series,
    /// As `uname -r` says it.
    pub(in crate::test) release: String,
    dir: PathBuf,
}

// === impl Store ===

impl Store {
    /// The cache of this user; made where there is none.
    pub(in crate::test) fn open() -> Result<Self> {
        let root = host::cache()?.join("kernels");
        make(&root)?;
        Ok(Self {
            mirror: Mirror::new(root.join("apt")),
            root,
        })
    }

    /// The newest kernel of a series: from the cache where the mirrors were asked within
    /// a day or cannot be reached, else from there.
    pub(in crate::test) fn kernel(&mut self, series: Series) -> Result<Kernel> {
        let cached = self.cached(series)?;
        if let Some(cached) = &cached
            && self.mirror.is_fresh()
        {
            return self.open_kernel(series, cached);
        }
        if !self.mirror.ask() {
            let Some(package) = cached else {
                bail!(
                    "no kernel of series {} is at hand, and Debian's mirrors cannot be \
                     reached; go online once",
                    series.name
                )
            };
            println!("  the mirrors cannot be reached; going on with {package}");
            return self.open_kernel(series, &package);
        }
        let packages = self.mirror.packages()?;
        let newest = series.newest(packages.lines()).with_context(|| {
            format!(
                "Debian's mirrors have no kernel of series {}; see xtask/src/test/debian/series.rs",
                series.name
            )
        })?;
        if cached.as_deref() != Some(newest) {
            self.fetch(series, newest, &packages)?;
            if let Some(old) = cached {
                remove(&self.dir(series).join(old))?;
            }
        }
        self.open_kernel(series, newest)
    }

    fn dir(&self, series: Series) -> PathBuf {
        self.root.join(series.name)
    }

    /// The newest package of a series in the cache.
    fn cached(&self, series: Series) -> Result<Option<String>> {
        let dir = self.dir(series);
        make(&dir)?;
        let names = list(&dir)?;
        Ok(series
            .newest(names.iter().map(String::as_str))
            .map(Into::into))
    }

    fn open_kernel(&self, series: Series, package: &str) -> Result<Kernel> {
        let dir = self.dir(series).join(package);
        let mut releases = list(&dir.join("lib/modules"))?;
        let release = releases
            .pop()
            .with_context(|| format!("{} has no modules; remove it", dir.display()))?;
        Ok(Kernel {
            series,
            release,
            dir,
        })
    }

    /// Downloads a kernel and unpacks it.
    fn fetch(&self, series: Series, package: &str, packages: &str) -> Result<()> {
        let part = self.root.join("part");
        let (debs, tree) = (part.join("debs"), part.join("tree"));
        remove(&part)?;
        make(&debs)?;
        make(&tree)?;
        let label = format!("kernel {}", series.name);
        self.mirror
            .download(&label, &series::parts(package, packages), &debs)?;
        for file in list(&debs)? {
            let file = debs.join(file).display().to_string();
            let tree = tree.display().to_string();
            show(
                "unpacking",
                &Step::new(&["dpkg-deb", "--extract", &file, &tree]),
            )?;
        }
        // Newer packages have them where /lib points to.
        if !tree.join("lib/modules").exists() {
            make(&tree.join("lib"))?;
            rename(&tree.join("usr/lib/modules"), &tree.join("lib/modules"))?;
        }
        let kernel = Kernel {
            series,
            release: list(&tree.join("lib/modules"))?.pop().unwrap_or_default(),
            dir: tree,
        };
        kernel.index_modules()?;
        rename(&kernel.dir, &self.dir(series).join(package))?;
        remove(&part)
    }
}

// === impl Kernel ===

impl Kernel {
    pub(in crate::test) fn image(&self) -> PathBuf {
        let here = self.dir.join(format!("boot/vmlinuz-{}", self.release));
        if here.exists() {
            here
        } else {
            // Newer packages have it beside the modules.
            self.modules().join(&self.release).join("vmlinuz")
        }
    }

    /// The directory with a directory for this release.
    pub(in crate::test) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }

    /// Makes the list of which module needs which.
    fn index_modules(&self) -> Result<()> {
        let depmod = tool("depmod")?.display().to_string();
        let base = self.dir.display().to_string();
        show(
            "modules",
            &Step::new(&[&depmod, "-b", &base, &self.release]),
        )
    }

    /// The files of a module and of those that it needs, in the order of loading.
    pub(in crate::test) fn module_files(&self, module: &str) -> Result<Vec<PathBuf>> {
        let modprobe = tool("modprobe")?.display().to_string();
        let base = self.dir.display().to_string();
        let args = ["-d", &base, "-S", &self.release, "--show-depends", module];
        let text = host::output(&modprobe, &args)
            .with_context(|| format!("kernel {} has no module {module}", self.release))?;
        // What is built in has no file.
        let files = text.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|path| path.trim().into()).collect())
    }
}

fn tool(name: &str) -> Result<PathBuf> {
    host::find(name).with_context(|| format!("no {name}; `apt-get install kmod`"))
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// The names of what is in a directory, in order.
fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}
