use std::os::unix::fs::symlink;

use super::*;
use crate::source::{Loaded, Rejected};

fn service(ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
         spec:\n  type: LoadBalancer\n  loadBalancerIP: {ip}\n  ports: [{{port: 80}}]\n"
    )
}

fn config(ip: &str) -> String {
    format!("services:\n- frontend: {ip}:80\n  backends: []\n")
}

/// The one virtual IP of an outcome, or the first problem.
fn vip(outcome: &Outcome) -> String {
    match outcome {
        Ok(Loaded { desired, .. }) => desired
            .services
            .values()
            .flat_map(|service| &service.frontends)
            .map(|frontend| frontend.addr.ip().to_string())
            .collect(),
        Err(Rejected { problems }) => problems[0].what.clone(),
    }
}

/// Waits until the source says `ip`; what it says on the way does not matter.
async fn until(watch: &mut mpsc::Receiver<News<Outcome>>, ip: &str) {
    let waiting = async {
        loop {
            let outcome = watch.recv().await.expect("the watch goes on").what;
            if vip(&outcome) == ip {
                return;
            }
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("seen in time");
}

#[tokio::test]
async fn a_change_is_read_within_50_ms_and_an_invalid_one_is_told() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("web.yaml");
    fs::write(&file, service("10.1.0.1")).expect("write");
    let mut watch = Source::Manifests(dir.path().to_owned()).watch();
    until(&mut watch, "10.1.0.1").await;
    // The fastest of several: the machine may be busy, the watch may not be slow.
    let mut fastest = Duration::MAX;
    for n in 2..12 {
        let ip = format!("10.1.0.{n}");
        let start = std::time::Instant::now();
        fs::write(&file, service(&ip)).expect("write");
        until(&mut watch, &ip).await;
        fastest = fastest.min(start.elapsed());
    }
    assert!(fastest < Duration::from_millis(40), "{fastest:?}");

    fs::write(&file, "kind: [").expect("write");
    let outcome = watch.recv().await.expect("goes on").what;
    assert!(outcome.is_err(), "{outcome:?}");
    fs::write(&file, service("10.1.1.1")).expect("write");
    until(&mut watch, "10.1.1.1").await;
}

#[tokio::test]
async fn editors_rename_over_the_file() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("naru.yaml");
    fs::write(&file, config("10.1.0.1")).expect("write");
    let mut watch = Source::Config(file.clone()).watch();
    until(&mut watch, "10.1.0.1").await;
    for n in 2..5 {
        let ip = format!("10.1.0.{n}");
        let new = dir.path().join(".naru.yaml.new");
        fs::write(&new, config(&ip)).expect("write");
        fs::rename(&new, &file).expect("rename");
        until(&mut watch, &ip).await;
    }
}

#[tokio::test]
async fn a_directory_may_go_and_come_again() {
    let dir = tempfile::tempdir().expect("directory");
    let inner = dir.path().join("manifests");
    let mut watch = Source::Manifests(inner.clone()).watch();
    let first = watch.recv().await.expect("first").what;
    assert!(first.is_err(), "not there yet");
    for n in 1..4 {
        let ip = format!("10.1.0.{n}");
        fs::create_dir(&inner).expect("directory");
        fs::write(inner.join("web.yaml"), service(&ip)).expect("write");
        until(&mut watch, &ip).await;
        let ip = format!("10.1.1.{n}");
        fs::write(inner.join("web.yaml"), service(&ip)).expect("write");
        until(&mut watch, &ip).await;
        fs::remove_dir_all(&inner).expect("remove");
    }
}

