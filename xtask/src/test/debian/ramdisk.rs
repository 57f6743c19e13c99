//! The initial RAM disk of a guest: busybox, a few modules, and scripts.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::store::Kernel;
use crate::host;

const DIRECTORIES: [&str; 8] = [
    "bin", "dev", "lower", "memory", "modules", "proc", "root", "sys",
];

/// What a guest begins with.
pub(in crate::test) struct Ramdisk<'a> {
    /// The first program, a script for busybox.
    pub(in crate::test) init: &'a str,
    /// Modules that the script loads by the list `/modules/order`; what they need comes
    /// with them.
    pub(in crate::test) modules: &'a [&'a str],
    /// More files, by their names in the root directory.
    pub(in crate::test) files: &'a [(&'a str, &'a str)],
}

// === impl Ramdisk ===

impl Ramdisk<'_> {
    /// Writes it for a kernel.
    pub(in crate::test) fn write(&self, path: &Path, kernel: &Kernel) -> Result<()> {
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.add(directory, 0o040_755, b"");
        }
        let busybox =
            host::find("busybox").context("no busybox; `apt-get install busybox-static`")?;
        archive.add("bin/busybox", 0o100_755, &read(&busybox)?);
        archive.add("init", 0o100_755, self.init.as_bytes());
        for (name, text) in self.files {
            archive.add(name, 0o100_644, text.as_bytes());
        }
        let mut order = Vec::new();
        for module in self.modules {
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
        fs::write(path, archive.finish())
            .with_context(|| format!("cannot write {}", path.display()))
    }
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
