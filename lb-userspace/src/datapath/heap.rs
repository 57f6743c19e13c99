//! Memory that was needed for a moment.
#![allow(unsafe_code, reason = "a function of the C library")]

/// Gives free memory back to the system: what reading the kernel's types and compiling everything
/// leave is ten times what an agent needs from then on.
///
/// glibc keeps all that lies below something in use, unless it is asked (`malloc_trim(3)`); musl
/// gives it back by itself.
pub fn give_back() {
    // SAFETY: it has no conditions, and allocations stay where they are.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0)
    };
}