#[tokio::test]
async fn a_config_map_is_swapped_by_its_link() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    let publish = |n: u8| {
        let version = format!("..v{n}");
        fs::create_dir(at(&version)).expect("directory");
        fs::write(
            at(&version).join("web.yaml"),
            service(&format!("10.1.0.{n}")),
        )
        .expect("write");
        symlink(&version, at("..data_tmp")).expect("link");
        fs::rename(at("..data_tmp"), at("..data")).expect("rename");
    };
    publish(1);
    symlink("..data/web.yaml", at("web.yaml")).expect("link");
    let mut watch = Source::Manifests(dir.path().to_owned()).watch();
    until(&mut watch, "10.1.0.1").await;
    for n in 2..5 {
        publish(n);
        until(&mut watch, &format!("10.1.0.{n}")).await;
    }
}

#[tokio::test]
async fn a_target_elsewhere_is_found_by_looking() {
    let dir = tempfile::tempdir().expect("directory");
    let elsewhere = tempfile::tempdir().expect("directory");
    let target = elsewhere.path().join("web.yaml");
    fs::write(&target, service("10.1.0.1")).expect("write");
    symlink(&target, dir.path().join("web.yaml")).expect("link");
    let mut watch = Source::Manifests(dir.path().to_owned()).watch();
    until(&mut watch, "10.1.0.1").await;
    fs::write(&target, service("10.1.0.22")).expect("write");
    until(&mut watch, "10.1.0.22").await;
}

#[tokio::test]
async fn it_is_found_too_where_another_file_changes_all_the_time() {
    let dir = tempfile::tempdir().expect("directory");
    let elsewhere = tempfile::tempdir().expect("directory");
    let target = elsewhere.path().join("web.yaml");
    fs::write(&target, service("10.1.0.1")).expect("write");
    symlink(&target, dir.path().join("web.yaml")).expect("link");
    let mut watch = Source::Manifests(dir.path().to_owned()).watch();
    until(&mut watch, "10.1.0.1").await;
    let busy = dir.path().join("busy.yaml");
    let writing = tokio::spawn(async move {
        for n in 0.. {
            fs::write(&busy, format!("# {n}\n")).expect("write");
            tokio::time::sleep(POLL / 4).await;
        }
    });
    tokio::time::sleep(POLL / 2).await;
    fs::write(&target, service("10.1.0.22")).expect("write");
    until(&mut watch, "10.1.0.22").await;
    writing.abort();
}

#[tokio::test]
async fn what_does_not_matter_is_not_sent() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("web.yaml");
    fs::write(&file, service("10.1.0.1")).expect("write");
    let mut watch = Source::Manifests(dir.path().to_owned()).watch();
    until(&mut watch, "10.1.0.1").await;
    fs::write(&file, service("10.1.0.1")).expect("write");
    fs::write(dir.path().join(".web.yaml.swp"), "x").expect("write");
    fs::write(dir.path().join("web.yaml~"), "x").expect("write");
    let quiet = tokio::time::timeout(Duration::from_millis(200), watch.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[test]
fn an_event_is_about_the_manifests_that_it_names_or_about_anything() {
    let dir = Path::new("/etc/naru/manifests");
    let subject = subject(&Source::Manifests(dir.to_owned()));
    let about = |names: &[&str]| {
        let event = Event::new(EventKind::Any);
        let paths = names.iter().map(|name| dir.join(name));
        subject(&paths.fold(event, Event::add_path))
    };
    let files = |names: &[&str]| {
        let names = names.iter().map(Into::into).collect();
        Some(Touched::Files(names))
    };
    assert_eq!(about(&["web.yaml"]), files(&["web.yaml"]));
    assert_eq!(about(&["a.yaml", "b.json"]), files(&["a.yaml", "b.json"]));
    // Moved there from elsewhere, and where an editor keeps its own.
    assert_eq!(about(&["../draft", "web.yaml"]), files(&["web.yaml"]));
    assert_eq!(about(&[".web.yaml.swp"]), None);
    for anything in ["..data", "../manifests", "../web.yaml"] {
        assert_eq!(about(&["web.yaml", anything]), Some(Touched::All));
    }
    assert_eq!(about(&[]), Some(Touched::All));
}
