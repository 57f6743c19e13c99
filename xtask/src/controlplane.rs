//! The control plane of clusters in the lab: built out of `tests/controlplane` and kept beside the
//! downloads, or else what `KUBEBUILDER_ASSETS` names.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use lb_common::hash;

use crate::{host, setup::go};

/// What there has to be of it, each a program of this name.
const PROGRAMS: [&str; 7] = [
    "coredns",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
];
/// Names a directory with such programs, as for `envtest` of Kubernetes' controller-runtime.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The module that its version is that of.
const KUBERNETES: &str = "k8s.io/kubernetes ";

/// The directory with its programs. They are built where their sources are others than the last
/// time: it takes minutes.
pub(crate) fn programs() -> Result<PathBuf> {
    let sources = host::root().join("tests/controlplane");
    let dir = host::cache()?.join("controlplane").join(digest(&sources)?);
    if lacking(&dir).is_empty() {
        return Ok(dir);
    }
    match build(&sources, &dir) {
        Ok(()) => Ok(dir),
        Err(error) => instead(&error, env::var_os(ASSETS).map(PathBuf::from)),
    }
}

fn build(sources: &Path, dir: &Path) -> Result<()> {
    let version = version(sources)?;
    let go = go::find().context("there is no Go")?;
    println!("building a control plane out of Kubernetes {version}: ten minutes of one core, once");
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    let program = dir.join("controlplane");
    let mut build = Command::new(go);
    build
        .current_dir(sources)
        .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&program)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local");
    host::status(&mut build)?;
    for name in lacking(dir) {
        let link = dir.join(name);
        symlink(&program, &link).with_context(|| format!("cannot write {}", link.display()))?;
    }
    Ok(())
}

/// Those that are used where it cannot be built, as where modules of Go cannot be reached.
fn instead(error: &anyhow::Error, assets: Option<PathBuf>) -> Result<PathBuf> {
    let Some(dir) = assets else {
        bail!(
            "the control plane cannot be built: {error:#}; where Go's modules cannot be reached, \
             have {ASSETS} name a directory with the programs {}",
            PROGRAMS.join(", ")
        );
    };
    let lacking = lacking(&dir);
    if !lacking.is_empty() {
        bail!(
            "the control plane cannot be built: {error:#}; and {}, which {ASSETS} names, has no {}: \
             Kubernetes' server archive has kubectl and all that begins with kube-, the others have \
             archives of their own",
            dir.display(),
            lacking.join(", ")
        );
    }
    println!(
        "the control plane cannot be built: {error:#}; its programs are those of {}, which \
         {ASSETS} names",
        dir.display()
    );
    Ok(dir)
}

/// The programs that are not in this directory.
fn lacking(dir: &Path) -> Vec<&'static str> {
    let is_lacking = |name: &&str| !dir.join(name).is_file();
    PROGRAMS.into_iter().filter(is_lacking).collect()
}

/// The release of Kubernetes that the sources name.
fn version(sources: &Path) -> Result<String> {
    let file = sources.join("go.mod");
    let text = fs::read_to_string(&file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let mut lines = text.lines().map(str::trim);
    let found = lines.find_map(|line| line.strip_prefix(KUBERNETES));
    let found = found.with_context(|| format!("{} names no {KUBERNETES}", file.display()))?;
    Ok(found.to_owned())
}

/// What tells one state of the sources from another.
fn digest(sources: &Path) -> Result<String> {
    let cannot_read = || format!("cannot read {}", sources.display());
    let entries = fs::read_dir(sources).with_context(cannot_read)?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.with_context(cannot_read)?.path());
    }
    files.sort();
    let mut hash = 0;
    for file in files {
        let name = file.file_name().unwrap_or_default();
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash = hash::bytes_hash(name.as_encoded_bytes(), hash);
        hash = hash::bytes_hash(&text, hash);
    }
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn where_it_cannot_be_built_the_programs_of_a_directory_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let cannot = anyhow!("no route to the proxy");
        let used = |assets: Option<&Path>| {
            instead(&cannot, assets.map(Path::to_owned)).map_err(|error| error.to_string())
        };
        let error = used(None).unwrap_err();
        assert!(error.contains("no route to the proxy"), "{error}");
        assert!(error.contains("KUBEBUILDER_ASSETS"), "{error}");
        // What envtest brings by itself.
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let error = used(Some(dir.path())).unwrap_err();
        let lacking = "has no coredns, helm, kube-controller-manager, kube-scheduler:";
        assert!(error.contains(lacking), "{error}");
        for name in [
            "coredns",
            "helm",
            "kube-controller-manager",
            "kube-scheduler",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(used(Some(dir.path())), Ok(dir.path().to_owned()));
    }
}
