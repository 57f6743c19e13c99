//! What the kernel says of this program.

use std::fs;

/// Bytes of it that are in RAM; none where the kernel does not say.
pub(super) fn resident_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    resident_memory_of(&text)
}

fn resident_memory_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(
            resident_memory_of("Name:\tnaru\nVmRSS:\t   12345 kB\nRssAnon:\t 1 kB\n"),
            Some(12345 * 1024)
        );
        assert_eq!(resident_memory_of("Name:\tnaru\n"), None);
        assert!(resident_memory().is_some_and(|it| it > 100 * 1024));
    }
}
