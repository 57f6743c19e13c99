//! Memory that was needed for a moment.
#![allow(unsafe_code, reason = "a function of the C library")]

/// Gives free memory back to the system: what reading the kernel's types for the loader leaves is
/// most of what an agent with few services would hold, and compiling everything leaves as much as
/// it comes to.
///
/// glibc keeps what is free below anything in use, unless it is asked (`malloc_trim(3)`). With musl
/// there is nothing to ask, and no need: an idle agent holds 4 MiB either way.
pub fn give_back() {
    // SAFETY: it has no conditions, and allocations stay where they are.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0)
    };
}
