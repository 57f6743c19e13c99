//! The initial RAM disk of a guest: busybox, a few modules, two scripts, and the job.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::store::Kernel;
use crate::host;

const INIT: &str = include_str!("init.sh");
const GUEST: &str = include_str!("guest.sh");

/// What it takes to mount the host's file system; the rest is loaded from there.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
const DIRECTORIES: [&str; 8] = [
    "bin", "dev", "lower", "memory", "modules", "proc", "root", "sys",
];

/// Writes the disk for a kernel; `job` is what the guest's script runs.
pub(super) fn write(path: &Path, kernel: &Kernel, job: &str) -> Result<()> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, 0o040_755, b"");
    }
    let busybox = host::find("busybox").context("no busybox; `apt-get install busybox-static`")?;
    archive.add("bin/busybox", 0o100_755, &read(&busybox)?);
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("guest.sh", 0o100_644, GUEST.as_bytes());
    archive.add("job.sh", 0o100_644, job.as_bytes());
    let mut order = Vec::new();
    for module in MODULES {
        for file in kernel.module_files(module)? {
            let name = file.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            if !order.contains(&name) {
                archive.add(&format!("modules/{name}"), 0o100_644, &read(&file)?);
                order.push(name);
            }
        }
    }
    archive.add("modules/order", 0o100_644, order.join("\n").as_bytes());
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive in the format `newc`, which is the one that the kernel unpacks
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

// === impl Archive ===

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Inode, mode, owner, group, links, time, size, four device numbers, the length
        // of the name with its end, and no checksum.
        let fields = [self.files, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_aligned_members_and_an_end() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"text!");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        // A header of 110 bytes, the name to 112, and the content to 120.
        assert_eq!(&text[..6], "070701");
        assert_eq!(&text[110..117], "a\0text!");
        assert_eq!(&text[120..126], "070701");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
