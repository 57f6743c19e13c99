use std::{
    fs::{File, FileTimes},
    os::unix::fs::symlink,
    thread::sleep,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::source::{
    Loaded,
    manifest::{contents, load},
};

/// What a file may say; of the first two the texts are of one length.
fn text(what: u8, n: u8) -> String {
    let n = n % 4;
    match what % 9 {
        0 | 1 => format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web{n}}}\nspec:\n  type: \
             LoadBalancer\n  loadBalancerIP: 10.1.0.{what}\n  ports: [{{port: 8{n}}}]\n"
        ),
        2 | 3 => format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web{n}-{what}\n  \
             labels: {{kubernetes.io/service-name: web{n}}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
             endpoints: [{{addresses: [10.244.{what}.{n}], nodeName: nuc01}}]\n"
        ),
        // Notes and problems of a file alone, and of several together.
        4 => "apiVersion: v1\nkind: Service\nmetadata: {name: web1}\nspec: {portz: 1}\n".to_owned(),
        5 => format!("kind: [{n}"),
        6 => {
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: first, namespace: \
             metallb-system}\nspec: {addresses: [10.2.0.0/24]}\n"
                .to_owned()
        }
        7 => format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, labels: {{n: n{n}}}}}\n"),
        _ => String::new(),
    }
}

/// Something that happens to a directory.
#[derive(Clone, Debug)]
enum Event {
    /// A file is written in its place.
    Write {
        file: u8,
        what: u8,
        n: u8,
    },
    /// It is written, and gets the times that it had before.
    Hide {
        file: u8,
        what: u8,
        n: u8,
    },
    /// It is written beside its place and moved there.
    Replace {
        file: u8,
        what: u8,
        n: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Remove {
        file: u8,
    },
    /// Bytes that are no text.
    Garble {
        file: u8,
    },
    /// A link into a directory that is another one each time, as a mounted ConfigMap has it.
    Mount {
        what: u8,
        n: u8,
    },
    /// A link to nowhere, and a directory that is called like a file.
    Dangle {
        file: u8,
    },
    Directory {
        file: u8,
    },
    /// Time passes.
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let files = || 0..5_u8;
    let written = || (files(), 0..9_u8, 0..4_u8);
    prop_oneof![
        6 => written().prop_map(|(file, what, n)| Event::Write { file, what, n }),
        3 => written().prop_map(|(file, what, n)| Event::Hide { file, what, n }),
        3 => written().prop_map(|(file, what, n)| Event::Replace { file, what, n }),
        2 => (files(), files()).prop_map(|(from, to)| Event::Rename { from, to }),
        2 => files().prop_map(|file| Event::Remove { file }),
        1 => files().prop_map(|file| Event::Garble { file }),
        2 => (0..9_u8, 0..4_u8).prop_map(|(what, n)| Event::Mount { what, n }),
        1 => files().prop_map(|file| Event::Dangle { file }),
        1 => files().prop_map(|file| Event::Directory { file }),
        1 => Just(Event::Wait),
    ]
}

/// Makes it happen. What cannot be does not: to write into a directory, for one.
fn happen(event: &Event, dir: &Path, versions: &mut u32) -> io::Result<()> {
    let at = |file: &u8| dir.join(format!("{file}.yaml"));
    match event {
        Event::Write { file, what, n } => fs::write(at(file), text(*what, *n)),
        Event::Hide { file, what, n } => {
            let before = fs::metadata(at(file))?;
            fs::write(at(file), text(*what, *n))?;
            let times = FileTimes::new().set_modified(before.modified()?);
            File::options().write(true).open(at(file))?.set_times(times)
        }
        Event::Replace { file, what, n } => {
            fs::write(dir.join(".draft"), text(*what, *n))?;
            fs::rename(dir.join(".draft"), at(file))
        }
        Event::Rename { from, to } => fs::rename(at(from), at(to)),
        Event::Remove { file } => fs::remove_file(at(file)).or_else(|_| fs::remove_dir(at(file))),
        Event::Garble { file } => fs::write(at(file), b"kind: \xff\n"),
        Event::Mount { what, n } => {
            *versions += 1;
            let version = format!("..v{versions}");
            fs::create_dir(dir.join(&version))?;
            fs::write(dir.join(&version).join("0.yaml"), text(*what, *n))?;
            symlink(&version, dir.join("..data_tmp"))?;
            fs::rename(dir.join("..data_tmp"), dir.join("..data"))?;
            fs::remove_file(at(&0))?;
            symlink("..data/0.yaml", at(&0))
        }
        Event::Dangle { file } => symlink("nowhere", at(file)),
        Event::Directory { file } => fs::create_dir(at(file)),
        Event::Wait => {
            sleep(Duration::from_millis(20));
            Ok(())
        }
    }
}

/// What is told of it. What is behind a link has another name, and is found by looking.
fn told(event: &Event, dir: &Path) -> Touched {
    let names = |files: &[&u8]| {
        let names = files.iter().map(|file| format!("{file}.yaml"));
        let names: Vec<String> = names.collect();
        match names.iter().any(|name| dir.join(name).is_symlink()) {
            true => Touched::All,
            false => Touched::Files(names.into_iter().map(Into::into).collect()),
        }
    };
    match event {
        Event::Write { file, .. }
        | Event::Hide { file, .. }
        | Event::Replace { file, .. }
        | Event::Remove { file }
        | Event::Garble { file }
        | Event::Dangle { file }
        | Event::Directory { file } => names(&[file]),
        Event::Rename { from, to } => names(&[from, to]),
        Event::Mount { .. } => Touched::All,
        Event::Wait => Touched::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_read_again_is_what_is_read_anew(
        events in prop::collection::vec((event(), any::<bool>()), 1..24),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        let mut directory = Directory::new(dir.path().to_owned());
        let mut by_events = Directory::new(dir.path().to_owned());
        let (mut versions, mut touched) = (0, Touched::All);
        for (event, looked) in events {
            touched.add(told(&event, dir.path()));
            // What cannot happen changes nothing, or less: both look at the same.
            let _ = happen(&event, dir.path(), &mut versions);
            if looked {
                let anew = load(dir.path());
                prop_assert_eq!(&directory.load(), &anew, "after {:?}", event);
                let said = by_events.load_touched(&std::mem::take(&mut touched));
                prop_assert_eq!(&said, &anew, "told of {:?}", event);
            }
        }
        prop_assert_eq!(directory.load(), load(dir.path()));
    }
}

/// A directory of files that are old enough to be known by their times.
fn settled(dir: &Path) -> Directory {
    let mut directory = Directory::new(dir.to_owned());
    directory.load().expect("valid");
    assert!(
        !directory.is_stale(),
        "they are young: nothing else is known"
    );
    sleep(Duration::from_millis(150));
    assert!(directory.is_stale(), "may have changed without showing it");
    directory.load().expect("valid");
    assert!(!directory.is_stale());
    directory
}

/// The places of what the files say, by which it is told whether they were parsed again.
fn places(directory: &Directory) -> Vec<*const ()> {
    let files = directory.files.values();
    let services = files.flat_map(|it| &it.parsed.objects.services);
    services
        .map(|it| std::sync::Arc::as_ptr(it).cast())
        .collect()
}

#[test]
fn only_what_has_changed_is_read_again() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |n: u8| dir.path().join(format!("{n}.yaml"));
    for n in 0..3 {
        fs::write(at(n), text(0, n)).expect("write");
    }
    let mut directory = settled(dir.path());
    let before = places(&directory);
    let Loaded { desired, .. } = directory.load().expect("valid");

    fs::write(at(1), text(1, 1)).expect("write");
    assert!(directory.is_stale());
    let after = directory.load().expect("valid").desired;
    let now = places(&directory);
    assert_eq!((now[0], now[2]), (before[0], before[2]));
    assert_ne!(now[1], before[1]);
    let same: Vec<bool> = desired
        .services
        .values()
        .zip(after.services.values())
        .map(|(one, other)| std::ptr::eq(one, other))
        .collect();
    assert_eq!(
        same,
        [true, false, true],
        "nor are other Services worked out again"
    );

    // Written once more: the same text is no news.
    let before = places(&directory);
    fs::write(dir.path().join(".draft"), text(1, 1)).expect("write");
    fs::rename(dir.path().join(".draft"), at(1)).expect("rename");
    directory.load().expect("valid");
    assert_eq!(places(&directory), before);
}

#[test]
fn a_service_follows_its_slice() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("web.yaml"), text(0, 0)).expect("write");
    let mut directory = settled(dir.path());
    for what in [2, 3, 2] {
        fs::write(dir.path().join("slice.yaml"), text(what, 0)).expect("write");
        let outcome = directory.load().expect("valid");
        let mut services = outcome.desired.services.values();
        let endpoints = &services.next().expect("one").endpoints;
        let expected = format!("10.244.{what}.0:80");
        assert_eq!(
            endpoints
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            [expected]
        );
    }
}

