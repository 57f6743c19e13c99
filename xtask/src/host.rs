//! The machine that this runs on: paths, rights, commands.

use std::{
    env, fs,
    io::{self, IsTerminal},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

/// What this process may do on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// It is root.
    Root,
    /// It may become root through sudo.
    Sudo,
    /// Neither.
    None,
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    // xtask is run from the sources that it was built from.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where downloads are kept for this user; made where it is not there.
pub(crate) fn cache() -> Result<PathBuf> {
    let dir = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("there is no home directory for the cache; set XDG_CACHE_HOME")?
        .join("naru");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The cargo that runs this, in the workspace's root.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).arg(verb);
    cargo
}

/// Runs a command whose output the user is to see.
pub(crate) fn status(command: &mut Command) -> Result<()> {
    let name = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(())
}

/// Whether a command succeeds; its output is of no interest.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What a command prints, if it succeeds.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Looks for a program in PATH and where administrators' programs are, which ordinary
/// users on Debian do not have in theirs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether this is root. `/proc/self` belongs to the effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Finds out, once, whether root's rights can be had; on a terminal sudo may ask.
pub(crate) fn privilege() -> Privilege {
    static PRIVILEGE: OnceLock<Privilege> = OnceLock::new();
    *PRIVILEGE.get_or_init(|| {
        if is_root() {
            Privilege::Root
        } else if find("sudo").is_some() && (succeeds("sudo", &["-n", "true"]) || ask()) {
            Privilege::Sudo
        } else {
            Privilege::None
        }
    })
}

fn ask() -> bool {
    io::stdin().is_terminal()
        && io::stderr().is_terminal()
        && Command::new("sudo")
            .arg("-v")
            .status()
            .is_ok_and(|status| status.success())
}

/// Does a program need root, it runs through this: nothing for root, else sudo.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    match privilege() {
        Privilege::Root => Ok(Command::new(program)),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.arg("-E").arg(program);
            Ok(sudo)
        }
        Privilege::None => bail!(
            "{} needs root: run this as root, or install sudo and allow it",
            program.display()
        ),
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
