//! Taking pinned links away at once.
//!
//! The kernel detaches a link some time after its last pin was removed: until then
//! packets still meet the program, and its place is taken for another. aya has no call
//! for detaching a link by force (kernel 5.9), so it is made here.
#![allow(unsafe_code, reason = "system calls")]

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;

use super::{DatapathError, tc};

/// `BPF_OBJ_GET`
const OBJ_GET: libc::c_int = 7;
/// `BPF_LINK_DETACH`
const LINK_DETACH: libc::c_int = 34;

/// The fields of `union bpf_attr` that [`OBJ_GET`] reads.
#[repr(C)]
struct Get {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Detaches the link pinned at `pin` and removes the pin, if there is one.
pub(super) fn link(pin: &Path) -> Result<(), DatapathError> {
    if !pin.exists() {
        return Ok(());
    }
    detach(pin)?;
    fs::remove_file(pin).map_err(DatapathError::file(pin))
}

/// Detaches the link pinned at `pin`, or deletes the filter that it stands for; one
/// whose interface is gone is detached already.
pub(super) fn detach(pin: &Path) -> Result<(), DatapathError> {
    if let Some((ifindex, direction)) = tc::filter_of(pin) {
        return tc::delete_filter(ifindex, direction)
            .map_err(|reason| DatapathError::file(pin)(io::Error::other(reason)));
    }
    let link = open(pin).map_err(DatapathError::file(pin))?;
    let fd = link.as_raw_fd() as u32;
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(LINK_DETACH, &fd) }.map_err(DatapathError::file(pin))?;
    Ok(())
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = Get {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path is alive; the answer is a descriptor that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(OBJ_GET, &get)?)) }
}

/// # Safety
/// `attr` must be what the command reads, with valid pointers in it.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as libc::c_int)
}