#[test]
fn a_text_of_the_same_length_and_times_is_found() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("web.yaml");
    fs::write(&file, text(0, 0)).expect("write");
    let mut directory = settled(dir.path());
    let modified = fs::metadata(&file).expect("file").modified().expect("time");
    assert_eq!(text(0, 0).len(), text(1, 0).len());
    fs::write(&file, text(1, 0)).expect("write");
    let times = FileTimes::new().set_modified(modified);
    let file = File::options().write(true).open(&file).expect("file");
    file.set_times(times).expect("times");
    assert_eq!(directory.load(), load(dir.path()));
}

#[test]
fn errors_come_and_go_and_are_told_as_they_were() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("web.yaml"), text(0, 0)).expect("write");
    let mut directory = settled(dir.path());
    let valid = directory.load();
    for broken in ["kind: [", "", "kind: Service\n"] {
        fs::write(at("other.yaml"), broken).expect("write");
        let error = directory.load().expect_err("refused");
        assert_eq!(Err(error.clone()), load(dir.path()));
        assert_eq!(directory.load(), Err(error), "as long as it is there");
        fs::remove_file(at("other.yaml")).expect("remove");
        assert_eq!(directory.load(), valid);
    }
    // Nothing is kept of what could not be read.
    symlink("missing", at("link.yaml")).expect("link");
    assert!(directory.load().is_err());
    fs::write(at("missing"), text(0, 1)).expect("write");
    assert_eq!(directory.load().expect("valid").desired.services.len(), 2);
    assert_eq!(contents(&at("link.yaml")).expect("text"), text(0, 1));
    fs::remove_dir_all(dir.path()).expect("remove");
    assert!(directory.load().is_err());
}
