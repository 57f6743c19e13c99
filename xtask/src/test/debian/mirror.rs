//! Debian's mirrors, by apt with a configuration of its own: nothing of the machine's is
//! changed, and nothing of it read but how it reaches the network.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::series;
use crate::{
    host,
    setup::{Step, show},
};

/// For how long the mirrors' lists are taken as they are.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// The mirrors, and where their lists are kept.
pub(super) struct Mirror {
    dir: PathBuf,
    /// Whether this process has asked already, and with what success.
    asked: Option<bool>,
}

// === impl Mirror ===

impl Mirror {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, asked: None }
    }

    /// Whether the mirrors were asked lately.
    pub(super) fn is_fresh(&self) -> bool {
        let written = fs::metadata(self.stamp()).and_then(|stamp| stamp.modified());
        written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }

    /// Fetches the lists, once; false where that is not possible.
    pub(super) fn ask(&mut self) -> bool {
        if let Some(success) = self.asked {
            return success;
        }
        let words = ["timeout", "300", "apt-get", "update", "--error-on=any"];
        let attempt = self
            .configure()
            .and_then(|()| show("Debian's lists", &self.step(&words)))
            .and_then(|()| write(&self.stamp(), ""));
        if let Err(error) = &attempt {
            eprintln!("  {error:#}");
        }
        self.asked = Some(attempt.is_ok());
        attempt.is_ok()
    }

    /// The names of all packages that a kernel is or is made of, a line each.
    pub(super) fn packages(&self) -> Result<String> {
        let pattern = series::PACKAGES;
        let words = ["apt-cache", "search", "--names-only", pattern];
        let output = self.step(&words).command().output();
        let output = output.context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(|name| format!("{name}\n"))
            .collect())
    }

    /// Downloads packages into a directory, and shows that under a label.
    pub(super) fn download(&self, label: &str, packages: &[String], into: &Path) -> Result<()> {
        // apt-get downloads to where it is.
        let at = format!("--chdir={}", into.display());
        let mut words = vec!["timeout", "1800", "env", &at, "apt-get", "download"];
        words.extend(packages.iter().map(String::as_str));
        show(label, &self.step(&words))
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("asked")
    }

    /// Writes apt's configuration. How the machine reaches the network (proxies,
    /// timeouts) is taken from its own.
    fn configure(&self) -> Result<()> {
        for dir in ["etc", "lists/partial", "cache/archives/partial"] {
            let dir = self.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let machine = host::output("apt-config", &["dump", "Acquire"])
            .context("cannot run apt-config; the kernels come as Debian packages")?;
        let mut text: String = machine
            .lines()
            .filter(|line| !line.starts_with("Acquire::IndexTargets"))
            .map(|line| format!("{line}\n"))
            .collect();
        let dir = self.dir.display();
        text += &format!(
            "Dir::State::lists \"{dir}/lists\";\n\
             Dir::Cache \"{dir}/cache\";\n\
             Dir::Etc \"{dir}/etc\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n"
        );
        write(&self.configuration(), &text)?;
        write(&self.dir.join("etc/sources.list"), &series::sources())
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("apt.conf")
    }

    /// A command for which this configuration is apt's.
    fn step(&self, words: &[&str]) -> Step {
        Step::new(words).env("APT_CONFIG", self.configuration().display().to_string())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
