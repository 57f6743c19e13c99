//! `cargo xtask image`: the container image of the agent and the controller.

use std::{
    env::consts::ARCH,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::Args as Arguments;

use crate::{
    host,
    setup::{self, Need},
};

pub(crate) const HELP: &str = "\
Builds one static binary and the image around it, by deploy/Containerfile, without a daemon:
target/image/naru.tar. The name is the one that deploy/ uses, so where a node has the image nothing
is to be pulled.

Examples:
  cargo xtask image
  podman load -i target/image/naru.tar             or: docker load -i …
  k3s ctr images import target/image/naru.tar      onto a node of k3s
  kind load image-archive target/image/naru.tar    onto all nodes of kind
  cargo xtask image --name registry.lan/naru:1     under a name of yours";

/// What the set-up has to provide.
pub(crate) const NEEDS: &[Need] = &[Need::Build, Need::Image];

/// Options of `image`.
#[derive(Arguments)]
pub(crate) struct Args {
    /// The image's name and tag
    #[arg(long, value_name = "NAME:TAG", default_value = NAME)]
    name: String,
}

/// The name by which `deploy/kustomization.yaml` and the chart know it.
const NAME: &str = concat!("ghcr.io/naru-lb/naru:", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::quietly(NEEDS)?.demand(NEEDS)?;
    println!("image: {}", build(&args.name)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The target that links everything into the binary.
pub(crate) fn target() -> String {
    format!("{ARCH}-unknown-linux-musl")
}

/// Builds it under the name that `deploy/` uses.
pub(crate) fn build_as_deployed() -> Result<PathBuf> {
    build(NAME)
}

/// Builds an image of this name and gives the path of its archive.
fn build(name: &str) -> Result<PathBuf> {
    let target = target();
    host::status(host::cargo("build").args(["--release", "--target", &target, "-p", "naru"]))?;
    let dir = host::target().join("image");
    // Images of before are of no use, and archives are not written over.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
        }
        _ => {}
    }
    // All that the image is made of, so that nothing else is looked at.
    let content = dir.join("content");
    fs::create_dir_all(&content).with_context(|| format!("cannot create {}", content.display()))?;
    let binary = host::target().join(&target).join("release/naru");
    fs::copy(&binary, content.join("naru"))
        .with_context(|| format!("cannot copy {}", binary.display()))?;
    let recipe = host::root().join("deploy/Containerfile");
    // The same binary makes the same image.
    let mut bud = buildah(&dir);
    bud.args([
        "bud",
        "--isolation",
        "chroot",
        "--timestamp",
        "0",
        "-t",
        name,
        "-f",
    ])
    .arg(recipe)
    .arg(&content);
    host::status(&mut bud)?;
    let archive = dir.join("naru.tar");
    let to = format!("docker-archive:{}:{name}", archive.display());
    host::status(buildah(&dir).args(["push", "--quiet", name, &to]))?;
    Ok(archive)
}

/// Buildah with a store of its own, which works on any file system.
fn buildah(dir: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah
        .args(["--storage-driver", "vfs", "--root"])
        .arg(dir.join("store"))
        .arg("--runroot")
        .arg(dir.join("run"));
    buildah
}
