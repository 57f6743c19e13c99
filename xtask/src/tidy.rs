//! The house rules that no compiler knows, as tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const LONGEST: usize = 500;

/// A rule, and the places that break it.
pub(crate) type Verdict = (&'static str, Vec<String>);

/// A source file, with its path from the workspace's root.
struct Source {
    path: String,
    text: String,
}

/// Holds all Rust sources under `root` against the rules.
pub(crate) fn check(root: &Path) -> Result<Vec<Verdict>> {
    let mut sources = Vec::new();
    collect(root, root, &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(judge(&sources))
}

fn judge(sources: &[Source]) -> Vec<Verdict> {
    let agent = |path: &str| {
        path.starts_with("lb-userspace/") && !path.starts_with("lb-userspace/src/datapath/")
    };
    let kernel = |path: &str| path.starts_with("lb-ebpf/") && path != "lb-ebpf/src/packet.rs";
    let find = |applies: &dyn Fn(&str) -> bool, breaks: &dyn Fn(&str) -> bool| {
        let chosen = sources.iter().filter(|source| applies(&source.path));
        chosen.flat_map(|source| source.lines(breaks)).collect()
    };
    vec![
        (
            "only lb-userspace/src/datapath names aya in the agent",
            find(&agent, &|code| {
                ["aya", "aya_log", "aya_obj"]
                    .iter()
                    .any(|n| has_word(code, n))
            }),
        ),
        (
            "only lb-userspace/src/datapath is unsafe in the agent",
            find(&agent, &|code| has_word(code, "unsafe")),
        ),
        (
            "only lb-ebpf/src/packet.rs casts packet pointers in the kernel part",
            find(&kernel, &|code| has_word(code, "data_end")),
        ),
        (
            "nothing but tests unwraps",
            sources
                .iter()
                .flat_map(|source| source.untested_lines(".unwrap()"))
                .collect(),
        ),
        (
            "no source file has more than 500 lines",
            sources
                .iter()
                .map(|source| (&source.path, source.text.lines().count()))
                .filter(|(_, lines)| *lines > LONGEST)
                .map(|(path, lines)| format!("{path}: {lines} lines"))
                .collect(),
        ),
    ]
}

fn collect(root: &Path, dir: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let cannot_read = |path: &PathBuf| format!("cannot read {}", path.display());
    let entries = fs::read_dir(dir).with_context(|| cannot_read(&dir.into()))?;
    for entry in entries {
        let path = entry.with_context(|| cannot_read(&dir.into()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            // Not ours: what cargo builds, and what tools keep.
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| cannot_read(&path))?;
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .display()
                .to_string();
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

// === impl Source ===

impl Source {
    fn lines(&self, breaks: &dyn Fn(&str) -> bool) -> Vec<String> {
        let numbered = self.text.lines().enumerate();
        numbered
            .filter(|(_, line)| breaks(&code(line)))
            .map(|(index, line)| format!("{}:{}: {}", self.path, index + 1, line.trim()))
            .collect()
    }

    /// Lines with this code, down to where the tests begin: those come last in a file.
    fn untested_lines(&self, pattern: &str) -> Vec<String> {
        let is_test = self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs");
        if is_test {
            return Vec::new();
        }
        let end = self.text.find("#[cfg(test)]").unwrap_or(self.text.len());
        let tested = Self {
            path: self.path.clone(),
            text: self.text[..end].into(),
        };
        tested.lines(&|code| code.contains(pattern))
    }
}

/// A line without its comment and without what stands in string literals.
///
/// Good for one line at a time; a literal of several lines counts as code.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if quoted => {
                chars.next();
            }
            '\'' if !quoted && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if !quoted => code.push(char),
            _ => {}
        }
    }
    code
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|char: char| !char.is_alphanumeric() && char != '_')
        .any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<usize> {
        let verdicts = judge(&[Source {
            path: path.into(),
            text: text.into(),
        }]);
        let broken = verdicts
            .iter()
            .enumerate()
            .filter(|(_, (_, places))| !places.is_empty());
        broken.map(|(index, _)| index).collect()
    }

    #[test]
    fn the_datapath_alone_may_name_aya_and_be_unsafe() {
        let text = "use aya::Ebpf;\nunsafe { f() }\n";
        assert_eq!(broken("lb-userspace/src/net/arp.rs", text), [0, 1]);
        assert_eq!(
            broken("lb-userspace/src/datapath/load.rs", text),
            [0usize; 0]
        );
        assert_eq!(broken("lab/src/main.rs", text), [0usize; 0]);
    }

    #[test]
    fn comments_literals_and_longer_words_break_nothing() {
        let text = "#![forbid(unsafe_code)]\n// unsafe aya::\nlet s = \"aya \\\" unsafe\"; //!\n";
        assert_eq!(broken("lb-userspace/src/main.rs", text), [0usize; 0]);
    }

    #[test]
    fn packet_pointers_are_cast_in_one_file() {
        let text = "let end = ctx.data_end();";
        assert_eq!(broken("lb-ebpf/src/parse.rs", text), [2]);
        assert_eq!(broken("lb-ebpf/src/packet.rs", text), [0usize; 0]);
    }

    #[test]
    fn only_tests_unwrap() {
        let text = "fn f() { g().unwrap() }\n";
        assert_eq!(broken("lab/src/net.rs", text), [3]);
        assert_eq!(
            broken("lab/src/net.rs", &format!("#[cfg(test)]\n{text}")),
            [0usize; 0]
        );
        assert_eq!(broken("tests/tests/lan.rs", text), [0usize; 0]);
    }

    #[test]
    fn a_file_is_500_lines_at_most() {
        assert_eq!(broken("lab/src/net.rs", &"\n".repeat(500)), [0usize; 0]);
        assert_eq!(broken("lab/src/net.rs", &"\n".repeat(501)), [4]);
    }
}
