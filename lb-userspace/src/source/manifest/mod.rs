//! A directory of ordinary Kubernetes YAML.
//!
//! Files are those that end in `.yaml`, `.yml` or `.json` and are not hidden;
//! directories below are not entered. Symbolic links are followed, so a mounted
//! ConfigMap (`web.yaml → ..data/web.yaml`, `..data → ..2026_01_01`) reads as the
//! files it shows.

mod directory;
pub(crate) mod document;

use std::{borrow::Cow, ffi::OsStr, fs, io, path::Path, sync::Arc};

pub(crate) use self::directory::{Directory, Touched};

use super::{Findings, Origin, Outcome, kubernetes};
use crate::desired::Desired;

/// The most that one file may hold, in bytes.
///
/// A cluster's largest objects are 1.5 MiB; beyond this it is some other file.
const MAX_FILE: u64 = 64 << 20;

/// Reads all manifests in `dir`.
pub fn load(dir: &Path) -> Outcome {
    Directory::new(dir.to_owned()).load()
}

/// Reads one manifest file of this name and text, as if it were alone in its directory.
pub fn parse(file: &str, text: &str) -> Outcome {
    let mut findings = Findings::default();
    let mut objects = kubernetes::Objects::default();
    read_text(file, text, &mut objects, &mut findings);
    let all = std::iter::once(&objects);
    outcome(all, &mut kubernetes::Known::default(), findings)
}

fn outcome<'a>(
    objects: impl Iterator<Item = &'a kubernetes::Objects>,
    services: &mut kubernetes::Known,
    mut findings: Findings,
) -> Outcome {
    let objects = kubernetes::Objects::gathered(objects);
    match kubernetes::translate(objects, &kubernetes::Terms::default(), services) {
        Ok(loaded) => {
            findings.notes.extend(loaded.notes);
            findings.outcome(loaded.desired)
        }
        Err(rejected) => {
            findings.problems.extend(rejected.problems);
            findings.outcome(Desired::default())
        }
    }
}

/// Parses the text of one manifest file; what was refused is in the findings.
pub(crate) fn read_text(
    file: &str,
    text: &str,
    objects: &mut kubernetes::Objects,
    findings: &mut Findings,
) {
    let file: Arc<str> = Arc::from(file);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        // A writer that truncates first leaves the file like this for a moment.
        // Taking it for "no services" would take them out of force.
        findings.problem(
            &Origin::line(&file, 0),
            "",
            "the file is empty",
            "write objects into it, or remove the file",
        );
    }
    for document in document::split(text) {
        document::read(&file, &document, objects, findings);
    }
}

fn no_files(dir: &Path, findings: &mut Findings) {
    let what = "no *.yaml, *.yml or *.json here, so there are no services";
    findings.note(&Origin::file(&dir.display().to_string()), "", what);
}

fn no_directory(dir: &Path, error: &io::Error, findings: &mut Findings) {
    findings.problem(
        &Origin::file(&dir.display().to_string()),
        "",
        format!("the directory cannot be read: {error}"),
        "name a directory that exists and that naru may read",
    );
}

fn unreadable(path: &Path, error: &io::Error, findings: &mut Findings) {
    // Gone between listing and reading: the removal is a change of its own.
    if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() {
        return;
    }
    findings.problem(
        &Origin::file(&name(path)),
        "",
        format!("the file cannot be read: {error}"),
        "make it readable UTF-8 text, or remove it",
    );
}

/// What a file is called in messages.
fn name(path: &Path) -> Cow<'_, str> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy()
}

/// Reads a file of a sane size as UTF-8.
pub(crate) fn contents(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE {
        let what = format!("it has {size} bytes, at most {MAX_FILE} are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(fs::read(path)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        let what = format!("line {line} is not UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Whether a file of this name would be read.
pub(crate) fn is_manifest_name(name: Option<&OsStr>) -> bool {
    let Some(name) = name else { return false };
    let name = name.as_encoded_bytes();
    !name.starts_with(b".")
        && [&b".yaml"[..], b".yml", b".json"]
            .iter()
            .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVICE: &str = include_str!("../../../tests/golden/tutorial/nest-server.yaml");

    fn read(text: &str) -> Outcome {
        parse("x.yaml", text)
    }

    #[test]
    fn a_mounted_config_map_reads_as_its_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..2026_01_01")).expect("directory");
        fs::write(at("..2026_01_01/web.yaml"), SERVICE).expect("write");
        std::os::unix::fs::symlink("..2026_01_01", at("..data")).expect("link");
        std::os::unix::fs::symlink("..data/web.yaml", at("web.yaml")).expect("link");
        fs::write(at(".hidden.yaml"), "{").expect("write");
        fs::write(at("web.yaml~"), "{").expect("write");
        let loaded = load(dir.path()).expect("valid");
        assert_eq!(loaded.desired.services.len(), 1);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = load(Path::new("/nonexistent/naru")).expect_err("refused");
        let text = error.to_string();
        assert!(
            text.starts_with("/nonexistent/naru: the directory"),
            "{text}"
        );
    }

    #[test]
    fn the_line_of_an_error_counts_from_the_files_start() {
        let text = format!("{SERVICE}---\nkind: Service\napiVersion: v1\nspec:\n  ports: 3\n");
        let line = text.lines().count() as u64;
        let error = read(&text).expect_err("refused");
        let expected = Origin::line(&Arc::from("x.yaml"), line);
        assert_eq!(error.problems[0].origin, expected, "{error}");
    }

    #[test]
    fn json_may_be_indented_by_tabs() {
        let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n";
        assert!(read(text).is_ok(), "{:?}", read(text));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_yaml_like_text_makes_it_panic(
            text in "(---|\\.\\.\\.|[ \t\n:\\-\\[\\]{}&*!|>'\"%@`,?#]|kind|apiVersion|v1|Service|List|items|[a-z0-9]){0,120}"
        ) {
            let _ = read(&text);
        }

        #[test]
        fn no_mutation_of_a_valid_manifest_makes_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..12)
        ) {
            let mut bytes = SERVICE.as_bytes().to_vec();
            for (at, byte, how) in edits {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => { bytes.remove(at); }
                }
            }
            let _ = read(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_replaced_value_makes_it_panic(
            line in any::<prop::sample::Index>(),
            value in "-?[0-9]{1,22}|null|true|\\[\\]|\\{\\}|\"\"|[a-z]{1,4}|0\\.5|1e400|\\.nan",
        ) {
            let lines: Vec<_> = SERVICE.lines().collect();
            let at = line.index(lines.len());
            let text: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(i, line)| match line.split_once(": ") {
                    Some((key, _)) if i == at => format!("{key}: {value}"),
                    _ => (*line).to_owned(),
                })
                .collect();
            let _ = read(&text.join("\n"));
        }
    }
}
