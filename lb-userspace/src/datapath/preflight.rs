//! Checks that loading can succeed, so that a failure is explained before it happens.

use std::{fs, path::Path};

use nix::{mount::MsFlags, sys::statfs};

use super::DatapathError;

/// Capabilities by their bit in `CapEff` (include/uapi/linux/capability.h).
const NEEDED: [(u32, &str); 4] = [
    (12, "cap_net_admin"),
    (13, "cap_net_raw"),
    (38, "cap_perfmon"),
    (39, "cap_bpf"),
];
/// Old kernels and some containers grant everything through this one.
const SYS_ADMIN: u32 = 21;
const BPFFS: &str = "/sys/fs/bpf";

/// Checks privileges and kernel, and mounts a BPF file system at `/sys/fs/bpf` where
/// `pin_dir` wants one and none is there.
pub fn preflight(pin_dir: &Path) -> Result<(), DatapathError> {
    privileges()?;
    kernel()?;
    bpffs(pin_dir)
}

fn privileges() -> Result<(), DatapathError> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(DatapathError::file(path))?;
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| held >> bit & 1 == 1;
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(bit, _)| !(has(*bit) || *bit >= 38 && has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DatapathError::Privileges {
        missing: missing.join(", "),
    })
}

fn kernel() -> Result<(), DatapathError> {
    let release = release();
    let refuse = |what: &str, config| {
        Err(DatapathError::Kernel {
            release: release.trim().to_owned(),
            what: what.to_owned(),
            config,
        })
    };
    if !Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        return refuse("it has no BPF system call", "CONFIG_BPF_SYSCALL");
    }
    if aya::features().btf().is_none() {
        return refuse(
            "it does not take BTF type information",
            "CONFIG_DEBUG_INFO_BTF",
        );
    }
    if kernel_version() < (6, 1) {
        return refuse(
            "6.1 is the oldest that they are tested with",
            "CONFIG_NET_CLS_BPF",
        );
    }
    Ok(())
}

/// Version and patch level of this kernel; zeros where they cannot be read.
pub(super) fn kernel_version() -> (u32, u32) {
    let release = release();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn bpffs(pin_dir: &Path) -> Result<(), DatapathError> {
    let refuse = |reason: String| DatapathError::NoBpffs {
        path: pin_dir.to_path_buf(),
        reason,
    };
    if pin_dir == Path::new(BPFFS) {
        return Err(DatapathError::SharedPinDir {
            path: pin_dir.to_path_buf(),
        });
    }
    let existing = pin_dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    if is_bpffs(existing).map_err(|error| refuse(error.to_string()))? {
        return Ok(());
    }
    if !pin_dir.starts_with(BPFFS) {
        return Err(refuse("and it is not below /sys/fs/bpf".into()));
    }
    nix::mount::mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(|error| refuse(format!("mounting one failed: {error}")))?;
    tracing::info!("mounted a BPF file system at {BPFFS}");
    Ok(())
}

fn is_bpffs(path: &Path) -> nix::Result<bool> {
    Ok(statfs::statfs(path)?.filesystem_type() == statfs::BPF_FS_MAGIC)
}
