//! Debian's kernels, downloaded and unpacked for virtual machines, and the RAM disk that
//! brings one up.

mod mirror;
pub(super) mod ramdisk;
pub(super) mod series;
pub(super) mod store;
