//! The container image, with the class room's agents and controllers running out of it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use naru_lab::KubeOptions;

use crate::scene::{control_plane, expose, load, none_failed, start, wait_answering};

#[test]
fn what_the_image_has_serves_a_cluster() {
    let archive = env::var_os("NARU_IMAGE").map(PathBuf::from);
    let archive = archive.expect("NARU_IMAGE names no archive: `cargo xtask test cluster`");
    let dir = tempfile::tempdir().unwrap();
    let store = Store(dir.path().to_owned());
    let from = format!("docker-archive:{}", archive.display());
    let container = store.run(&["from", "--name", "naru", &from]);
    let root = store.run(&["mount", &container]);
    let files: Vec<_> = fs::read_dir(&root).unwrap().flatten().collect();
    let names: Vec<_> = files.iter().map(|it| it.file_name()).collect();
    assert_eq!(names, ["naru"], "nothing else");
    let config = store.run(&[
        "inspect",
        "--format",
        "{{.OCIv1.Config.Entrypoint}}",
        "naru",
    ]);
    assert_eq!(config, "[/naru]");

    let program = dir.path().join("naru");
    contained(&program, &root);
    let kube = start(KubeOptions {
        controllers: 2,
        ..KubeOptions::new(&program, control_plane())
    });
    let ip = expose(
        &kube,
        "web",
        "--image=nest-server --replicas=3 --port=3000",
        "--port=80 --target-port=3000",
    );
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 3);
    let requests = load(&kube, &url);
    kube.kubectl("scale deployment web --replicas=5").unwrap();
    wait_answering(&kube, &url, 5);
    none_failed("out of the image", requests);
}

/// Buildah with a store of its own.
struct Store(PathBuf);

impl Store {
    fn run(&self, args: &[&str]) -> String {
        let at = |name: &str| self.0.join(name).display().to_string();
        let output = Command::new("buildah")
            .args(["--storage-driver", "vfs", "--root", &at("store")])
            .args(["--runroot", &at("run")])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "buildah {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Writes a program that is the image's, as a pod of the host's network has it: with the image's
/// files as its own, and those of the host that the DaemonSet mounts. It stays one process.
fn contained(program: &Path, root: &str) {
    let script = format!(
        r#"#!/bin/sh
exec unshare --mount sh -ec '
for dir in proc sys run tmp; do
    mkdir -p {root}/$dir
    mount --rbind /$dir {root}/$dir
done
exec chroot {root} /naru "$@"' sh "$@"
"#
    );
    fs::write(program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}
